//! One more process in a container that is there.
//!
//! ```text
//! the host's file systems
//!   close itself to others       nobody inside may look into what is a copy of the runtime
//!   processors, cgroups          those of version 1; it was born in the one of version 2, and in the pid namespace
//!   labels                       through the host's /proc
//!   all other namespaces at once the root file system comes with them
//! the container's file systems
//!   session, keyring, terminal
//!   …                            as its first process ([`Program`])
//! ```
//!
//! The container is a stranger's, and it is running: nothing is trusted in it, and this process has no descriptor of the
//! host's but its socket, the container's first process and its streams.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, ThreadNameSpaceType, move_into_thread_name_spaces, sched_setaffinity};
use sampan_model::view::TerminalSize;
use sampan_sys::clone::{Cloned, Namespaces, clone};
use sampan_sys::{frame, identity, process as own};

use super::attend::{Signals, attend, wait};
use super::cgroups::Hierarchies;
use super::config::{Config, Process, Status};
use super::create::{read_failure, write_pid};
use super::error::{OciError, When as _};
use super::init::{ANSWERED, LISTENER, READY, streams, take_terminal};
use super::lifecycle::{Container, Stay};
use super::seccomp::Filter;
use super::state::Root;
use super::{console, devices, labels, process};
use crate::child::Step as _;
use crate::child::program::{self, Program};
use crate::child::terminal::Terminal;
use crate::supervisor::ChildrenBeside;
use crate::wire::Failure;

/// What is to be executed, and how.
#[derive(Debug, Default)]
pub struct Execution {
    /// The socket that its terminal is sent to.
    pub console_socket: Option<PathBuf>,
    /// The file that its pid is written to.
    pub pid_file: Option<PathBuf>,
    /// Also in a container that is halted: it waits until that goes on.
    pub ignore_paused: bool,
    /// Descriptors 3 and on that it is to have, close-on-exec until then.
    pub preserved: Vec<OwnedFd>,
    /// A cgroup below the container's.
    pub cgroup: Option<String>,
}

/// What the child needs to know.
struct Plan {
    process: process::Planned,
    filter: Option<Filter>,
    cgroups: Hierarchies,
    namespaces: ThreadNameSpaceType,
    /// The container's root, where it is not that of its mount namespace.
    root: Option<OwnedFd>,
    /// The processors that it is on before and after it is in its cgroup.
    affinity: [Option<CpuSet>; 2],
}

/// The process that a configuration has for a container: what `exec` without one of its own begins with.
///
/// # Errors
/// The kernel's.
pub fn process_of(root: &Root, id: &str) -> Result<Process, OciError> {
    let container = Container::find(root, id)?;
    let config = container.directory().read_config()?;
    config.process.ok_or_else(|| OciError::config("process", "it is missing"))
}

