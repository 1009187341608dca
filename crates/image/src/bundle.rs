//! An image → a bundle: a directory that an OCI runtime executes as it is.
//!
//! ```text
//! rootfs/       the layers, one over the other
//! config.json   what to execute in it, and how it is shut in
//! ```
//!
//! `runc run` gives it the command, user, environment and directory that the image names, Docker's default
//! capabilities without any way to more, namespaces of its own (its network has a loopback and no way out: that is the
//! runtime's caller to give) and no terminal. `PORT` is set as everywhere in Sampan.
//!
//! Written by root, files have the owners that the layers say. Written by somebody else, they are the writer's, and the
//! bundle is one for `runc` without root: a user namespace with the writer as its only user.
//!
//! Deliberately not here: size limits, which a bundle's runner sets.
//!
//! Source: runtime-spec 1.0.2; image-spec 1.1 `conversion.md`.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sampan_model::Digest;
use sampan_store::BlobError;
use serde_json::{Value, json};

use crate::archive::Entry;
use crate::entry_path::EntryPath;
use crate::tree::{Owners, Tree};
use crate::unpack::{LayerTar, UnpackStats, check_entry, count, io_error, read_layer, unpack_entry};
use crate::user::{self, User};
use crate::{BlobSource, Image, UnpackError, UserError};

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The port that an app is told where its image declares none.
const PORT: &str = "8080";

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A layer cannot be read.
    #[error("open the layer {0}")]
    Blob(Digest, #[source] BlobError),
    /// A layer cannot be unpacked.
    #[error("unpack the layer {0}")]
    Layer(Digest, #[source] Box<UnpackError>),
    /// The image names nothing to execute.
    #[error("the image names no command: a bundle of it could not be run")]
    NoCommand,
    /// The image's user is not in it.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file could not be written.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who is going to run a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Root,
    /// Whoever wrote it, by these ids.
    User {
        uid: u32,
        gid: u32,
    },
}

/// Writes the bundle of an image into a directory that is empty.
///
/// # Errors
/// See [`BundleError`]; what is there then is to be removed.
pub fn write_bundle(image: &Image, blobs: &dyn BlobSource, into: &Path) -> Result<(), BundleError> {
    if image.config.entrypoint.is_empty() && image.config.cmd.is_empty() {
        return Err(BundleError::NoCommand);
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let (runner, owners) = match uid.is_root() {
        true => (Runner::Root, Owners::Kept),
        false => (Runner::User { uid: uid.as_raw(), gid: gid.as_raw() }, Owners::Caller),
    };
    let rootfs = into.join("rootfs");
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::Io { action, path, source }
    };
    DirBuilder::new().mode(0o755).create(&rootfs).map_err(failed("make", &rootfs))?;
    // whatever the umask is: this is the container's root directory
    fs::set_permissions(&rootfs, Permissions::from_mode(0o755)).map_err(failed("set the mode of", &rootfs))?;
    for layer in &image.layers {
        let blob = blobs.open_blob(&layer.digest).map_err(|error| BundleError::Blob(layer.digest.clone(), error))?;
        let applied = read_layer(blob, layer.media_type, &layer.diff_id, |tar| apply(tar, &rootfs, owners));
        applied.map_err(|error| BundleError::Layer(layer.digest.clone(), Box::new(error)))?;
    }
    let user = user::resolve(&image.config.user, std::slice::from_ref(&rootfs))?;
    let mut text = serde_json::to_vec_pretty(&config(image, &user, runner)).expect("texts and numbers are JSON");
    text.push(b'\n');
    let path = into.join("config.json");
    fs::write(&path, text).map_err(failed("write", &path))
}

/// Puts a layer over what is there: what it hides goes, unless it is the layer's own.
fn apply(tar: &mut LayerTar, into: &Path, owners: Owners) -> Result<UnpackStats, UnpackError> {
    let mut stats = UnpackStats::default();
    let root = |source| io_error("/", into, source);
    let mut tree = Tree::open(into, owners).map_err(root)?;
    let mut own = HashSet::new();
    while let Some(entry) = tar.next()? {
        count(&mut stats)?;
        // a name that is refused, a whiteout of nothing: as where nothing is written
        check_entry(&entry)?;
        if matches!(entry.kind, crate::archive::Kind::Device) {
            stats.devices_skipped += 1;
            continue;
        }
        if hide(&mut tree, &entry, &own).map_err(|source| io_error("a whiteout", into, source))? {
            continue;
        }
        keep(&mut own, &entry);
        unpack_entry(tar, &mut tree, &entry, into)?;
    }
    tree.finish().map_err(root)?;
    Ok(stats)
}

/// Whether an entry hides what lower layers have; it is done then.
fn hide(tree: &mut Tree, entry: &Entry, own: &HashSet<Vec<u8>>) -> io::Result<bool> {
    let Ok(path) = EntryPath::parse(&entry.path) else { return Ok(false) };
    let Some((parent, name)) = path.split() else { return Ok(false) };
    let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(false) };
    let hidden = match hidden {
        b".wh..opq" => tree.names(parent)?,
        // marks of AUFS about itself
        _ if hidden.starts_with(b".wh.") => Vec::new(),
        _ => vec![hidden.to_vec()],
    };
    for name in hidden {
        let path = if parent.is_empty() { name.clone() } else { [parent, &name].join(&b'/') };
        if !own.contains(&path) {
            tree.remove(parent, &name)?;
        }
    }
    Ok(true)
}

