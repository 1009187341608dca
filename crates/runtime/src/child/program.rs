//! The last part of every program's way into a container, its first one's and each further one's: capabilities, user,
//! working directory, descriptors, limits, filter, `execve`.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::thread::{CapabilitySet, CapabilitySets};
use sampan_sys::process::{self, Strings};
use sampan_sys::seccomp::{self, Compiled, Flags};
use sampan_sys::{frame, identity};

use super::terminal::Terminal;
use super::{EXECUTING, Ends, Step as _, Stopped, init, limits, report};
use crate::defaults;
use crate::wire::{Capabilities, Failure, ProcessSpec};

/// What is executed, and as whom.
pub(crate) struct Program<'spec> {
    /// All that is asked of it.
    pub spec: &'spec ProcessSpec,
    /// Its parent is a first process of ours.
    pub init: bool,
}

/// A session and a keyring of its own.
pub(crate) fn begin_session() -> Result<(), Failure> {
    rustix::process::setsid().step("begin a session")?;
    leave_keyring()
}

pub(crate) fn leave_keyring() -> Result<(), Failure> {
    match process::join_new_session_keyring() {
        // a kernel without keyrings, or a filter around us that keeps everybody from them
        Err(error) if matches!(error.raw_os_error(), Some(ENOSYS | EPERM)) => Ok(()),
        result => result.step("make a session keyring"),
    }
}

const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();
const ENOSYS: i32 = rustix::io::Errno::NOSYS.raw_os_error();

impl Program<'_> {
    /// Becomes it: coming from root of the container's user namespace, in its root file system.
    pub fn run(&self, ends: &Ends<'_>, terminal: Option<&Terminal>) -> Result<Infallible, Stopped> {
        let program = self.spec.seccomp.as_deref().map(seccomp::Program::from_hex).transpose();
        let program = program.map_err(|error| Failure::because("read the seccomp filter", error.to_string()))?;
        let filter = program.map(|program| Compiled { program, flags: Flags::default() });
        let filter = filter.as_ref();
        self.become_user(filter)?;
        if !self.init {
            return self.execute(ends, terminal, filter);
        }
        let keep: Vec<_> = ends
            .all()
            .into_iter()
            .chain(terminal.iter().flat_map(|it| [it.master.as_fd(), it.slave.as_fd()]))
            .collect();
        init::stay(&keep, terminal.map(|it| it.slave.as_fd()), self, filter, || {
            let Err(stopped) = self.execute(ends, terminal, filter);
            report(stopped, ends.socket)
        })
    }

    /// Its capabilities, its user and its working directory: all but what `filter` needs until it is installed.
    pub fn become_user(&self, filter: Option<&Compiled>) -> Result<(), Failure> {
        let ProcessSpec { uid, gid, groups, capabilities, no_new_privileges, .. } = self.spec;
        // what a filter costs where new privileges are not given up
        let for_filter = if filter.is_some() && !no_new_privileges { SYS_ADMIN } else { 0 };
        identity::limit_capabilities(capabilities.bounding).step("limit capabilities")?;
        if *uid != 0 && (capabilities.permitted | for_filter) != 0 {
            identity::keep_capabilities().step("keep capabilities")?;
        }
        identity::assume(*uid, *gid, groups).step(&format!("become user {uid} and group {gid}"))?;
        set_capabilities(capabilities, for_filter)?;
        // again: another user may be told apart from the one who closed it (`fs.suid_dumpable`), and `execve` opens it
        process::set_dumpable(false).step("close itself to others")?;
        enter_directory(&self.spec.cwd)
    }

    fn execute(
        &self,
        ends: &Ends<'_>,
        terminal: Option<&Terminal>,
        filter: Option<&Compiled>,
    ) -> Result<Infallible, Stopped> {
        let (streams, handed): ([BorrowedFd<'_>; 3], Vec<BorrowedFd<'_>>) = match terminal {
            Some(Terminal { master, slave }) => ([slave.as_fd(); 3], vec![master.as_fd(), slave.as_fd()]),
            None => (ends.streams.ok_or_else(|| Failure::because("execute", "it was given no streams"))?, Vec::new()),
        };
        // before the numbers are given out: a terminal's own may be among them
        frame::send(ends.socket, EXECUTING, &handed).step("speak to the supervisor")?;
        limits::lower_open_files(&self.spec.limits)?;
        Err(self.launch(&streams, || self.confine(filter).map(drop)).into())
    }

    /// Executes it, with these as its descriptors 0, 1, 2 and on, after `confine`. Returns only where that failed.
    pub fn launch(&self, descriptors: &[BorrowedFd<'_>], confine: impl FnOnce() -> Result<(), Failure>) -> Failure {
        let ProcessSpec { args, env, umask, .. } = self.spec;
        let step = self.step();
        let prepare = || -> Result<_, Failure> {
            let strings = (Strings::new(args).step(&step)?, Strings::new(env).step(&step)?);
            let paths = self.candidates()?;
            rustix::process::umask(Mode::from_raw_mode(*umask));
            process::place_descriptors(descriptors).step("open standard input and output")?;
            process::reset_signals();
            limits::set(&self.spec.limits)?;
            confine()?;
            Ok((strings, paths))
        };
        match prepare() {
            Ok(((arguments, environment), paths)) => self.search(&paths, |path| {
                let Ok(text) = CString::new(path.as_os_str().as_encoded_bytes()) else { return ENOENT };
                let error = process::execute(&text, &arguments, &environment);
                error.raw_os_error().unwrap_or(ENOENT)
            }),
            Err(failure) => failure,
        }
    }

    /// Whether there is something to execute: told before it is known whether the kernel takes it.
    pub fn find(&self) -> Result<(), Failure> {
        let mut found = false;
        let failure = self.search(&self.candidates()?, |path| {
            // as the program's user: capabilities count
            match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
                Ok(()) if path.is_dir() => EACCES,
                Ok(()) => {
                    found = true;
                    0
                }
                Err(errno) => errno.raw_os_error(),
            }
        });
        if found { Ok(()) } else { Err(failure) }
    }

    fn step(&self) -> String {
        format!("execute {}", self.spec.args.first().map_or("", String::as_str))
    }

    /// The paths that it may be at, in order.
    fn candidates(&self) -> Result<Vec<PathBuf>, Failure> {
        let name = self.spec.args.first().ok_or_else(|| Failure::because("execute", "there is no command"))?;
        Ok(candidates(name, &self.spec.env))
    }

    /// Tries one path after the other, as execvp: what may not be executed is passed over, and told if nothing else is
    /// found. `attempt` gives the error of one.
    fn search(&self, paths: &[PathBuf], mut attempt: impl FnMut(&Path) -> i32) -> Failure {
        let step = self.step();
        let name = self.spec.args.first().map_or("", String::as_str);
        // the words by which Docker and Podman know that it is not there
        let mut failure = Failure::because(&step, format!("{name:?}: executable file not found in $PATH"));
        failure.errno = ENOENT;
        for path in paths {
            if is_own(path) {
                return Failure::because(&step, "that is Sampan's own program");
            }
            let errno = attempt(path);
            let at = || Failure::at(&step, &std::io::Error::from_raw_os_error(errno));
            match errno {
                ENOENT | ENOTDIR if rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_err() => {
                    if name.contains('/') {
                        failure = at();
                    }
                }
                ENOENT => {
                    failure = at();
                    failure.message = format!("{} is there, but its loader or interpreter is not", path.display());
                    break;
                }
                EACCES => failure = at(),
                _ => {
                    failure = at();
                    break;
                }
            }
        }
        failure
    }
}

