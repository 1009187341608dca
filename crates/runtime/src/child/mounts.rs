//! The container's file systems: made while the host's are in sight, put together when they are not any more, and moved
//! into the root file system as three trees.
//!
//! ```text
//! make      detached, in the stage          the kernel makes new ones while the host's are in sight only
//! leave     into a small root of its own    from here on no path leads to the host, and none of its disks is held on to
//! assemble  /proc, /sys, /dev, with all that is mounted, hidden and write-protected in them
//!   ── a child that is parked waits here, for as long as it takes; what follows is all that a start costs ──
//! enter     the root file system, the three trees moved into it, over the small root
//! ```
//!
//! The image's own files are in reach from `enter` on, and then three of its paths are walked: a symbolic link that an
//! image has planted at `/dev` or `/proc` would lead nowhere but into the image itself, and even that is refused.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use sampan_sys::mount::{self, Attributes, Builder, MountError};

use super::Step;
use crate::supervisor::stage;
use crate::wire::{CgroupMounts, CreateSpec, Failure, Node};

const NO_SET_ID: Attributes = Attributes::MOUNT_ATTR_NOSUID;
pub(crate) const PLAIN: Attributes = NO_SET_ID.union(Attributes::MOUNT_ATTR_NODEV).union(Attributes::MOUNT_ATTR_NOEXEC);
const READ_ONLY: Attributes = PLAIN.union(Attributes::MOUNT_ATTR_RDONLY);

/// Made, and mounted nowhere yet.
pub(super) struct FileSystems {
    proc: OwnedFd,
    sys: OwnedFd,
    dev: OwnedFd,
    shm: OwnedFd,
    queues: OwnedFd,
    terminals: OwnedFd,
    devices: Devices,
    cgroups: Cgroups,
}

/// The usual devices.
enum Devices {
    /// The stage's, each to be attached at its place.
    Attached(Vec<(&'static CStr, OwnedFd)>),
    /// Nodes of the container's own: its root is the host's, who may change a node's owner and mode, and the stage's are
    /// everybody's (runc 3674).
    Made,
}

enum Cgroups {
    V2(OwnedFd),
    V1 { directory: OwnedFd, hierarchies: Vec<(CString, OwnedFd)> },
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::at(error.to_string(), error.source_error())
    }
}

impl FileSystems {
    /// Makes them, in the stage.
    pub fn make(spec: &CreateSpec) -> Result<Self, Failure> {
        let proc = Builder::open("proc")?.mount(PLAIN)?;
        open_network(proc.as_fd(), spec.ids.length.saturating_sub(1))?;
        for (path, value) in &spec.sysctls {
            set_parameter(proc.as_fd(), path, value)?;
        }
        let memory = |mode: &str, size: &str| Builder::open("tmpfs")?.set("mode", mode)?.set("size", size);
        let devices = if spec.ids.is_host() { Devices::Made } else { Devices::of_stage()? };
        let kernel = if spec.writable_kernel { PLAIN } else { READ_ONLY };
        Ok(Self {
            proc,
            sys: Builder::open("sysfs")?.mount(kernel)?,
            dev: memory("755", "64m")?.mount(NO_SET_ID)?,
            shm: memory("1777", &spec.shm_bytes.to_string())?.mount(PLAIN)?,
            queues: Builder::open("mqueue")?.mount(PLAIN)?,
            terminals: Builder::open("devpts")?
                .set("ptmxmode", "0666")?
                .set("mode", "0620")?
                .set("gid", "5")?
                .mount(NO_SET_ID | Attributes::MOUNT_ATTR_NOEXEC)?,
            devices,
            cgroups: Cgroups::make(&spec.cgroup_mounts, kernel)?,
        })
    }

    /// Puts them together: the process is in a root of its own that nobody else has come to. What is masked is hidden,
    /// what is read-only write-protected; of paths elsewhere than in these trees nothing is there yet. `nodes`: as far as
    /// it does not make them itself.
    pub fn assemble(&self, spec: &CreateSpec, nodes: &[OwnedFd]) -> Result<(), Failure> {
        attach(&self.proc, c"/proc")?;
        attach(&self.sys, c"/sys")?;
        attach(&self.dev, c"/dev")?;
        for (system, path) in [(&self.terminals, c"/dev/pts"), (&self.shm, c"/dev/shm"), (&self.queues, c"/dev/mqueue")]
        {
            attach(system, path)?;
        }
        self.devices.attach()?;
        for (at, node) in spec.nodes.iter().enumerate() {
            node_at(node, nodes.get(at))?;
        }
        for (target, link) in LINKS {
            rustix::fs::symlink(target, link).step("make a link in /dev")?;
        }
        self.cgroups.attach()?;
        restrict(&spec.masked_paths, &spec.readonly_paths)
    }

