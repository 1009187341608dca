//! The containers' output: what the logger is to be told, and told again when it is another one.
//!
//! The supervisor holds the pipes for as long as the logger has not said that all of their bytes are in a file, so
//! nothing is lost with a logger that dies. A container that was started again while the last bytes of its earlier
//! life are still being written has two pairs; the logger hears of them in their order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use sampan_model::ContainerId;
use serde::{Deserialize, Serialize};

/// What a container writes to.
#[derive(Debug)]
pub(crate) enum Output {
    /// Standard output and standard error.
    Pipes(Pipes),
    /// Its terminal.
    Terminal {
        /// What is read, and written to.
        master: OwnedFd,
        /// The other end: held, so that the terminal does not hang up while nobody inside has it open.
        _slave: OwnedFd,
    },
}

impl Output {
    /// What tells a container's pipes from all others; a terminal cannot be found again.
    pub fn inodes(&self) -> io::Result<[u64; 2]> {
        match self {
            Self::Pipes(pipes) => pipes.inodes(),
            Self::Terminal { .. } => Ok([0, 0]),
        }
    }

    /// For the logger.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Pipes(pipes) => pipes.ends().into(),
            Self::Terminal { master, .. } => vec![master.as_fd()],
        }
    }
}

/// Both pipes of one container's output: standard output and standard error.
#[derive(Debug)]
pub(crate) struct Pipes([OwnedFd; 2]);

impl Pipes {
    /// New ones, and the ends that the container writes to, owned by `uid` and `gid` so that it may open them again
    /// through `/dev/stdout`.
    ///
    /// All ends are open for reading and writing: a pipe that always has a reader never breaks, and one that always
    /// has a writer never ends. The bytes wait for whoever comes.
    pub fn make(uid: u32, gid: u32) -> io::Result<(Self, [OwnedFd; 2])> {
        let (read_out, write_out) = pipe(uid, gid)?;
        let (read_error, write_error) = pipe(uid, gid)?;
        Ok((Self([read_out, read_error]), [write_out, write_error]))
    }

    /// The pipes of a running process that nobody else holds any more, where its output still are those of these inodes.
    pub fn of_process(pid: u32, inodes: [u64; 2]) -> Option<Self> {
        let open = |number: u32, inode| {
            open_pipe(&format!("/proc/{pid}/fd/{number}"), inode, OFlags::RDWR | OFlags::NONBLOCK).ok().flatten()
        };
        Some(Self([open(1, inodes[0])?, open(2, inodes[1])?]))
    }

    /// What tells them from all other pipes.
    pub fn inodes(&self) -> io::Result<[u64; 2]> {
        Ok([rustix::fs::fstat(&self.0[0])?.st_ino, rustix::fs::fstat(&self.0[1])?.st_ino])
    }

    /// For the logger.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.0[0].as_fd(), self.0[1].as_fd()]
    }
}

fn pipe(uid: u32, gid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (end, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::fs::fchown(&end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    // two opens, as "do not block" belongs to an open file and only the logger's must not
    Ok((reopen(&end, OFlags::RDWR | OFlags::NONBLOCK)?, reopen(&end, OFlags::RDWR)?))
}

/// The pipe of this inode, where that is what the path leads to. Opened only once it is known to be: a container may
/// have put anything there, and opening is what a terminal or a device of its choice would act upon.
pub(super) fn open_pipe(path: &str, inode: u64, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&found)?;
    // inode numbers are those of a file system: a FIFO on a disk is none of the kernel's own pipes
    let (any_pipe, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
        && stat.st_dev == rustix::fs::fstat(&any_pipe)?.st_dev
        && stat.st_ino == inode;
    if is_it { reopen(&found, flags).map(Some) } else { Ok(None) }
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::NOCTTY | OFlags::CLOEXEC | flags, Mode::empty())?)
}

