//! What a new volume begins with: what the image has at the place where it is mounted first, as Docker has it.
//!
//! Copied with owners, modes, times and extended attributes, file by file and without recursion. Where the image has
//! nothing there, the volume is an empty directory of the container's user: an app that is not root could else not use it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use sampan_runtime::rootfs::{self, RootfsError};

/// The most files and directories that a volume begins with.
const MOST_ENTRIES: usize = 1_000_000;
/// The deepest they may be.
const DEEPEST: usize = 200;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A new volume could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The image's files could not be mounted.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// Too many files.
    #[error("the image has more than {MOST_ENTRIES} files there")]
    TooMany,
    /// Directories in directories in directories.
    #[error("the image's directories there are more than {DEEPEST} deep")]
    TooDeep,
    /// Something could not be copied.
    #[error("copy {name}")]
    Copy {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where a new volume's first files come from.
pub(crate) struct Seed<'a> {
    /// The image's layers, the topmost first.
    pub lowers: &'a [&'a Path],
    /// Where the volume is mounted in the container.
    pub target: &'a str,
    /// The container's user and group, by the ids inside.
    pub user: (u32, u32),
}

/// A directory that is being copied.
struct Open {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    names: Vec<CString>,
}

impl Seed<'_> {
    /// Fills an empty directory.
    pub fn fill(&self, into: &Path) -> Result<(), SeedError> {
        let root = rootfs::mount_layers(self.lowers)?;
        let top = |errno: Errno| SeedError::Copy { name: self.target.to_owned(), source: errno.into() };
        let to = rustix::fs::openat(CWD, into, DIRECTORY, Mode::empty()).map_err(top)?;
        let path = self.target.trim_start_matches('/');
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let (uid, gid) = self.user;
                rustix::fs::fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(top)?;
                return rustix::fs::fchmod(&to, Mode::from_raw_mode(0o755)).map_err(top);
            }
            other => other.map_err(top)?,
        };
        copy_tree(from, to.try_clone().map_err(|source| SeedError::Copy { name: self.target.into(), source })?)?;
        // it must not come to be half there after a power cut
        rustix::fs::syncfs(&to).map_err(top)
    }
}

fn copy_tree(from: OwnedFd, to: OwnedFd) -> Result<(), SeedError> {
    let mut entries = 0;
    let mut open = vec![begin(from, to).map_err(|source| SeedError::Copy { name: "its directory".into(), source })?];
    while let Some(directory) = open.last_mut() {
        let Some(name) = directory.names.pop() else {
            // last of all, since what is made in a directory changes its time
            let Some(Open { from, to, stat, .. }) = open.pop() else { break };
            apply(&from, &to, &stat)
                .map_err(|source| SeedError::Copy { name: "a directory's owner".into(), source })?;
            continue;
        };
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(SeedError::TooMany);
        }
        let failed = |source| SeedError::Copy { name: name.to_string_lossy().into_owned(), source };
        if let Some(below) = copy_one(directory, &name).map_err(failed)? {
            open.push(below);
            if open.len() > DEEPEST {
                return Err(SeedError::TooDeep);
            }
        }
    }
    Ok(())
}

fn begin(from: OwnedFd, to: OwnedFd) -> io::Result<Open> {
    let stat = rustix::fs::fstat(&from)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&from)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(Open { from, to, stat, names })
}

/// Copies one entry; a directory is begun.
fn copy_one(directory: &Open, name: &CString) -> io::Result<Option<Open>> {
    let Open { from, to, .. } = directory;
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let open = |of: &OwnedFd| rustix::fs::openat(of, name, DIRECTORY, Mode::empty());
            return begin(open(from)?, open(to)?).map(Some);
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
            let mut made = File::from(rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut made)?;
            apply(&source, &made, &stat)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
            own(to, name, &stat)?;
        }
        FileType::Fifo => {
            rustix::fs::mknodat(to, name, FileType::Fifo, Mode::empty(), 0)?;
            own(to, name, &stat)?;
            rustix::fs::chmodat(to, name, mode_of(&stat), AtFlags::empty())?;
        }
        // sockets are dead without whoever listened, and no device is let into a container
        _ => {}
    }
    Ok(None)
}

/// Owner and time of what is not opened.
fn own(directory: &OwnedFd, name: &CString, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner, mode, attributes and time of what is open.
fn apply(from: &impl AsFd, to: &impl AsFd, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    // after the owner, whose change takes the setuid bit away
    rustix::fs::fchmod(to, mode_of(stat))?;
    let mut names = vec![0; LONGEST_ATTRIBUTES];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0; LONGEST_ATTRIBUTES];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        // what overlayfs says to itself is not the image's
        if name.starts_with(b"trusted.") {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`.
const LONGEST_ATTRIBUTES: usize = 64 << 10;

fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: mtime, last_modification: mtime }
}
