//! The sealed child: from the moment it is cloned to the moment it is the container's program.
//!
//! The order is what makes it work, and it was found by experiment (`shared/bench/sealed_start.c`, `kernel.md`):
//!
//! ```text
//! still the host's root, without its capabilities (they are of the new user namespace)
//!   join the cgroups              the host's root may write there; the container's may not
//! ── the supervisor has written the id maps ──
//! root of the container
//!   cgroup namespace              after joining: what it is in is what it sees as "/"
//!   own mounts, host name
//!   proc, sysfs, …                while the host's are still in sight, or the kernel refuses new ones
//! ── the daemon has mounted the root and wired the network ──
//!   the root's place, pivot       from here on no path leads to the host
//!   file systems into the root, devices, what is hidden and what is read-only
//!   session, keyring
//!   capabilities, user            the last things that root may do for it
//!   no new privileges, seccomp    last: it forbids much of the above
//!   execute
//! ```
//!
//! The child says what went wrong on its socket and exits; or [`EXECUTING`], and then the socket closes in `execve`.

mod mounts;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Resource, Rlimit};
use sampan_sys::clone::{Namespaces, unshare};
use sampan_sys::process::{self, Strings};
use sampan_sys::seccomp::Program;
use sampan_sys::{frame, identity, seccomp};

use crate::defaults;
use crate::wire::{Failure, StartSpec};

/// To the child: its id maps are written.
pub(crate) const MAPPED: &[u8] = b"mapped";
/// To the child: go on, with the root file system beside it.
pub(crate) const GO: &[u8] = b"go";
/// From the child: all that is left is `execve`.
pub(crate) const EXECUTING: &[u8] = b"executing";

/// The exit code of a child that could not be sealed. Nobody is told it: the failure itself is.
const FAILED: u8 = 125;

/// What the child holds of its supervisor's.
pub(crate) struct Ends<'fds> {
    /// Where it is told and tells.
    pub socket: BorrowedFd<'fds>,
    /// The program's standard input.
    pub stdin: BorrowedFd<'fds>,
    /// The program's standard output.
    pub stdout: BorrowedFd<'fds>,
    /// The program's standard error.
    pub stderr: BorrowedFd<'fds>,
}

impl Ends<'_> {
    /// All that the child keeps open.
    pub fn all(&self) -> [BorrowedFd<'_>; 4] {
        [self.socket, self.stdin, self.stdout, self.stderr]
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
    if let Stopped::Failed(failure) = stopped
        && let Ok(text) = serde_json::to_vec(&failure)
    {
        // a supervisor that is gone has nobody to tell
        let _ = frame::send(ends.socket, &text, &[]);
    }
    FAILED
}

enum Stopped {
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
trait Step<T> {
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

    let root =
        wait_for(GO, ends)?.pop().ok_or_else(|| Failure::because("go on", "no root file system was handed over"))?;
    mounts::enter(root.as_fd())?;
    systems.attach()?;
    mounts::restrict(&spec.masked_paths, &spec.readonly_paths)?;
    rustix::process::setsid().step("begin a session")?;
    leave_keyring()?;
    lower_file_limit()?;
    make_directory(&spec.cwd)?;

    let program = Program::from_hex(&spec.seccomp)
        .map_err(|error| Failure::because("read the seccomp filter", error.to_string()))?;
    identity::limit_capabilities(spec.capabilities).step("limit capabilities")?;
    identity::assume(spec.uid, spec.gid, &spec.groups)
        .step(&format!("become user {} and group {}", spec.uid, spec.gid))?;
    identity::set_capabilities(if spec.uid == 0 { spec.capabilities } else { 0 }).step("set capabilities")?;
    enter_directory(&spec.cwd)?;
    execute(spec, ends, &program)
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

fn leave_keyring() -> Result<(), Failure> {
    match process::join_new_session_keyring() {
        // a kernel without keyrings, or a filter around us that keeps everybody from them
        Err(error) if matches!(error.raw_os_error(), Some(ENOSYS | EPERM)) => Ok(()),
        result => result.step("make a session keyring"),
    }
}

/// The supervisor needs many descriptors; a program that asks for none gets what systemd and Docker (29) give, since
/// some walk through all that they might have. It may raise the limit itself up to the supervisor's.
fn lower_file_limit() -> Result<(), Failure> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum }).step("limit its open files")
}

