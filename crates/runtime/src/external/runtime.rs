//! The runtime's program and its command line, which is runc's.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use sampan_model::view::TerminalSize;

use crate::child::Step as _;
use crate::defaults;
use crate::wire::{External, Failure, StartSpec};

/// How long one command of a runtime may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most of a runtime's own words that is read.
const MOST_WORDS: u64 = 64 * 1024;

/// A runtime could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Its program could not be run, or was too slow.
    #[error("run {program} {command}")]
    Run {
        /// The program.
        program: String,
        /// What it was told.
        command: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{program} {command}: {said}")]
    Failed {
        /// The program.
        program: String,
        /// What it was told.
        command: &'static str,
        /// What it said.
        said: String,
    },
}

/// A runtime, and where it keeps its state of one container.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
    state_dir: PathBuf,
}

/// Both ends of a terminal: what is read and written, and the program's.
type Terminal = [OwnedFd; 2];

impl Runtime {
    /// The program at a path, which keeps its state in a directory of its own.
    pub fn new(program: PathBuf, state_dir: PathBuf) -> Self {
        Self { program, state_dir }
    }

    pub(super) fn of(external: &External) -> Self {
        Self::new(external.program.clone().into(), external.state_dir.clone().into())
    }

    /// Has it forget a container, and end it where it runs. One that it does not know is well forgotten. Blocks.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let run = |source| self.error("delete", source);
        let mut child = self
            .command()
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        let mut said = String::new();
        let status = wait(&mut child).map_err(run)?;
        if let Some(stderr) = child.stderr.take() {
            // it has ended; what it left running may hold the other end, and is not waited for
            rustix::io::ioctl_fionbio(&stderr, true).map_err(|errno| run(errno.into()))?;
            let _ = stderr.take(MOST_WORDS).read_to_string(&mut said);
        }
        if status.success() || said.contains("does not exist") {
            return Ok(());
        }
        Err(RuntimeError::Failed { program: self.name(), command: "delete", said: said.trim().to_owned() })
    }

    /// Creates the container of a bundle, which is the working directory: its first process, and its terminal.
    pub(super) fn create(
        &self,
        spec: &StartSpec,
        streams: Option<[OwnedFd; 3]>,
    ) -> Result<(u32, Option<Terminal>), Failure> {
        let step = format!("run {} create", self.name());
        let mut command = self.command();
        command.args(["--log", "log", "--log-format", "json", "create", "--bundle", ".", "--pid-file", "pid"]);
        let console = match streams {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            None => {
                let said = File::create("said").step(&step)?;
                command.args(["--console-socket", "console"]).stdin(Stdio::null());
                command.stdout(said.try_clone().step(&step)?).stderr(said);
                Some(listen().step("listen for the terminal")?)
            }
        };
        self.run(command.arg(spec.id.as_str()), spec, &step)?;
        let pid = std::fs::read_to_string("pid").step(&step)?;
        let pid = pid.trim().parse().map_err(|_| Failure::because(&step, format!("it wrote the pid {pid:?}")))?;
        let terminal = match (console, spec.terminal) {
            (Some(console), Some(size)) => Some(terminal(&console, size)?),
            _ => None,
        };
        Ok((pid, terminal))
    }

    /// Lets the first process of a container that was created execute its program.
    pub(super) fn start(&self, spec: &StartSpec) -> Result<(), Failure> {
        let step = format!("run {} start", self.name());
        let said = File::create("said").step(&step)?;
        let mut command = self.command();
        command.args(["--log", "log", "--log-format", "json", "start", spec.id.as_str()]).stdin(Stdio::null());
        command.stdout(said.try_clone().step(&step)?).stderr(said);
        self.run(&mut command, spec, &step)
    }

    fn run(&self, command: &mut Command, spec: &StartSpec, step: &str) -> Result<(), Failure> {
        let mut child = command.spawn().step(step)?;
        let status = wait(&mut child).step(step)?;
        if status.success() { Ok(()) } else { Err(failure(step, &said(status), spec)) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state_dir).env_clear().env("PATH", defaults::PATH);
        // no signal for us is one for it
        command.process_group(0);
        command
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn error(&self, command: &'static str, source: io::Error) -> RuntimeError {
        RuntimeError::Run { program: self.program.display().to_string(), command, source }
    }
}

