//! One container's first process, from clone to exit, as the supervisor holds it.
//!
//! ```text
//!            Go             executed
//! waiting ───────▶ starting ─────────▶ running ──▶ exited
//!    └────────────────┴── ended, or said why not ────▲
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use sampan_model::IdRange;
use sampan_sys::clone::clone;
use sampan_sys::{frame, pidfd};

use super::input::Input;
use super::launching::Launching;
use super::namespaces::{self, ServerNamespaces};
use super::output::{Output, Pipes, to_json};
use super::role::KILL;
use super::stage;
use super::starting::{Asked, Starting};
use crate::child;
use crate::wire::{CreateSpec, Failure, Phase, ProcessSpec, StartSpec};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub pid: u32,
    /// Which life of it, for those who hear of its last bytes: its first process, as it was when it was made.
    pub life: u32,
    /// Its first process, until it has ended.
    pub pidfd: Option<OwnedFd>,
    pub phase: Phase,
    /// What the ids inside are on the host.
    pub ids: IdRange,
    /// Its output, from when it was told what it is to run until it has ended; a terminal from when its program was
    /// executed.
    pub output: Option<Output>,
    /// Its standard input where it is a pipe, until that was all, or it has ended.
    pub stdin: Option<Input>,
    /// Those who want its output as well and could not be handed to the logger yet.
    pub followers: Vec<OwnedFd>,
    /// While it is not known whether its program was executed.
    pub starting: Option<Starting>,
    /// Why it could not be started, until the daemon asks.
    pub failure: Option<Failure>,
    /// The daemon has done with it before it had ended.
    pub forgotten: bool,
    /// While another runtime starts it.
    pub launch: Option<Launching>,
}