const OPEN_FILES: u64 = 1024;
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();
const ENOSYS: i32 = rustix::io::Errno::NOSYS.raw_os_error();

fn make_directory(path: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(path).step(&format!("make the working directory {path}"))
}

/// As the program's own user: what it may not enter it is not put into.
fn enter_directory(path: &str) -> Result<(), Failure> {
    let step = format!("enter the working directory {path}");
    rustix::process::chdir(path).step(&step)?;
    // /proc/self/fd/N as a working directory would lead out, were such a descriptor ever left open (CVE-2024-21626)
    let inside = rustix::process::getcwd(Vec::new()).step(&step)?.to_bytes().starts_with(b"/");
    if inside { Ok(()) } else { Err(Failure::because(step, "it is outside of the root file system")) }
}

fn execute(spec: &StartSpec, ends: &Ends<'_>, program: &Program) -> Result<Infallible, Stopped> {
    let name = spec.args.first().ok_or_else(|| Failure::because("execute", "there is no command"))?;
    let step = format!("execute {name}");
    let arguments = Strings::new(&spec.args).step(&step)?;
    let environment = Strings::new(&spec.env).step(&step)?;
    let candidates = candidates(name, &spec.env);

    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::place_descriptors(&[ends.stdin, ends.stdout, ends.stderr]).step("open standard input and output")?;
    process::reset_signals();
    frame::send(ends.socket, EXECUTING, &[]).step("speak to the supervisor")?;
    identity::set_no_new_privileges().step("give up new privileges")?;
    seccomp::install(program).step("install the seccomp filter")?;

    // as execvp: what may not be executed is passed over, and told if nothing else is found
    let mut failure = Failure::because(&step, format!("{name} was not found in PATH"));
    failure.errno = rustix::io::Errno::NOENT.raw_os_error();
    for path in candidates {
        let Ok(text) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else { continue };
        let error = process::execute(&text, &arguments, &environment);
        match error.raw_os_error() {
            Some(ENOENT | ENOTDIR) if rustix::fs::accessat(CWD, &path, Access::EXISTS, AtFlags::empty()).is_err() => {
                if name.contains('/') {
                    failure = Failure::at(&step, &error);
                }
            }
            Some(ENOENT) => {
                failure = Failure::at(&step, &error);
                failure.message = format!("{} is there, but its loader or interpreter is not", path.display());
                break;
            }
            Some(EACCES) => failure = Failure::at(&step, &error),
            _ => {
                failure = Failure::at(&step, &error);
                break;
            }
        }
    }
    Err(failure.into())
}

const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
const ENOTDIR: i32 = rustix::io::Errno::NOTDIR.raw_os_error();
const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();

/// The paths that a command may be at, in order.
fn candidates(name: &str, env: &[String]) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![name.into()];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(defaults::PATH);
    path.split(':').map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_searched_as_execvp_does() {
        fn check(name: &str, env: &[&str], expected: &[&str]) {
            let env: Vec<String> = env.iter().map(|&entry| entry.into()).collect();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(candidates(name, &env), expected, "{name} {env:?}");
        }
        check("/bin/app", &["PATH=/x"], &["/bin/app"]);
        check("./app", &[], &["./app"]);
        check("app", &["PATH=/x::/y"], &["/x/app", "./app", "/y/app"]);
        check("app", &["PATH=/x", "PATH=/y"], &["/y/app"]);
        assert_eq!(candidates("app", &[]).len(), 6);
    }

    #[test]
    fn failures_say_the_error_once() {
        let failure = Failure::at("execute /x", &io::Error::from_raw_os_error(2));
        assert_eq!((failure.errno, failure.to_string().as_str()), (2, "execute /x: No such file or directory"));
    }
}
