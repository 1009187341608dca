//! A pipe's or a terminal's descriptor, read and written without blocking a thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is read at most at once: a pipe's worth, and a frame's.
pub(crate) const PIECE: usize = 64 * 1024;

/// A descriptor. To be made on a thread of the runtime's.
#[derive(Debug)]
pub(crate) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Has it not block: where others have the same open file, theirs neither.
    pub(crate) fn reader(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::READABLE)
    }

    /// As [`reader`](Self::reader), to be written to.
    pub(crate) fn writer(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::WRITABLE)
    }

    #[expect(
        deprecated,
        reason = "what takes its place is unsafe, for the sake of types that may close or change their descriptor: this one \
                  never does"
    )]
    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(AsyncFd::with_interest(fd, interest)?))
    }

    /// Waits for bytes, and reads them; 0 at the end. Cancel-safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| read(fd, buffer)) {
                return read;
            }
        }
    }

    /// Reads what is there now; 0 where that is nothing.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> usize {
        read(&self.0, buffer).unwrap_or(0)
    }

    /// Writes everything. What of it was written when this is cancelled is not known.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                // a terminal whose buffers are full says 0
                Ok(Ok(0)) => ready.clear_ready(),
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            // a terminal that everybody inside has closed
            Err(Errno::IO) => return Ok(0),
            result => return Ok(result?),
        }
    }
}
