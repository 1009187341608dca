//! Devices of the host in a container: which nodes it is to have, and what it may do with them. Nodes are made anew for it
//! (`runtime`), never shared with the host, whose owners and modes they would change. Having a node is one thing, and
//! being let by the container's cgroup another.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sampan_model::{Confinement, Device, DeviceAccess};
use sampan_runtime::cgroup::{Access, DOCKER_DEVICES, DeviceKind, DeviceRule, EVERY_DEVICE};
use sampan_runtime::wire::Node;

/// A device of the host cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A place that is not below `/dev`.
    #[error("the device's place {0:?} must be a path below /dev, without '..'")]
    Place(String),
    /// It is not there.
    #[error("look at the device {}", .path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{} is no device, and no directory of devices", .0.display())]
    None(PathBuf),
}

/// Whether such a device could be had, for all that the words tell.
pub(crate) fn check(device: &Device) -> Result<(), DeviceError> {
    let plain = |path: &str| path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."));
    if !device.inside.starts_with("/dev/") || !plain(&device.inside) || device.inside.contains('\0') {
        return Err(DeviceError::Place(device.inside.clone()));
    }
    if !device.host.is_absolute() {
        return Err(DeviceError::None(device.host.clone()));
    }
    Ok(())
}

/// What a container has of the host's devices.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// What it may do with them and all others, where that is not the default.
    pub rules: Option<Vec<DeviceRule>>,
}

/// The devices that a container is to have. A directory means all devices below it.
pub(crate) fn of(asked: &Confinement) -> Result<Devices, DeviceError> {
    let mut nodes = Vec::new();
    if asked.privileged {
        below(Path::new("/dev"), "/dev", 0, &mut nodes);
    }
    let mut rules = Vec::new();
    for device in &asked.devices {
        let first = nodes.len();
        let meta = std::fs::metadata(&device.host)
            .map_err(|source| DeviceError::Look { path: device.host.clone(), source })?;
        match node(&meta, device.inside.clone()) {
            Some(node) => nodes.push(node),
            None if meta.is_dir() => below(&device.host, &device.inside, 0, &mut nodes),
            None => return Err(DeviceError::None(device.host.clone())),
        }
        rules.extend(nodes[first..].iter().filter_map(|node| rule(node, device.access)));
    }
    let rules = match (asked.privileged, rules.is_empty()) {
        (true, _) => Some(EVERY_DEVICE.to_vec()),
        (false, true) => None,
        (false, false) => Some(DOCKER_DEVICES.iter().copied().chain(rules).collect()),
    };
    Ok(Devices { nodes, rules })
}

fn rule(node: &Node, access: DeviceAccess) -> Option<DeviceRule> {
    let kind = if node.block { DeviceKind::Block } else { DeviceKind::Character };
    let of_it = |other: &&DeviceRule| {
        other.kind == kind && other.major == Some(node.major) && other.minor.is_none_or(|minor| minor == node.minor)
    };
    // nobody is kept from the usual ones
    let is_usual = DOCKER_DEVICES.iter().find(of_it).is_some();
    let access = Access { read: access.read, write: access.write, mknod: access.make };
    (!is_usual).then(|| DeviceRule::allow(kind, Some(node.major), Some(node.minor), access))
}

/// Directories of `/dev` that are every container's own, as Docker has it.
const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".udev"];
const DEEPEST: u32 = 8;
const MOST: usize = 4096;

fn below(host: &Path, inside: &str, depth: u32, nodes: &mut Vec<Node>) {
    let entries = std::fs::read_dir(host).into_iter().flatten().flatten();
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // links lead to what is found by itself; what goes while it is looked at is not there
        let Ok(meta) = entry.metadata() else { continue };
        if depth == 0 && OWN.contains(&name.as_str()) || nodes.len() >= MOST {
            continue;
        }
        let place = format!("{inside}/{name}");
        match node(&meta, place.clone()) {
            Some(node) => nodes.push(node),
            None if meta.is_dir() && depth < DEEPEST => below(&entry.path(), &place, depth + 1, nodes),
            None => {}
        }
    }
}

fn node(meta: &std::fs::Metadata, path: String) -> Option<Node> {
    let kind = meta.file_type();
    let block = kind.is_block_device();
    (block || kind.is_char_device()).then(|| Node {
        path,
        block,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}