/// This process's own program, by its file system and its number there.
static OWN: OnceLock<(u64, u64)> = OnceLock::new();

/// Remembers which program this process is, while `/proc` is the host's: what it starts in a container is not to be that
/// one (`exec NAME /proc/self/exe`). As a script's interpreter it can be all the same; that nobody can write to it is
/// [`process::own_program`]'s doing.
pub(crate) fn remember_own() -> std::io::Result<()> {
    let stat = rustix::fs::stat(c"/proc/self/exe")?;
    OWN.get_or_init(|| (stat.st_dev, stat.st_ino));
    Ok(())
}

fn is_own(path: &Path) -> bool {
    let Some(own) = OWN.get() else { return false };
    rustix::fs::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == *own)
}

impl Program<'_> {
    /// New privileges and system calls, given up: little but `execve` comes after it. Gives the listener of a filter that
    /// has one.
    pub fn confine(&self, filter: Option<&Compiled>) -> Result<Option<OwnedFd>, Failure> {
        let ProcessSpec { capabilities, no_new_privileges, .. } = self.spec;
        if *no_new_privileges {
            identity::set_no_new_privileges().step("give up new privileges")?;
        }
        let Some(filter) = filter else { return Ok(None) };
        let listener = seccomp::install_with(&filter.program, filter.flags).step("install the seccomp filter")?;
        if !no_new_privileges && capabilities.permitted & SYS_ADMIN == 0 {
            set_capabilities(capabilities, 0)?;
        }
        Ok(listener)
    }
}

/// Its user's home directory, where the environment does not say: programs count on `HOME`. As `/etc/passwd` of the root
/// file system that this process is in has it, else `/`.
pub(crate) fn add_home(spec: &mut ProcessSpec) {
    if spec.env.iter().any(|entry| entry.starts_with("HOME=")) {
        return;
    }
    let uid = spec.uid.to_string();
    let users = std::fs::File::open("/etc/passwd").map(|file| file.take(PASSWD_MAX));
    let users = users.and_then(io::read_to_string).unwrap_or_default();
    let of_user = |line: &&str| line.split(':').nth(2) == Some(&uid);
    let home = users.lines().find(of_user).and_then(|line| line.split(':').nth(5)).filter(|home| !home.is_empty());
    spec.env.push(format!("HOME={}", home.unwrap_or("/")));
}

/// What of a stranger's file is read, in bytes.
const PASSWD_MAX: u64 = 1 << 20;

const SYS_ADMIN: u64 = CapabilitySet::SYS_ADMIN.bits();

/// `beside`: what it keeps for itself until it is confined.
fn set_capabilities(capabilities: &Capabilities, beside: u64) -> Result<(), Failure> {
    let Capabilities { effective, permitted, inheritable, ambient, .. } = *capabilities;
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective | beside),
        permitted: CapabilitySet::from_bits_retain(permitted | beside),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    identity::set_capabilities(sets, ambient).step("set capabilities")
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
