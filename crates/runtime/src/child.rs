//! The sealed child: from the moment it is cloned to the moment it is the container's program.
//!
//! The order is what makes it work, and it was found by experiment (`shared/bench/sealed_start.c`, `kernel.md`):
//!
//! ```text
//! still the host's root, without its capabilities (they are of the new user namespace)
//!   join the cgroups              the host's root may write there; the container's may not
//! ── the supervisor has written the id maps, and raised what limits are to be raised ──
//! root of the container
//!   cgroup namespace              after joining: what it is in is what it sees as "/"
//!   own mounts, host name
//!   proc, sysfs, …                while the host's are still in sight, or the kernel refuses new ones
//! ── the daemon has mounted the root and wired the network ──
//!   the root's place, pivot       from here on no path leads to the host
//!   file systems into the root, devices, what was asked to be mounted
//!   what is hidden and what is read-only
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
mod mounts;
mod places;
pub(crate) mod program;
pub(crate) mod terminal;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::mount::MountPropagationFlags;
use sampan_sys::clone::{Namespaces, unshare};
use sampan_sys::{frame, identity, process};

use self::program::{Program, begin_session};
use self::terminal::Terminal;
use crate::wire::{Failure, StartSpec};

/// To the child: its id maps are written, its limits are raised.
pub(crate) const MAPPED: &[u8] = b"mapped";
/// To the child: go on, with the root file system beside it.
pub(crate) const GO: &[u8] = b"go";
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

/// The namespaces that a container's first process is cloned into. The cgroup namespace comes later.
pub(crate) const NAMESPACES: Namespaces = Namespaces::USER
    .and(Namespaces::MOUNT)
    .and(Namespaces::PID)
    .and(Namespaces::IPC)
    .and(Namespaces::UTS)
    .and(Namespaces::NET);

/// Runs in the child, whose working directory is the supervisor's [stage](crate::supervisor), and becomes the program;
/// or gives the code to exit with.
pub(crate) fn run(spec: &StartSpec, ends: &Ends<'_>) -> u8 {
    let Err(stopped) = seal(spec, ends);
    report(stopped, ends)
}

/// Says what went wrong, and gives the code to exit with.
pub(crate) fn report(stopped: Stopped, ends: &Ends<'_>) -> u8 {
    if let Stopped::Failed(failure) = stopped
        && let Ok(text) = serde_json::to_vec(&failure)
    {
        // a supervisor that is gone has nobody to tell
        let _ = frame::send(ends.socket, &text, &[]);
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

fn seal(spec: &StartSpec, ends: &Ends<'_>) -> Result<Infallible, Stopped> {
    process::set_dumpable(false).step("close itself to others")?;
    join_cgroups(&spec.cgroup_files)?;

    wait_for(MAPPED, ends)?;
    identity::assume(0, 0, &[]).step("become root of its user namespace")?;
    unshare(Namespaces::CGROUP).step("make a cgroup namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("take its mounts apart from the host's")?;
    rustix::system::sethostname(spec.host_name.as_bytes()).step("set the host name")?;
    let systems = mounts::FileSystems::make(&spec.cgroup_mounts, spec.ids)?;

    let mut handed = wait_for(GO, ends)?.into_iter();
    let root = handed.next().ok_or_else(|| Failure::because("go on", "no root file system was handed over"))?;
    mounts::enter(root.as_fd())?;
    systems.attach()?;
    places::attach(&spec.mounts, handed.collect())?;
    mounts::restrict(&spec.masked_paths, &spec.readonly_paths)?;
    begin_session()?;
    let terminal = spec.terminal.map(|size| Terminal::open(size, spec.process.uid)).transpose()?;
    if let Some(terminal) = &terminal {
        terminal.bind_console()?;
    }
    make_directory(&spec.process.cwd)?;
    if spec.read_only {
        places::protect_root()?;
    }
    Program { spec: &spec.process, init: spec.init }.run(ends, terminal.as_ref())
}

/// Waits for the supervisor's word; what came beside it.
fn wait_for(word: &[u8], ends: &Ends<'_>) -> Result<Vec<OwnedFd>, Stopped> {
    match frame::receive(ends.socket).step("hear from the supervisor")? {
        Some(frame) if frame.body == word => Ok(frame.fds),
        Some(_) => Err(Failure::because("hear from the supervisor", "it said something out of turn").into()),
        None => Err(Stopped::Alone),
    }
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
