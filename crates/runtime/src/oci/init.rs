//! A container's first process, from the moment it is cloned to the moment it is the bundle's program.
//!
//! ```text
//! the host's file systems
//!   close itself to others         nobody looks into what is a copy of the runtime
//!   join the cgroups               those of version 1; it was born in the one of version 2
//! ── the runtime has written the id maps ──
//! root of the container's users
//!   session, keyring, cgroup namespace
//!   the root, with all mounts and devices in it
//! ── the hooks prestart and createRuntime ──
//!   the hooks createContainer      the host's files, the container's namespaces
//!   pivot                          from here on no path leads to the host
//! the container's file systems
//!   terminal, working directory, names, sysctl
//!   what is read-only and what is hidden
//!   capabilities, user             ([`Program`])
//!   the listener of its filter
//! ── created; it waits until it is started ──
//!   the hooks startContainer
//!   no new privileges, filter, execute
//! ```
//!
//! It says what went wrong on its socket, and after it was created into a file of the state's (the runtime that made it is
//! gone then); or nothing, and both close in `execve`.
//!
//! While it waits it is still a copy of the runtime, in a container that others may be in already. They cannot look into
//! it (it is not dumpable), it holds no descriptor of the host's but those two, and its `/proc/self/exe` is a mount of its
//! own that can never be written to ([`sealed`](super::sealed)).

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use sampan_model::view::TerminalSize;
use sampan_sys::clone::{Namespaces, unshare};
use sampan_sys::mount::{self, Builder};
use sampan_sys::{frame, identity, process};

use super::cgroups::Hierarchies;
use super::config::{Config, Status};
use super::devices::{self, Node};
use super::namespaces::{Own, Set};
use super::state::Record;
use super::{hooks, labels, mounts, options, process as planned, seccomp};
use crate::child::Step as _;
use crate::child::program::{self, Program};
use crate::child::terminal::Terminal;
use crate::child::{mounts as own_mounts, places};
use crate::wire::Failure;

/// To the first process: its id maps are written.
pub(super) const MAPPED: &[u8] = b"mapped";
/// From it: all is mounted, and it waits for the runtime's hooks.
pub(super) const MOUNTED: &[u8] = b"mounted";
/// To it: those have run.
pub(super) const HOOKED: &[u8] = b"hooked";
/// From it, with a descriptor: the listener of its filter.
pub(super) const LISTENER: &[u8] = b"listener";
/// To it: whoever answers has that.
pub(super) const ANSWERED: &[u8] = b"answered";
/// From it: it is created. With its terminal, where it has one.
pub(super) const READY: &[u8] = b"ready";
/// To it, or one byte on its FIFO: execute.
pub(super) const START: &[u8] = b"start";

/// The exit code of one that could not be made. Nobody is told it: the failure itself is.
const FAILED: u8 = 1;

/// A container that can be made.
pub(super) struct Plan {
    pub config: Config,
    pub record: Record,
    pub namespaces: Set,
    pub cgroups: Hierarchies,
    pub process: planned::Planned,
    pub filter: Option<seccomp::Filter>,
    pub mounts: Vec<mounts::Planned>,
    pub nodes: Vec<Node>,
    /// A clone of the bundle's root file system, mounted nowhere yet; `None` where it is in the mount namespace that is
    /// joined.
    pub root: Option<OwnedFd>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
}

/// What it holds of the runtime's.
pub(super) struct Ends<'fds> {
    /// Where it is told and tells, while the runtime is there.
    pub socket: BorrowedFd<'fds>,
    /// Where it waits and fails when the runtime is gone: the FIFO, the file.
    pub gate: Option<(BorrowedFd<'fds>, BorrowedFd<'fds>)>,
    /// Descriptors 3 and on, of whoever called the runtime, for the program.
    pub preserved: &'fds [OwnedFd],
}

impl<'fds> Ends<'fds> {
    /// All that it keeps open, the standard streams too.
    pub fn all(&self) -> Vec<BorrowedFd<'fds>> {
        let gate = self.gate.into_iter().flat_map(|(fifo, failure)| [fifo, failure]);
        streams()
            .into_iter()
            .chain([self.socket])
            .chain(gate)
            .chain(self.preserved.iter().map(|fd| fd.as_fd()))
            .collect()
    }
}