    /// Makes `root` the root, with them in it.
    ///
    /// It comes to lie over the small root, as the root of a machine lies over its first one (switch_root(8)), and that
    /// one stays below, empty: taking it off would wait for a grace period of the kernel's, a millisecond where others are
    /// busy. It is the namespace's root all the same, for whoever enters that (`setns`) and for whoever asks whether this
    /// process is confined to a part of it (user_namespaces(7), "chroot").
    pub fn enter(&self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        mount::attach(root, stage::ROOT).step("attach the root file system")?;
        for (system, name) in [(&self.proc, c"proc"), (&self.sys, c"sys"), (&self.dev, c"dev")] {
            let step = || format!("mount /{}", name.to_string_lossy());
            let place = directory(root, name, step)?;
            mount::attach_to(system.as_fd(), place.as_fd()).step(&step())?;
        }
        mount::attach(root, c"/").step("move the root file system over the small root")?;
        rustix::process::fchdir(root).step("enter the root file system")?;
        rustix::process::chroot(c".").step("make it the root")?;
        rustix::process::chdir(c"/").step("enter /")
    }
}

/// Moves the process into a root of its own, empty but for the places of what is assembled there, and lets go of the
/// host's tree. Gives that root: files of the container's own are made in it ([`MountKind::File`]).
///
/// [`MountKind::File`]: crate::wire::MountKind::File
pub(super) fn leave_host() -> Result<OwnedFd, Failure> {
    let root = Builder::open("tmpfs")?.set("mode", "755")?.set("size", "1m")?.mount(PLAIN)?;
    for name in [c"proc", c"sys", c"dev", stage::ROOT] {
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)).step("make the places of its file systems")?;
    }
    mount::attach(root.as_fd(), stage::ROOT).step("attach a root of its own")?;
    rustix::process::fchdir(&root).step("enter a root of its own")?;
    // "pivot_root(".", ".")", pivot_root(2): the old root comes to lie over the new one, and is taken off
    rustix::process::pivot_root(c".", c".").step("pivot to a root of its own")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).step("let go of the host's mounts")?;
    rustix::process::chdir(c"/").step("enter /")?;
    Ok(root)
}

const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

impl Devices {
    fn of_stage() -> Result<Self, Failure> {
        let mut devices = Vec::with_capacity(stage::DEVICES.len());
        for device in &stage::DEVICES {
            let node = mount::clone_of(CWD, device.path).step("clone a device of the stage")?;
            devices.push((device.target, node));
        }
        Ok(Self::Attached(devices))
    }

    fn attach(&self) -> Result<(), Failure> {
        let Self::Attached(devices) = self else { return stage::DEVICES.iter().try_for_each(make_usual) };
        let file = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        for (path, node) in devices {
            rustix::fs::open(*path, file, Mode::from_raw_mode(0o666)).step("make a device's place")?;
            mount::attach(node.as_fd(), path).step("attach a device")?;
        }
        Ok(())
    }
}

fn make_usual(device: &stage::Device) -> Result<(), Failure> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, device.target, FileType::CharacterDevice, mode, device.number())
        // past the umask
        .and_then(|()| rustix::fs::chmodat(CWD, device.target, mode, AtFlags::empty()))
        .step("make a device")
}

/// In a `/dev` that nobody else has come to yet: a mount of a node that was made outside, or a node.
fn node_at(node: &Node, made: Option<&OwnedFd>) -> Result<(), Failure> {
    let path = &node.path;
    let step = format!("make the device {path}");
    let names: Vec<&str> = path.split('/').collect();
    if !path.starts_with("/dev/") || names.iter().skip(1).any(|name| matches!(*name, "" | "." | "..")) {
        return Err(Failure::because(step, "it must be below /dev"));
    }
    if let Some(directory) = Path::new(path).parent() {
        std::fs::create_dir_all(directory).step(&step)?;
    }
    let Some(made) = made else {
        match rustix::fs::unlink(path) {
            // one of the usual ones, asked for with other rights
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).step(&step),
        }
        return stage::make_node(CWD, path, node, (node.uid, node.gid)).step(&step);
    };
    let text = CString::new(path.as_str()).step(&step)?;
    let file = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(&*text, file, Mode::from_raw_mode(0o600)) {
        // one of the usual ones: it lies over that
        Ok(_) | Err(Errno::NXIO | Errno::NODEV) => {}
        Err(errno) => return Err(errno).step(&step),
    }
    mount::attach(made.as_fd(), &text).step(&step)
}

impl Cgroups {
    fn make(mounts: &CgroupMounts, attributes: Attributes) -> Result<Self, Failure> {
        let unified = || Builder::open("cgroup2")?.mount(attributes);
        let (hierarchies, with_unified) = match mounts {
            CgroupMounts::V2 => return Ok(Self::V2(unified()?)),
            CgroupMounts::V1 { hierarchies, unified } => (hierarchies, *unified),
        };
        let mut made = Vec::with_capacity(hierarchies.len() + 1);
        for (name, options) in hierarchies {
            let mut builder = Builder::open("cgroup")?;
            for option in options.split(',') {
                builder = match option.split_once('=') {
                    Some((key, value)) => builder.set(key, value)?,
                    None => builder.flag(option)?,
                };
            }
            made.push((place(name)?, builder.mount(attributes)?));
        }
        if with_unified {
            made.push((place("unified")?, unified()?));
        }
        let directory = Builder::open("tmpfs")?.set("mode", "755")?.set("size", "64k")?.mount(PLAIN)?;
        Ok(Self::V1 { directory, hierarchies: made })
    }

