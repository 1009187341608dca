//! A file or directory tree → a tar archive, as a stream.
//!
//! It may be a stranger's tree, which changes while it is read: every step is by descriptor and follows no link, a file
//! that grows or shrinks meanwhile is cut or filled up to the size that was announced, and what is no file (a socket, a
//! device) is left out.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use sampan_model::IdRange;
use tar::{Builder, EntryType, Header};

use super::FilesError;
use super::below;

/// The deepest directories.
const DEEPEST: usize = 500;
/// How many files with several names are remembered. Those beyond are packed once a name.
const MOST_LINKS: usize = 65_536;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Whose the files in an archive are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they are here.
    Kept,
    /// As a container sees them whose ids are these here.
    Inside(IdRange),
    /// Root's, all of them.
    Root,
}

impl Owners {
    fn id(self, id: u32) -> u32 {
        const NOBODY: u32 = 65_534;
        match self {
            Self::Kept => id,
            Self::Inside(ids) => id.checked_sub(ids.start).filter(|id| *id < ids.length).unwrap_or(NOBODY),
            Self::Root => 0,
        }
    }
}

/// How something is packed.
#[derive(Debug, Clone, Copy)]
pub struct Pack {
    /// Whose the files are.
    pub owners: Owners,
    /// What is in file systems of the kernel's own is refused.
    pub refuse_kernel: bool,
}

/// What has begun.
struct Packing<W: Write> {
    how: Pack,
    archive: Builder<W>,
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory that is being packed.
struct Open {
    directory: OwnedFd,
    path: Vec<u8>,
    names: Vec<CString>,
}

impl Pack {
    /// Packs what `source` is (an `O_PATH` descriptor, of a link itself too), under `name`, into `out`; gives `out` back.
    ///
    /// # Errors
    /// Something cannot be read, or `out` not be written.
    pub fn pack<W: Write>(self, source: &OwnedFd, name: &[u8], out: W) -> Result<W, FilesError> {
        let mut archive = Builder::new(out);
        archive.sparse(false);
        let mut packing = Packing { how: self, archive, links: HashMap::new() };
        let failed = |source| FilesError::Read { name: String::from_utf8_lossy(name).into_owned(), source };
        let stat = rustix::fs::fstat(source).map_err(|errno| failed(errno.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = rustix::fs::openat(source, c".", DIRECTORY, Mode::empty());
                let directory = directory.map_err(|errno| failed(errno.into()))?;
                packing.tree(directory, name)?;
            }
            FileType::RegularFile => {
                // by its own link in our /proc: the very file that was found
                let link = format!("/proc/self/fd/{}", source.as_raw_fd());
                let file = rustix::fs::open(link, FILE - OFlags::NOFOLLOW, Mode::empty());
                packing.file(file.map_err(|errno| failed(errno.into()))?, name).map_err(failed)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(source, c"", Vec::new()).map_err(|errno| failed(errno.into()))?;
                packing.link(&stat, name, target.to_bytes(), EntryType::Symlink).map_err(failed)?;
            }
            _ => {
                let kind = io::Error::new(io::ErrorKind::Unsupported, "it is no file, directory or link");
                return Err(failed(kind));
            }
        }
        packing.archive.into_inner().map_err(FilesError::Stream)
    }
}

impl<W: Write> Packing<W> {
    fn tree(&mut self, directory: OwnedFd, name: &[u8]) -> Result<(), FilesError> {
        let failed = |path: &[u8]| {
            let name = String::from_utf8_lossy(path).into_owned();
            move |source| FilesError::Read { name, source }
        };
        let mut open = vec![self.enter(directory, name.to_vec()).map_err(failed(name))?];
        while let Some(here) = open.last_mut() {
            let Some(name) = here.names.pop() else {
                open.pop();
                continue;
            };
            let path = [&here.path, &b"/"[..], name.to_bytes()].concat();
            if let Some(directory) = self.entry(&here.directory, &name, &path).map_err(failed(&path))? {
                if open.len() >= DEEPEST {
                    return Err(FilesError::TooDeep(DEEPEST));
                }
                open.push(self.enter(directory, path.clone()).map_err(failed(&path))?);
            }
        }
        Ok(())
    }

    fn enter(&mut self, directory: OwnedFd, path: Vec<u8>) -> io::Result<Open> {
        self.check(&directory)?;
        let stat = rustix::fs::fstat(&directory)?;
        let mut header = self.header(&stat, EntryType::Directory);
        header.set_size(0);
        self.attributes(&directory)?;
        self.archive.append_data(&mut header, as_path(&[&path, &b"/"[..]].concat()), io::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        // the last is packed first
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Open { directory, path, names })
    }

    /// Packs what has this name, or opens it where it is a directory. What has gone meanwhile is gone.
    fn entry(&mut self, directory: &OwnedFd, name: &CString, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Some(rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())?)),
            FileType::RegularFile => self.file(rustix::fs::openat(directory, name, FILE, Mode::empty())?, path)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                self.link(&stat, path, target.to_bytes(), EntryType::Symlink)?;
            }
            FileType::Fifo => {
                let mut header = self.header(&stat, EntryType::Fifo);
                header.set_size(0);
                self.archive.append_data(&mut header, as_path(path), io::empty())?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn file(&mut self, file: OwnedFd, path: &[u8]) -> io::Result<()> {
        self.check(&file)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(()); // something else has come into its place
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode).cloned() {
                return self.link(&stat, path, &first, EntryType::Link);
            }
            if self.links.len() < MOST_LINKS {
                self.links.insert(inode, path.to_vec());
            }
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = self.header(&stat, EntryType::Regular);
        header.set_size(size);
        self.attributes(&file)?;
        let content = File::from(file).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, as_path(path), content)
    }

    fn link(&mut self, stat: &Stat, path: &[u8], target: &[u8], kind: EntryType) -> io::Result<()> {
        let mut header = self.header(stat, kind);
        header.set_size(0);
        self.archive.append_link(&mut header, as_path(path), as_path(target))
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(self.how.owners.id(stat.st_uid).into());
        header.set_gid(self.how.owners.id(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header
    }

    /// The attributes that users give files, in pax's notation, for the entry that comes next.
    fn attributes(&mut self, file: impl AsFd) -> io::Result<()> {
        let mut names = vec![0; LONGEST_ATTRIBUTES];
        let Ok(length) = rustix::fs::flistxattr(&file, &mut names) else { return Ok(()) };
        let mut found = Vec::new();
        for name in names[..length].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user.")) {
            let mut value = vec![0; LONGEST_ATTRIBUTES];
            if let (Ok(text), Ok(length)) = (std::str::from_utf8(name), rustix::fs::fgetxattr(&file, name, &mut value))
            {
                value.truncate(length);
                found.push((format!("SCHILY.xattr.{text}"), value));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.archive.append_pax_extensions(found.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    fn check(&self, open: impl AsFd) -> io::Result<()> {
        if self.how.refuse_kernel { below::refuse_kernel(open) } else { Ok(()) }
    }
}

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const LONGEST_ATTRIBUTES: usize = 64 << 10;

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
