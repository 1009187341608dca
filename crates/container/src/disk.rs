//! A bound on what a container writes (`--disk`): an ext4 in a sparse file, mounted as its upper directory.
//!
//! ```text
//! containers/ID/upper/       without a bound
//! containers/ID/disk.ext4    with one; `u/` and `w/` are in it
//! containers/SERVER/disk.ext4    of a server with a name; `ID/u/` and `ID/w/` are in it for each container on it
//! ```
//!
//! The file is made with the container. At each start it gets a loop device, and the file system on that is mounted
//! detached, for the overlay alone: nothing of it is in anybody's list of mounts. The overlay holds the mount, the mount
//! holds the device, and the device lets go of the file by itself; so there is nothing to take down, whoever was killed.
//!
//! A quota of the directory would be cheaper, and is not used yet: see `docs/design/volumes.md`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sampan_model::{ByteSize, ContainerId, Disk, IdRange, ServerStatus};
use sampan_runtime::disk::{LoopDevice, mount_ext4};
use sampan_runtime::rootfs::{self, Layers, RootfsError};

use crate::ContainerRecord;
use crate::containers::Inner;

/// The smallest: ext4 keeps some megabytes of it for itself.
const LEAST: ByteSize = ByteSize::mib(16);
const FILE: &str = "disk.ext4";
const NEW: &str = "disk.new";

/// What a container writes cannot be bounded.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The directory has no quota, and nothing else was allowed.
    #[error("what a container writes cannot be limited to {0}: Sampan's directory has no quota")]
    NoQuota(ByteSize),
    /// Smaller than a file system can be.
    #[error("a disk of {0} is too small: {LEAST} is the least")]
    TooSmall(ByteSize),
    /// There is nothing to make a file system with.
    #[error("run mkfs.ext4")]
    Mkfs(#[source] io::Error),
    /// It could not be made.
    #[error("make a file system of {size}: {said}")]
    Refused {
        /// How large.
        size: ByteSize,
        /// What mkfs.ext4 said.
        said: String,
    },
    /// The file, or its device.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be mounted.
    #[error("mount {}", .path.display())]
    Mount {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sampan_runtime::disk::MountError,
    },
}

impl DiskError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoQuota(_) => {
                Some("add --disk-loop: what it writes goes to a file system in a file then, a little slower")
            }
            Self::TooSmall(_) => Some("ask for more with --disk"),
            Self::Mkfs(_) => Some("install it: apt install e2fsprogs"),
            Self::Io { action: "find a loop device for", .. } => Some("load the kernel's loop devices: modprobe loop"),
            _ => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether such a disk could be had, for all that the words tell.
pub(crate) fn check(disk: &Disk) -> Result<(), DiskError> {
    match disk {
        Disk { size_bytes, loop_mounted: false } => Err(DiskError::NoQuota(*size_bytes)),
        Disk { size_bytes, .. } if size_bytes.0 < LEAST.0 => Err(DiskError::TooSmall(*size_bytes)),
        _ => Ok(()),
    }
}

/// Makes the file in `home`; one that is there stays. Runs `mkfs.ext4`.
pub(crate) fn make(home: &Path, disk: &Disk) -> Result<PathBuf, DiskError> {
    let path = home.join(FILE);
    if path.exists() {
        return Ok(path);
    }
    check(disk)?;
    std::fs::DirBuilder::new().recursive(true).create(home).map_err(DiskError::io("make", home))?;
    let new = home.join(NEW);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    file.and_then(|file| file.set_len(disk.size_bytes.0)).map_err(DiskError::io("make", &new))?;
    let output = Command::new("mkfs.ext4")
        // no blocks kept back, and nothing written that is zero already: the file is sparse
        .args(["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"])
        .arg(&new)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(DiskError::Mkfs)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(DiskError::Refused { size: disk.size_bytes, said });
    }
    std::fs::rename(&new, &path).map_err(DiskError::io("rename", &new))?;
    Ok(path)
}

/// What takes what a container writes.
#[derive(Debug)]
pub(crate) enum Upper {
    Directory(PathBuf),
    /// A mounted file system, and the directory in it.
    Disk(OwnedFd, PathBuf),
}

impl Inner {
    /// The upper directory of a container, which does not run.
    pub(crate) fn open_upper(&self, record: &ContainerRecord) -> Result<Upper, DiskError> {
        let directory = |id: &ContainerId| self.foundation.containers_dir.join(id.as_str());
        let server = self.named_of(record).ok().flatten();
        let server_disk = server.as_ref().and_then(|named| Some((named.record().id, named.record().spec.disk?)));
        if let (Some(server), Some((id, disk))) = (&server, server_disk) {
            // two devices of one file would be two file systems that know nothing of each other
            let _turn = server.disk_turn();
            return mount(&make(&directory(&id), &disk)?).map(|mount| Upper::Disk(mount, record.id.as_str().into()));
        }
        let home = directory(&record.id);
        match &record.spec.disk {
            None => Ok(Upper::Directory(home.join("upper"))),
            Some(disk) => mount(&make(&home, disk)?).map(|mount| Upper::Disk(mount, PathBuf::new())),
        }
    }

    /// Removes what a container has written to its server's disk.
    pub(crate) fn remove_from_disk(&self, record: &ContainerRecord) -> Result<(), DiskError> {
        let Some(server) = self.named_of(record).ok().flatten().map(|named| named.record()) else { return Ok(()) };
        // with a server that is being closed all of its disk goes
        if server.spec.disk.is_none() || server.status == ServerStatus::Closing {
            return Ok(());
        }
        let upper = self.open_upper(record)?;
        let path = upper.path();
        crate::tree::remove(&path).map_err(DiskError::io("remove", &path))
    }
}

fn mount(path: &Path) -> Result<OwnedFd, DiskError> {
    let file = File::options().read(true).write(true).open(path).map_err(DiskError::io("open", path))?;
    let device = LoopDevice::of(&file).map_err(DiskError::io("find a loop device for", path))?;
    mount_ext4(&device).map_err(|source| DiskError::Mount { path: path.to_owned(), source })
}

impl Upper {
    /// Where it is, for as long as this is held.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Directory(path) => path.clone(),
            Self::Disk(mount, below) => Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())).join(below),
        }
    }

    /// Mounts a container's root file system with it: `layers` are its image's, the topmost first, and `places` is the
    /// layer over them.
    pub fn mount(
        self,
        places: &Path,
        layers: &[&Path],
        userns: BorrowedFd<'_>,
        ids: IdRange,
    ) -> Result<OwnedFd, RootfsError> {
        let layers = Layers { places: Some(places), image: layers };
        match self {
            Self::Directory(path) => rootfs::mount_overlay(layers, &path, userns, ids),
            Self::Disk(mount, below) => rootfs::mount_overlay_on(layers, mount, &below, userns, ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let disk = |size_bytes, loop_mounted| Disk { size_bytes, loop_mounted };
        let hint = |disk: Disk| check(&disk).err().and_then(|error| error.hint()).unwrap_or_default();
        assert!(hint(disk(ByteSize::mib(64), false)).contains("--disk-loop"));
        assert!(hint(disk(ByteSize::mib(1), true)).contains("--disk"));
        assert!(check(&disk(LEAST, true)).is_ok());
    }
}
