//! What a bundle asks to be mounted: opened by the runtime where the host's file systems are its own, put in place by the
//! container's first process.
//!
//! What is bound is opened as a detached tree before that process is cloned, with all its attributes and its map of ids:
//! the host's root may do so, the container's may not, and no path of the host's is walked later. What is new (`proc`,
//! `sysfs`, `tmpfs`…) is made by the first process, since it is to be of its namespaces; also detached. Both are then
//! attached to places that the kernel resolved as if the container's root were the root
//! ([`Place`](crate::child::places::Place); CVE-2021-30465), in the order of the configuration.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use sampan_sys::mount::{self, Attributes as MountAttributes, Builder, Change};
use sampan_sys::user_namespace::{self, IdMap};

use super::cgroups::{CgroupMount, Hierarchies};
use super::config::{Config, IdMapping, Mount};
use super::copy_up;
use super::error::{OciError, When as _};
use super::namespaces::Set;
use super::options::{self, Depth, Options, PRIVATE, READ_ONLY, SLAVE};
use crate::child::Step as _;
use crate::child::places::Place;
use crate::wire::Failure;

/// One mount, ready to be made.
#[derive(Debug)]
pub(super) struct Planned {
    mount: Mount,
    options: Options,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Opened, with all that was asked of it.
    Tree { tree: OwnedFd, is_file: bool },
    /// To be made by the first process.
    New,
    /// The cgroups that it is to see.
    Cgroups,
    /// A change of what is there.
    Remount,
}

/// `PROC_SUPER_MAGIC` (linux/magic.h).
const PROC: rustix::fs::FsWord = 0x9fa0;
/// What may be mounted on in `/proc`: what others put their own view of the machine on (as runc).
const IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

impl Planned {
    /// Reads one mount, and opens what it is of. The working directory is the bundle.
    pub fn open(mount: &Mount, config: &Config, namespaces: &Set) -> Result<Self, OciError> {
        let mut options = Options::parse(&mount.options);
        if mount.kind == "bind" {
            options.bind = options.bind.or(Some(Depth::One));
        }
        let what = match (options.bind, mount.kind.as_str()) {
            _ if options.remount => What::Remount,
            (Some(depth), _) => bound(mount, depth, &options, config, namespaces)?,
            (None, "cgroup" | "cgroup2") => What::Cgroups,
            (None, "") => {
                return Err(OciError::config(format!("mount on {}", mount.destination), "it has no type"));
            }
            (None, _) if options.id_map.is_some() => {
                return Err(OciError::config(format!("mount on {}", mount.destination), "only binds can map ids"));
            }
            (None, _) => What::New,
        };
        Ok(Self { mount: mount.clone(), options, what })
    }

    /// Another one in place of what the first process would make: `/dev`, where it may not make devices.
    pub fn made(mount: &Mount, tree: OwnedFd) -> Self {
        Self {
            mount: mount.clone(),
            options: Options::parse(&mount.options),
            what: What::Tree { tree, is_file: false },
        }
    }

    /// What the first process is to keep open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.what {
            What::Tree { tree, .. } => Some(tree.as_fd()),
            _ => None,
        }
    }

    /// Whether it covers the whole of `/dev` with what is there already.
    pub fn is_bound_dev(&self) -> bool {
        self.options.bind.is_some() && matches!(self.mount.destination.trim_end_matches('/'), "/dev" | "dev")
    }
}

fn bound(mount: &Mount, depth: Depth, options: &Options, config: &Config, namespaces: &Set) -> Result<What, OciError> {
    let step = || format!("mount {} on {}", mount.source, mount.destination);
    let path = std::ffi::CString::new(mount.source.as_str())
        .map_err(|_| OciError::config(step(), "its source has a zero byte"))?;
    let tree = match depth {
        Depth::One => mount::clone_of(CWD, &path),
        Depth::Tree => mount::clone_of_tree(CWD, &path),
    };
    let tree = tree.when(step())?;
    let is_file = FileType::from_raw_mode(rustix::fs::fstat(&tree).when(step())?.st_mode) != FileType::Directory;
    // a clone hears of mounts on what it is a clone of, and tells of its own; no more than the configuration says
    let of_root = options::propagation(&config.linux.rootfs_propagation).map(|propagation| propagation.flag);
    let parted = options.propagation.first().is_some_and(|first| first.depth == Depth::Tree);
    match of_root {
        _ if parted => {}
        None | Some(SLAVE) => change_tree(&tree, Change { propagation: SLAVE, ..Change::default() }).when(step())?,
        Some(PRIVATE) => change_tree(&tree, Change { propagation: PRIVATE, ..Change::default() }).when(step())?,
        Some(_) => {}
    }
    let users = match options.id_map {
        Some(_) => Some(users_of(mount, config, namespaces).when(format!("map the ids of {}", mount.source))?),
        // the mappings of a mount say it too (runtime-spec 1.2: "uidMappings")
        None if !mount.uid_mappings.is_empty() => {
            Some(users_of(mount, config, namespaces).when(format!("map the ids of {}", mount.source))?)
        }
        None => None,
    };
    let of_users = Change { ids: users.as_ref().map(|users| users.as_fd()), ..Change::default() };
    let step = || format!("{} ({})", step(), mount.options.join(","));
    match options.id_map {
        Some(Depth::Tree) => change_tree(&tree, of_users).when(step())?,
        _ if users.is_some() => mount::change(tree.as_fd(), &of_users).when(step())?,
        _ => {}
    }
    apply(tree.as_fd(), options).when(step())?;
    Ok(What::Tree { tree, is_file })
}

