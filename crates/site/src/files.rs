//! The files below the root, and what of them is sent.
//!
//! # The time of the last change
//! Files in an image all have the same time (1980, so that an image is the same whenever it was made), which says
//! nothing: a browser that asked for what is newer would be told for ever that there is nothing. The time when the
//! server was started would do no better, for two versions of a site come up within one second. Such files have no time;
//! their tag tells all. Files on a volume have theirs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::body::Part;
use crate::cache::{Cache, Identity};
use crate::encoding::{Accepted, Coding};
use crate::kinds::{Kind, kind};

/// The time that all files of an image have: 1 January 1980, in seconds since 1970.
const TIME_OF_IMAGES: i64 = 315_532_800;
/// A larger file's tag is made of what the kernel says of it; reading all of it would keep the first client waiting.
const LARGEST_DIGESTED: u64 = 16 << 20;
/// What is compressed on the way: a smaller file fits into a packet anyway, a larger one takes too long.
const COMPRESSED: std::ops::RangeInclusive<u64> = 1 << 10..=4 << 20;
/// A smaller file is read at once: its head and its bytes then take one way to the disk instead of two.
const SMALL: u64 = 64 << 10;
/// How often a path is resolved again that somebody renamed meanwhile.
const MOST_RACES: usize = 16;

/// The directory that is served.
#[derive(Debug)]
pub(crate) struct Site {
    root: OwnedFd,
    cache: Cache,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file.
    File(Opened),
    /// A directory.
    Directory,
    /// Nothing, or nothing that could be served.
    Nothing,
}

/// A file, open.
#[derive(Debug)]
pub(crate) struct Opened {
    file: Arc<File>,
    identity: Identity,
    modified: Option<SystemTime>,
}

/// A file as it is sent.
#[derive(Debug)]
pub(crate) struct Representation {
    pub(crate) kind: Kind,
    pub(crate) coding: Option<Coding>,
    /// A strong entity tag, with its quotes.
    pub(crate) tag: String,
    /// In whole seconds, where the file has a time.
    pub(crate) modified: Option<SystemTime>,
    pub(crate) length: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(Arc<File>),
    Bytes(Bytes),
}

impl Opened {
    fn content(self) -> io::Result<Content> {
        if self.identity.size > SMALL {
            return Ok(Content::File(self.file));
        }
        let mut bytes = vec![0; self.identity.size as usize];
        FromStart { file: &self.file, at: 0 }.read_exact(&mut bytes)?;
        Ok(Content::Bytes(bytes.into()))
    }
}

impl Representation {
    /// The bytes from `start` to the one before `end`.
    pub(crate) fn part(&self, start: u64, end: u64) -> Part {
        match &self.content {
            Content::File(file) => Part::File { file: Arc::clone(file), at: start, end },
            Content::Bytes(bytes) => Part::Bytes(bytes.slice(start as usize..end as usize)),
        }
    }
}

impl Site {
    /// Opens the directory; keeps at most so many bytes of compressed files.
    pub(crate) fn open(root: &Path, compressed_bytes: usize) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root, cache: Cache::new(compressed_bytes) })
    }

    /// What is at a path below the root.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Found> {
        // a pipe must not be waited for; what is no file is not read
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        let mut races = 0;
        let fd = loop {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Ok(fd) => break fd,
                Err(Errno::AGAIN) if races < MOST_RACES => races += 1,
                Err(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::XDEV
                    | Errno::LOOP
                    | Errno::NAMETOOLONG
                    | Errno::ACCESS
                    | Errno::NXIO
                    | Errno::INVAL
                    | Errno::PERM,
                ) => return Ok(Found::Nothing),
                Err(error) => return Err(error.into()),
            }
        };
        let file = File::from(fd);
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Found::Directory);
        }
        if !metadata.is_file() {
            return Ok(Found::Nothing);
        }
        let ns = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        };
        let seconds = u64::try_from(metadata.mtime()).ok().filter(|_| metadata.mtime() > TIME_OF_IMAGES);
        // a time to come would make every answer newer than what the client has
        let modified = seconds.map(|seconds| (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).min(now()));
        Ok(Found::File(Opened { file: Arc::new(file), identity, modified }))
    }

    /// The best representation of a file among those that are accepted; `None` where none is.
    pub(crate) fn represent(
        &self,
        path: &[u8],
        opened: Opened,
        accepted: &Accepted,
    ) -> io::Result<Option<Representation>> {
        let kind = kind(path);
        if !kind.is_compressible {
            return self.plain(kind, opened).map(Some);
        }
        for coding in &accepted.codings {
            let Some(coding) = *coding else { return self.plain(kind, opened).map(Some) };
            let beside = [path, coding.suffix().as_bytes()].concat();
            if let Found::File(beside) = self.find(&beside)? {
                return self.compressed_before(kind, coding, beside, opened.modified).map(Some);
            }
            if coding == Coding::Gzip
                && COMPRESSED.contains(&opened.identity.size)
                && let Some(bytes) = self.cache.compressed(opened.identity, || gzip(&opened.file))?
            {
                return Ok(Some(Representation {
                    kind,
                    coding: Some(coding),
                    tag: format!("\"{}-gzip\"", self.digest(&opened)?),
                    modified: opened.modified,
                    length: bytes.len() as u64,
                    content: Content::Bytes(bytes),
                }));
            }
        }
        Ok(None)
    }

    fn plain(&self, kind: Kind, opened: Opened) -> io::Result<Representation> {
        let tag = format!("\"{}\"", self.digest(&opened)?);
        let (modified, length) = (opened.modified, opened.identity.size);
        Ok(Representation { kind, coding: None, tag, modified, length, content: opened.content()? })
    }

    /// A file beside the one that is asked for, which is the same compressed.
    fn compressed_before(
        &self,
        kind: Kind,
        coding: Coding,
        beside: Opened,
        modified: Option<SystemTime>,
    ) -> io::Result<Representation> {
        let tag = format!("\"{}-{}\"", self.digest(&beside)?, coding.name());
        let modified = modified.zip(beside.modified).map(|(plain, beside)| plain.max(beside));
        let length = beside.identity.size;
        Ok(Representation { kind, coding: Some(coding), tag, modified, length, content: beside.content()? })
    }

    /// What tells this content from any other: its digest, so that it is the same on every replica.
    fn digest(&self, opened: &Opened) -> io::Result<String> {
        let Identity { device, inode, size, modified_ns, changed_ns } = opened.identity;
        if size > LARGEST_DIGESTED {
            let state = format!("{device} {inode} {size} {modified_ns} {changed_ns}");
            return Ok(hex(&Sha256::digest(state)));
        }
        self.cache.digest(opened.identity, || {
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 64 << 10];
            let mut reader = FromStart { file: &opened.file, at: 0 };
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok(hex(&hash.finalize())),
                    read => hash.update(&buffer[..read]),
                }
            }
        })
    }
}

/// The first half of a digest, which is more than enough to tell versions of a file apart.
fn hex(digest: &[u8]) -> String {
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn gzip(file: &File) -> io::Result<Bytes> {
    // no name and no time: the same file is the same bytes on every replica
    let mut out = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    io::copy(&mut FromStart { file, at: 0 }, &mut out)?;
    out.flush()?;
    Ok(out.finish()?.into())
}

/// Reads by position: the descriptor's own one is shared with whoever else reads the file.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// As precise as HTTP's dates are.
fn now() -> SystemTime {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