/// Executes a process in a container. The code that it ended with; 0 where nobody stays for that.
///
/// # Errors
/// [`OciError::NotRunning`], [`OciError::Status`]; what cannot be done.
pub fn exec(root: &Root, id: &str, asked: Process, execution: &Execution, stay: Stay) -> Result<u8, OciError> {
    let container = Container::find(root, id)?;
    let first = container.record().process().ok_or_else(|| OciError::NotRunning(id.to_owned()))?;
    if container.status()? == Status::Paused && !execution.ignore_paused {
        return Err(container.wrong("execute in", Status::Paused, "running"));
    }
    match (asked.terminal, &execution.console_socket) {
        (true, None) if stay == Stay::Detached => {
            return Err(OciError::Unsupported("a terminal that nobody is in front of needs --console-socket"));
        }
        (false, Some(_)) => {
            return Err(OciError::Unsupported("--console-socket is for a process with a terminal, and it has none"));
        }
        _ => {}
    }
    let config = container.directory().read_config()?;
    labels::check(&config, &asked)?;
    let plan = Plan {
        affinity: affinity(&asked)?,
        process: process::Planned::read(asked)?,
        filter: config.linux.seccomp.as_ref().map(Filter::read).transpose()?,
        cgroups: container.cgroups()?.below(execution.cgroup.as_deref())?,
        namespaces: namespaces(container.record().pid).when("look at its namespaces")?,
        root: root_of(&config, container.record().pid)?,
    };
    if plan.process.terminal.is_none() {
        let own = has_users(&config);
        let uid = plan.process.spec.uid;
        console::own_streams(if own { devices::on_host(uid, &config.linux.uid_mappings) } else { uid })?;
    }

    let (socket, theirs) = frame::pair().when("make a socket")?;
    let mut keep: Vec<BorrowedFd<'_>> = streams().into_iter().chain([theirs.as_fd(), first.as_fd()]).collect();
    keep.extend(plan.root.as_ref().map(|root| root.as_fd()));
    keep.extend(execution.preserved.iter().map(|fd| fd.as_fd()));
    let unified = plan.cgroups.unified()?;
    let signals = match stay {
        Stay::Detached => None,
        Stay::Attached | Stay::Keep => Some(Signals::watch()?),
    };
    let cloned = {
        let _there = ChildrenBeside::new(first.as_fd()).when("enter the container's pid namespace")?;
        clone(Namespaces::NONE, unified.as_ref().map(|fd| fd.as_fd()), &keep, || {
            run(&plan, first.as_fd(), theirs.as_fd(), &execution.preserved)
        })
    };
    let Cloned { pid, pidfd } = cloned.map_err(|error| match error.raw_os_error() {
        // what the kernel says of a pid namespace whose first process has ended
        Some(ENOMEM) => OciError::NotRunning(id.to_owned()),
        _ => OciError::Step { step: "clone the process".into(), source: error },
    })?;
    drop(theirs);
    let number = pid.as_raw_nonzero().get().unsigned_abs();
    let begun = begin(&socket, &plan, &container, pid, execution);
    let terminal = match begun {
        Ok(terminal) => terminal,
        Err(error) => {
            let _ = sampan_sys::pidfd::signal(pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
            let _ = wait(pidfd.as_fd());
            return Err(error);
        }
    };
    if let Some(path) = &execution.pid_file {
        write_pid(path, number)?;
    }
    match &signals {
        None => Ok(0),
        Some(signals) => attend(signals, pidfd.as_fd(), terminal),
    }
}

const ENOMEM: i32 = Errno::NOMEM.raw_os_error();
/// To the process: its limits are set.
const PREPARED: &[u8] = b"prepared";

/// Until its program is executed. Gives its terminal, where nobody asked for it to be sent.
fn begin(
    socket: &OwnedFd,
    plan: &Plan,
    container: &Container,
    pid: rustix::process::Pid,
    execution: &Execution,
) -> Result<Option<OwnedFd>, OciError> {
    plan.process.prepare(pid)?;
    frame::send(socket.as_fd(), PREPARED, &[]).when("speak to the process")?;
    let mut terminal = None;
    loop {
        let Some(mut told) = frame::receive(socket.as_fd()).when("hear from the process")? else {
            return Ok(terminal);
        };
        match &told.body[..] {
            LISTENER => {
                if let (Some(filter), Some(listener)) = (&plan.filter, told.fds.pop()) {
                    let number = pid.as_raw_nonzero().get().unsigned_abs();
                    filter.hand_over(listener.as_fd(), container.record(), Status::Running, number)?;
                }
                frame::send(socket.as_fd(), ANSWERED, &[]).when("speak to the process")?;
            }
            READY => match (told.fds.pop(), &execution.console_socket) {
                (Some(master), Some(path)) => console::hand_over(master.as_fd(), path)?,
                (master, _) => terminal = master,
            },
            failure => return Err(OciError::Exec(read_failure(failure))),
        }
    }
}

/// Those of the container that are not this process's own already: a user namespace cannot be entered twice.
fn namespaces(pid: u32) -> io::Result<ThreadNameSpaceType> {
    let mut all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    let number = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    if number("/proc/self/ns/user")? != number(&format!("/proc/{pid}/ns/user"))? {
        all |= ThreadNameSpaceType::USER;
    }
    // a kernel may have none
    if let (Ok(own), Ok(theirs)) = (number("/proc/self/ns/time"), number(&format!("/proc/{pid}/ns/time")))
        && own != theirs
    {
        all |= ThreadNameSpaceType::TIME;
    }
    Ok(all)
}

fn has_users(config: &Config) -> bool {
    config.linux.namespaces.iter().any(|namespace| namespace.kind == "user")
}

/// Where it has no mount namespace of its own, it has changed its root in another's.
fn root_of(config: &Config, pid: u32) -> Result<Option<OwnedFd>, OciError> {
    if config.linux.namespaces.iter().any(|namespace| namespace.kind == "mount") {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map(Some).when(format!("open {path}"))
}

fn affinity(asked: &Process) -> Result<[Option<CpuSet>; 2], OciError> {
    let Some(affinity) = &asked.exec_cpu_affinity else { return Ok([None, None]) };
    Ok([cpus(&affinity.initial)?, cpus(&affinity.last)?])
}

/// `0-3,7`.
fn cpus(list: &str) -> Result<Option<CpuSet>, OciError> {
    if list.is_empty() {
        return Ok(None);
    }
    let wrong = || OciError::config("process.execCPUAffinity", format!("{list:?} is no list of processors"));
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&cpu| cpu < CpuSet::MAX_CPU);
        let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        if first > last {
            return Err(wrong());
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Ok(Some(set))
}

/// Runs in the child, and becomes the program; or gives the code to exit with.
fn run(plan: &Plan, container: BorrowedFd<'_>, socket: BorrowedFd<'_>, preserved: &[OwnedFd]) -> u8 {
    let Err(failure) = become_program(plan, container, socket, preserved);
    if let Ok(text) = serde_json::to_vec(&failure) {
        // a runtime that is gone has nobody to tell
        let _ = frame::send(socket, &text, &[]);
    }
    255
}

fn become_program(
    plan: &Plan,
    container: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    preserved: &[OwnedFd],
) -> Result<Infallible, Failure> {
    let process = &plan.process;
    own::set_dumpable(false).step("close itself to others")?;
    let [initial, last] = &plan.affinity;
    if let Some(cpus) = initial {
        sched_setaffinity(None, cpus).step("set its first processors")?;
    }
    plan.cgroups.join()?;
    if let Some(cpus) = last {
        sched_setaffinity(None, cpus).step("set its processors")?;
    }
    if labels::are_there(&process.config) {
        let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open /proc")?;
        labels::apply(proc.as_fd(), &process.config)?;
    }
    wait_for(PREPARED, socket)?;
    move_into_thread_name_spaces(container, plan.namespaces).step("enter the container's namespaces")?;
    if let Some(root) = &plan.root {
        rustix::process::fchdir(root).step("enter the container's root")?;
        rustix::process::chroot(c".").step("change the root")?;
    }
    if plan.namespaces.contains(ThreadNameSpaceType::USER) {
        identity::assume(0, 0, &[]).step("become root of its user namespace")?;
    }
    program::begin_session()?;
    let terminal = match process.terminal {
        None => None,
        Some((rows, columns)) => {
            Some(take_terminal(Terminal::open(TerminalSize { rows, columns }, process.spec.uid)?)?)
        }
    };

    let mut spec = process.spec.clone();
    program::add_home(&mut spec);
    let filter = plan.filter.as_ref().map(|filter| &filter.compiled);
    let program = Program { spec: &spec, init: false };
    program.become_user(filter)?;
    let mut confined = false;
    if let Some(filter) = filter.filter(|filter| filter.flags.listener) {
        let listener = program.confine(Some(filter))?;
        let listener = listener.ok_or_else(|| Failure::because("install the seccomp filter", "it has no listener"))?;
        frame::send(socket, LISTENER, &[listener.as_fd()]).step("hand over the listener of its filter")?;
        wait_for(ANSWERED, socket)?;
        confined = true;
    }
    let master: Vec<_> = terminal.iter().map(|master| master.as_fd()).collect();
    frame::send(socket, READY, &master).step("speak to the runtime")?;
    let handed: Vec<_> = streams().into_iter().chain(preserved.iter().map(|fd| fd.as_fd())).collect();
    Err(program.launch(&handed, || if confined { Ok(()) } else { program.confine(filter).map(drop) }))
}

fn wait_for(word: &[u8], socket: BorrowedFd<'_>) -> Result<(), Failure> {
    match frame::receive(socket).step("hear from the runtime")? {
        Some(frame) if frame.body == word => Ok(()),
        _ => Err(Failure::because("hear from the runtime", "it is gone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        let set = cpus("0-2, 5").unwrap().unwrap();
        assert_eq!((0..8).filter(|&cpu| set.is_set(cpu)).collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert!(cpus("").unwrap().is_none());
        for wrong in ["a", "3-1", "1-", "99999", ","] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }
}