/// A clone of a root file system, which hears of mounts in what it is a clone of where the configuration wants that, and
/// never tells of its own.
pub(super) fn clone_root(path: &CStr, config: &Config) -> std::io::Result<OwnedFd> {
    let tree = mount::clone_of_tree(CWD, path)?;
    let asked = options::propagation(&config.linux.rootfs_propagation).map_or(SLAVE, |asked| asked.flag);
    let propagation = if asked == SLAVE { SLAVE } else { PRIVATE };
    change_tree(&tree, Change { propagation, ..Change::default() })?;
    Ok(tree)
}

/// Attributes and propagation.
fn apply(tree: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    for (attributes, depth) in [(options.tree_attributes, Depth::Tree), (options.attributes, Depth::One)] {
        if attributes.is_empty() {
            continue;
        }
        let change = Change { set: attributes.set, clear: attributes.clear, ..Change::default() };
        match depth {
            Depth::One => mount::change(tree, &change)?,
            Depth::Tree => mount::change_tree(tree, &change)?,
        }
    }
    for propagation in &options.propagation {
        let change = Change { propagation: propagation.flag, ..Change::default() };
        match propagation.depth {
            Depth::One => mount::change(tree, &change)?,
            Depth::Tree => mount::change_tree(tree, &change)?,
        }
    }
    Ok(())
}

fn change_tree(tree: &OwnedFd, change: Change<'_>) -> std::io::Result<()> {
    mount::change_tree(tree.as_fd(), &change)
}

/// The user namespace through which a mount's owners are shown: its own mappings', or else the container's.
fn users_of(mount: &Mount, config: &Config, namespaces: &Set) -> std::io::Result<OwnedFd> {
    let (users, groups) = if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        if let Some(joined) = namespaces.joined("user") {
            return joined.try_clone_to_owned();
        }
        (&config.linux.uid_mappings, &config.linux.gid_mappings)
    } else {
        (&mount.uid_mappings, &mount.gid_mappings)
    };
    if users.is_empty() || groups.is_empty() {
        let text = "there are no mappings, of the mount or of the container";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    user_namespace::with_all_maps(&id_maps(users), &id_maps(groups))
}

pub(super) fn id_maps(mappings: &[IdMapping]) -> Vec<IdMap> {
    mappings.iter().map(|map| IdMap { inside: map.container_id, outside: map.host_id, length: map.size }).collect()
}

/// Puts all of them in their places below `root`.
pub(super) fn attach(
    root: BorrowedFd<'_>,
    mounts: &[Planned],
    config: &Config,
    cgroups: &Hierarchies,
) -> Result<(), Failure> {
    // they take what is put into them first
    let mut read_only = Vec::new();
    for planned in mounts {
        let destination = if planned.mount.destination.starts_with('/') {
            planned.mount.destination.clone()
        } else {
            format!("/{}", planned.mount.destination)
        };
        let step = format!("mount {} on {destination}", of(&planned.mount));
        let place = Place { target: &destination, step: &step };
        match &planned.what {
            What::Tree { tree, is_file } => {
                let found = place.open_through_links(root, *is_file)?;
                check(root, found.as_fd(), tree.as_fd(), &step)?;
                mount::attach_to(tree.as_fd(), found.as_fd()).step(&step)?;
            }
            What::Remount => {
                let found = place.open_through_links(root, false)?;
                apply(found.as_fd(), &planned.options).step(&step)?;
            }
            What::Cgroups => {
                let found = place.open_through_links(root, false)?;
                let mount = CgroupMount { set: planned.options.attributes.set, config };
                cgroups.mount(found.as_fd(), &mount, &step)?;
            }
            What::New => {
                let found = place_of_new(root, &place, &planned.mount.kind)?;
                if planned.is_long() {
                    planned.mount_at(found.as_fd(), &step)?;
                    continue;
                }
                let made = planned.make(found.as_fd(), &destination, config, &step)?;
                check(root, found.as_fd(), made.as_fd(), &step)?;
                mount::attach_to(made.as_fd(), found.as_fd()).step(&step)?;
                if planned.is_late() {
                    read_only.push((made, step));
                }
            }
        }
    }
    for (made, step) in read_only {
        mount::restrict(made.as_fd(), MountAttributes::MOUNT_ATTR_RDONLY).step(&step)?;
    }
    Ok(())
}

