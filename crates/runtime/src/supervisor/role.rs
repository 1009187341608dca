//! The roles that the supervisor starts beside itself: logger and edge. Unprivileged, started again when they end.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sampan_sys::clone::{Cloned, Namespaces, clone};
use sampan_sys::process::{self, Strings};
use sampan_sys::{frame, identity};

use super::peer::Peer;

/// A role that lived shorter than this is started again later and later, up to [`LONGEST_DELAY`].
const STABLE: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// One role: a program, the ids it runs as, and its process while there is one.
#[derive(Debug)]
pub(crate) struct Role {
    name: &'static str,
    id: u32,
    /// The token of its socket.
    token: u64,
    running: Option<Running>,
    delay: Duration,
    /// When to start it (again).
    due: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    process: Cloned,
    peer: Peer,
    since: Instant,
}

/// What every role is started from.
pub(crate) struct Program<'fds> {
    /// Sampan itself.
    pub file: BorrowedFd<'fds>,
    /// Its standard input and output.
    pub null: BorrowedFd<'fds>,
    /// Its standard error.
    pub stderr: BorrowedFd<'fds>,
}

impl Role {
    /// A role that is to be started at once.
    pub fn new(name: &'static str, id: u32, token: u64) -> Self {
        Self { name, id, token, running: None, delay: FIRST_DELAY, due: Some(Instant::now()) }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// When it is to be started.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Its socket, while it runs.
    pub fn peer(&mut self) -> Option<&mut Peer> {
        self.running.as_mut().map(|running| &mut running.peer)
    }

    /// Starts `program NAME` with its socket as descriptor 3 and `more` from 4 on.
    ///
    /// # Errors
    /// The kernel's. It is due again later.
    pub fn start(&mut self, program: &Program<'_>, more: &[BorrowedFd<'_>], events: BorrowedFd<'_>) -> io::Result<()> {
        self.due = Some(Instant::now() + self.delay);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        let (ours, theirs) = frame::pair()?;
        let arguments = Strings::new(&["sampan", self.name])?;
        let environment = Strings::new::<&str>(&[])?;
        let mut fds = vec![program.null, program.null, program.stderr, theirs.as_fd()];
        fds.extend(more);
        let keep: Vec<_> = fds.iter().copied().chain([program.file]).collect();
        let (name, id) = (self.name, self.id);
        let process = clone(Namespaces::NONE, None, &keep, || {
            let error = become_role(id, &fds, program.file, &arguments, &environment);
            // the only descriptor that is sure to be there
            let _ = rustix::io::write(program.stderr, format!("the {name} could not be started: {error}\n").as_bytes());
            126
        })?;
        let peer = Peer::watch(ours, self.token, events)?;
        self.running = Some(Running { process, peer, since: Instant::now() });
        self.due = None;
        Ok(())
    }

    /// Its process has ended: it is due again.
    pub fn ended(&mut self) {
        if let Some(running) = self.running.take() {
            if running.since.elapsed() >= STABLE {
                self.delay = FIRST_DELAY;
                self.due = Some(Instant::now());
            } else {
                self.due = Some(Instant::now() + self.delay);
            }
        }
    }

    /// Not to be started again.
    pub fn retire(&mut self) {
        self.due = None;
    }

    /// Ends its process, which is told when it is reaped.
    pub fn kill(&self) {
        if let Some(running) = &self.running {
            // has ended already: as well
            let _ = sampan_sys::pidfd::signal(running.process.pidfd.as_fd(), KILL);
        }
    }

    /// Says that nothing more will come, so that it finishes by itself.
    pub fn hang_up(&mut self) {
        if let Some(running) = &self.running {
            let _ = rustix::net::shutdown(running.peer.socket(), rustix::net::Shutdown::Write);
        }
    }
}

pub(crate) const KILL: i32 = rustix::process::Signal::KILL.as_raw();

fn become_role(
    id: u32,
    fds: &[BorrowedFd<'_>],
    file: BorrowedFd<'_>,
    arguments: &Strings,
    environment: &Strings,
) -> io::Error {
    let prepare = || -> io::Result<OwnedFd> {
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        // out of the way of the numbers that are given out
        let file = rustix::io::fcntl_dupfd_cloexec(file, 64)?;
        process::place_descriptors(fds)?;
        process::reset_signals();
        identity::limit_capabilities(0)?;
        identity::assume(id, id, &[])?;
        identity::drop_capabilities()?;
        identity::set_no_new_privileges()?;
        process::set_dumpable(false)?;
        Ok(file)
    };
    match prepare() {
        Ok(file) => process::execute_file(file.as_fd(), arguments, environment),
        Err(error) => error,
    }
}
