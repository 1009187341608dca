//! Files and directories of the host, mounted in a container.
//!
//! A bind is never more than its caller may do. The path is walked with the caller's rights, and the mount shows the
//! caller's files as those of the container's user, and everybody else's as nobody's, which cannot be owned, changed or
//! (without a right for all) read, not by the container's root either: root's power over files ends where their owner
//! has no id in its user namespace. So an ordinary user's `-v /etc:/x` works, and `/etc/shadow` stays shut.
//!
//! Root's binds show the ids 0–65535 as they are, as Docker's do. `docs/design/volumes.md` has the whole table.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use sampan_model::Owner;
use sampan_runtime::mounts::{self, Attributes, FileRights, IdMap};

use crate::containers::lock;
use crate::mounts::MountError;

/// Where a bind comes from, held open.
#[derive(Debug)]
pub(crate) struct Bind {
    path: PathBuf,
    place: OwnedFd,
    /// Whether it is a file (or a socket), not a directory.
    pub is_file: bool,
}

/// Whom a bind's files belong to, outside and inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The caller and its group.
    pub caller: (u32, u32),
    /// The container's user and its group, on the host.
    pub user: (u32, u32),
}

impl Bind {
    /// Opens the source with the rights of `owner`. Links are followed as far as the owner may follow them, those of
    /// `/proc/PID` not at all: they lead to what this process has open.
    pub fn open(path: &Path, owner: &Owner) -> Result<Self, MountError> {
        let find = || {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        };
        let opened = if owner.uid == 0 {
            find()
        } else {
            let rights = FileRights {
                uid: owner.uid,
                gid: owner.gid,
                groups: &owner.groups,
                capabilities: CapabilitySet::empty(),
            };
            let ran = rights.run(find);
            ran.map_err(|source| MountError::Rights { uid: owner.uid, source })?
        };
        let source = |errno: Errno| MountError::Source { path: path.to_owned(), uid: owner.uid, source: errno.into() };
        let place = opened.map_err(source)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&place).map_err(source)?.st_mode);
        let is_file = match kind {
            FileType::Directory => false,
            FileType::RegularFile | FileType::Socket => true,
            _ => return Err(MountError::Kind { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), place, is_file })
    }

    /// Mounts it, nowhere yet. `namespace` maps the ids; without one they are the host's own. With all that is mounted below it; but where a file system below
    /// cannot show its files under other ids, the source's own alone.
    pub fn mount(&self, namespace: Option<BorrowedFd<'_>>, attributes: Attributes) -> Result<OwnedFd, MountError> {
        let clone_error = |source| MountError::Clone { path: self.path.clone(), source };
        let with_all = || {
            let tree = mounts::clone_of_tree_at(self.place.as_fd())?;
            mounts::part_tree(tree.as_fd())?;
            if let Some(namespace) = namespace {
                mounts::map_ids_of_tree(tree.as_fd(), namespace)?;
            }
            io::Result::Ok(tree)
        };
        let tree = match with_all() {
            Ok(tree) => tree,
            Err(error) => {
                let tree = mounts::clone_at(self.place.as_fd()).map_err(clone_error)?;
                mounts::part_tree(tree.as_fd()).map_err(clone_error)?;
                if let Some(namespace) = namespace {
                    mounts::map_ids(tree.as_fd(), namespace)
                        .map_err(|source| MountError::Idmap { path: self.path.clone(), source })?;
                }
                tracing::debug!(path = %self.path.display(), %error, "a bind is without what is mounted below it");
                tree
            }
        };
        mounts::restrict_tree(tree.as_fd(), attributes).map_err(clone_error)?;
        Ok(tree)
    }
}

/// User namespaces that map one caller to one container's user, kept by their maps.
#[derive(Default)]
pub(crate) struct IdMaps {
    made: Mutex<HashMap<(IdMap, IdMap), Arc<OwnedFd>>>,
}

/// How many are kept. Each is a kilobyte of the kernel's.
const MOST_MAPS: usize = 256;

impl IdMaps {
    /// The namespace in which the caller is the container's user, and nobody else is anybody.
    pub fn of(&self, seen: Seen) -> Result<Arc<OwnedFd>, MountError> {
        let one = |inside, outside| IdMap { inside, outside, length: 1 };
        let (users, groups) = (one(seen.caller.0, seen.user.0), one(seen.caller.1, seen.user.1));
        let mut made = lock(&self.made);
        if let Some(namespace) = made.get(&(users, groups)) {
            return Ok(Arc::clone(namespace));
        }
        let namespace =
            mounts::user_namespace(users, groups).map_err(|source| MountError::Map { uid: seen.caller.0, source })?;
        if made.len() >= MOST_MAPS {
            // mounts that were made with them keep what they need
            made.clear();
        }
        let namespace = Arc::new(namespace);
        made.insert((users, groups), Arc::clone(&namespace));
        Ok(namespace)
    }
}
