//! What is done with a container that is there: started, signalled, halted, deleted, and asked about.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use sampan_sys::pidfd;

use super::attend::{Signals, attend};
use super::cgroups::Hierarchies;
use super::config::{Resources, Status};
use super::create::{Creation, Gate, Made, make, read_failure};
use super::error::{OciError, When as _};
use super::hooks;
use super::state::{Directory, FAILURE, FIFO, Record, Root};

/// A container, as far as it is known.
#[derive(Debug)]
pub struct Container {
    directory: Directory,
    record: Record,
}

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Container {
    /// The one of that name.
    ///
    /// # Errors
    /// [`OciError::NotFound`] and what the kernel says.
    pub fn find(root: &Root, id: &str) -> Result<Self, OciError> {
        let directory = root.directory(id)?;
        Ok(Self { record: directory.read()?, directory })
    }

    /// What was written down of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What it is doing.
    ///
    /// # Errors
    /// Its cgroup's.
    pub fn status(&self) -> Result<Status, OciError> {
        if self.record.process().is_none() {
            return Ok(Status::Stopped);
        }
        Ok(match self.cgroups()?.is_frozen()? {
            true => Status::Paused,
            false if self.directory.is_waiting() => Status::Created,
            false => Status::Running,
        })
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(super) fn cgroups(&self) -> Result<Hierarchies, OciError> {
        Hierarchies::find(&self.record.cgroups)
    }

    /// Lets its program be executed; returns when that was done, or failed.
    ///
    /// # Errors
    /// [`OciError::Status`] where it was started before; what went wrong otherwise.
    pub fn start(&self) -> Result<(), OciError> {
        let status = self.status()?;
        let wrong = |status| OciError::Status {
            action: "start",
            id: self.record.id.clone(),
            status,
            wanted: "created, and not started before",
        };
        if status != Status::Created {
            return Err(wrong(status));
        }
        let path = self.directory.file(FIFO);
        let step = || format!("open {}", path.display());
        // without a reader there is no process
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NXIO) => return Err(OciError::NotRunning(self.record.id.clone())),
            Err(Errno::NOENT) => return Err(wrong(Status::Running)),
            opened => opened.when(step())?,
        };
        // of several who try, one takes it away
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(wrong(Status::Running)),
            removed => removed.when(format!("remove {}", path.display()))?,
        }
        rustix::io::write(&fifo, b"\n").when("let it go")?;
        // its end is closed by `execve`, or by its own
        wait_until(fifo.as_fd(), PollFlags::empty(), None)?;
        self.failure()?;
        let hooks = self.directory.read_config()?.hooks.poststart;
        self.run_poststart(&hooks)
    }

    /// What it said it failed with.
    fn failure(&self) -> Result<(), OciError> {
        let mut said = Vec::new();
        let path = self.directory.file(FAILURE);
        let file = fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut said));
        file.when(format!("read {}", path.display()))?;
        if said.is_empty() { Ok(()) } else { Err(OciError::Start(read_failure(&said))) }
    }

    /// A container whose hook fails is not left running.
    fn run_poststart(&self, list: &[super::config::Hook]) -> Result<(), OciError> {
        let state = self.record.state(Status::Running, Some(self.record.pid));
        hooks::run("poststart", list, &state).inspect_err(|_| drop(self.end()))?;
        Ok(())
    }

    /// Sends a signal to its first process, or to `all` of them.
    ///
    /// # Errors
    /// [`OciError::NotRunning`].
    pub fn kill(&self, signal: i32, whom: Whom) -> Result<(), OciError> {
        let process = self.record.process();
        match (whom, &process) {
            (Whom::All, _) => {
                for pid in self.cgroups()?.pids()? {
                    match pidfd::open(pid).and_then(|process| pidfd::signal(process.as_fd(), signal)) {
                        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                        sent => sent.when(format!("send signal {signal} to process {pid}"))?,
                    }
                }
            }
            (Whom::First, None) => return Err(OciError::NotRunning(self.record.id.clone())),
            (Whom::First, Some(process)) => {
                pidfd::signal(process.as_fd(), signal).when(format!("send signal {signal}"))?;
            }
        }
        if signal == Signal::KILL.as_raw() {
            // who is frozen does not even die (version 1)
            let cgroups = self.cgroups()?;
            if cgroups.is_frozen()? {
                cgroups.thaw()?;
            }
        }
        Ok(())
    }

    /// Kills all of it and waits for its first process to end.
    fn end(&self) -> Result<(), OciError> {
        let cgroups = self.cgroups()?;
        if cgroups.is_frozen()? {
            cgroups.thaw()?;
        }
        if let Some(process) = self.record.process() {
            let _ = pidfd::signal(process.as_fd(), Signal::KILL.as_raw());
            wait_until(process.as_fd(), PollFlags::IN, Some(PATIENCE))?;
        }
        Ok(())
    }

    /// Takes away what is left of it: one that has ended, or was never started; with force any.
    ///
    /// # Errors
    /// [`OciError::Status`] where it runs. The failures of its hooks and of its removal, which goes on past them.
    pub fn delete(&self, force: bool) -> Result<(), OciError> {
        match self.status()? {
            Status::Stopped => {}
            Status::Created => self.end()?,
            _ if force => self.end()?,
            status => {
                let id = self.record.id.clone();
                return Err(OciError::Status { action: "delete", id, status, wanted: "stopped" });
            }
        }
        // before the directory goes: it has the hooks
        let hooks = self.directory.read_config().map(|config| config.hooks.poststop).unwrap_or_default();
        remove(&self.directory, &self.cgroups()?, &self.record, &hooks)
    }

    /// Halts it, or lets it go on.
    ///
    /// # Errors
    /// [`OciError::Status`] where it does not run, or is not halted.
    pub fn pause(&self) -> Result<(), OciError> {
        match self.status()? {
            Status::Running | Status::Created => Ok(self.cgroups()?.freeze()?),
            status => Err(self.wrong("pause", status, "running or created")),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// [`OciError::Status`] where it is not halted.
    pub fn resume(&self) -> Result<(), OciError> {
        match self.status()? {
            Status::Paused => Ok(self.cgroups()?.thaw()?),
            status => Err(self.wrong("resume", status, "paused")),
        }
    }

    pub(super) fn wrong(&self, action: &'static str, status: Status, wanted: &'static str) -> OciError {
        OciError::Status { action, id: self.record.id.clone(), status, wanted }
    }

    /// The pids of its processes, as the host has them.
    ///
    /// # Errors
    /// Its cgroup's.
    pub fn pids(&self) -> Result<Vec<u32>, OciError> {
        self.cgroups()?.pids()
    }

    /// Waits until its first process has ended, no longer than `at_most`; whether it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_for_end(&self, at_most: Duration) -> Result<bool, OciError> {
        let Some(process) = self.record.process() else { return Ok(true) };
        match wait_until(process.as_fd(), PollFlags::IN, Some(at_most)) {
            Err(OciError::Step { source, .. }) if source.kind() == io::ErrorKind::TimedOut => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Changes what it may use; what is not there stays.
    ///
    /// # Errors
    /// [`OciError::Status`] where it has ended; its cgroup's.
    pub fn update(&self, resources: &Resources) -> Result<(), OciError> {
        match self.status()? {
            Status::Stopped => Err(OciError::NotRunning(self.record.id.clone())),
            _ => self.cgroups()?.update(resources),
        }
    }
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Its first process.
    First,
    /// All of its processes.
    All,
}

/// Removes one of which it is not even known what it is: what a runtime that was killed has left.
///
/// # Errors
/// What cannot be removed.
pub fn delete_remains(root: &Root, id: &str) -> Result<(), OciError> {
    root.directory(id)?.remove()
}

fn remove(
    directory: &Directory,
    cgroups: &Hierarchies,
    record: &Record,
    list: &[super::config::Hook],
) -> Result<(), OciError> {
    // who was not in its pid namespace lives on
    let killed = cgroups.kill();
    let removed = cgroups.remove();
    // it is gone, whatever its hooks say
    let forgotten = directory.remove();
    let state = record.state(Status::Stopped, None);
    let hooked = list.iter().map(|hook| hooks::run("poststop", std::slice::from_ref(hook), &state));
    let hooked: Result<(), _> = hooked.collect::<Vec<_>>().into_iter().collect();
    killed?;
    removed?;
    forgotten?;
    Ok(hooked?)
}

/// Waits for events on a descriptor (its end and its errors are always told).
fn wait_until(fd: BorrowedFd<'_>, events: PollFlags, patience: Option<Duration>) -> Result<(), OciError> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, events)], left.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) => {
                return Err(io::Error::from(io::ErrorKind::TimedOut)).when("wait for its first process to end");
            }
            result => return result.map(drop).when("wait for its first process"),
        }
    }
}