fn of(mount: &Mount) -> &str {
    if mount.source.is_empty() { &mount.kind } else { &mount.source }
}

/// What programs believe of the kernel is found at these paths and nowhere else: no link on the way (CVE-2019-19921).
fn place_of_new(root: BorrowedFd<'_>, place: &Place<'_>, kind: &str) -> Result<OwnedFd, Failure> {
    let found = place.open_through_links(root, false)?;
    if matches!(kind, "proc" | "sysfs") {
        let path = place.target.trim_start_matches('/');
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(|errno| match errno {
            rustix::io::Errno::LOOP => Failure::because(place.step, "it must be a directory, and is a symbolic link"),
            errno => Failure::at(place.step, &errno.into()),
        })?;
    }
    Ok(found)
}

/// Nothing is put over the kernel's word but what is allowed to be.
fn check(root: BorrowedFd<'_>, place: BorrowedFd<'_>, what: BorrowedFd<'_>, step: &str) -> Result<(), Failure> {
    if rustix::fs::fstatfs(place).step(step)?.f_type != PROC {
        return Ok(());
    }
    let number = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let own = number(place).step(step)?;
    let is = |path: &str| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(root, &path[1..], flags, Mode::empty(), resolve)
            .and_then(|found| number(found.as_fd()))
            .is_ok_and(|found| found == own)
    };
    let is_proc = rustix::fs::fstatfs(what).step(step)?.f_type == PROC;
    if is_proc && is("/proc") || IN_PROC.into_iter().any(is) {
        return Ok(());
    }
    Err(Failure::because(step, "it is inside /proc, where programs believe what the kernel says"))
}

impl Planned {
    /// A new `tmpfs` that is read-only becomes so when all that is mounted in it is.
    fn is_late(&self) -> bool {
        self.mount.kind == "tmpfs" && self.options.attributes.set & READ_ONLY != 0
    }

    /// Makes a new file system.
    fn make(&self, place: BorrowedFd<'_>, destination: &str, config: &Config, step: &str) -> Result<OwnedFd, Failure> {
        let Mount { kind, source, .. } = &self.mount;
        let set = if self.is_late() { self.options.attributes.set & !READ_ONLY } else { self.options.attributes.set };
        let mut builder = Builder::open(kind)?;
        if !source.is_empty() {
            builder = builder.set("source", source)?;
        }
        for (word, value) in &self.options.data {
            builder = match value {
                Some(value) => builder.set(word, value)?,
                None => builder.flag(word)?,
            };
        }
        if kind == "tmpfs" && !self.options.data.iter().any(|(word, _)| word == "mode") {
            // as the directory that it covers: programs look at the sticky bit of /tmp
            let stat = rustix::fs::fstat(place).step(step)?;
            builder = builder.set("mode", &format!("{:o}", stat.st_mode & 0o7777))?;
        }
        let label = &config.linux.mount_label;
        if !label.is_empty() && super::labels::has_selinux() && kind != "cgroup" {
            builder = builder.set("context", label)?;
        }
        let made = builder.mount(MountAttributes::from_bits_retain(set))?;
        if self.options.copy_up {
            copy_up::copy(place, made.as_fd())
                .map_err(|error| Failure::at(format!("copy {destination} into its tmpfs"), &error))?;
        }
        let more = Options { attributes: options::Attributes::default(), ..self.options.clone() };
        apply(made.as_fd(), &more).step(step)?;
        Ok(made)
    }

    /// By `mount(2)`, which takes longer options: those of an overlay of many layers. The place is named by its
    /// descriptor.
    fn mount_at(&self, place: BorrowedFd<'_>, step: &str) -> Result<(), Failure> {
        use std::os::fd::AsRawFd as _;
        let words = self.options.data.iter().map(|(word, value)| match value {
            Some(value) => format!("{word}={value}"),
            None => word.clone(),
        });
        let data = std::ffi::CString::new(words.collect::<Vec<_>>().join(","))
            .map_err(|_| Failure::because(step, "an option has a zero byte"))?;
        let proc = rustix::fs::open("/proc/self/fd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        if rustix::fs::fstatfs(&proc).step(step)?.f_type != PROC {
            return Err(Failure::because(step, "/proc is not the kernel's"));
        }
        let path = format!("/proc/self/fd/{}", place.as_raw_fd());
        let flags = options::mount_flags(self.options.attributes.set);
        let Mount { source, kind, .. } = &self.mount;
        rustix::mount::mount(source.as_str(), path.as_str(), kind.as_str(), flags, data.as_c_str()).step(step)
    }

    /// Whether an option is longer than `fsconfig(2)` takes.
    fn is_long(&self) -> bool {
        self.options.data.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.len() > OPTION_MAX))
    }
}

/// The longest value that `fsconfig(2)` takes, in bytes.
const OPTION_MAX: usize = 255;
