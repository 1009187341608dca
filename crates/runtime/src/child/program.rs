//! The last part of every program's way into a container, its first one's and each further one's: capabilities, user,
//! working directory, descriptors, filter, `execve`.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::process::{Resource, Rlimit};
use sampan_sys::process::{self, Strings};
use sampan_sys::{frame, identity, seccomp};

use super::terminal::Terminal;
use super::{EXECUTING, Ends, Step as _, Stopped, init, report};
use crate::defaults;
use crate::wire::{ExecSpec, Failure, StartSpec};

/// What is executed, and as whom.
pub(super) struct Program<'spec> {
    args: &'spec [String],
    env: &'spec [String],
    cwd: &'spec str,
    uid: u32,
    gid: u32,
    groups: &'spec [u32],
    capabilities: u64,
    seccomp: &'spec str,
    /// Its parent is a first process of ours.
    init: bool,
}

impl<'spec> From<&'spec StartSpec> for Program<'spec> {
    fn from(spec: &'spec StartSpec) -> Self {
        let StartSpec { args, env, cwd, uid, gid, groups, capabilities, seccomp, init, .. } = spec;
        Self { args, env, cwd, uid: *uid, gid: *gid, groups, capabilities: *capabilities, seccomp, init: *init }
    }
}

impl<'spec> From<&'spec ExecSpec> for Program<'spec> {
    fn from(spec: &'spec ExecSpec) -> Self {
        let ExecSpec { args, env, cwd, uid, gid, groups, capabilities, seccomp, .. } = spec;
        Self { args, env, cwd, uid: *uid, gid: *gid, groups, capabilities: *capabilities, seccomp, init: false }
    }
}

/// A session of its own, a keyring of its own, and a program's usual limit of open files.
pub(super) fn begin_session() -> Result<(), Failure> {
    rustix::process::setsid().step("begin a session")?;
    leave_keyring()?;
    lower_file_limit()
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

impl Program<'_> {
    /// Becomes it: coming from root of the container's user namespace, in its root file system.
    pub fn run(&self, ends: &Ends<'_>, terminal: Option<&Terminal>) -> Result<Infallible, Stopped> {
        let filter = seccomp::Program::from_hex(self.seccomp)
            .map_err(|error| Failure::because("read the seccomp filter", error.to_string()))?;
        identity::limit_capabilities(self.capabilities).step("limit capabilities")?;
        identity::assume(self.uid, self.gid, self.groups)
            .step(&format!("become user {} and group {}", self.uid, self.gid))?;
        identity::set_capabilities(if self.uid == 0 { self.capabilities } else { 0 }).step("set capabilities")?;
        // again: another user may be told apart from the one who closed it (`fs.suid_dumpable`), and `execve` opens it
        process::set_dumpable(false).step("close itself to others")?;
        enter_directory(self.cwd)?;
        if !self.init {
            return self.execute(ends, terminal, &filter);
        }
        let keep: Vec<_> = ends
            .all()
            .into_iter()
            .chain(terminal.iter().flat_map(|it| [it.master.as_fd(), it.slave.as_fd()]))
            .collect();
        init::stay(&keep, terminal.map(|it| it.slave.as_fd()), &filter, || {
            let Err(stopped) = self.execute(ends, terminal, &filter);
            report(stopped, ends)
        })
    }

    fn execute(
        &self,
        ends: &Ends<'_>,
        terminal: Option<&Terminal>,
        filter: &seccomp::Program,
    ) -> Result<Infallible, Stopped> {
        let name = self.args.first().ok_or_else(|| Failure::because("execute", "there is no command"))?;
        let step = format!("execute {name}");
        let arguments = Strings::new(self.args).step(&step)?;
        let environment = Strings::new(self.env).step(&step)?;
        let candidates = candidates(name, self.env);

        rustix::process::umask(Mode::from_raw_mode(0o022));
        let (streams, handed): ([BorrowedFd<'_>; 3], Vec<BorrowedFd<'_>>) = match terminal {
            Some(Terminal { master, slave }) => ([slave.as_fd(); 3], vec![master.as_fd(), slave.as_fd()]),
            None => (ends.streams.ok_or_else(|| Failure::because(&step, "it was given no streams"))?, Vec::new()),
        };
        // before the numbers are given out: a terminal's own may be among them
        frame::send(ends.socket, EXECUTING, &handed).step("speak to the supervisor")?;
        process::place_descriptors(&streams).step("open standard input and output")?;
        process::reset_signals();
        identity::set_no_new_privileges().step("give up new privileges")?;
        seccomp::install(filter).step("install the seccomp filter")?;

        // as execvp: what may not be executed is passed over, and told if nothing else is found
        let mut failure = Failure::because(&step, format!("{name} was not found in PATH"));
        failure.errno = rustix::io::Errno::NOENT.raw_os_error();
        for path in candidates {
            let Ok(text) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else { continue };
            let error = process::execute(&text, &arguments, &environment);
            match error.raw_os_error() {
                Some(ENOENT | ENOTDIR)
                    if rustix::fs::accessat(CWD, &path, Access::EXISTS, AtFlags::empty()).is_err() =>
                {
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
}

const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
const ENOTDIR: i32 = rustix::io::Errno::NOTDIR.raw_os_error();
const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();

/// As the program's own user: what it may not enter it is not put into.
fn enter_directory(path: &str) -> Result<(), Failure> {
    let step = format!("enter the working directory {path}");
    rustix::process::chdir(path).step(&step)?;
    // /proc/self/fd/N as a working directory would lead out, were such a descriptor ever left open (CVE-2024-21626)
    let inside = rustix::process::getcwd(Vec::new()).step(&step)?.to_bytes().starts_with(b"/");
    if inside { Ok(()) } else { Err(Failure::because(step, "it is outside of the root file system")) }
}

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
}
