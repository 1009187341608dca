//! Signals as readable events (`signalfd`), for processes that wait in one place.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Signals that no longer interrupt this thread and are read from here instead.
#[derive(Debug)]
pub struct SignalEvents {
    fd: OwnedFd,
}

impl SignalEvents {
    /// Blocks `signals` in this thread (and in what it makes from here on) and watches them. Reading does not block.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: a signal set is plain memory, initialised by `sigemptyset`; all pointers are to this frame.
        let fd = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for &signal in signals {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has come, `None` where there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        // SAFETY: the kernel writes at most as many bytes as are said to be there.
        let count = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size_of_val(&info)) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        // SAFETY: signalfd gives whole records, and this one was given.
        Ok(Some(unsafe { info.assume_init() }.ssi_signo as i32))
    }
}

impl AsFd for SignalEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