/// Whether somebody stays in front of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Until it has ended; then it is deleted.
    Attached,
    /// As that, but it is left to be deleted.
    Keep,
    /// No.
    Detached,
}

/// Makes a container and executes its program. The code that it ended with; 0 where nobody stays for that.
///
/// # Errors
/// What cannot be done; nothing is left behind then.
pub fn run(root: &Root, creation: &Creation, stay: Stay) -> Result<u8, OciError> {
    let mut made = make(root, creation, Gate::Socket)?;
    let started = match stay {
        Stay::Detached => start(&made).map(|()| 0),
        Stay::Attached | Stay::Keep => run_attached(&mut made),
    };
    if started.is_ok() && stay != Stay::Attached {
        return started;
    }
    if started.is_err() {
        let _ = pidfd::signal(made.pidfd.as_fd(), Signal::KILL.as_raw());
        let _ = super::attend::wait(made.pidfd.as_fd());
    }
    let removed = remove(&made.directory, &made.cgroups, &made.record, &made.config.hooks.poststop);
    let code = started?;
    removed.map(|()| code)
}

fn start(made: &Made) -> Result<(), OciError> {
    made.start()?;
    let state = made.record.state(Status::Running, Some(made.record.pid));
    Ok(hooks::run("poststart", &made.config.hooks.poststart, &state)?)
}

fn run_attached(made: &mut Made) -> Result<u8, OciError> {
    let signals = Signals::watch()?;
    start(made)?;
    attend(&signals, made.pidfd.as_fd(), made.terminal.take())
}
