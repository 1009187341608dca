//! Making a directory tree from names that a stranger chose.
//!
//! Each operation takes a directory's path and a name in it. The directory is opened by `openat2` with
//! `RESOLVE_IN_ROOT`: the kernel takes the tree for the root, wherever `..` and symbolic links lead (openat2(2); Linux
//! 5.6). The name is one part, and its own operation never follows it. So there is no order of entries, and no link
//! among them, by which anything outside of the tree is touched.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry_path::EntryPath;
use crate::write::TIME;

/// The most bytes of names of directories that are kept to set their times in the end.
const MOST_NAME_BYTES: usize = 64 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const OPAQUE: &str = "trusted.overlay.opaque";

/// What a made thing is like.
#[derive(Debug)]
pub(crate) struct Metadata<'a> {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// For files and directories.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// A tree that is being made.
pub(crate) struct Tree {
    root: Rc<OwnedFd>,
    /// The directory of the last entry: most entries share it with the one before.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// The times of directories, which change as long as things are made in them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    name_bytes: usize,
    buffer: Vec<u8>,
    owners: Owners,
}

/// Whose the things of a tree are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Those that the layer says: only root can give files away.
    Kept,
    /// The caller, who is not root. File capabilities are left out with them.
    Caller,
}

/// What has a name already.
enum Found {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

impl Tree {
    /// Starts at a directory that is there.
    pub(crate) fn open(root: &Path, owners: Owners) -> io::Result<Self> {
        let root = Rc::new(fs::open(root, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
        Ok(Self { root, last: None, times: Vec::new(), name_bytes: 0, buffer: vec![0; 128 << 10], owners })
    }

    /// Takes away what has a name, with all below it.
    pub(crate) fn remove(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let parent = match self.open_directory(parent) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        self.last = None;
        match look(&parent, name)? {
            Found::Nothing => Ok(()),
            Found::Whiteout | Found::Other => Ok(fs::unlinkat(&parent, name, AtFlags::empty())?),
            // std's own is by descriptors, and follows no link
            Found::Directory => std::fs::remove_dir_all(of_descriptor(&parent).join(OsStr::from_bytes(name))),
        }
    }

    /// The names in a directory; none where there is no such directory.
    pub(crate) fn names(&self, directory: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let directory = match self.open_directory(directory) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        std::fs::read_dir(of_descriptor(&directory))?.map(|entry| Ok(entry?.file_name().into_vec())).collect()
    }

    /// Says what the root is like.
    pub(crate) fn root(&mut self, metadata: &Metadata<'_>) -> io::Result<()> {
        self.apply(&self.root, metadata)?;
        self.keep_time(b"", metadata.mtime)
    }

    /// Makes a directory, or changes what one is like that is there.
    pub(crate) fn directory(
        &mut self,
        path: &EntryPath,
        parent: &[u8],
        name: &[u8],
        metadata: &Metadata<'_>,
    ) -> io::Result<()> {
        let parent = self.parent(parent)?;
        let mut hides_lower = false;
        if let Err(errno) = fs::mkdirat(&*parent, name, Mode::RWXU) {
            let found = if errno == Errno::EXIST { look(&parent, name)? } else { return Err(errno.into()) };
            if !matches!(found, Found::Directory) {
                hides_lower = self.clear(&parent, name)?;
                fs::mkdirat(&*parent, name, Mode::RWXU)?;
            }
        }
        let directory = fs::openat(&*parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        if hides_lower {
            set_opaque(&directory)?;
        }
        self.apply(&directory, metadata)?;
        self.keep_time(path.as_bytes(), metadata.mtime)
    }

    /// Makes a file of all that `data` has, and says how much that was.
    pub(crate) fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        metadata: &Metadata<'_>,
        data: &mut impl Read,
    ) -> io::Result<u64> {
        let parent = self.parent(parent)?;
        let file = self.replace(&parent, name, || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut file = File::from(file);
        let mut copied = 0;
        loop {
            match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => {
                    file.write_all(&self.buffer[..read])?;
                    copied += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let file = OwnedFd::from(file);
        self.apply(&file, metadata)?;
        fs::futimens(&file, &times(metadata.mtime))?;
        Ok(copied)
    }

    /// Makes a symbolic link, to wherever.
    pub(crate) fn symlink(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        metadata: &Metadata<'_>,
    ) -> io::Result<()> {
        let parent = self.parent(parent)?;
        self.replace(&parent, name, || fs::symlinkat(target, &*parent, name))?;
        self.finish_node(&parent, name, metadata)
    }

    /// Makes a FIFO.
    pub(crate) fn fifo(&mut self, parent: &[u8], name: &[u8], metadata: &Metadata<'_>) -> io::Result<()> {
        let parent = self.parent(parent)?;
        self.replace(&parent, name, || fs::mknodat(&*parent, name, FileType::Fifo, Mode::empty(), 0))?;
        // the umask cuts what mknod is given; the name is ours and no link
        fs::chmodat(&*parent, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())?;
        self.finish_node(&parent, name, metadata)
    }

    /// Gives a thing of this tree, in the directory and of the name `to`, another name.
    pub(crate) fn hard_link(&mut self, parent: &[u8], name: &[u8], to: (&[u8], &[u8])) -> io::Result<()> {
        let target = self.open_directory(to.0)?;
        let parent = self.parent(parent)?;
        let same = look_same(&parent, name, &target, to.1)?;
        if same {
            return Ok(()); // clearing the name first would take away the last one
        }
        // without AT_SYMLINK_FOLLOW a link to a symbolic link is a link to itself
        self.replace(&parent, name, || fs::linkat(&target, to.1, &*parent, name, AtFlags::empty()))
    }

    /// Hides a name of lower layers. What this layer has of that name stays, and hides all of it.
    pub(crate) fn white_out(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let parent = self.parent(parent)?;
        match look(&parent, name)? {
            Found::Nothing => {
                Ok(fs::mknodat(&*parent, name, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))?)
            }
            Found::Directory => set_opaque(&fs::openat(&*parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?),
            Found::Whiteout | Found::Other => Ok(()),
        }
    }

    /// Hides all that lower layers have in a directory.
    pub(crate) fn make_opaque(&mut self, directory: &[u8]) -> io::Result<()> {
        let directory = self.parent(directory)?;
        set_opaque(&directory)
    }

    /// Sets the times of directories, last of all.
    pub(crate) fn finish(self) -> io::Result<()> {
        for (path, time) in &self.times {
            match open_below(&self.root, path, DIRECTORY | OFlags::NOFOLLOW) {
                Ok(directory) => fs::futimens(&directory, &times(*time))?,
                // another entry has taken its place since
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn open_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_below(&self.root, path, DIRECTORY)
    }

    /// Opens the directory of an entry, and makes it where it is not there.
    fn parent(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(directory.clone());
        }
        let directory = match self.open_directory(path) {
            Ok(directory) => Rc::new(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path)?,
            Err(errno) => return Err(errno.into()),
        };
        self.last = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    fn make_directories(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        let mut directory = self.root.clone();
        let mut start = 0;
        for end in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]) {
            let (prefix, name) = (&path[..end], &path[start..end]);
            start = end + 1;
            directory = match self.open_directory(prefix) {
                Ok(directory) => Rc::new(directory),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let hides_lower = matches!(look(&directory, name)?, Found::Whiteout);
                    if hides_lower {
                        self.clear(&directory, name)?;
                    }
                    // a file or a link to nowhere in its place stays: EEXIST
                    fs::mkdirat(&*directory, name, Mode::RWXU)?;
                    let made = fs::openat(&*directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
                    if hides_lower {
                        set_opaque(&made)?;
                    }
                    let mtime = (TIME.cast_signed(), 0);
                    self.apply(&made, &Metadata { uid: 0, gid: 0, mode: 0o755, mtime, xattrs: Vec::new() })?;
                    self.keep_time(prefix, mtime)?;
                    Rc::new(made)
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(directory)
    }

    /// Makes a thing that is no directory, in the place of what has its name.
    fn replace<T>(&mut self, parent: &OwnedFd, name: &[u8], make: impl Fn() -> rustix::io::Result<T>) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    /// Takes away what has a name, and says whether it was a whiteout. A directory must be empty.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        let found = look(parent, name)?;
        match found {
            Found::Nothing => return Ok(false),
            Found::Directory => fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?,
            Found::Whiteout | Found::Other => fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        self.last = None; // it, or a link on the way to it, may be what has gone
        Ok(matches!(found, Found::Whiteout))
    }

    /// Sets owner and time of what is not opened.
    fn finish_node(&self, parent: &OwnedFd, name: &[u8], metadata: &Metadata<'_>) -> io::Result<()> {
        if self.owners == Owners::Kept {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(fs::utimensat(parent, name, &times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Owner first: the kernel takes setuid, setgid and file capabilities away when the owner changes.
    fn apply(&self, fd: &OwnedFd, metadata: &Metadata<'_>) -> io::Result<()> {
        if self.owners == Owners::Kept {
            fs::fchown(fd, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(metadata.mode))?;
        for (name, value) in &metadata.xattrs {
            match fs::fsetxattr(fd, *name, value, XattrFlags::empty()) {
                Err(Errno::PERM) if self.owners == Owners::Caller => {}
                // tmpfs before 6.6 has no user.*; nothing that runs relies on those
                Err(Errno::OPNOTSUPP) if name.starts_with(b"user.") => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn keep_time(&mut self, path: &[u8], mtime: (i64, u32)) -> io::Result<()> {
        self.name_bytes += path.len();
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(io::Error::other(format!(
                "the names of its directories have more than {MOST_NAME_BYTES} bytes"
            )));
        }
        self.times.push((path.to_vec(), mtime));
        Ok(())
    }
}

/// Opens a path below a root that it cannot leave, links included.
pub(crate) fn open_below(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename somewhere on the machine while a ".." of a link was resolved (openat2(2)); it ends by itself
    let mut tries = 0;
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < 128 => tries += 1,
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Whether a file is overlayfs's mark that lower layers' things of its name are gone.
pub(crate) fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == fs::makedev(0, 0)
}

/// Whether a directory hides those of lower layers.
pub(crate) fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    fs::fgetxattr(directory, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

fn look(parent: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_whiteout(&stat) => Ok(Found::Whiteout),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(Found::Directory),
        Ok(_) => Ok(Found::Other),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(errno) => Err(errno.into()),
    }
}

fn look_same(parent: &OwnedFd, name: &[u8], other_parent: &OwnedFd, other: &[u8]) -> io::Result<bool> {
    let stat = |parent, name| match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(io::Error::from(errno)),
    };
    Ok(stat(parent, name)?.is_some_and(|one| stat(other_parent, other).is_ok_and(|two| two == Some(one))))
}

/// A directory's path that leads to no other, whatever is renamed.
fn of_descriptor(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
