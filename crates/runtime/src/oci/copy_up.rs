//! What a `tmpfs` covers, copied into it (`tmpcopyup`).
//!
//! The container's root file system is a stranger's: no link is followed, and files are copied by descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Copies all that is in the directory `from` into the directory `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let from = open(from, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let to = open(to, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    copy_directory(&from, &to)
}

fn open(directory: impl std::os::fd::AsFd, name: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let inner = open(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                copy_directory(&open(from, name, OFlags::RDONLY | OFlags::DIRECTORY)?, &inner)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut copy = File::from(rustix::fs::openat(to, name, flags, mode)?);
                io::copy(&mut File::from(open(from, name, OFlags::RDONLY)?), &mut copy)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
            }
            _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            // again: the mask of this process was taken from it, and a new owner takes the setuid bit
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to.as_fd(), Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(rustix::fs::fchmod(to.as_fd(), Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}
