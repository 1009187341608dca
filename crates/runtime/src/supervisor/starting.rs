//! A child on its way to its program, as its supervisor hears it: a container's first process, or one more of it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sampan_sys::frame;

use crate::child;
use crate::external::CREATED;
use crate::wire::Failure;

/// A request that is answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The peer's token.
    pub by: u64,
    /// The request's number.
    pub number: u64,
}

/// A child that is being sealed.
#[derive(Debug)]
pub(crate) struct Starting {
    socket: OwnedFd,
    /// It has said that it is about to execute its program, and this came beside it: both ends of its terminal.
    executing: Option<Vec<OwnedFd>>,
    failure: Option<Failure>,
    /// It was a launcher's word that another runtime has made this process.
    created: Option<u32>,
    /// Who asked for it to go on.
    pub asked: Option<Asked>,
}

impl Starting {
    /// The child at the other end of a socket, which must not block.
    pub fn new(socket: OwnedFd, asked: Option<Asked>) -> Self {
        Self { socket, executing: None, failure: None, created: None, asked }
    }

    /// Its socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hears it out, as far as it has spoken. Once its socket is closed: its terminal where it has one, or why its
    /// program was not executed.
    pub fn hear(&mut self) -> Option<Result<Vec<OwnedFd>, Failure>> {
        loop {
            match frame::receive(self.socket.as_fd()) {
                Ok(Some(frame)) if frame.body == child::EXECUTING => self.executing = Some(frame.fds),
                Ok(Some(frame)) if frame.body.starts_with(CREATED) => {
                    let pid = std::str::from_utf8(&frame.body[CREATED.len()..]);
                    self.created = pid.ok().and_then(|pid| pid.parse().ok());
                }
                Ok(Some(frame)) => self.failure = serde_json::from_slice(&frame.body).ok(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(None) | Err(_) => break,
            }
        }
        let killed = || Failure::because("start", "its process was killed before its program was executed");
        Some(match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.executing.take().ok_or_else(killed),
        })
    }

    /// The process that another runtime has made, when a launcher has just said so.
    pub fn take_created(&mut self) -> Option<u32> {
        self.created.take()
    }

    /// What it has said of why it ended, if it has.
    pub fn last_words(self) -> Option<Failure> {
        rustix::io::ioctl_fionbio(&self.socket, true).ok()?;
        frame::receive(self.socket.as_fd()).ok()?.and_then(|frame| serde_json::from_slice(&frame.body).ok())
    }
}
