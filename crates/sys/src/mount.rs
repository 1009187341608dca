//! Mounts by descriptor: file systems made (`fsopen`), mounts cloned (`open_tree`), changed (`mount_setattr`) and put in
//! their place (`move_mount`). Until then they are in no name space, and dropping the descriptor takes them away.
//!
//! `rustix` has the calls; this adds `mount_setattr`, and errors with the kernel's own words.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::CWD;
pub use rustix::mount::MountAttrFlags as Attributes;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel does not know this kind, or this caller may not make one.
    #[error("open a file system of kind {kind}")]
    Open {
        /// The kind.
        kind: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
    /// An option was refused.
    #[error("set {option} of {kind}{}", words(.said))]
    Option {
        /// The kind.
        kind: String,
        /// The option.
        option: String,
        /// What the kernel said of it.
        said: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
    /// The file system was refused as a whole.
    #[error("create {kind}{}", words(.said))]
    Create {
        /// The kind.
        kind: String,
        /// What the kernel said of it.
        said: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// The kernel's error.
    pub fn source_error(&self) -> &io::Error {
        match self {
            Self::Open { source, .. } | Self::Option { source, .. } | Self::Create { source, .. } => source,
        }
    }

    /// What the kernel said beside its error; empty where it said nothing.
    pub fn said(&self) -> &str {
        match self {
            Self::Open { .. } => "",
            Self::Option { said, .. } | Self::Create { said, .. } => said,
        }
    }
}

fn words(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

/// A file system that is being put together.
#[derive(Debug)]
pub struct Builder {
    kind: String,
    context: OwnedFd,
}

impl Builder {
    /// Begins one of a kind: `proc`, `tmpfs`, `overlay`…
    ///
    /// # Errors
    /// [`MountError::Open`].
    pub fn open(kind: &str) -> Result<Self, MountError> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| MountError::Open { kind: kind.into(), source: errno.into() })?;
        Ok(Self { kind: kind.into(), context })
    }

    /// Sets an option to a value, at most 255 bytes (the kernel's limit).
    ///
    /// # Errors
    /// [`MountError::Option`].
    pub fn set(self, option: &str, value: &str) -> Result<Self, MountError> {
        let result = rustix::mount::fsconfig_set_string(self.context.as_fd(), option, value);
        self.checked(option, result)
    }

    /// Sets an option that has no value.
    ///
    /// # Errors
    /// [`MountError::Option`].
    pub fn flag(self, option: &str) -> Result<Self, MountError> {
        let result = rustix::mount::fsconfig_set_flag(self.context.as_fd(), option);
        self.checked(option, result)
    }

    /// Makes it, mounted nowhere yet.
    ///
    /// # Errors
    /// [`MountError::Create`].
    pub fn mount(self, attributes: Attributes) -> Result<OwnedFd, MountError> {
        rustix::mount::fsconfig_create(self.context.as_fd())
            .and_then(|()| rustix::mount::fsmount(self.context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes))
            .map_err(|errno| MountError::Create { kind: self.kind.clone(), said: self.said(), source: errno.into() })
    }

    fn checked(self, option: &str, result: rustix::io::Result<()>) -> Result<Self, MountError> {
        match result {
            Ok(()) => Ok(self),
            Err(errno) => Err(MountError::Option {
                kind: self.kind.clone(),
                option: option.into(),
                said: self.said(),
                source: errno.into(),
            }),
        }
    }

    /// What the kernel has to say (`e overlay: …`, a message a read), without the severity.
    fn said(&self) -> String {
        let mut said = Vec::new();
        let mut buffer = [0_u8; 512];
        // the kernel keeps eight
        for _ in 0..8 {
            let Ok(count) = rustix::io::read(&self.context, &mut buffer) else { break };
            let message = String::from_utf8_lossy(&buffer[..count]);
            let message = message.trim_end();
            said.push(message.get(2..).unwrap_or(message).to_owned());
        }
        said.join("; ")
    }
}

/// A second mount of what is at `path` (without the mounts below it), relative to `directory`.
///
/// # Errors
/// The kernel's.
pub fn clone_of(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// As [`clone_of`], with the mounts below it.
///
/// # Errors
/// The kernel's.
pub fn clone_of_tree(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// As [`clone_of`], of the very place that `place` is (a descriptor, `O_PATH` will do), with the mounts below it.
///
/// # Errors
/// The kernel's.
pub fn clone_of_tree_at(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    clone_of_place(place, OpenTreeFlags::AT_RECURSIVE)
}

/// As [`clone_of_tree_at`], without the mounts below it.
///
/// # Errors
/// The kernel's.
pub fn clone_at(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    clone_of_place(place, OpenTreeFlags::empty())
}

fn clone_of_place(place: BorrowedFd<'_>, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | more;
    Ok(rustix::mount::open_tree(place, c"", flags)?)
}

/// Puts a detached mount at `path`, relative to the working directory.
///
/// # Errors
/// The kernel's.
pub fn attach(mount: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Puts a detached mount on the very place that `target` is (an `O_PATH` descriptor).
///
/// # Errors
/// The kernel's.
pub fn attach_to(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Adds attributes to a mount.
///
/// # Errors
/// The kernel's.
pub fn restrict(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, 0, &libc_attributes(attributes, None))
}

/// As [`restrict`], the mounts below it too.
///
/// # Errors
/// The kernel's.
pub fn restrict_tree(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, AT_RECURSIVE, &libc_attributes(attributes, None))
}

/// Shows the owners of a detached mount's files through the ids of `user_namespace`: its id 0 owns what belongs to 0
/// on disk. Linux 5.12, and a file system that can.
///
/// # Errors
/// The kernel's: `EINVAL` where the file system cannot.
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = libc_attributes(MountAttrFlags::empty(), Some(user_namespace));
    attributes.set = MOUNT_ATTR_IDMAP;
    set_attributes(mount, 0, &attributes)
}

/// As [`map_ids`], the mounts below it too: all of them, or none.
///
/// # Errors
/// As there: `EINVAL` also where one of them is of a file system that cannot, or is mapped already.
pub fn map_ids_of_tree(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = libc_attributes(MountAttrFlags::empty(), Some(user_namespace));
    attributes.set = MOUNT_ATTR_IDMAP;
    set_attributes(mount, AT_RECURSIVE, &attributes)
}

/// Parts a mount, and those below it, from those that they are clones of: what is mounted on one is then not mounted on
/// the others too (mount_namespaces(7), "shared").
///
/// # Errors
/// The kernel's.
pub fn part_tree(mount: BorrowedFd<'_>) -> io::Result<()> {
    const MS_PRIVATE: u64 = 1 << 18;
    let mut attributes = libc_attributes(MountAttrFlags::empty(), None);
    attributes.propagation = MS_PRIVATE;
    set_attributes(mount, AT_RECURSIVE, &attributes)
}

/// Runs `work` in a mount namespace of its own, which is gone when it returns, and gives back what that is. Nothing that
/// is mounted there is seen anywhere else; what is detached or cloned there lasts.
///
/// It runs on a thread made for it, whose working directory is its own too.
///
/// # Errors
/// The thread or its namespace could not be made.
///
/// # Panics
/// Where `work` does.
pub fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("mountns".into()).spawn_scoped(scope, || {
            // SAFETY: what is unsafe to leave is the table of descriptors; this leaves the mount namespace, and with it
            // the working directory that was shared with the other threads
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            Ok(work())
        })?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What is changed of a mount (mount_setattr(2)).
#[derive(Debug, Default, Clone, Copy)]
pub struct Change<'fd> {
    /// Attributes that it gets.
    pub set: u32,
    /// Attributes that it loses, before it gets those.
    pub clear: u32,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u32,
    /// The user namespace through whose ids its files' owners are shown. A detached mount's only.
    pub ids: Option<BorrowedFd<'fd>>,
}

/// Changes a mount, which may be given as any place that it begins at.
///
/// # Errors
/// The kernel's: `EINVAL` also where the place is not the beginning of a mount.
pub fn change(mount: BorrowedFd<'_>, change: &Change<'_>) -> io::Result<()> {
    set_attributes(mount, 0, &MountAttributes::from(change))
}

/// As [`change`], the mounts below it too: all of them, or none.
///
/// # Errors
/// As there.
pub fn change_tree(mount: BorrowedFd<'_>, change: &Change<'_>) -> io::Result<()> {
    set_attributes(mount, AT_RECURSIVE, &MountAttributes::from(change))
}

impl From<&Change<'_>> for MountAttributes {
    fn from(change: &Change<'_>) -> Self {
        Self {
            set: u64::from(change.set) | if change.ids.is_some() { MOUNT_ATTR_IDMAP } else { 0 },
            clear: u64::from(change.clear),
            propagation: u64::from(change.propagation),
            user_namespace: change.ids.map_or(0, |fd| fd.as_raw_fd() as u64),
        }
    }
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const AT_RECURSIVE: libc::c_int = 0x8000;

/// `struct mount_attr` (include/uapi/linux/mount.h).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn libc_attributes(attributes: Attributes, user_namespace: Option<BorrowedFd<'_>>) -> MountAttributes {
    let user_namespace = user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64);
    MountAttributes { set: u64::from(attributes.bits()), clear: 0, propagation: 0, user_namespace }
}

fn set_attributes(mount: BorrowedFd<'_>, flags: libc::c_int, attributes: &MountAttributes) -> io::Result<()> {
    // SAFETY: an empty terminated path, and a structure of the size that is said.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
