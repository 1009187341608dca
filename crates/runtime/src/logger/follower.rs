//! One who follows a container's output as it is read: a pipe that frames are written to, and what it had no room for.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sampan_model::view::LogFrame;

use super::source::Said;
use crate::logs::Stream;

/// A follower.
pub(super) struct Follower {
    /// Its pipe, which does not block.
    pub pipe: OwnedFd,
    /// The number of the container that it follows.
    pub of: u64,
    unsent: Vec<u8>,
    /// How much of that has been sent after all.
    sent: usize,
}

/// Where a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// It has been sent everything.
    Ready,
    /// Its pipe is full, and something waits for it.
    Behind,
    /// It reads no more.
    Gone,
}

impl Follower {
    /// Of the container of this number.
    ///
    /// # Errors
    /// It cannot be made not to block.
    pub fn new(pipe: OwnedFd, of: u64) -> rustix::io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
        Ok(Self { pipe, of, unsent: Vec::new(), sent: 0 })
    }

    /// Whether something waits for it.
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what was read. What its pipe has no room for is kept: whoever asks for more must not, until it is sent.
    pub fn tell(&mut self, said: &Said<'_>) -> Reader {
        let stream = match said.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let at_ns = i64::try_from(said.at.as_nanosecond()).unwrap_or(0);
        for payload in said.bytes.chunks(LogFrame::LONGEST as usize) {
            let length = u32::try_from(payload.len()).unwrap_or(LogFrame::LONGEST);
            let head = LogFrame { stream, length, at_ns }.encode();
            let mut gone = 0;
            if !self.is_behind() {
                gone = match rustix::io::writev(&self.pipe, &[IoSlice::new(&head), IoSlice::new(payload)]) {
                    Ok(count) => count,
                    Err(Errno::AGAIN | Errno::INTR) => 0,
                    Err(_) => return Reader::Gone,
                };
            }
            self.unsent.extend_from_slice(&head[gone.min(head.len())..]);
            self.unsent.extend_from_slice(&payload[gone.saturating_sub(head.len())..]);
        }
        if self.is_behind() { Reader::Behind } else { Reader::Ready }
    }

    /// Sends that there is no more, behind what waits.
    pub fn end(&mut self) -> Reader {
        self.unsent.extend_from_slice(&LogFrame::END.encode());
        self.flush()
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&mut self) -> Reader {
        while self.is_behind() {
            match rustix::io::write(&self.pipe, &self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Reader::Behind,
                Err(_) => return Reader::Gone,
            }
            if self.sent == self.unsent.len() {
                // freed, not kept: most are never behind
                (self.unsent, self.sent) = (Vec::new(), 0);
            }
        }
        Reader::Ready
    }
}
