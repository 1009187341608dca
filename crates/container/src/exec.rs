//! One more process in a running container, and the streams between it and whoever asked for it.
//!
//! It is the supervisor's child and this daemon's to speak with: whoever asked going away takes its streams with it (and
//! its terminal hangs up), as if a terminal's window were closed.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use sampan_image::user::{self, User, UserError};
use sampan_model::view::{ExecCreate, LogFrame};
use sampan_model::{ContainerId, IdRange};
use sampan_runtime::wire::{Ended, ExecSpec, ProcessSpec, Reply, Request};
use tokio::sync::oneshot;

use crate::attach::{Input, failed, frame_of};
use crate::containers::{Container, Inner, lock};
use crate::descriptor::{Descriptor, PIECE};
use crate::{ContainerError, ContainerRecord, Containers};

/// Whose ends are waited for.
#[derive(Default)]
pub(crate) struct Execs(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// How many are being started: a process may have ended before it is known that it was started.
    starting: usize,
    early: HashMap<u32, Ended>,
    by_pid: HashMap<u32, oneshot::Sender<Ended>>,
}

impl Execs {
    fn begin(&self) -> Beginning<'_> {
        lock(&self.0).starting += 1;
        Beginning(self)
    }

    /// The supervisor says that one has ended. One that nobody waits for was another daemon's.
    pub(crate) fn ended(&self, pid: u32, ended: Ended) {
        let mut waiting = lock(&self.0);
        match waiting.by_pid.remove(&pid) {
            // whoever asked for it has gone
            Some(waiter) => drop(waiter.send(ended)),
            None if waiting.starting > 0 => drop(waiting.early.insert(pid, ended)),
            None => {}
        }
    }
}

/// One that is being started.
struct Beginning<'execs>(&'execs Execs);

impl Beginning<'_> {
    fn started(&self, pid: u32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.0.0);
        match waiting.early.remove(&pid) {
            Some(ended) => drop(sender.send(ended)),
            None => drop(waiting.by_pid.insert(pid, sender)),
        }
        receiver
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.0);
        waiting.starting -= 1;
        if waiting.starting == 0 {
            waiting.early.clear();
        }
    }
}

impl Containers {
    /// Starts one more process in a running container.
    ///
    /// # Errors
    /// The container does not run or is paused, it has no such user, or the program cannot be executed.
    pub async fn exec(&self, id: &ContainerId, asked: ExecCreate) -> Result<ExecSession, ContainerError> {
        let container = self.inner.get(id)?;
        let asked_at = Instant::now();
        let begun = self.blocking("starting a process", move |inner| inner.exec(&container, &asked)).await?;
        self.inner.metrics.executed(asked_at);
        ExecSession::new(begun).map_err(failed("read what a process writes"))
    }
}

/// A process that was started, and our ends of its streams.
struct Begun {
    pid: u32,
    process: OwnedFd,
    streams: Streams,
    ended: oneshot::Receiver<Ended>,
}

enum Streams {
    Terminal(OwnedFd),
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
}

impl Inner {
    fn exec(&self, container: &Container, asked: &ExecCreate) -> Result<Begun, ContainerError> {
        let pid = container.running_pid()?;
        let record = container.record();
        if record.state.paused {
            return Err(ContainerError::Paused(record.spec.name.to_string()));
        }
        self.exec_beside(&record, pid, asked).map_err(|error| {
            // it ended in the middle of it, wherever that was noticed
            if has_ended(pid) { ContainerError::NotRunning(record.spec.name.to_string()) } else { error }
        })
    }

    fn exec_beside(&self, record: &ContainerRecord, pid: u32, asked: &ExecCreate) -> Result<Begun, ContainerError> {
        let spec = self.exec_spec(record, pid, asked)?;
        let (ours, theirs) = match spec.terminal {
            Some(_) => (None, Vec::new()),
            None => {
                let ids = self.ids_of(record);
                let (ours, theirs) = pipes(&spec, ids, asked.stdin).map_err(failed("make a process's pipes"))?;
                (Some(ours), theirs)
            }
        };
        let beginning = self.execs.begin();
        let theirs: Vec<BorrowedFd<'_>> = theirs.iter().map(|end| end.as_fd()).collect();
        let (reply, fds) = self.foundation.supervisor.call(Request::Exec(Box::new(spec)), &theirs)?;
        let mut fds = fds.into_iter();
        let (Reply::Executed { pid }, Some(process)) = (reply, fds.next()) else { return Err(unexpected()) };
        crate::failpoint::reach("exec_started");
        let streams = match ours {
            Some(streams) => streams,
            None => Streams::Terminal(fds.next().ok_or_else(unexpected)?),
        };
        Ok(Begun { pid, process, streams, ended: beginning.started(pid) })
    }

