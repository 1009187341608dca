//! A peer of the supervisor's: a socket it never waits for. What does not fit now is queued, within limits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::epoll;
use sampan_sys::frame::{self, Frame};

/// The most bytes that wait for one peer, and the most frames. A peer that is further behind has hung: it is let go,
/// and is told everything again when it comes back.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const MOST_FRAMES: usize = 8192;

/// A socket and what waits to be sent on it.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: OwnedFd,
    token: u64,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// A later one takes its place.
    replaceable: bool,
}

impl Peer {
    /// Watches the socket in `events` under `token`.
    pub fn watch(socket: OwnedFd, token: u64, events: BorrowedFd<'_>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        epoll::add(events, &socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        Ok(Self { socket, token, queue: VecDeque::new(), queued_bytes: 0 })
    }

    /// Its token.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next frame that has come. `WouldBlock`: none; `None`: the peer is gone.
    pub fn hear(&self) -> io::Result<Option<Frame>> {
        frame::receive(self.socket.as_fd())
    }

    /// Sends, or queues.
    ///
    /// # Errors
    /// The peer is gone, or too far behind.
    pub fn tell(&mut self, events: BorrowedFd<'_>, body: Vec<u8>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.push(events, body, fds, false)
    }

    /// As [`tell`](Self::tell), in place of what was told this way before and still waits.
    pub fn tell_latest(&mut self, events: BorrowedFd<'_>, body: Vec<u8>) -> io::Result<()> {
        if let Some(at) = self.queue.iter().position(|waiting| waiting.replaceable)
            && let Some(old) = self.queue.remove(at)
        {
            self.queued_bytes -= old.body.len();
        }
        self.push(events, body, &[], true)
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&mut self, events: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(next) = self.queue.front() {
            let fds: Vec<_> = next.fds.iter().map(|fd| fd.as_fd()).collect();
            match frame::send(self.socket.as_fd(), &next.body, &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            }
            self.queued_bytes -= next.body.len();
            self.queue.pop_front();
        }
        self.wait_for(events, epoll::EventFlags::IN)
    }

    fn push(
        &mut self,
        events: BorrowedFd<'_>,
        body: Vec<u8>,
        fds: &[BorrowedFd<'_>],
        replaceable: bool,
    ) -> io::Result<()> {
        if self.queue.is_empty() {
            match frame::send(self.socket.as_fd(), &body, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        if self.queue.len() >= MOST_FRAMES || self.queued_bytes + body.len() > MOST_BYTES {
            return Err(io::Error::other(format!("more than {MOST_FRAMES} frames or {MOST_BYTES} bytes wait for it")));
        }
        let fds = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        self.queued_bytes += body.len();
        self.queue.push_back(Waiting { body, fds, replaceable });
        self.wait_for(events, epoll::EventFlags::IN | epoll::EventFlags::OUT)
    }

    fn wait_for(&self, events: BorrowedFd<'_>, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::modify(events, &self.socket, epoll::EventData::new_u64(self.token), flags)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_nobody_and_loses_nothing() {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (here, there) = frame::pair().unwrap();
        let mut peer = Peer::watch(here, 1, events.as_fd()).unwrap();
        let body = |number: usize| format!("{number:>1000}").into_bytes();
        for number in 0..2000 {
            peer.tell(events.as_fd(), body(number), &[]).unwrap();
        }
        peer.tell_latest(events.as_fd(), b"older".to_vec()).unwrap();
        peer.tell_latest(events.as_fd(), b"latest".to_vec()).unwrap();
        assert!(!peer.queue.is_empty());
        for number in 0..2000 {
            peer.flush(events.as_fd()).unwrap();
            assert_eq!(frame::receive(there.as_fd()).unwrap().unwrap().body, body(number));
        }
        peer.flush(events.as_fd()).unwrap();
        assert_eq!(frame::receive(there.as_fd()).unwrap().unwrap().body, b"latest");
        assert_eq!(peer.queued_bytes, 0);

        let error = (0..).find_map(|number| peer.tell(events.as_fd(), body(number), &[]).err()).unwrap();
        assert!(error.to_string().contains("wait for it"), "{error}");
        drop(there);
        assert!(peer.flush(events.as_fd()).is_err());
    }
}
