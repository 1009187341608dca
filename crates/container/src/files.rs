//! Files of containers, in and out: `sampan cp`.
//!
//! A container's root is held by descriptor: that of its first process while it runs, else its layers mounted for the
//! moment. Nothing enters the container or runs anything of it (CVE-2019-14271), every path is resolved below that
//! descriptor (`below`), and it is walked by a thread that is the container's root for file systems and keeps of root's
//! power only what it takes to be that: a bind of somebody else's files shows no more than to the container.
//!
//! What is copied is a tar archive, streamed in pieces: neither side ever holds a file. A side that does not go on for
//! `STALL` is given up, and so is a copy that takes `LONGEST`, or outlives the daemon: a container that does not run
//! cannot be started meanwhile.

mod below;
mod pack;
mod unpack;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::thread::CapabilitySet;
use sampan_model::view::{FileKind, FileStatus};
use sampan_model::{ContainerId, IdRange, MountSource};
use sampan_runtime::mounts::{self, Attributes, FileRights, IdMap};
use tokio::sync::{mpsc, oneshot};

pub use self::pack::{Owners, Pack};
pub use self::unpack::{Become, Unpack};
use crate::containers::{Container, Inner, lock};
use crate::{ContainerError, ContainerRecord, Containers};

/// How long the other side may take for the next piece.
const STALL: Duration = Duration::from_secs(60);
/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// How often it is looked whether the daemon stops.
const LOOK: Duration = Duration::from_millis(500);
/// The longest piece.
const PIECE: usize = 64 << 10;
/// Pieces on their way.
const PIECES: usize = 8;
/// The longest path.
const LONGEST_PATH: usize = 4096;

/// Files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path that leads nowhere, or to nothing that can be copied.
    #[error("find {path:?} in the container")]
    Path {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something cannot be read.
    #[error("copy {name}")]
    Read {
        /// Its name in the archive.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something cannot be made.
    #[error("make {name}")]
    Write {
        /// Its name in the archive.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is none, broke off, or nobody took it.
    #[error("copy as a tar archive")]
    Stream(#[source] io::Error),
    /// Too many entries.
    #[error("the archive has more than {0} entries")]
    TooMany(usize),
    /// Directories in directories in directories.
    #[error("its directories are more than {0} deep")]
    TooDeep(usize),
}

/// A container's files, as they are seen while this is held.
struct View {
    /// Its root, or that of the volume that the path is in.
    root: OwnedFd,
    /// The path below that.
    path: Vec<u8>,
    ids: IdRange,
}

impl Containers {
    /// What a path in a container is; with `follow`, what it leads to where it is a link.
    ///
    /// # Errors
    /// There is no such container or path.
    pub async fn file_status(
        &self,
        id: &ContainerId,
        path: PathBuf,
        follow: bool,
    ) -> Result<FileStatus, ContainerError> {
        let id = id.clone();
        self.blocking("looking at a file", move |inner| {
            inner.with_files(&*inner.get(&id)?, &path, |view| view.status(follow))
        })
        .await
    }

    /// A path of a container as a tar archive, in pieces. It is under its own last name in there. The last piece is an
    /// empty one: without that, or with an error, the archive is not whole.
    ///
    /// # Errors
    /// There is no such container or path.
    pub async fn read_files(
        &self,
        id: &ContainerId,
        path: PathBuf,
        follow: bool,
    ) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, ContainerError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (begun, has_begun) = oneshot::channel();
        let (id, runtime) = (id.clone(), tokio::runtime::Handle::current());
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            // whoever comes first takes it: the first piece, or what failed before there was one
            let begun = Mutex::new(Some(begun));
            let failures = sender.clone();
            let packed = inner.get(&id).and_then(|container| {
                inner.with_files(&container, &path, |view| {
                    let source = view.find(follow)?;
                    let pack = Pack { owners: Owners::Inside(view.ids), refuse_kernel: true };
                    let wait = Wait::new(&inner, runtime);
                    let pieces = Pieces { sender, wait, piece: Vec::with_capacity(PIECE), begun: &begun };
                    pack.pack(&source, view.name(), pieces)?.end().map_err(FilesError::Stream)
                })
            });
            if let Err(error) = packed {
                match lock(&begun).take() {
                    Some(begun) => drop(begun.send(Err(error))),
                    None => {
                        tracing::debug!(%id, %error, "an archive of a container's files broke off");
                        drop(failures.try_send(Err(io::Error::other(crate::start::with_sources(&error)))));
                    }
                }
            }
        });
        has_begun.await.unwrap_or(Err(ContainerError::Stopping("copying files")))?;
        Ok(receiver)
    }

    /// Unpacks a tar archive, which comes in pieces, in a directory of a container.
    ///
    /// # Errors
    /// There is no such container or directory, the archive is none, or something in it cannot be made; what was made
    /// before that stays.
    pub async fn write_files(
        &self,
        id: &ContainerId,
        directory: PathBuf,
        pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    ) -> Result<(), ContainerError> {
        let (id, runtime) = (id.clone(), tokio::runtime::Handle::current());
        self.blocking("copying files", move |inner| {
            inner.with_files(&*inner.get(&id)?, &directory, |view| {
                let archive = Archived { pieces, wait: Wait::new(inner, runtime), piece: Vec::new(), at: 0 };
                let status = view.status(true)?;
                if status.kind != FileKind::Directory {
                    let source = io::Error::from(io::ErrorKind::NotADirectory);
                    return Err(FilesError::Path { path: String::from_utf8_lossy(&view.path).into_owned(), source });
                }
                let owners = Become::Inside(view.ids);
                let unpack = Unpack { root: &view.root, at: &view.path, rename: None, owners, refuse_kernel: true };
                unpack.unpack(archive).map(drop)
            })
        })
        .await
    }
}

