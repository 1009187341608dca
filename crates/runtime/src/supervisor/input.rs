//! A container's standard input, where it is a pipe: the end that is written to.
//!
//! It is held for as long as nobody has said that this was all, so that a daemon may come and go. The program sees the
//! end when every end that was handed out is closed as well.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, OFlags, Uid};

use super::output::open_pipe;

/// The writing end, which does not block.
#[derive(Debug)]
pub(crate) struct Input(OwnedFd);

impl Input {
    /// A new one, and the end that the program reads, owned by `uid` and `gid` so that it may open it again through
    /// `/dev/stdin`.
    pub fn make(uid: u32, gid: u32) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::fs::fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // each end is an open file of its own: the program's goes on blocking
        rustix::io::ioctl_fionbio(&write, true)?;
        Ok((Self(write), read))
    }

    /// That of a running process whose supervisor was killed, where its standard input still is the pipe of this inode.
    /// A program that was waiting for input then has seen its end; one that was not goes on.
    pub fn of_process(pid: u32, inode: u64) -> Option<Self> {
        open_pipe(&format!("/proc/{pid}/fd/0"), inode, OFlags::WRONLY | OFlags::NONBLOCK).ok().flatten().map(Self)
    }

    /// What tells it from all other pipes.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.0)?.st_ino)
    }

    /// For whoever writes to it.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_everybody_has_closed_it() {
        let (input, read) = Input::make(0, 0).unwrap();
        let handed_out = input.end().try_clone_to_owned().unwrap();
        rustix::io::write(&handed_out, b"one").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&read, &mut buffer), Ok(3));
        drop(input);
        rustix::io::write(&handed_out, b"two").unwrap();
        drop(handed_out);
        assert_eq!(rustix::io::read(&read, &mut buffer), Ok(3));
        assert_eq!(rustix::io::read(&read, &mut buffer), Ok(0));
    }

    #[test]
    fn a_full_one_does_not_block_who_writes() {
        let (input, _read) = Input::make(0, 0).unwrap();
        let written: usize = std::iter::from_fn(|| rustix::io::write(input.end(), &[0; 4096]).ok()).sum();
        assert!(written >= 4096, "{written}");
    }
}
