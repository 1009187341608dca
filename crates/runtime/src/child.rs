//! The sealed child: from the moment it is cloned to the moment it is the container's program.
//!
//! The order is what makes it work, and it was found by experiment (`shared/bench/sealed_start.c`, `kernel.md`):
//!
//! ```text
//! still the host's root, without its capabilities (they are of the new user namespace)
//!   join the cgroups              when they are there; the host's root may write there, the container's may not
//! ── the supervisor has written the id maps, and raised what limits are to be raised ──
//! root of the container
//!   cgroup namespace              after joining: what it is in is what it sees as "/"
//!   own mounts
//!   proc, sysfs, …                while the host's are still in sight, or the kernel refuses new ones
//!   a small root of its own       from here on no path leads to the host, and none of its disks is held on to
//!   what is hidden in them and what is read-only
//! ── it may be parked here; the daemon has mounted the root and wired the network ──
//!   host name
//!   the root's place, those file systems into it, over the small root
//!   what was asked to be mounted
//!   session, keyring, terminal
//!   capabilities, user            the last things that root may do for it
//!   no new privileges, seccomp    last: it forbids much of the above
//!   execute
//! ```
//!
//! The child says what went wrong on its socket and exits; or [`EXECUTING`], and then the socket closes in `execve`.

pub(crate) mod exec;
mod init;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod places;
pub(crate) mod program;
pub(crate) mod terminal;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use sampan_model::IdRange;
use sampan_sys::clone::{Namespaces, keep_only, unshare};
use sampan_sys::{frame, identity, process};

use self::program::{Program, begin_session};
use self::terminal::Terminal;
use crate::wire::{CreateSpec, Failure, JOIN, StartSpec};

/// To the child: its id maps are written. The next word is a [`StartSpec`] in JSON: what it becomes. Beside it, in this
/// order, its standard input, output and error where it has no terminal, its root file system, and what is mounted there.
pub(crate) const MAPPED: &[u8] = b"mapped";
/// From the child: all that is left is `execve`. Beside it both ends of its terminal, where it has one.
pub(crate) const EXECUTING: &[u8] = b"executing";

/// The exit code of a child that could not be sealed. Nobody is told it: the failure itself is.
const FAILED: u8 = 125;

/// What the child holds of its supervisor's.
pub(crate) struct Ends<'fds> {
    /// Where it is told and tells.
    pub socket: BorrowedFd<'fds>,
    /// The program's standard input, output and error. `None`: it gets a terminal.
    pub streams: Option<[BorrowedFd<'fds>; 3]>,
}

impl<'fds> Ends<'fds> {
    /// All that the child keeps open.
    pub fn all(&self) -> Vec<BorrowedFd<'fds>> {
        self.streams.into_iter().flatten().chain([self.socket]).collect()
    }
}

/// The namespaces that the first process of a container with these ids is cloned into. The cgroup namespace comes later.
pub(crate) fn namespaces(ids: IdRange) -> Namespaces {
    if ids.is_host() { BESIDE_USERS } else { BESIDE_USERS.and(Namespaces::USER) }
}

const BESIDE_USERS: Namespaces =
    Namespaces::MOUNT.and(Namespaces::PID).and(Namespaces::IPC).and(Namespaces::UTS).and(Namespaces::NET);

/// Runs in the child, whose working directory is the supervisor's [stage](crate::supervisor), and becomes the program;
/// or gives the code to exit with. `nodes`: mounts of [`CreateSpec::nodes`], where it cannot make them itself. `gate`:
/// where it is told that its cgroups are there, if they are not yet. `socket`: where it is told everything else, and
/// tells.
pub(crate) fn run(spec: &CreateSpec, nodes: &[OwnedFd], gate: Option<BorrowedFd<'_>>, socket: BorrowedFd<'_>) -> u8 {
    let Err(stopped) = seal(spec, nodes, gate, socket);
    report(stopped, socket)
}

/// Says what went wrong, and gives the code to exit with.
pub(crate) fn report(stopped: Stopped, socket: BorrowedFd<'_>) -> u8 {
    if let Stopped::Failed(failure) = stopped
        && let Ok(text) = serde_json::to_vec(&failure)
    {
        // a supervisor that is gone has nobody to tell
        let _ = frame::send(socket, &text, &[]);
    }
    FAILED
}

pub(crate) enum Stopped {
    Failed(Failure),
    /// The supervisor is gone.
    Alone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Failure {
    /// An error of the kernel's at a step.
    pub(crate) fn at(step: impl Into<String>, error: &io::Error) -> Self {
        let text = error.to_string();
        let message = text.split(" (os error ").next().unwrap_or_default().to_owned();
        Self { step: step.into(), errno: error.raw_os_error().unwrap_or(0), message }
    }

    /// One of our own.
    pub(crate) fn because(step: impl Into<String>, message: impl Into<String>) -> Self {
        Self { step: step.into(), errno: 0, message: message.into() }
    }
}

/// Names what was tried.
pub(crate) trait Step<T> {
    fn step(self, name: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::at(name, &error.into()))
    }
}