/// Remembers an entry and the directories above it as the layer's own.
fn keep(own: &mut HashSet<Vec<u8>>, entry: &Entry) {
    let Ok(path) = EntryPath::parse(&entry.path) else { return };
    let mut path = path.as_bytes();
    while !path.is_empty() && own.insert(path.to_vec()) {
        path = path.iter().rposition(|&b| b == b'/').map_or(b"", |at| &path[..at]);
    }
}

fn config(image: &Image, user: &User, runner: Runner) -> Value {
    let config = &image.config;
    let args: Vec<_> = config.entrypoint.iter().chain(&config.cmd).collect();
    let mut env = config.env.clone();
    let port = config.exposed_ports.first().and_then(|port| port.split('/').next()).unwrap_or(PORT);
    let home = format!("HOME={}", user.home.as_deref().unwrap_or("/"));
    for (name, pair) in [("PATH=", PATH.to_owned()), ("HOME=", home), ("PORT=", format!("PORT={port}"))] {
        if !env.iter().any(|known| known.starts_with(name)) {
            env.push(pair);
        }
    }
    let (uid, gid, groups) = match runner {
        Runner::Root => (user.uid, user.gid, user.groups.as_slice()),
        // the only ids that its user namespace has
        Runner::User { .. } => (0, 0, &[][..]),
    };
    let mut capabilities = serde_json::Map::new();
    for set in ["bounding", "effective", "permitted"] {
        // a user who is not root has none until a program brings some, which is ruled out here
        let held = if uid == 0 || set == "bounding" { &CAPABILITIES[..] } else { &[] };
        capabilities.insert(set.to_owned(), json!(held));
    }
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": uid, "gid": gid, "additionalGids": groups },
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": capabilities,
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "sampan",
        "mounts": mounts(runner),
        "annotations": annotations(image),
        "linux": linux(runner),
    })
}

fn mounts(runner: Runner) -> Value {
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let plain = ["nosuid", "noexec", "nodev"];
    let mut sys = json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"] });
    match runner {
        Runner::Root => pts.push("gid=5"),
        // sysfs belongs to whoever owns the network namespace, and group 5 is not in the user namespace
        Runner::User { .. } => {
            sys["type"] = json!("none");
            sys["source"] = json!("/sys");
            sys["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
    let shm = [&plain[..], &["mode=1777", "size=65536k"]].concat();
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc", "options": plain },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": shm },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain },
        sys,
    ])
}

fn linux(runner: Runner) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    let masked = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/firmware",
    ];
    let read_only = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let mut linux = json!({ "maskedPaths": masked, "readonlyPaths": read_only });
    match runner {
        Runner::Root => {
            namespaces.push("network");
            linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        }
        Runner::User { uid, gid } => {
            namespaces.push("user");
            linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
            linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
        }
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    linux
}

/// What image-spec's `conversion.md` carries over, the labels among it.
fn annotations(image: &Image) -> Value {
    let config = &image.config;
    let mut all = config.labels.clone();
    let mut say = |key: &str, value: String| {
        if !value.is_empty() {
            all.entry(format!("org.opencontainers.image.{key}")).or_insert(value);
        }
    };
    say("os", config.os.clone());
    say("architecture", config.architecture.clone());
    say("exposedPorts", config.exposed_ports.join(","));
    say("stopSignal", config.stop_signal.clone().unwrap_or_default());
    say("created", image.created.clone().unwrap_or_default());
    json!(all)
}

#[cfg(test)]
mod tests;