    fn attach(&self) -> Result<(), Failure> {
        match self {
            Self::V2(all) => attach(all, c"/sys/fs/cgroup"),
            Self::V1 { directory, hierarchies } => {
                attach(directory, c"/sys/fs/cgroup")?;
                for (path, hierarchy) in hierarchies {
                    attach(hierarchy, path)?;
                }
                mount::restrict(directory.as_fd(), Attributes::MOUNT_ATTR_RDONLY).step("make /sys/fs/cgroup read-only")
            }
        }
    }
}

fn place(hierarchy: &str) -> Result<CString, Failure> {
    let plain = !hierarchy.is_empty() && !hierarchy.contains('/') && !hierarchy.starts_with('.');
    CString::new(format!("/sys/fs/cgroup/{hierarchy}"))
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| Failure::because(format!("mount cgroup {hierarchy:?}"), "that is no name of a hierarchy"))
}

/// What Docker sets in a new network namespace: any user may open low ports and send pings. All of a server's ports
/// are its own, so there is nothing to protect. While `/proc/sys` can be written.
fn open_network(proc: BorrowedFd<'_>, last_id: u32) -> Result<(), Failure> {
    // the ids of the range must be mapped
    let groups = format!("0 {last_id}");
    set_parameter(proc, "net/ipv4/ip_unprivileged_port_start", "0")?;
    set_parameter(proc, "net/ipv4/ping_group_range", &groups)
}

/// Sets a parameter of the namespaces that this process is in, by its path below `/proc/sys`: of a `/proc` that was just
/// made, and that nobody else has come to (CVE-2025-52881).
fn set_parameter(proc: BorrowedFd<'_>, path: &str, value: &str) -> Result<(), Failure> {
    let step = || format!("set sys/{path} to {value:?}");
    let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
    if !plain {
        return Err(Failure::because(step(), "that is no parameter's name"));
    }
    let file = rustix::fs::openat(proc, format!("sys/{path}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    rustix::io::write(file.step(&step())?, value.as_bytes()).step(&step()).map(drop)
}

/// Mounts on a directory, making it where it is missing.
fn attach(system: &OwnedFd, path: &CStr) -> Result<(), Failure> {
    let step = || format!("mount {}", path.to_string_lossy());
    let place = directory(CWD, path, step)?;
    mount::attach_to(system.as_fd(), place.as_fd()).step(&step())
}

/// A directory to mount on, made where it is missing.
fn directory(below: BorrowedFd<'_>, path: &CStr, step: impl Fn() -> String) -> Result<OwnedFd, Failure> {
    let open = || {
        // a link would have us mount somewhere else than everybody believes (CVE-2019-19921)
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(below, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    };
    let found = match open() {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(below, path, Mode::from_raw_mode(0o755)).step(&step())?;
            open()
        }
        other => other,
    };
    match found {
        Err(Errno::LOOP) => {
            Err(Failure::because(step(), "the image has a symbolic link there: it must be a directory"))
        }
        found => found.step(&step()),
    }
}

/// Hides what is masked and write-protects what is read-only. What is not there needs neither.
///
/// Places are held by descriptor from the moment they are found, and what hides a file is looked at first: where others
/// can write to this root too, a link put there in between would have the kernel hide something else, or with something
/// else (CVE-2025-31133).
pub(crate) fn restrict(masked: &[String], read_only: &[String]) -> Result<(), Failure> {
    for path in read_only {
        let step = || format!("make {path} read-only");
        let Some(place) = find(path).step(&step())? else { continue };
        // a mount of its own, over what it is a mount of
        let tree = mount::clone_of_tree_at(place.as_fd()).step(&step())?;
        mount::restrict_tree(tree.as_fd(), Attributes::MOUNT_ATTR_RDONLY).step(&step())?;
        mount::attach_to(tree.as_fd(), place.as_fd()).step(&step())?;
    }
    let mut null = None;
    for path in masked {
        let step = || format!("hide {path}");
        let Some(place) = find(path).step(&step())? else { continue };
        let stat = rustix::fs::fstat(&place).step(&step())?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Builder::open("tmpfs")?.set("mode", "755")?.set("size", "4k")?.mount(READ_ONLY)?
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(open_null()?),
            };
            mount::clone_at(null.as_fd()).step(&step())?
        };
        mount::attach_to(cover.as_fd(), place.as_fd()).step(&step())?;
    }
    Ok(())
}

/// The null device of the root that this process is in, and nothing that was put in its place.
fn open_null() -> Result<OwnedFd, Failure> {
    let step = "open /dev/null";
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open(c"/dev/null", flags, Mode::empty()).step(step)?;
    let stat = rustix::fs::fstat(&null).step(step)?;
    let is_it =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_it { Ok(null) } else { Err(Failure::because(step, "there is something else than the null device")) }
}

fn find(path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
