//! A tar archive, as a stream → files and directories below a root that no name in it can leave.
//!
//! Archives are strangers' (one that comes from a container, to whoever copies it; one that somebody sends into a
//! container, to the daemon), and so is a container's tree, in which links come and go meanwhile. Each name is resolved by
//! the kernel within the root, directory and last part apart, and the last part is never followed (CVE-2018-15664).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sampan_model::IdRange;
use tar::{Archive, Entry, EntryType};

use super::FilesError;
use super::below::{self, parts};

/// The most entries of an archive.
const MOST_ENTRIES: usize = 10_000_000;
/// The most bytes of names of directories that are kept to set their times in the end.
const MOST_NAME_BYTES: usize = 64 << 20;
/// How much of a file is in memory at once. Pieces of zeros alone become holes.
const PIECE: usize = 64 << 10;

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Become {
    /// Those of whoever unpacks them.
    Mine,
    /// As the archive says.
    Kept,
    /// As the archive says, in a container whose ids are these here.
    Inside(IdRange),
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Unpack<'a> {
    /// What no name leaves.
    pub root: &'a OwnedFd,
    /// The directory in it that names start from.
    pub at: &'a [u8],
    /// Takes the place of each name's first part; where it is empty, that is left out.
    pub rename: Option<&'a [u8]>,
    /// Whose the files become.
    pub owners: Become,
    /// What is in file systems of the kernel's own is refused.
    pub refuse_kernel: bool,
}

struct Unpacking<'a> {
    how: Unpack<'a>,
    /// Modes and times of directories, which are set last.
    directories: HashMap<Vec<u8>, (Mode, i64)>,
    name_bytes: usize,
}