    fn exec_spec(&self, record: &ContainerRecord, pid: u32, asked: &ExecCreate) -> Result<ExecSpec, ContainerError> {
        if asked.command.is_empty() {
            return Err(ContainerError::NoExecCommand(record.spec.name.to_string()));
        }
        let image = self.foundation.images.image(&record.spec.image)?;
        let named = asked.user.as_ref().or(record.spec.user.as_ref()).unwrap_or(&image.config.user);
        let nobody = |what, name| ContainerError::NoSuchUser { container: record.spec.name.to_string(), what, name };
        let user = user_inside(pid, named, &record.spec.confinement.groups).map_err(|error| match error {
            UserError::NoUser(name) => nobody("user", name),
            UserError::NoGroup(name) => nobody("group", name),
            other => other.into(),
        })?;
        let cwd = [asked.working_dir.as_deref(), record.spec.working_dir.as_deref(), Some(&*image.config.working_dir)];
        let cwd = cwd.into_iter().flatten().find(|path| !path.is_empty()).unwrap_or("/").to_owned();
        let group = self.container_group(record)?;
        let confinement = &record.spec.confinement;
        let mut process = ProcessSpec {
            args: asked.command.clone(),
            env: environment(&record.env, &user, asked),
            cwd,
            ..self.process_spec(confinement, &user)?
        };
        if asked.privileged {
            self.privilege(confinement, &mut process);
        }
        Ok(ExecSpec {
            id: record.id.clone(),
            process,
            host_users: confinement.has_host_users(),
            cgroup_files: group.files().iter().map(|file| file.to_string_lossy().into_owned()).collect(),
            terminal: asked.terminal.then(|| asked.terminal_size.unwrap_or(crate::attach::SIZE)),
        })
    }
}

/// Whether a process has ended, be it that nobody has reaped it yet.
fn has_ended(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/root")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// As the container's own files say it, now: whoever is added to them in it can be asked for.
fn user_inside(pid: u32, user: &str, groups: &[String]) -> Result<User, UserError> {
    let path = format!("/proc/{pid}/root");
    let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| UserError::Io { path: path.into(), source: errno.into() })?;
    let mut user = user::resolve_in(user, &root)?;
    user.join(user::groups_in(groups, &root)?);
    Ok(user)
}

/// The container's, and what is asked for; `HOME` of the user and `TERM` where neither says them.
fn environment(own: &[String], user: &User, asked: &ExecCreate) -> Vec<String> {
    let mut env = own.to_vec();
    let mut set = |name: &str, value: &str, replace: bool| {
        let prefix = format!("{name}=");
        match env.iter_mut().find(|pair| pair.starts_with(&prefix)) {
            Some(pair) if replace => *pair = format!("{prefix}{value}"),
            Some(_) => {}
            None => env.push(format!("{prefix}{value}")),
        }
    };
    set("HOME", user.home.as_deref().unwrap_or("/"), false);
    if asked.terminal {
        set("TERM", "xterm", false);
    }
    for (name, value) in &asked.env {
        set(name, value, true);
    }
    env
}