impl Inner {
    /// Does something with a container's files, as its root.
    fn with_files<T: Send>(
        &self,
        container: &Container,
        path: &Path,
        work: impl FnOnce(&View) -> Result<T, FilesError> + Send,
    ) -> Result<T, ContainerError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > LONGEST_PATH || bytes.contains(&0) {
            let source = io::Error::from(io::ErrorKind::InvalidFilename);
            return Err(FilesError::Path { path: path.display().to_string(), source }.into());
        }
        // a container that does not run is not started while its root is mounted here
        let turn = lock(&container.turn);
        // what is written here may come when the container has ended: no other is to have it
        drop(lock(&container.root).take());
        let record = container.record();
        // files that are not in use are shown through ids of its own, whichever it runs with
        let ids = match record.state.pid {
            Some(_) => self.ids_of(&record),
            None => self.block().server_ids(record.server_index),
        };
        let (view, _turn) = match record.state.pid {
            Some(pid) => {
                drop(turn);
                (View { root: root_of(pid, ids)?, path: bytes.to_vec(), ids }, None)
            }
            None => (self.mounted(&record, bytes, ids)?, Some(turn)),
        };
        let rights = FileRights { uid: ids.start, gid: ids.start, groups: &[], capabilities: RIGHTS };
        let done = rights.run(|| work(&view));
        Ok(done.map_err(|source| ContainerError::Io { what: "take on the rights of a container".into(), source })??)
    }

    /// The files of a container that does not run: those of a volume where the path is in one, else its own.
    fn mounted(&self, record: &ContainerRecord, path: &[u8], ids: IdRange) -> Result<View, ContainerError> {
        let io = |what: &str, source| ContainerError::Io { what: what.to_owned(), source };
        let map = IdMap { inside: 0, outside: ids.start, length: ids.length };
        let userns = mounts::user_namespace(map, map).map_err(|source| io("make a user namespace", source))?;
        if let Some((data, rest, read_only)) = self.volume_at(record, path) {
            let attributes = Attributes::MOUNT_ATTR_NODEV
                | if read_only { Attributes::MOUNT_ATTR_RDONLY } else { Attributes::empty() };
            let root = mounts::mapped_directory(&data, Some(userns.as_fd()), attributes);
            return Ok(View { root: root.map_err(|source| io("mount a volume", source))?, path: rest, ids });
        }
        let images = &self.foundation.images;
        let image = images.image(&record.spec.image)?;
        let layers = image.layers.iter().rev().map(|layer| images.layers().ensure(layer, &**images.blobs()));
        let layers = layers.collect::<Result<Vec<PathBuf>, _>>()?;
        let lowers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let root = self.open_upper(record)?.mount(&self.roots.places(), &lowers, userns.as_fd(), ids)?;
        if record.spec.read_only {
            mounts::restrict_tree(root.as_fd(), Attributes::MOUNT_ATTR_RDONLY)
                .map_err(|source| io("make the root file system read-only", source))?;
        }
        Ok(View { root, path: path.to_vec(), ids })
    }

    /// The volume that a path is in, by the words alone: its files, the path below it, and whether it is read-only.
    fn volume_at(&self, record: &ContainerRecord, path: &[u8]) -> Option<(PathBuf, Vec<u8>, bool)> {
        let wanted: Vec<&[u8]> = below::parts(path).collect();
        let mut best: Option<(usize, PathBuf, bool)> = None;
        for mount in &record.spec.mounts {
            let MountSource::Volume { name } = &mount.source else { continue };
            let place: Vec<&[u8]> = below::parts(mount.target.as_bytes()).collect();
            // a name may have become somebody else's since: their files are not this container's
            if self.foundation.volumes.get(name, &record.spec.owner).is_err() {
                continue;
            }
            let data = self.foundation.volumes.path(name);
            if wanted.starts_with(&place) && best.as_ref().is_none_or(|best| best.0 < place.len()) && data.is_dir() {
                best = Some((place.len(), data, mount.read_only));
            }
        }
        best.map(|(length, data, read_only)| (data, wanted[length..].join(&b"/"[..]), read_only))
    }
}