/// To the logger.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ToLogger<'id> {
    /// A container's output is to be read: beside it the two pipes, or its terminal, and the pipes of those who follow it
    /// from its first byte on.
    Open { id: &'id ContainerId, followers: usize },
    /// It is to be handed on as well: beside it a pipe's writing end.
    Follow { id: &'id ContainerId },
    /// Nobody writes any more: all that is in the pipes, and then no more.
    End { id: &'id ContainerId },
}

/// From the logger.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromLogger {
    /// All of it is in the file.
    Logged { id: ContainerId },
}

/// The frame that has a container's output read.
pub(crate) fn open_frame(id: &ContainerId, followers: usize) -> Vec<u8> {
    to_json(&ToLogger::Open { id, followers })
}

/// The frame that has it handed on.
pub(crate) fn follow_frame(id: &ContainerId) -> Vec<u8> {
    to_json(&ToLogger::Follow { id })
}

/// The frame that ends it.
pub(crate) fn end_frame(id: &ContainerId) -> Vec<u8> {
    to_json(&ToLogger::End { id })
}

/// A message as JSON.
pub(crate) fn to_json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts and numbers are always JSON")
}

/// Outputs that nobody writes to any more, and that the logger is emptying.
#[derive(Debug, Default)]
pub(crate) struct Draining(VecDeque<(ContainerId, u32, Output)>);

impl Draining {
    /// The container ended, in its life as this process.
    pub fn add(&mut self, id: ContainerId, pid: u32, output: Output) {
        self.0.push_back((id, pid, output));
    }

    /// The logger has all of the oldest one of this container: which life's it was.
    pub fn done(&mut self, id: &ContainerId) -> Option<u32> {
        let at = self.0.iter().position(|(of, ..)| of == id)?;
        self.0.remove(at).map(|(_, pid, _)| pid)
    }

    /// Whether all that was ever written is in files.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&ContainerId, &Output)> {
        self.0.iter().map(|(id, _, output)| (id, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_neither_break_nor_end() {
        let (pipes, [out, error]) = Pipes::make(0, 0).unwrap();
        assert_eq!(
            Pipes::of_process(std::process::id(), pipes.inodes().unwrap()).map(drop),
            None,
            "1 and 2 are others"
        );
        rustix::io::write(&out, b"one").unwrap();
        drop((out, error));
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(pipes.ends()[0], &mut buffer), Ok(3));
        assert_eq!(rustix::io::read(pipes.ends()[0], &mut buffer), Err(rustix::io::Errno::AGAIN));
    }

    #[test]
    fn only_the_pipe_itself_is_opened() {
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let terminal =
            rustix::fs::open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        let fifo = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        for (what, fd, off, expected) in [
            ("the pipe", &pipe, 0, true),
            ("another pipe", &pipe, 1, false),
            ("a terminal", &terminal, 0, false),
            ("a FIFO of a file system", &fifo, 0, false),
            ("a file", &file, 0, false),
        ] {
            let inode = rustix::fs::fstat(fd).unwrap().st_ino + off;
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let opened = open_pipe(&path, inode, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
            assert_eq!(opened.is_some(), expected, "{what}");
        }
    }

    #[test]
    fn lives_are_told_apart() {
        let (id, other) = (ContainerId::from_bytes([1; 32]), ContainerId::from_bytes([2; 32]));
        let mut draining = Draining::default();
        for (of, pid) in [(&id, 5), (&other, 6), (&id, 7)] {
            let (pipes, _) = Pipes::make(0, 0).unwrap();
            draining.add(of.clone(), pid, Output::Pipes(pipes));
        }
        assert_eq!([&id, &id, &id, &other].map(|id| draining.done(id)), [Some(5), Some(7), None, Some(6)]);
        assert!(draining.is_empty());
    }

    #[test]
    fn the_logger_is_told_in_json() {
        let id = ContainerId::from_bytes([0xab; 32]);
        let text = |frame: Vec<u8>| String::from_utf8(frame).unwrap();
        assert_eq!(text(open_frame(&id, 1)), format!(r#"{{"open":{{"id":"{id}","followers":1}}}}"#));
        assert_eq!(text(follow_frame(&id)), format!(r#"{{"follow":{{"id":"{id}"}}}}"#));
        assert_eq!(text(end_frame(&id)), format!(r#"{{"end":{{"id":"{id}"}}}}"#));
        let FromLogger::Logged { id: of } = serde_json::from_str(&format!(r#"{{"logged":{{"id":"{id}"}}}}"#)).unwrap();
        assert_eq!(of, id);
    }
}