fn seal(
    spec: &CreateSpec,
    nodes: &[OwnedFd],
    gate: Option<BorrowedFd<'_>>,
    socket: BorrowedFd<'_>,
) -> Result<Infallible, Stopped> {
    process::set_dumpable(false).step("close itself to others")?;
    if let Some(gate) = gate {
        pass(gate)?;
        let kept: Vec<BorrowedFd<'_>> = nodes.iter().map(|node| node.as_fd()).chain([socket]).collect();
        keep_only(&kept);
    }
    join_cgroups(&spec.cgroup_files)?;

    if hear(socket)?.body != MAPPED {
        return Err(out_of_turn().into());
    }
    identity::assume(0, 0, &[]).step("become root of its user namespace")?;
    unshare(Namespaces::CGROUP).step("make a cgroup namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("take its mounts apart from the host's")?;
    let systems = mounts::FileSystems::make(spec)?;
    let own = mounts::leave_host()?;
    systems.assemble(spec, nodes)?;

    let frame::Frame { body, fds } = hear(socket)?;
    let start: StartSpec = serde_json::from_slice(&body).map_err(|_| out_of_turn())?;
    become_program(&start, spec.ids, (&systems, own.as_fd()), fds, socket)
}

fn become_program(
    spec: &StartSpec,
    ids: IdRange,
    (systems, own): (&mounts::FileSystems, BorrowedFd<'_>),
    handed: Vec<OwnedFd>,
    socket: BorrowedFd<'_>,
) -> Result<Infallible, Stopped> {
    let mut handed = handed.into_iter();
    let streams: [OwnedFd; 3];
    let null;
    let mut ends = Ends { socket, streams: None };
    if spec.terminal.is_none() {
        let three: Vec<OwnedFd> = handed.by_ref().take(3).collect();
        streams = three.try_into().map_err(|_| Failure::because("go on", "no streams were handed over"))?;
        ends.streams = Some(streams.each_ref().map(|stream| stream.as_fd()));
    }
    let root = handed.next().ok_or_else(|| Failure::because("go on", "no root file system was handed over"))?;
    rustix::system::sethostname(spec.host_name.as_bytes()).step("set the host name")?;
    systems.enter(root.as_fd())?;
    if let (true, false, Some([stdin, ..])) = (ids.is_host(), spec.stdin, &mut ends.streams) {
        // the stage's is everybody's, and the host's root may change its owner by the descriptor alone (runc 3674)
        null =
            rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open /dev/null")?;
        *stdin = null.as_fd();
    }
    places::attach(&spec.mounts, handed.collect(), own)?;
    begin_session()?;
    let terminal = spec.terminal.map(|size| Terminal::open(size, spec.process.uid)).transpose()?;
    if let Some(terminal) = &terminal {
        terminal.bind_console()?;
    }
    make_directory(&spec.process.cwd)?;
    if spec.read_only {
        places::protect_root()?;
    }
    Program { spec: &spec.process, init: spec.init }.run(&ends, terminal.as_ref())
}

/// Waits for the supervisor's word.
pub(crate) fn hear(socket: BorrowedFd<'_>) -> Result<frame::Frame, Stopped> {
    frame::receive(socket).step("hear from the supervisor")?.ok_or(Stopped::Alone)
}

pub(crate) fn out_of_turn() -> Failure {
    Failure::because("hear from the supervisor", "it said something out of turn")
}

/// Waits until the cgroups are there.
fn pass(gate: BorrowedFd<'_>) -> Result<(), Stopped> {
    let mut word = [0; JOIN.len()];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut word)).step("wait for its cgroups")?;
    // who makes them has given up, and says why itself
    if word[..read] == *JOIN { Ok(()) } else { Err(Stopped::Alone) }
}

/// Whether this is the file by which a cgroup of version 2 is joined. The child is in that one already: it was cloned
/// into it.
pub(crate) fn is_unified(file: &str) -> bool {
    file.ends_with("/cgroup.procs")
}

fn join_cgroups(files: &[String]) -> Result<(), Failure> {
    for file in files.iter().filter(|file| !is_unified(file)) {
        // a process that writes "0" moves itself, which on v1 spares it the wait for a grace period
        std::fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut file| io::Write::write_all(&mut file, b"0"))
            .map_err(|error| Failure::at(format!("join cgroup {file}"), &error))?;
    }
    Ok(())
}

fn make_directory(path: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(path).step(&format!("make the working directory {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_the_error_once() {
        let failure = Failure::at("execute /x", &io::Error::from_raw_os_error(2));
        assert_eq!((failure.errno, failure.to_string().as_str()), (2, "execute /x: No such file or directory"));
    }
}
