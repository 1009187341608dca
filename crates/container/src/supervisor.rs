//! The daemon's end of the supervisor: found running, or started.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sampan_runtime::link::{Link, LinkError, Question};
use sampan_runtime::supervisor::SupervisorConfig;
use sampan_runtime::wire::{Event, Reply, Request, Welcome};
use tokio::sync::mpsc;

use crate::ContainerError;

/// Events that may wait for the daemon. Handling one only starts a task, so more than a few never do.
const EVENTS: usize = 1024;

/// The connection to the supervisor.
pub struct Supervisor {
    link: Link,
    pid: u32,
    is_gone: Arc<AtomicBool>,
}

/// A supervisor, what it said of itself first, and what it is going to tell: that ends with it.
pub type Connected = (Supervisor, Welcome, mpsc::Receiver<Event>);

impl Supervisor {
    /// Connects to the supervisor of `run_dir`, where one runs, and says hello. Blocks.
    ///
    /// # Errors
    /// One is there and cannot be spoken to, or speaks another version.
    pub fn find(run_dir: &Path) -> Result<Option<Connected>, ContainerError> {
        match Self::connect(run_dir) {
            Ok(connected) => Ok(Some(connected)),
            Err(LinkError::NoSupervisor { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts a supervisor where none runs, and connects to it. Blocks.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(run_dir: &Path, config: &SupervisorConfig) -> Result<Connected, ContainerError> {
        sampan_runtime::supervisor::start(config).map_err(LinkError::from)?;
        Ok(Self::connect(run_dir)?)
    }

    fn connect(run_dir: &Path) -> Result<Connected, LinkError> {
        let (sender, events) = mpsc::channel(EVENTS);
        // the channel's end is dropped with the link's reader thread: its receiver then ends, which tells of the
        // supervisor's death
        let (link, welcome) = Link::connect(run_dir, move |event| {
            let _ = sender.blocking_send(event);
        })?;
        let is_gone = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&is_gone);
        link.on_closed(move || tell.store(true, Ordering::SeqCst));
        Ok((Self { link, pid: welcome.pid, is_gone }, welcome, events))
    }

    /// Asks, and waits for the answer. Blocks for as long as the supervisor takes, which waits on nothing itself.
    ///
    /// # Errors
    /// The supervisor is gone, or it refused.
    pub fn call(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
        self.link.call(request, fds)
    }

    /// Asks, and leaves the time until the answer comes to the caller.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(crate) fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Question, LinkError> {
        self.link.ask(request, fds)
    }

    /// Whether the supervisor has closed the connection.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    /// Has the supervisor end, with its logger and edge, and waits until it has. Nothing may run any more. Blocks.
    ///
    /// # Errors
    /// Something runs, or it does not end within `limit`.
    pub fn shut_down(&self, limit: Duration) -> Result<(), ContainerError> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid).unwrap_or(0));
        let pidfd = pid.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
        match self.call(Request::Shutdown, &[]) {
            Ok(_) => {}
            // it has ended already, by itself
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if let Some(Ok(pidfd)) = pidfd {
            let timeout = rustix::event::Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 };
            let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut poll, Some(&timeout)), Ok(1)) {
                return Err(ContainerError::Stopping("waiting for the supervisor's end"));
            }
        }
        Ok(())
    }
}
