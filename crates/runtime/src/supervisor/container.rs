//! One container's first process, from clone to exit, as the supervisor holds it.
//!
//! ```text
//!            Go             executed
//! waiting ───────▶ starting ─────────▶ running ──▶ exited
//!    └────────────────┴── ended, or said why not ────▲
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sampan_sys::clone::clone;
use sampan_sys::{frame, pidfd};

use super::output::Pipes;
use super::role::KILL;
use crate::child::{self, Ends, NAMESPACES};
use crate::wire::{Failure, Phase, StartSpec};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub pid: u32,
    /// Its first process, until it has ended.
    pub pidfd: Option<OwnedFd>,
    pub phase: Phase,
    /// Its output, until it has ended.
    pub pipes: Option<Pipes>,
    /// While it is not known whether its program was executed.
    pub starting: Option<Starting>,
    /// Why it could not be started, until the daemon asks.
    pub failure: Option<Failure>,
    /// The daemon has done with it before it had ended.
    pub forgotten: bool,
}

/// A child that is being sealed.
#[derive(Debug)]
pub(crate) struct Starting {
    socket: OwnedFd,
    /// It has said that it is about to execute its program.
    executing: bool,
    failure: Option<Failure>,
    /// Who asked for it to go on.
    pub asked: Option<Asked>,
}

/// A request that is answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The peer's token.
    pub by: u64,
    /// The request's number.
    pub number: u64,
}

/// The cgroup of version 2 that is among those to join: the child is cloned into it.
fn unified(cgroup_files: &[String]) -> Result<Option<OwnedFd>, Failure> {
    let Some(file) = cgroup_files.iter().find(|file| child::is_unified(file)) else { return Ok(None) };
    let directory = Path::new(file).parent().unwrap_or(Path::new("/"));
    let opened = File::open(directory).map_err(|error| Failure::at(format!("join cgroup {file}"), &error))?;
    Ok(Some(opened.into()))
}

/// A new container, and what the daemon is handed of it.
pub(crate) struct Made {
    pub container: Container,
    pub user_namespace: OwnedFd,
    pub network_namespace: OwnedFd,
    /// When the kernel made its process, in ticks since the boot.
    pub started_ticks: u64,
}

impl Container {
    /// Makes the child and lets it come as far as it gets without its root file system.
    pub fn make(spec: &StartSpec, null: BorrowedFd<'_>) -> Result<Made, Failure> {
        let at = |step: &'static str| move |error: io::Error| Failure::at(step, &error);
        let (uid, gid) = (spec.ids.start.saturating_add(spec.uid), spec.ids.start.saturating_add(spec.gid));
        let (pipes, [stdout, stderr]) = Pipes::make(uid, gid).map_err(at("make pipes"))?;
        let (socket, theirs) = frame::pair().map_err(at("make a socket"))?;
        let ends = Ends { socket: theirs.as_fd(), stdin: null, stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let unified = unified(&spec.cgroup_files)?;
        let into = unified.as_ref().map(|directory| directory.as_fd());
        let cloned = clone(NAMESPACES, into, &ends.all(), || child::run(spec, &ends)).map_err(at("clone"))?;
        drop(theirs);

        let pid = cloned.pid.as_raw_nonzero().get().cast_unsigned();
        let prepare = || -> Result<_, Failure> {
            let map = format!("0 {} {}", spec.ids.start, spec.ids.length);
            for name in ["uid_map", "gid_map"] {
                File::options()
                    .write(true)
                    .open(format!("/proc/{pid}/{name}"))
                    .and_then(|mut file| file.write_all(map.as_bytes()))
                    .map_err(|error| Failure::at(format!("write its {name} ({map})"), &error))?;
            }
            let namespaces = (namespace(pid, "user")?, namespace(pid, "net")?);
            frame::send(socket.as_fd(), child::MAPPED, &[]).map_err(at("speak to the child"))?;
            Ok(namespaces)
        };
        let prepared = prepare().and_then(|namespaces| {
            let ticks = started_ticks(pid).map_err(at("read when it started"))?;
            rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| at("prepare its socket")(errno.into()))?;
            Ok((namespaces, ticks))
        });
        let starting = Starting { socket, executing: false, failure: None, asked: None };
        let container = Self {
            pid,
            pidfd: Some(cloned.pidfd),
            phase: Phase::Waiting,
            pipes: Some(pipes),
            starting: Some(starting),
            failure: None,
            forgotten: false,
        };
        match prepared {
            Ok(((user_namespace, network_namespace), started_ticks)) => {
                Ok(Made { container, user_namespace, network_namespace, started_ticks })
            }
            Err(failure) => {
                container.kill();
                // a child that ended by itself has said why, and its own word is worth more
                Err(container.last_words().unwrap_or(failure))
            }
        }
    }

    /// Hands the child its root file system, and lets it go on.
    pub fn go(&mut self, root: BorrowedFd<'_>, asked: Asked) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match &mut self.starting {
            Some(starting) if starting.asked.is_none() => {
                starting.asked = Some(asked);
                // a child that has gone says why on its socket, which is heard in its turn
                let _ = frame::send(starting.socket.as_fd(), child::GO, &[root]);
                Ok(())
            }
            _ => Err(Failure::because("go on", "the container does not wait to be started")),
        }
    }

    /// Its child's socket, while it starts.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.starting.as_ref().map(|starting| starting.socket.as_fd())
    }

    /// Hears the child out, as far as it has spoken. Once its socket is closed: who had asked, and whether its program
    /// was executed.
    pub fn hear(&mut self) -> Option<(Option<Asked>, Result<(), Failure>)> {
        let starting = self.starting.as_mut()?;
        loop {
            match frame::receive(starting.socket.as_fd()) {
                Ok(Some(frame)) if frame.body == child::EXECUTING => starting.executing = true,
                Ok(Some(frame)) => starting.failure = serde_json::from_slice(&frame.body).ok(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(None) | Err(_) => break,
            }
        }
        let starting = self.starting.take()?;
        let result = match starting.failure {
            Some(failure) => Err(failure),
            None if starting.executing => Ok(()),
            None => Err(Failure::because("start", "its process was killed before its program was executed")),
        };
        Some((starting.asked, result))
    }

    /// Its first process.
    ///
    /// # Errors
    /// `ESRCH` where it has ended.
    pub fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.pidfd.as_ref().ok_or(rustix::io::Errno::SRCH)?.as_fd())
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// As [`pidfd`](Self::pidfd), and the kernel's.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        pidfd::signal(self.pidfd()?, signal)
    }

    /// Ends its first process, and with it all others of its pid namespace.
    pub fn kill(&self) {
        // has ended already: as well
        let _ = self.signal(KILL);
    }

    fn last_words(self) -> Option<Failure> {
        let starting = self.starting?;
        rustix::io::ioctl_fionbio(&starting.socket, true).ok()?;
        frame::receive(starting.socket.as_fd()).ok()?.and_then(|frame| serde_json::from_slice(&frame.body).ok())
    }
}

fn namespace(pid: u32, name: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(format!("/proc/{pid}/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::at(format!("open its {name} namespace"), &errno.into()))
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)). The second field is the program's name and may hold anything.
pub(crate) fn started_ticks(pid: u32) -> io::Result<u64> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    let after_name = text.iter().rposition(|&byte| byte == b')').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&text[after_name..])
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a stat file without a start time"))
}
