//! The stage: a small tmpfs in the supervisor's own mount namespace, and its working directory.
//!
//! It holds device nodes, made once, so that containers never share an inode with the host's `/dev` (a container
//! that changed the owner of its `/dev/null` once changed the host's, runc 3674), and the place where a container's
//! root file system is attached before it becomes the root. A clone of the supervisor has its own copy of the stage
//! as its working directory, so that no path needs to be walked there.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use sampan_model::IdRange;
use sampan_sys::clone::{Namespaces, unshare};
use sampan_sys::mount::{self, Attributes, Builder};

use crate::wire::Node;

/// A device node that every container has.
pub(crate) struct Device {
    /// Where it is on the stage.
    pub path: &'static CStr,
    /// Where it is in a container.
    pub target: &'static CStr,
    major: u32,
    minor: u32,
}

impl Device {
    /// Which one it is.
    pub fn number(&self) -> rustix::fs::Dev {
        rustix::fs::makedev(self.major, self.minor)
    }
}

const fn device(path: &'static CStr, target: &'static CStr, major: u32, minor: u32) -> Device {
    Device { path, target, major, minor }
}

/// The devices.
pub(crate) const DEVICES: [Device; 6] = [
    device(c"null", c"/dev/null", 1, 3),
    device(c"zero", c"/dev/zero", 1, 5),
    device(c"full", c"/dev/full", 1, 7),
    device(c"random", c"/dev/random", 1, 8),
    device(c"urandom", c"/dev/urandom", 1, 9),
    device(c"tty", c"/dev/tty", 5, 0),
];

/// Where a container's own nodes are made, on the stage.
const NODES: &CStr = c"nodes";

/// Where a root file system is attached, on the stage.
pub(crate) const ROOT: &CStr = c"root";

/// Makes a device node at `path`, of this user and group.
pub(crate) fn make_node(
    directory: BorrowedFd<'_>,
    path: &str,
    node: &Node,
    (uid, gid): (u32, u32),
) -> rustix::io::Result<()> {
    let kind = if node.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let (mode, number) = (Mode::from_raw_mode(node.mode & 0o7777), rustix::fs::makedev(node.major, node.minor));
    rustix::fs::mknodat(directory, path, kind, mode, number)?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(directory, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    // past the umask
    rustix::fs::chmodat(directory, path, mode, AtFlags::empty())
}

/// Mounts of nodes, detached, for a container that cannot make them itself. Their owners are the container's. They are
/// made on a file system of their own, of which nothing but these mounts is left when this returns. (A node that is
/// unlinked could not be mounted any more.)
pub(crate) fn nodes(nodes: &[Node], ids: IdRange) -> io::Result<Vec<OwnedFd>> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let memory = Builder::open("tmpfs").and_then(|builder| builder.mount(Attributes::MOUNT_ATTR_NOSUID));
    mount::attach(memory.map_err(|error| io::Error::from(error.source_error().kind()))?.as_fd(), NODES)?;
    let on_host = |id: u32| ids.start.saturating_add(id.min(ids.length - 1));
    let make = |(at, node): (usize, &Node)| {
        let path = format!("{}/{at}", NODES.to_string_lossy());
        make_node(CWD, &path, node, (on_host(node.uid), on_host(node.gid)))?;
        mount::clone_of(CWD, &CString::new(path)?)
    };
    let made = nodes.iter().enumerate().map(make).collect();
    rustix::mount::unmount(NODES, UnmountFlags::DETACH)?;
    made
}

/// Sets the stage at `place` (a directory that is made where it is missing) in a mount namespace of this process's
/// own, and enters it. What the host mounts and unmounts later is followed, so that nobody's disk is held on to.
/// Gives `/dev/null` of the stage, open for reading.
pub(crate) fn set(place: &Path) -> io::Result<OwnedFd> {
    unshare(Namespaces::MOUNT)?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    match rustix::fs::mkdir(place, Mode::from_raw_mode(0o700)) {
        Err(rustix::io::Errno::EXIST) => {}
        result => result?,
    }
    let stage = Builder::open("tmpfs")
        .and_then(|builder| builder.set("mode", "755")?.set("size", "64k")?.mount(Attributes::MOUNT_ATTR_NOSUID))
        .map_err(|error| io::Error::new(error.source_error().kind(), error.to_string()))?;
    let target = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach_to(stage.as_fd(), target.as_fd())?;
    rustix::process::fchdir(&stage)?;
    for place in [ROOT, NODES] {
        rustix::fs::mkdir(place, Mode::from_raw_mode(0o755))?;
    }
    for device in &DEVICES {
        let (number, mode) = (device.number(), Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, device.path, FileType::CharacterDevice, mode, number)?;
        // past the umask
        rustix::fs::chmodat(CWD, device.path, mode, AtFlags::empty())?;
    }
    Ok(rustix::fs::open(DEVICES[0].path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
