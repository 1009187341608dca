//! What is mounted in a container: checked when it is asked for, opened when the container starts, mounted once its user
//! namespace is there, and handed to its sealed child.
//!
//! ```text
//! check          at creation: no more than words
//! Mounts::open   at each start: a bind's source, by the caller's rights
//! Mounts::make   after the child was cloned: detached mounts, in their order
//! ```
//!
//! Where a mount goes in the container is the child's business (`runtime`), which resolves it in the container's root.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use sampan_image::user::User;
use sampan_model::{IdRange, Label, Mount, MountSource};
use sampan_runtime::mounts::{self, Attributes};
use sampan_runtime::wire::{MountKind, MountPoint};

use crate::ContainerRecord;
use crate::binds::{Bind, Seen};
use crate::containers::Inner;
use crate::volumes::{Seed, VolumeError};

/// The most mounts of one container.
pub const MOST_MOUNTS: usize = 100;

/// What is asked to be mounted cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Too many.
    #[error("{0} mounts: at most {MOST_MOUNTS} are possible")]
    TooMany(usize),
    /// A place that nothing can be mounted on.
    #[error("nothing can be mounted on {target:?}: {why}")]
    Target {
        /// The place.
        target: String,
        /// Why not.
        why: &'static str,
    },
    /// Two mounts on one place.
    #[error("two mounts have the place {0:?}")]
    Twice(String),
    /// A source that is no absolute path.
    #[error("the path {path:?} on this machine must be absolute and without '..'")]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// A source that is not there, or that the caller may not reach.
    #[error("mount {} as user {uid}", .path.display())]
    Source {
        /// The path.
        path: PathBuf,
        /// With whose rights.
        uid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A source that is neither directory nor file nor socket.
    #[error("{} is a device or a pipe: directories, files and sockets can be mounted", .path.display())]
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// The caller's rights could not be taken on.
    #[error("take on the rights of user {uid}")]
    Rights {
        /// The caller.
        uid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The source could not be mounted a second time.
    #[error("mount {}", .path.display())]
    Clone {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file system cannot show its files under other ids.
    #[error("mount {}: its file system cannot show files under other ids (idmapped mounts)", .path.display())]
    Idmap {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The ids could not be mapped.
    #[error("map user {uid} to the container's user")]
    Map {
        /// The caller.
        uid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl MountError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("make it first: mkdir -p {}", path.display()))
            }
            Self::Source { .. } => Some("a bind is opened with the rights of whoever asks for it".to_owned()),
            Self::Relative { .. } => Some("give the whole path, or the name of a volume".to_owned()),
            Self::Idmap { .. } => Some(
                "ext4, xfs, btrfs and tmpfs can (since Linux 6.3), network file systems and FUSE cannot: copy it with \
                 `sampan cp`, or use a volume"
                    .to_owned(),
            ),
            Self::Target { .. } => Some("choose a place of its own, such as /data".to_owned()),
            Self::Volume(error) => error.hint(),
            _ => None,
        }
    }
}

/// Whether these mounts could be made, for all that the words tell.
pub(crate) fn check(mounts: &[Mount]) -> Result<(), MountError> {
    if mounts.len() > MOST_MOUNTS {
        return Err(MountError::TooMany(mounts.len()));
    }
    let mut places = HashSet::new();
    for mount in mounts {
        let refuse = |why| MountError::Target { target: mount.target.clone(), why };
        if !mount.target.starts_with('/') || mount.target.len() > LONGEST_TARGET || mount.target.contains('\0') {
            return Err(refuse("it must be an absolute path in the container, of at most 4096 bytes"));
        }
        let names: Vec<&str> = mount.target.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        match names[..] {
            [] => return Err(refuse("it is the root file system itself")),
            ["dev"] => return Err(refuse("Sampan makes it; a file or directory in it can be mounted on")),
            ["proc" | "sys", ..] => return Err(refuse("programs believe what the kernel says there")),
            _ if names.contains(&"..") => return Err(refuse("it must be without '..'")),
            _ => {}
        }
        if !places.insert(names) {
            return Err(MountError::Twice(mount.target.clone()));
        }
        if let MountSource::Bind { path } = &mount.source {
            let plain = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
            if !plain || path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(MountError::Relative { path: path.clone() });
            }
        }
    }
    Ok(())
}

const LONGEST_TARGET: usize = 4096;

/// A container's mounts at a start, their sources found.
pub(crate) struct Mounts {
    /// As the child is told.
    pub points: Vec<MountPoint>,
    sources: Vec<Source>,
}