/// Our ends and the process's, which are its user's: it may open them again through `/dev/stdout`.
fn pipes(spec: &ExecSpec, ids: IdRange, with_stdin: bool) -> io::Result<(Streams, Vec<OwnedFd>)> {
    let on_host = |id: u32| ids.start.saturating_add(id);
    let (uid, gid) = (on_host(spec.process.uid), on_host(spec.process.gid));
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok((read, write))
    };
    let (stdin, read) = if with_stdin {
        let (read, write) = pipe()?;
        (Some(write), read)
    } else {
        (None, rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let ((stdout, write_out), (stderr, write_error)) = (pipe()?, pipe()?);
    Ok((Streams::Pipes { stdin, stdout, stderr }, vec![read, write_out, write_error]))
}

fn unexpected() -> ContainerError {
    failed("understand the supervisor's answer to exec")(io::ErrorKind::InvalidData.into())
}

/// A process beside a container's first one. Dropping it closes its streams.
pub struct ExecSession {
    /// It, on the host.
    pub pid: u32,
    process: Arc<OwnedFd>,
    input: Option<Input>,
    outputs: [Option<Descriptor>; 2],
    ended: Result<Option<u8>, oneshot::Receiver<Ended>>,
    pieces: [Vec<u8>; 2],
    /// How much is read yet once it has ended.
    left: usize,
}

/// Standard output and error, as frames number them.
const STREAMS: [u8; 2] = [1, 2];
/// More than two pipes hold, whatever the process has made of them (`pipe(7)`, `/proc/sys/fs/pipe-max-size`).
const REST: usize = 4 << 20;

async fn read(from: Option<&Descriptor>, buffer: &mut [u8]) -> usize {
    match from {
        // an output that cannot be read has ended
        Some(from) => from.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

impl ExecSession {
    fn new(begun: Begun) -> io::Result<Self> {
        let Begun { pid, process, streams, ended } = begun;
        let (input, outputs) = match streams {
            // one open file, watched twice
            Streams::Terminal(master) => {
                let input = Input::of_process(master.try_clone()?)?;
                (Some(input), [Some(Descriptor::reader(master)?), None])
            }
            Streams::Pipes { stdin, stdout, stderr } => (
                stdin.map(Input::of_process).transpose()?,
                [Some(Descriptor::reader(stdout)?), Some(Descriptor::reader(stderr)?)],
            ),
        };
        let process = Arc::new(process);
        Ok(Self {
            pid,
            process,
            input,
            outputs,
            ended: Err(ended),
            pieces: [vec![0; PIECE], vec![0; PIECE]],
            left: REST,
        })
    }

    /// What is written to, once; `None` where it has neither a terminal nor a standard input.
    pub fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// The process, to be signalled.
    pub fn process(&self) -> Process {
        Process(Arc::clone(&self.process))
    }

    /// What it wrote next; `None` when it has ended and all that it wrote was told. What it left running may write on:
    /// that is not waited for. Cancel-safe.
    pub async fn next(&mut self) -> Option<(LogFrame, Vec<u8>)> {
        loop {
            let ([stdout, stderr], [first, second]) = (&self.outputs, &mut self.pieces);
            let Err(ended) = &mut self.ended else { return self.next_left() };
            let (at, count) = tokio::select! {
                count = read(stdout.as_ref(), first) => (0, count),
                count = read(stderr.as_ref(), second) => (1, count),
                ended = ended => {
                    // no word: its supervisor has gone
                    self.ended = Ok(ended.ok().and_then(|ended| ended.exit_code));
                    continue;
                }
            };
            if count > 0 {
                return Some(frame_of(STREAMS[at], &self.pieces[at][..count]));
            }
            self.outputs[at] = None;
        }
    }

    /// All that it has written is in its pipes by now. What it left running may go on filling them.
    fn next_left(&mut self) -> Option<(LogFrame, Vec<u8>)> {
        for (at, output) in self.outputs.iter().enumerate() {
            let most = self.left.min(PIECE);
            let count = output.as_ref().map_or(0, |output| output.read_now(&mut self.pieces[at][..most]));
            if count > 0 {
                self.left -= count;
                return Some(frame_of(STREAMS[at], &self.pieces[at][..count]));
            }
        }
        None
    }

    /// Its exit code, once [`next`](Self::next) has ended; `None` where it is not known.
    pub fn exit_code(&self) -> Option<u8> {
        self.ended.as_ref().ok().copied().flatten()
    }

    /// Lets it run with nobody to see what it writes.
    pub fn detach(mut self) {
        tokio::spawn(async move { while self.next().await.is_some() {} });
    }
}

/// A process that was started in a container. Cheap to clone.
#[derive(Clone)]
pub struct Process(Arc<OwnedFd>);

impl Process {
    /// Sends it a signal; one that has ended is left in peace.
    ///
    /// # Errors
    /// There is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let invalid = || io::Error::from(rustix::io::Errno::INVAL);
        let signal = rustix::process::Signal::from_named_raw(signal).ok_or_else(invalid)?;
        match rustix::process::pidfd_send_signal(&*self.0, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(ended: &mut oneshot::Receiver<Ended>) -> Option<u8> {
        ended.try_recv().ok().and_then(|ended| ended.exit_code)
    }

    fn ended(code: u8) -> Ended {
        Ended { exit_code: Some(code), at: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn ends_are_heard_before_and_after_the_start_is() {
        let execs = Execs::default();
        // nobody's
        execs.ended(7, ended(1));
        let beginning = execs.begin();
        execs.ended(8, ended(2));
        assert_eq!(code(&mut beginning.started(8)), Some(2), "told before its start was");
        let mut late = beginning.started(9);
        assert_eq!(code(&mut late), None);
        drop(beginning);
        execs.ended(9, ended(3));
        assert_eq!(code(&mut late), Some(3));
        assert_eq!(code(&mut execs.begin().started(7)), None, "an end of long ago is not another's");
        let waiting = lock(&execs.0);
        assert_eq!((waiting.starting, waiting.early.len()), (0, 0));
    }

    #[test]
    fn whether_a_process_has_ended() {
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        assert!(!has_ended(std::process::id()));
        // without it being reaped
        let child_pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(child_pid), options).expect("its end");
        assert!(has_ended(child.id()));
        child.wait().expect("its end");
        assert!(has_ended(child.id()));
    }

    #[test]
    fn the_environment_is_the_containers_with_what_is_asked_for() {
        let check = |own: &[&str], asked: &[(&str, &str)], terminal: bool, home: Option<&str>, expected: &[&str]| {
            let own: Vec<String> = own.iter().map(ToString::to_string).collect();
            let user = User { uid: 0, gid: 0, groups: vec![], home: home.map(str::to_owned) };
            let env = asked.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let asked = ExecCreate { env, terminal, ..ExecCreate::default() };
            assert_eq!(environment(&own, &user, &asked), expected);
        };
        check(&["PATH=/bin"], &[], false, None, &["PATH=/bin", "HOME=/"]);
        check(&["HOME=/own"], &[], false, Some("/root"), &["HOME=/own"]);
        check(&[], &[("A", "1"), ("A", "2")], true, Some("/root"), &["HOME=/root", "TERM=xterm", "A=2"]);
        check(
            &["TERM=dumb", "AB=x"],
            &[("HOME", "/h"), ("A", "")],
            true,
            None,
            &["TERM=dumb", "AB=x", "HOME=/h", "A="],
        );
    }
}
