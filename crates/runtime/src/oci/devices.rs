//! Device nodes: those that every container has, and those that its configuration names.
//!
//! Where the container's ids are the host's, its first process makes them. In a user namespace nobody can; there the
//! runtime makes the whole `/dev` as a `tmpfs` of the host's, with nodes that are this container's alone, and hands it
//! over: a node of the host's that was bound in could be changed for everybody (runc issue 3674). Only where `/dev` is no
//! `tmpfs` is the host's node bound, looked at first.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use sampan_sys::mount::{self, Attributes as MountAttributes, Builder};

use super::config::{Config, Device, IdMapping, Mount};
use super::error::{OciError, When as _};
use super::options::Options;
use crate::child::Step as _;
use crate::child::places::Place;
use crate::wire::Failure;

/// What every container has (config-linux.md, "Default Devices"), each with mode 0666.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// And links beside them ("Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// There where the host has one.
const CORE: (&str, &str) = ("core", "/proc/kcore");

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    path: String,
    kind: FileType,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// All nodes of a container: the default ones, unless the configuration names them itself, and its own.
pub(super) fn nodes(config: &Config) -> Result<Vec<Node>, OciError> {
    let named = &config.linux.devices;
    let default = DEFAULT.iter().filter(|(path, ..)| named.iter().all(|device| device.path != *path));
    let default = default.map(|&(path, major, minor)| Node {
        path: path.to_owned(),
        kind: FileType::CharacterDevice,
        number: rustix::fs::makedev(major, minor),
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    default.map(Ok).chain(named.iter().map(Node::read)).collect()
}

impl Node {
    fn read(device: &Device) -> Result<Self, OciError> {
        let wrong = |why: String| OciError::config(format!("device {}", device.path), why);
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return Err(wrong(format!("{other:?} is no type of device: c, u, b or p"))),
        };
        let number = |number: i64| u32::try_from(number).map_err(|_| wrong(format!("{number} is no device number")));
        if !device.path.starts_with('/') || device.path.ends_with('/') {
            return Err(wrong("its path must be an absolute one of a file".into()));
        }
        Ok(Self {
            path: device.path.clone(),
            kind,
            number: if kind == FileType::Fifo {
                0
            } else {
                rustix::fs::makedev(number(device.major)?, number(device.minor)?)
            },
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        })
    }

    /// The directory that it is in, and its name there.
    fn parts(&self) -> (&str, &str) {
        match self.path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(parts) => parts,
            None => ("/", &self.path),
        }
    }
}

/// Makes the nodes and links in the root file system. The mask of this process is empty.
pub(super) fn make(root: BorrowedFd<'_>, nodes: &[Node], bind: bool) -> Result<(), Failure> {
    let mut last: Option<(&str, OwnedFd)> = None;
    for node in nodes {
        let step = format!("make device {}", node.path);
        let (directory, name) = node.parts();
        let place = match last.take() {
            Some((same, place)) if same == directory => place,
            _ => Place { target: directory, step: &step }.open_through_links(root, false)?,
        };
        make_one(place.as_fd(), name, node, bind, &step)?;
        last = Some((directory, place));
    }
    let step = "make the links in /dev";
    let dev = Place { target: "/dev", step }.open_through_links(root, false)?;
    make_links(dev.as_fd()).step(step)
}

fn make_links(dev: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let core = rustix::fs::statat(CWD, CORE.1, AtFlags::empty()).is_ok().then_some(CORE);
    for (name, target) in LINKS.into_iter().chain(core) {
        match rustix::fs::symlinkat(target, dev, name) {
            // an image's own ptmx would be the host's
            Err(Errno::EXIST) if name == "ptmx" => {
                rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
                rustix::fs::symlinkat(target, dev, name)?;
            }
            Err(Errno::EXIST) => {}
            result => result?,
        }
    }
    Ok(())
}

fn make_one(directory: BorrowedFd<'_>, name: &str, node: &Node, bind: bool, step: &str) -> Result<(), Failure> {
    if bind {
        return bind_one(directory, name, node, step);
    }
    let make = || rustix::fs::mknodat(directory, name, node.kind, Mode::from_raw_mode(node.mode), node.number);
    match make() {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
            if FileType::from_raw_mode(stat.st_mode) == node.kind && stat.st_rdev == node.number {
                return Ok(());
            }
            rustix::fs::unlinkat(directory, name, AtFlags::empty()).step(step)?;
            make().step(step)?;
        }
        // in a container that may not make devices
        Err(Errno::PERM) if node.kind != FileType::Fifo => return bind_one(directory, name, node, step),
        result => result.step(step)?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (user, group) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).step(step)?;
    }
    Ok(())
}