pub(super) fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Why it did not become its program.
pub(super) enum Stopped {
    Failed(Failure),
    /// Whoever it waits for is gone.
    Alone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs in the first process, and becomes the program; or gives the code to exit with.
pub(super) fn run(plan: &Plan, ends: &Ends<'_>) -> u8 {
    let mut created = false;
    let Err(stopped) = become_program(plan, ends, &mut created);
    if let Stopped::Failed(failure) = stopped
        && let Ok(text) = serde_json::to_vec(&failure)
    {
        // whoever is gone has nobody to tell
        let _ = match ends.gate {
            Some((_, failure)) if created => rustix::io::write(failure, &text).map(drop).map_err(io::Error::from),
            _ => frame::send(ends.socket, &text, &[]),
        };
    }
    FAILED
}

fn become_program(plan: &Plan, ends: &Ends<'_>, created: &mut bool) -> Result<Infallible, Stopped> {
    let Plan { config, namespaces, process, .. } = plan;
    process::set_dumpable(false).step("close itself to others")?;
    plan.cgroups.join()?;
    if let Some(mount) = namespaces.joined("mount") {
        rustix::thread::move_into_link_name_space(mount, Some(rustix::thread::LinkNameSpaceType::Mount))
            .step("enter its mount namespace")?;
    }
    if namespaces.is_new("user") {
        wait_for(MAPPED, ends)?;
    }
    if namespaces.has_users() {
        identity::assume(0, 0, &[]).step("become root of its user namespace")?;
    }
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().step("begin a session")?;
    if !plan.no_new_keyring {
        program::leave_keyring()?;
    }
    if namespaces.is_new("cgroup") {
        unshare(Namespaces::CGROUP).step("make a cgroup namespace")?;
    }

    // of this container's processes, and nothing can have been mounted over it
    let needs_proc = !config.linux.sysctl.is_empty() || labels::are_there(&process.config);
    let proc =
        needs_proc.then(|| Builder::open("proc")?.mount(own_mounts::PLAIN)).transpose().map_err(Failure::from)?;
    let there;
    let root = match &plan.root {
        Some(root) => root.as_fd(),
        None => {
            let step = format!("open the root file system {} in the mount namespace that it joins", plan.record.rootfs);
            there = mounts::clone_root(&path_of_root(plan), config).step(&step)?;
            there.as_fd()
        }
    };
    build_root(plan, root, ends)?;
    let terminal = enter_root(plan, root)?;
    set_names(config)?;
    if let Some(proc) = &proc {
        set_sysctls(proc.as_fd(), config)?;
    }
    own_mounts::restrict(&config.linux.masked_paths, &config.linux.readonly_paths)?;
    propagate(config)?;
    if let Some(proc) = &proc {
        labels::apply(proc.as_fd(), &process.config)?;
    }
    drop(proc);
    if let Some(personality) = &config.linux.personality {
        process::set_personality(planned::personality(personality)).step("set its personality")?;
    }

    let mut spec = process.spec.clone();
    program::add_home(&mut spec);
    let filter = plan.filter.as_ref().map(|filter| &filter.compiled);
    let program = Program { spec: &spec, init: false };
    program.become_user(filter)?;
    let listens = filter.is_some_and(|filter| filter.flags.listener);
    if listens {
        let listener = program.confine(filter)?;
        let listener = listener.ok_or_else(|| Failure::because("install the seccomp filter", "it has no listener"))?;
        frame::send(ends.socket, LISTENER, &[listener.as_fd()]).step("hand over the listener of its filter")?;
        wait_for(ANSWERED, ends)?;
    }
    program.find()?;

    let master: Vec<_> = terminal.iter().map(|master| master.as_fd()).collect();
    frame::send(ends.socket, READY, &master).step("speak to the runtime")?;
    *created = true;
    // what was mounted, and what it was mounted from
    sampan_sys::clone::keep_only(&ends.all());
    wait_for_start(ends)?;
    let state =
        plan.record.state(Status::Created, Some(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()));
    hooks::run("startContainer", &config.hooks.start_container, &state)
        .map_err(|error| Failure::because("run the hooks of its start", super::line(&error)))?;

    let handed: Vec<_> = streams().into_iter().chain(ends.preserved.iter().map(|fd| fd.as_fd())).collect();
    let confine = || if listens { Ok(()) } else { program.confine(filter).map(drop) };
    Err(program.launch(&handed, confine).into())
}

fn wait_for(word: &[u8], ends: &Ends<'_>) -> Result<(), Stopped> {
    match frame::receive(ends.socket).step("hear from the runtime")? {
        Some(frame) if frame.body == word => Ok(()),
        Some(_) => Err(Failure::because("hear from the runtime", "it said something out of turn").into()),
        None => Err(Stopped::Alone),
    }
}

fn wait_for_start(ends: &Ends<'_>) -> Result<(), Stopped> {
    let Some((fifo, _)) = ends.gate else { return wait_for(START, ends) };
    let mut byte = [0_u8];
    loop {
        match rustix::io::read(fifo, &mut byte) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(Stopped::Alone),
            result => return Ok(result.map(drop).step("wait until it is started")?),
        }
    }
}