impl Unpack<'_> {
    /// Unpacks it; says how many entries it had.
    ///
    /// # Errors
    /// It is no archive, a name in it leads out, or something cannot be made. What was made before stays.
    pub fn unpack(self, archive: impl Read) -> Result<usize, FilesError> {
        let mut unpacking = Unpacking { how: self, directories: HashMap::new(), name_bytes: 0 };
        let mut archive = Archive::new(archive);
        let mut count = 0;
        for entry in archive.entries().map_err(FilesError::Stream)? {
            let mut entry = entry.map_err(FilesError::Stream)?;
            count += 1;
            if count > MOST_ENTRIES {
                return Err(FilesError::TooMany(MOST_ENTRIES));
            }
            let name = entry.path_bytes().into_owned();
            let failed = |source| FilesError::Write { name: String::from_utf8_lossy(&name).into_owned(), source };
            unpacking.entry(&mut entry, &name).map_err(failed)?;
        }
        unpacking.finish()?;
        Ok(count)
    }
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, name: &[u8]) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = self.path_of(name)?;
        let Some((parent, last)) = split(&path) else {
            // the directory itself that all of it goes to: it is as it is
            return Ok(());
        };
        let directory = self.directory(parent)?;
        match kind {
            EntryType::Directory => {
                match rustix::fs::mkdirat(&directory, last, Mode::RWXU) {
                    Err(Errno::EXIST) if kind_of(&directory, last)? == Some(FileType::Directory) => {}
                    Err(Errno::EXIST) => return Err(refused("a directory cannot take the place of something else")),
                    result => result?,
                }
                self.own(&directory, last, entry)?;
                self.keep(path, entry)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(&directory, last, entry),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| refused("a link to nothing"))?.into_owned();
                clear(&directory, last)?;
                rustix::fs::symlinkat(&*target, &directory, last)?;
                self.own(&directory, last, entry)?;
                let times = times(mtime(entry)?);
                Ok(rustix::fs::utimensat(&directory, last, &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| refused("a link to nothing"))?.into_owned();
                let target = self.path_of(&target)?;
                let (parent, name) = split(&target).ok_or_else(|| refused("a link to a directory"))?;
                let source = below::open(self.how.root, parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
                clear(&directory, last)?;
                // without AT_SYMLINK_FOLLOW a link to a symbolic link is a link to itself
                Ok(rustix::fs::linkat(&source, name, &directory, last, AtFlags::empty())?)
            }
            EntryType::Fifo => {
                clear(&directory, last)?;
                rustix::fs::mknodat(&directory, last, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
                self.own(&directory, last, entry)?;
                Ok(rustix::fs::chmodat(&directory, last, self.mode(entry)?, AtFlags::empty())?)
            }
            _ => Err(refused("devices are not copied")),
        }
    }

    fn file(&self, directory: &OwnedFd, name: &[u8], entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match clear(directory, name) {
            // something is mounted there: it is written to, as nothing can take its place
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                let there = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::openat(directory, name, there, Mode::empty())?
            }
            Err(error) => return Err(error),
            Ok(()) => rustix::fs::openat(directory, name, new, Mode::RUSR | Mode::WUSR)?,
        };
        let attributes = attributes_of(entry)?;
        let (mode, mtime, owner) = (self.mode(entry)?, mtime(entry)?, self.owner(entry)?);
        let mut file = File::from(opened);
        copy(entry, &mut file)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        // after the owner, whose change takes the setuid bit away
        rustix::fs::fchmod(&file, mode)?;
        for (name, value) in attributes {
            match rustix::fs::fsetxattr(&file, &*name, &value, XattrFlags::empty()) {
                // a file system without them: the content is what was asked for
                Err(Errno::OPNOTSUPP) => {}
                result => result?,
            }
        }
        Ok(rustix::fs::futimens(&file, &times(mtime))?)
    }

    /// A name of the archive's as a path below the root.
    fn path_of(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let mut path = self.how.at.to_vec();
        for (at, part) in parts(name).enumerate() {
            if part == b".." {
                return Err(refused("its name leads upwards"));
            }
            let part = if at == 0 { self.how.rename.unwrap_or(part) } else { part };
            if !part.is_empty() {
                path.push(b'/');
                path.extend_from_slice(part);
            }
        }
        Ok(path)
    }

    /// Opens a directory below the root, made where it is missing.
    fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match below::open(self.how.root, path, flags) {
            Err(Errno::NOENT) => self.make(path)?,
            other => other?,
        };
        if self.how.refuse_kernel {
            below::refuse_kernel(&directory)?;
        }
        Ok(directory)
    }

    fn make(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut prefix = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut directory = below::open(self.how.root, b"", flags)?;
        for part in parts(path) {
            prefix.push(b'/');
            prefix.extend_from_slice(part);
            directory = match below::open(self.how.root, &prefix, flags) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
                        Err(Errno::EXIST) => return Err(refused("a symbolic link on the way there leads nowhere")),
                        result => result?,
                    }
                    rustix::fs::openat(&directory, part, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    fn owner(&self, entry: &Entry<'_, impl Read>) -> io::Result<Option<(Uid, Gid)>> {
        let shift = |id: u64| -> io::Result<u32> {
            let id = u32::try_from(id).map_err(|_| refused("its owner is no id"))?;
            match self.how.owners {
                Become::Inside(ids) if id >= ids.length => Err(refused("its owner is beyond the ids of a container")),
                Become::Inside(ids) => Ok(ids.start + id),
                _ => Ok(id),
            }
        };
        if self.how.owners == Become::Mine {
            return Ok(None);
        }
        let header = entry.header();
        Ok(Some((Uid::from_raw(shift(header.uid()?)?), Gid::from_raw(shift(header.gid()?)?))))
    }

    fn own(&self, directory: &OwnedFd, name: &[u8], entry: &Entry<'_, impl Read>) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(entry)? {
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// What becomes somebody's who did not ask for that keeps no bit that lets others act as them.
    fn mode(&self, entry: &Entry<'_, impl Read>) -> io::Result<Mode> {
        let kept = if self.how.owners == Become::Mine { 0o1777 } else { 0o7777 };
        Ok(Mode::from_raw_mode(entry.header().mode()? & kept))
    }

    fn keep(&mut self, path: Vec<u8>, entry: &Entry<'_, impl Read>) -> io::Result<()> {
        self.name_bytes += path.len();
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(refused("the names of its directories have more than 64 MiB"));
        }
        self.directories.insert(path, (self.mode(entry)?, mtime(entry)?));
        Ok(())
    }

    /// Last of all: what is made in a directory changes its time, and its mode may forbid it.
    fn finish(self) -> Result<(), FilesError> {
        for (path, (mode, mtime)) in &self.directories {
            let set = || -> io::Result<()> {
                let Some((parent, last)) = split(path) else { return Ok(()) };
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(self.directory(parent)?, last, flags, Mode::empty())?;
                rustix::fs::fchmod(&directory, *mode)?;
                Ok(rustix::fs::futimens(&directory, &times(*mtime))?)
            };
            set().map_err(|source| FilesError::Write { name: String::from_utf8_lossy(path).into_owned(), source })?;
        }
        Ok(())
    }
}

/// A path's directory and last part.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|&byte| byte == b'/')?;
    let (parent, last) = (&path[..at], &path[at + 1..]);
    (!matches!(last, b"" | b"." | b"..")).then_some((parent, last))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

fn kind_of(directory: impl AsFd, name: &[u8]) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes away what has the name of something that is no directory.
fn clear(directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if kind_of(directory, name)? == Some(FileType::Directory) => {
            Err(refused("it cannot take the place of a directory"))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Copies all of it; whole pieces of zeros are not written, so that what was a hole becomes one.
fn copy(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        length += filled as u64;
        let piece = &buffer[..filled];
        if filled == PIECE && piece.iter().all(|&byte| byte == 0) {
            to.seek(SeekFrom::Current(PIECE as i64))?;
        } else {
            to.write_all(piece)?;
        }
        if filled < PIECE {
            return to.set_len(length);
        }
    }
}

fn attributes_of(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension?;
        if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.")
            && name.starts_with(b"user.")
        {
            found.push((name.to_vec(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn mtime(entry: &Entry<'_, impl Read>) -> io::Result<i64> {
    Ok(i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX))
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