/// The cgroup of version 2 that is among those to join: the child is cloned into it.
pub(super) fn unified(cgroup_files: &[String]) -> Result<Option<OwnedFd>, Failure> {
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
    /// Makes the child and lets it come as far as it gets without knowing what it is to run. `gate`: where it reads that
    /// its cgroups are there.
    pub fn make(spec: &CreateSpec, server: Option<&ServerNamespaces>, gate: Option<OwnedFd>) -> Result<Made, Failure> {
        let at = |step: &'static str| move |error: io::Error| Failure::at(step, &error);
        let (socket, theirs) = frame::pair().map_err(at("make a socket"))?;
        let unified = unified(&spec.cgroup_files)?;
        let into = unified.as_ref().map(|directory| directory.as_fd());
        let nodes = match spec.ids.is_host() {
            true => Vec::new(),
            false => stage::nodes(&spec.nodes, spec.ids).map_err(at("make devices"))?,
        };
        let run = || child::run(spec, &nodes, gate.as_ref().map(|gate| gate.as_fd()), theirs.as_fd());
        let keep: Vec<_> = nodes.iter().chain(&gate).chain([&theirs]).map(|fd| fd.as_fd()).collect();
        let cloned = match server {
            None => clone(child::namespaces(spec.ids), into, &keep, run).map_err(at("clone"))?,
            Some(server) => server.clone(into, &keep, run).map_err(at("clone into its server's namespaces"))?,
        };
        drop(theirs);

        let pid = cloned.pid.as_raw_nonzero().get().cast_unsigned();
        let prepare = || -> Result<_, Failure> {
            if server.is_none() && !spec.ids.is_host() {
                namespaces::write_maps(pid, spec.ids)?;
            }
            let namespaces = (namespaces::of(pid, "user")?, namespaces::of(pid, "net")?);
            frame::send(socket.as_fd(), child::MAPPED, &[]).map_err(at("speak to the child"))?;
            Ok(namespaces)
        };
        let prepared = prepare().and_then(|namespaces| {
            let ticks = started_ticks(pid).map_err(at("read when it started"))?;
            rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| at("prepare its socket")(errno.into()))?;
            Ok((namespaces, ticks))
        });
        let starting = Starting::new(socket, None);
        let container = Self {
            pid,
            life: pid,
            pidfd: Some(cloned.pidfd),
            phase: Phase::Waiting,
            ids: spec.ids,
            output: None,
            stdin: None,
            followers: Vec::new(),
            starting: Some(starting),
            failure: None,
            forgotten: false,
            launch: None,
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

    /// Makes the streams of what the child is to run. Refused where it does not wait to be told.
    pub fn open_streams(&mut self, spec: &StartSpec) -> Result<Option<TheirStreams>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.starting.as_ref().is_none_or(|starting| starting.asked.is_some()) {
            return Err(Failure::because("go on", "the container does not wait to be started"));
        }
        let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) else {
            return Err(Failure::because("go on", "the container has no process"));
        };
        child::limits::raise(Some(pid), &spec.process)?;
        let (uid, gid) = on_host(self.ids, &spec.process);
        let streams = Streams::make(spec, uid, gid).map_err(|error| Failure::at("make pipes", &error))?;
        (self.output, self.stdin) = (streams.output, streams.stdin);
        Ok(streams.theirs)
    }

    /// Tells the child what it is to run, and hands it its streams (an input that is not there is `null`), its root file
    /// system and what is mounted in it.
    pub fn go(
        &mut self,
        spec: &StartSpec,
        streams: Option<TheirStreams>,
        mounts: &[OwnedFd],
        null: BorrowedFd<'_>,
        asked: Asked,
    ) {
        let Some(starting) = &mut self.starting else { return };
        starting.asked = Some(asked);
        let mut fds: Vec<BorrowedFd<'_>> = Vec::with_capacity(mounts.len() + 3);
        if let Some((stdin, [stdout, stderr])) = &streams {
            fds.extend([stdin.as_ref().map_or(null, |stdin| stdin.as_fd()), stdout.as_fd(), stderr.as_fd()]);
        }
        fds.extend(mounts.iter().map(|mount| mount.as_fd()));
        // a child that has gone says why on its socket, which is heard in its turn
        let _ = frame::send(starting.socket(), &to_json(spec), &fds);
    }

    /// Its child's socket, while it starts.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.starting.as_ref().map(Starting::socket)
    }

    /// Hears the child out, as far as it has spoken. Once its socket is closed: who had asked, and whether its program
    /// was executed.
    pub fn hear(&mut self) -> Option<(Option<Asked>, Result<(), Failure>)> {
        let starting = self.starting.as_mut()?;
        let result = starting.hear()?;
        let asked = starting.asked;
        self.starting = None;
        let result = result.map(|terminal| {
            if let Ok([master, slave]) = <[OwnedFd; 2]>::try_from(terminal) {
                self.output = Some(Output::Terminal { master, _slave: slave });
            }
        });
        Some((asked, result))
    }

    /// What is written to by whoever speaks to it: its terminal, or its standard input.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        match &self.output {
            Some(Output::Terminal { master, .. }) => Some(master.as_fd()),
            _ => self.stdin.as_ref().map(Input::end),
        }
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
        self.starting?.last_words()
    }
}

/// A process's user and group on the host.
fn on_host(ids: IdRange, process: &ProcessSpec) -> (u32, u32) {
    (ids.start.saturating_add(process.uid), ids.start.saturating_add(process.gid))
}

/// A container's standard input and output as they begin: none, where it is to have a terminal.
struct Streams {
    output: Option<Output>,
    stdin: Option<Input>,
    theirs: Option<TheirStreams>,
}

/// The container's ends: what it reads, where that is not empty, and what it writes to.
type TheirStreams = (Option<OwnedFd>, [OwnedFd; 2]);

impl Streams {
    fn make(spec: &StartSpec, uid: u32, gid: u32) -> io::Result<Self> {
        if spec.terminal.is_some() {
            return Ok(Self { output: None, stdin: None, theirs: None });
        }
        let (pipes, written) = Pipes::make(uid, gid)?;
        let (stdin, read) = match spec.stdin {
            true => Input::make(uid, gid).map(|(stdin, read)| (Some(stdin), Some(read)))?,
            false => (None, None),
        };
        Ok(Self { output: Some(Output::Pipes(pipes)), stdin, theirs: Some((read, written)) })
    }
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