fn path_of_root(plan: &Plan) -> CString {
    CString::new(plan.record.rootfs.as_str()).unwrap_or_default()
}

/// The root file system with all that is mounted in it, at the place of the bundle's.
fn build_root(plan: &Plan, root: BorrowedFd<'_>, ends: &Ends<'_>) -> Result<(), Stopped> {
    let Plan { config, namespaces, .. } = plan;
    match namespaces.of("mount") {
        // one that is joined is the container's from here on (as with runc)
        Own::New | Own::Joined => {
            rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .step("take its mounts apart from the host's")?;
            let path = path_of_root(plan);
            // hooks look for it there; where its users cannot get there, no hook of theirs can either
            match mount::attach(root, if plan.no_pivot { c"/" } else { &path }) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mount::attach(root, c"/"),
                result => result,
            }
            .step("attach the root file system")?;
        }
        // the tree is one of that namespace's, and stays in it
        Own::Shared => {}
    }
    mounts::attach(root, &plan.mounts, config, &plan.cgroups)?;
    if !plan.mounts.iter().any(mounts::Planned::is_bound_dev) {
        devices::make(root, &plan.nodes, namespaces.has_users())?;
    }
    let hooks = &config.hooks;
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        frame::send(ends.socket, MOUNTED, &[]).step("speak to the runtime")?;
        wait_for(HOOKED, ends)?;
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let state = plan.record.state(Status::Creating, Some(pid));
    hooks::run("createContainer", &hooks.create_container, &state)
        .map_err(|error| Failure::because("run the hooks of its creation", super::line(&error)).into())
}

/// Makes it the root, and lets go of the host's tree. Gives the master of its terminal, which is of the container's own
/// kind.
fn enter_root(plan: &Plan, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
    let Plan { config, process, .. } = plan;
    rustix::process::fchdir(root).step("enter the root file system")?;
    if plan.namespaces.of("mount") != Own::Shared && !plan.no_pivot {
        // "pivot_root(".", ".")", pivot_root(2): the old root comes to lie over the new one, and is taken off
        rustix::process::pivot_root(c".", c".").step("pivot to the root file system")?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH).step("let go of the host's mounts")?;
    } else {
        rustix::process::chroot(c".").step("change the root")?;
    }
    rustix::process::chdir(c"/").step("enter /")?;

    let terminal = match process.terminal {
        None => None,
        Some((rows, columns)) => {
            let terminal = Terminal::open(TerminalSize { rows, columns }, process.spec.uid)?;
            terminal.bind_console()?;
            Some(take_terminal(terminal)?)
        }
    };
    std::fs::create_dir_all(&process.spec.cwd).step(&format!("make the working directory {}", process.spec.cwd))?;
    if config.root.as_ref().is_some_and(|root| root.readonly) {
        places::protect_root()?;
    }
    Ok(terminal)
}

/// Makes a terminal the standard streams, and gives its other end. At once: whoever called the runtime waits until nobody
/// has the streams that it was called with.
pub(super) fn take_terminal(terminal: Terminal) -> Result<OwnedFd, Failure> {
    let Terminal { master, slave } = terminal;
    rustix::stdio::dup2_stdin(&slave)
        .and_then(|()| rustix::stdio::dup2_stdout(&slave))
        .and_then(|()| rustix::stdio::dup2_stderr(&slave))
        .step("make the terminal its standard streams")?;
    Ok(master)
}

fn set_names(config: &Config) -> Result<(), Failure> {
    if !config.hostname.is_empty() {
        rustix::system::sethostname(config.hostname.as_bytes()).step("set the host name")?;
    }
    if !config.domainname.is_empty() {
        rustix::system::setdomainname(config.domainname.as_bytes()).step("set the domain name")?;
    }
    Ok(())
}

fn set_sysctls(proc: BorrowedFd<'_>, config: &Config) -> Result<(), Failure> {
    for (name, value) in &config.linux.sysctl {
        // a name with slashes may have dots in its parts (sysctl(8))
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        labels::write(proc, &format!("sys/{path}"), value).step(&format!("set the sysctl {name} to {value}"))?;
    }
    Ok(())
}

fn propagate(config: &Config) -> Result<(), Failure> {
    let Some(propagation) = options::propagation(&config.linux.rootfs_propagation) else { return Ok(()) };
    if propagation.flag == options::PRIVATE {
        return Ok(()); // it is
    }
    let step = format!("make the root file system {}", config.linux.rootfs_propagation);
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(&step)?;
    let change = mount::Change { propagation: propagation.flag, ..mount::Change::default() };
    match propagation.depth {
        options::Depth::One => mount::change(root.as_fd(), &change),
        options::Depth::Tree => mount::change_tree(root.as_fd(), &change),
    }
    .step(&step)
}