/// What container root may do to files, and nothing beside: no process is looked into by way of `/proc`, nothing is said
/// of the kernel.
const RIGHTS: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// The root of a container's first process, if it is that: whose ids these are.
fn root_of(pid: u32, ids: IdRange) -> Result<OwnedFd, ContainerError> {
    let open = || -> io::Result<OwnedFd> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // of one process for ever, whoever gets its number next
        let process = rustix::fs::openat(CWD, format!("/proc/{pid}"), directory, Mode::empty())?;
        let root = rustix::fs::openat(&process, c"root", directory, Mode::empty())?;
        let map = rustix::fs::openat(&process, c"uid_map", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(map).take(4096).read_to_string(&mut text)?;
        let outside = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u32>().ok());
        if outside != Some(ids.start) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(root)
    };
    open().map_err(|source| ContainerError::Io { what: format!("open the root of process {pid}"), source })
}

impl View {
    fn find(&self, follow: bool) -> Result<OwnedFd, FilesError> {
        // what ends in a slash, or in a dot, is a directory, wherever its last name leads
        let ends_open = self.path.ends_with(b"/") || self.path.ends_with(b"/.");
        let flags = if follow || ends_open { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let find = || {
            let found = below::open(&self.root, &self.path, flags)?;
            below::refuse_kernel(&found)?;
            Ok(found)
        };
        find().map_err(|source| FilesError::Path { path: String::from_utf8_lossy(&self.path).into_owned(), source })
    }

    /// What it is called in an archive.
    fn name(&self) -> &[u8] {
        below::parts(&self.path).next_back().filter(|name| *name != b"..").unwrap_or(b".")
    }

    fn status(&self, follow: bool) -> Result<FileStatus, FilesError> {
        let found = self.find(follow)?;
        let failed = |errno: rustix::io::Errno| FilesError::Path {
            path: String::from_utf8_lossy(&self.path).into_owned(),
            source: errno.into(),
        };
        let stat = rustix::fs::fstat(&found).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        let link = match kind {
            FileKind::Link => Some(rustix::fs::readlinkat(&found, c"", Vec::new()).map_err(failed)?),
            _ => None,
        };
        Ok(FileStatus {
            name: String::from_utf8_lossy(self.name()).into_owned(),
            kind,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            link_target: link.map(|target| target.to_string_lossy().into_owned()),
        })
    }
}

/// For the other side of an archive, on a thread that may wait.
struct Wait<'a> {
    stopping: &'a AtomicBool,
    runtime: tokio::runtime::Handle,
    since: Instant,
}

impl<'a> Wait<'a> {
    fn new(inner: &'a Inner, runtime: tokio::runtime::Handle) -> Self {
        Self { stopping: &inner.stopping, runtime, since: Instant::now() }
    }

    /// Waits for what `next` gives, which may be asked again where it was given up.
    fn until<T>(&self, mut next: impl AsyncFnMut() -> T) -> io::Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < STALL && self.since.elapsed() < LONGEST {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(io::Error::other("the daemon is stopping"));
            }
            if let Ok(done) = self.runtime.block_on(async { tokio::time::timeout(LOOK, next()).await }) {
                return Ok(done);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// An archive on its way out.
struct Pieces<'a> {
    begun: &'a Mutex<Option<oneshot::Sender<Result<(), ContainerError>>>>,
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
    wait: Wait<'a>,
    piece: Vec<u8>,
}

impl Pieces<'_> {
    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Vec::new())
    }

    fn send(&mut self, piece: Vec<u8>) -> io::Result<()> {
        if let Some(begun) = lock(self.begun).take() {
            // nobody waits any more: the piece finds that out
            let _ = begun.send(Ok(()));
        }
        let room = self.wait.until(async || self.sender.reserve().await)?;
        room.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?.send(Ok(piece));
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(piece)
    }
}

/// An archive on its way in.
struct Archived<'a> {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    wait: Wait<'a>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Archived<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.wait.until(async || self.pieces.recv().await)? {
                Some(piece) => (self.piece, self.at) = (piece?, 0),
                None => return Ok(0),
            }
        }
        let rest = &self.piece[self.at..];
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