/// The host's node, where it is the one that is meant.
fn bind_one(directory: BorrowedFd<'_>, name: &str, node: &Node, step: &str) -> Result<(), Failure> {
    let path = std::ffi::CString::new(node.path.as_str()).map_err(|_| Failure::because(step, "a zero byte"))?;
    let host = mount::clone_of(CWD, &path).step(step)?;
    let stat = rustix::fs::fstat(&host).step(step)?;
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != node.number {
        return Err(Failure::because(step, "the host has another file there, and no device can be made here"));
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(directory, name, create, Mode::from_raw_mode(0o666), resolve) {
        // a device of the image's that cannot be opened is a place all the same
        Err(Errno::NXIO | Errno::ACCESS | Errno::PERM) => {}
        result => drop(result.step(step)?),
    }
    let place = rustix::fs::openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    mount::attach_to(host.as_fd(), place.step(step)?.as_fd()).step(step)
}

/// Makes `/dev` as the configuration's mount asks, with the nodes that are in it; those that are not are left in `nodes`.
/// `None`: it asks for something that this cannot give.
pub(super) fn make_dev(mount: &Mount, nodes: &mut Vec<Node>, config: &Config) -> Result<Option<OwnedFd>, OciError> {
    let options = Options::parse(&mount.options);
    if mount.kind != "tmpfs" || options.bind.is_some() || options.data.iter().any(|(word, _)| word.ends_with("id")) {
        return Ok(None);
    }
    let step = "make /dev";
    let built = || {
        let mut builder =
            Builder::open("tmpfs")?.set("source", if mount.source.is_empty() { "tmpfs" } else { &mount.source })?;
        for (word, value) in &options.data {
            builder = match value {
                Some(value) => builder.set(word, value)?,
                None => builder.flag(word)?,
            };
        }
        builder.mount(MountAttributes::from_bits_retain(options.attributes.set))
    };
    let dev = built().map_err(|error| OciError::Start(error.into()))?;
    let root = (on_host(0, &config.linux.uid_mappings), on_host(0, &config.linux.gid_mappings));
    own(&dev, ".", root).when(step)?;
    let before = rustix::process::umask(Mode::empty());
    let made = make_nodes(&dev, nodes, config, root);
    rustix::process::umask(before);
    made?;
    nodes.retain(|node| !node.path.starts_with("/dev/"));
    Ok(Some(dev))
}

fn make_nodes(dev: &OwnedFd, nodes: &[Node], config: &Config, root: (u32, u32)) -> Result<(), OciError> {
    for node in nodes {
        let Some(path) = node.path.strip_prefix("/dev/") else { continue };
        let step = || format!("make device {}", node.path);
        for (at, _) in path.match_indices('/') {
            match rustix::fs::mkdirat(dev, &path[..at], Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => continue,
                made => made.when(step())?,
            }
            own(dev, &path[..at], root).when(step())?;
        }
        rustix::fs::mknodat(dev, path, node.kind, Mode::from_raw_mode(node.mode), node.number).when(step())?;
        let ids = (on_host(node.uid, &config.linux.uid_mappings), on_host(node.gid, &config.linux.gid_mappings));
        own(dev, path, ids).when(step())?;
    }
    Ok(())
}

fn own(dev: &OwnedFd, path: &str, (user, group): (u32, u32)) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::fs::chownat(dev, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}

/// What an id of the container is on the host; nobody's, where it is none.
pub(super) fn on_host(id: u32, mappings: &[IdMapping]) -> u32 {
    let map = mappings.iter().find(|map| (map.container_id..map.container_id.saturating_add(map.size)).contains(&id));
    map.map_or(NOBODY, |map| map.host_id + (id - map.container_id))
}

/// `/proc/sys/kernel/overflowuid`, unless somebody has changed it.
const NOBODY: u32 = 65534;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_the_configuration_take_the_default_ones_places() {
        let device = |path: &str, kind: &str, major| Device {
            kind: kind.into(),
            path: path.into(),
            major,
            minor: 3,
            file_mode: Some(0o100_600),
            uid: Some(5),
            gid: None,
        };
        let mut config = Config::default();
        config.linux.devices = vec![device("/dev/null", "c", 1), device("/dev/net/tun", "u", 10)];
        let nodes = nodes(&config).unwrap();
        assert_eq!(nodes.len(), 7);
        let null: Vec<_> = nodes.iter().filter(|node| node.path == "/dev/null").collect();
        assert_eq!((null.len(), null[0].mode, null[0].uid), (1, 0o600, 5));
        assert_eq!(nodes[6].parts(), ("/dev/net", "tun"));
        for wrong in [device("dev/x", "c", 1), device("/dev/x", "x", 1), device("/dev/x", "b", -1)] {
            assert!(Node::read(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ids_of_the_host() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let maps = [map(0, 1000, 1), map(1, 100_000, 10)];
        for (inside, outside) in [(0, 1000), (1, 100_000), (10, 100_009), (11, NOBODY)] {
            assert_eq!(on_host(inside, &maps), outside, "{inside}");
        }
    }
}
