//! Containers' output on disk, and how it is read back.
//!
//! One directory for all, owned by the logger's user: `ID.log`, and `ID.log.1` before it. When the first would grow past
//! [`ROTATED_AT`] it takes the second's place, so a container that floods holds 32 MiB at most and the latest 16 MiB at
//! least. [`mod@format`] says what is in the files.
//!
//! The logger alone writes. It runs unprivileged and reads strangers' bytes, the daemon is root and reads its files: so
//! a file is opened without following links, and only if it is a regular one.
//!
//! Deliberately absent: an index (the newest lines are found from the end), compression, and a way to delete part.

pub mod format;
mod reader;
mod tail;
mod writer;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sampan_model::ContainerId;

pub use format::{Entry, Stream};
pub use reader::{Reader, Woken};
pub use tail::tail;
pub(crate) use writer::{Batch, Writer};

/// The most bytes a log file has before it is rotated.
pub const ROTATED_AT: u64 = 16 << 20;

fn live_name(id: &ContainerId) -> String {
    format!("{id}.log")
}

fn rotated_name(id: &ContainerId) -> String {
    format!("{id}.log.1")
}

/// Remove a container's log files. That there are none is no error.
///
/// # Errors
/// When one is there and cannot be removed.
pub fn remove(dir: &Path, id: &ContainerId) -> io::Result<()> {
    let directory = match open_directory(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    for name in [live_name(id), rotated_name(id)] {
        match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn open_directory(dir: &Path) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A log file and its inode; `None` where there is none.
fn open_file(directory: impl AsFd, name: &str) -> io::Result<Option<(File, u64)>> {
    // a FIFO in its place must not make us wait
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not a regular file")));
    }
    Ok(Some((fd.into(), stat.st_ino)))
}