/// Waits for its end, or ends it when that takes too long.
fn wait(child: &mut std::process::Child) -> io::Result<ExitStatus> {
    let pidfd = sampan_sys::pidfd::open(child.id())?;
    let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? == 0 {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {} s", PATIENCE.as_secs())));
    }
    child.wait()
}

/// What a runtime said of its failure: the last line of its log, or of its error output.
fn said(status: ExitStatus) -> String {
    let read = |name: &str| {
        let mut text = String::new();
        let _ = File::open(name).and_then(|file| file.take(MOST_WORDS).read_to_string(&mut text));
        text
    };
    let of_log = read("log").lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line["msg"].as_str()?.trim().to_owned())
    });
    let of_output = || read("said").lines().last().map(|line| line.trim().to_owned());
    of_log.or_else(of_output).filter(|said| !said.is_empty()).unwrap_or_else(|| status.to_string())
}

/// The number of an error is what tells a program that is not there from one that cannot be executed: a runtime says it
/// in words.
fn failure(step: &str, said: &str, spec: &StartSpec) -> Failure {
    let name = spec.process.args.first().map_or("", String::as_str);
    let words = said.to_lowercase();
    // of the program, not of something else that is missing
    let is_of_it = words.contains("executable") || words.contains("exec") && said.contains(name);
    let errno = match () {
        () if !is_of_it => 0,
        () if words.contains("not found") || words.contains("no such file") => rustix::io::Errno::NOENT.raw_os_error(),
        () if words.contains("permission denied") || words.contains("format error") => {
            rustix::io::Errno::ACCESS.raw_os_error()
        }
        () => 0,
    };
    let step = if errno == 0 { step.to_owned() } else { format!("execute {name}") };
    Failure { step, errno, message: said.to_owned() }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new("console")?)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// The terminal that a runtime has sent: the message waits in the socket.
fn terminal(console: &OwnedFd, size: TerminalSize) -> Result<Terminal, Failure> {
    let step = "take the terminal that the runtime made";
    let connection = rustix::net::accept_with(console, SocketFlags::CLOEXEC).step(step)?;
    let (mut bytes, mut space) = ([0_u8; 256], [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(&connection, &mut [io::IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)
        .step(step)?;
    let master = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let master = master.ok_or_else(|| Failure::because(step, "it sent none"))?;
    // all who have it share one open file
    rustix::io::ioctl_fionbio(&master, true).step(step)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).step(step)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).step("set the terminal's size")?;
    Ok([master, slave])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Capabilities, ProcessSpec};

    fn spec(program: &str) -> StartSpec {
        StartSpec {
            id: sampan_model::ContainerId::from_bytes([1; 32]),
            host_name: "h".into(),
            process: ProcessSpec {
                args: vec![program.into()],
                env: Vec::new(),
                cwd: "/".into(),
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                umask: 0o22,
                capabilities: Capabilities::default(),
                no_new_privileges: true,
                seccomp: None,
                limits: Vec::new(),
                oom_score_adj: None,
            },
            mounts: Vec::new(),
            read_only: false,
            stdin: false,
            terminal: None,
            init: false,
            followers: 0,
            external: None,
        }
    }

    #[test]
    fn words_of_runtimes_that_mean_the_program() {
        for (said, errno) in [
            (
                r#"runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH"#,
                2,
            ),
            ("executable file `nope` not found in $PATH: No such file or directory", 2),
            (r#"exec: "nope": permission denied"#, 13),
            ("exec nope: exec format error", 13),
            ("open executable: Permission denied", 13),
            ("mount `proc` to `proc`: Operation not permitted", 0),
            ("open /sys/fs/cgroup/x: no such file or directory", 0),
        ] {
            assert_eq!(failure("run runc create", said, &spec("nope")).errno, errno, "{said}");
        }
    }
}