enum Source {
    Volume { name: Label, target: String, read_only: bool },
    Bind { bind: Bind, read_only: bool },
}

impl Mounts {
    /// Opens the sources. `first` is mounted before all else, and may be mounted over.
    pub fn open(record: &ContainerRecord, first: Vec<MountPoint>) -> Result<Self, MountError> {
        let mut opened = Self { points: first, sources: Vec::new() };
        for Mount { target, source, read_only } in &record.spec.mounts {
            let (target, read_only) = (target.clone(), *read_only);
            let kind = match source {
                MountSource::Volume { name } => {
                    let (name, target) = (name.clone(), target.clone());
                    opened.sources.push(Source::Volume { name, target, read_only });
                    MountKind::Handed { file: false }
                }
                MountSource::Bind { path } => {
                    let bind = Bind::open(path, &record.spec.owner)?;
                    let kind = MountKind::Handed { file: bind.is_file };
                    opened.sources.push(Source::Bind { bind, read_only });
                    kind
                }
                MountSource::Tmpfs { size_bytes, mode, owner, executable } => {
                    let half = record.spec.size.memory_bytes.0 / 2;
                    // to the kernel 0 is no limit at all
                    let size = size_bytes.map_or(half, |size| size.0).max(1);
                    MountKind::Tmpfs {
                        size_bytes: Some(size),
                        mode: mode.unwrap_or(0o1777) & 0o7777,
                        owner: *owner,
                        executable: *executable,
                    }
                }
            };
            opened.points.push(MountPoint { target, read_only, kind });
        }
        Ok(opened)
    }

    /// Mounts them, nowhere yet, for a container of this user namespace and user; `lowers` are its image's layers, the
    /// topmost first.
    pub fn make(
        &self,
        inner: &Inner,
        record: &ContainerRecord,
        (userns, ids): (BorrowedFd<'_>, IdRange),
        user: &User,
        lowers: &[&Path],
    ) -> Result<Vec<OwnedFd>, MountError> {
        let owner = &record.spec.owner;
        let mapped = (!ids.is_host()).then_some(userns);
        let mut made = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            made.push(match source {
                Source::Volume { name, target, read_only } => {
                    let seed = Seed { lowers, target, user: (user.uid, user.gid) };
                    let data = inner.foundation.volumes.ready(name, owner, &seed)?;
                    let attributes = attributes(*read_only, Attributes::MOUNT_ATTR_NODEV);
                    mounts::mapped_directory(&data, mapped, attributes)
                        .map_err(|source| MountError::Idmap { path: data, source })?
                }
                Source::Bind { bind, read_only } if owner.uid == 0 => {
                    bind.mount(mapped, attributes(*read_only, Attributes::MOUNT_ATTR_NODEV))?
                }
                Source::Bind { bind, read_only } => {
                    let on_host = |id: u32| ids.start.saturating_add(id);
                    let user = (on_host(user.uid), on_host(user.gid));
                    let map = inner.id_maps.of(Seen { caller: (owner.uid, owner.gid), user })?;
                    let closed = Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOSUID;
                    bind.mount(Some(map.as_fd()), attributes(*read_only, closed))?
                }
            });
        }
        Ok(made)
    }
}

fn attributes(read_only: bool, others: Attributes) -> Attributes {
    if read_only { others | Attributes::MOUNT_ATTR_RDONLY } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_checked_by_their_words() {
        fn check_one(targets: &[&str], path: &str, expected: &str) {
            let mount = |target: &&str| Mount {
                target: (*target).to_owned(),
                source: MountSource::Bind { path: path.into() },
                read_only: false,
            };
            let mounts: Vec<Mount> = targets.iter().map(mount).collect();
            let found = check(&mounts).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{targets:?}: {found}");
        }
        check_one(&["/data", "/data/sub", "/dev/shm", "/run/..x"], "/srv", "");
        check_one(&["data"], "/srv", "absolute");
        check_one(&["/"], "/srv", "root file system");
        check_one(&["/./"], "/srv", "root file system");
        check_one(&["/data/../etc"], "/srv", "'..'");
        for kernel in ["/proc", "/sys/", "//proc/self/attr", "/sys/fs/cgroup"] {
            check_one(&[kernel], "/srv", "kernel");
        }
        check_one(&["/dev/"], "/srv", "Sampan makes it");
        check_one(&["/data", "//data/"], "/srv", "two mounts");
        check_one(&["/data"], "srv", "absolute");
        check_one(&["/data"], "/srv/../etc", "absolute");
        check_one(&["/a"; 101], "/srv", "at most 100");
    }
}
