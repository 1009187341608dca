//! Making a container: from a bundle to a first process that waits, or runs.
//!
//! ```text
//! read, plan          all that can be refused without having made anything
//! state directory     the name is taken from here on
//! cgroup, mounts      as the host's root
//! clone               the first process (init.rs)
//! id maps, limits     what only the host's root may do for it
//! ◀ mounted           the hooks prestart and createRuntime
//! ◀ listener          handed to the seccomp agent
//! ◀ ready             the terminal handed over, the pid written
//! ```
//!
//! Whatever fails, all that was made is taken back.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{WaitId, WaitIdOptions};
use sampan_sys::clone::Cloned;
use sampan_sys::{frame, pidfd, user_namespace};

use super::cgroups::Hierarchies;
use super::config::{Config, Status};
use super::error::{OciError, When as _};
use super::init::{self, ANSWERED, Ends, HOOKED, LISTENER, MAPPED, MOUNTED, Plan, READY, START};
use super::mounts::{self, Planned, id_maps};
use super::namespaces::{Own, Set};
use super::seccomp::Filter;
use super::state::{self, Directory, Record, Root};
use super::{console, devices, hooks, labels, options, process};
use crate::wire::Failure;

/// How a container is to be made: what is not in its bundle.
#[derive(Debug, Default)]
pub struct Creation {
    /// Its name.
    pub id: String,
    /// Its bundle's directory.
    pub bundle: PathBuf,
    /// The socket that its terminal is sent to.
    pub console_socket: Option<PathBuf>,
    /// The file that its pid is written to.
    pub pid_file: Option<PathBuf>,
    /// It changes its root only.
    pub no_pivot: bool,
    /// It stays in the session keyring of whoever made it.
    pub no_new_keyring: bool,
    /// Nobody stays in front of it.
    pub detached: bool,
    /// Descriptors 3 and on that its program is to have, close-on-exec until then.
    pub preserved: Vec<OwnedFd>,
    /// Entries of its program's environment beside the bundle's.
    pub env: Vec<String>,
}

/// A container that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub directory: Directory,
    pub record: Record,
    pub pidfd: OwnedFd,
    /// To its first process, until that is its program.
    pub socket: OwnedFd,
    /// Its terminal, where nobody asked for it to be sent.
    pub terminal: Option<OwnedFd>,
    pub config: Config,
    pub cgroups: Hierarchies,
}

/// Until when it is there: who lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// `start`, at some time.
    Fifo,
    /// This process.
    Socket,
}

/// Makes a container that waits until it is started.
///
/// # Errors
/// What cannot be done; nothing is left behind then.
pub fn create(root: &Root, creation: &Creation) -> Result<(), OciError> {
    make(root, creation, Gate::Fifo).map(drop)
}

/// Makes a container. Nothing is left behind where that fails.
pub(super) fn make(root: &Root, creation: &Creation, gate: Gate) -> Result<Made, OciError> {
    let directory = root.directory(&creation.id)?;
    if directory.is_there() {
        return Err(OciError::Exists(creation.id.clone()));
    }
    let plan = Reading::read(creation)?;
    directory.make()?;
    let mut undo = Undo { directory: &directory, cgroups: None, process: None };
    let made = plan.make(creation, gate, &directory, &mut undo);
    if made.is_err() {
        undo.run();
    }
    made
}

/// What was made and is to be taken back where the rest fails.
struct Undo<'a> {
    directory: &'a Directory,
    cgroups: Option<Hierarchies>,
    process: Option<OwnedFd>,
}

impl Undo<'_> {
    /// Goes on past failures: the one that led here is what is told.
    fn run(&self) {
        if let Some(process) = &self.process {
            let _ = pidfd::signal(process.as_fd(), rustix::process::Signal::KILL.as_raw());
            let _ = rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
        }
        if let Some(cgroups) = &self.cgroups {
            let _ = cgroups.kill();
            let _ = cgroups.remove();
        }
        let _ = self.directory.remove();
    }
}

/// A bundle that was read, and found to be one that can be made.
struct Reading {
    config: Config,
    text: Vec<u8>,
    bundle: String,
    rootfs: PathBuf,
    process: process::Planned,
    namespaces: Set,
    filter: Option<Filter>,
    nodes: Vec<devices::Node>,
}

impl Reading {
    /// The bundle becomes the working directory: relative paths are its.
    fn read(creation: &Creation) -> Result<Self, OciError> {
        let bundle = fs::canonicalize(&creation.bundle)
            .map_err(|source| OciError::Read { path: creation.bundle.display().to_string(), source })?;
        std::env::set_current_dir(&bundle).when(format!("enter the bundle {}", bundle.display()))?;
        let path = Path::new("config.json");
        let text = state::read(path)?;
        let mut config = state::parse_config(&text, path)?;
        check(&config)?;
        let root = config.root.as_ref().ok_or_else(|| OciError::config("root", "it is missing"))?;
        let rootfs = bundle.join(&root.path);
        let mut process = config.process.take().ok_or_else(|| OciError::config("process", "it is missing"))?;
        process.env.extend(creation.env.iter().cloned());
        labels::check(&config, &process)?;
        match (process.terminal, &creation.console_socket) {
            (true, None) if creation.detached => {
                return Err(OciError::Unsupported("a terminal that nobody is in front of needs --console-socket"));
            }
            (false, Some(_)) => {
                return Err(OciError::Unsupported(
                    "--console-socket is for a process with a terminal, and it has none",
                ));
            }
            _ => {}
        }
        Ok(Self {
            namespaces: Set::open(&config)?,
            filter: config.linux.seccomp.as_ref().map(Filter::read).transpose()?,
            nodes: devices::nodes(&config)?,
            process: process::Planned::read(process)?,
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs,
            text,
            config,
        })
    }

    fn make(
        mut self,
        creation: &Creation,
        gate: Gate,
        directory: &Directory,
        undo: &mut Undo<'_>,
    ) -> Result<Made, OciError> {
        let cgroups = Hierarchies::make(&creation.id, &self.config)?;
        undo.cgroups = Some(cgroups.clone());
        let mounts = self.open_mounts()?;
        let root = self.open_root()?;
        let rootfs = self.rootfs.to_string_lossy().into_owned();
        let record = Record::new(&creation.id, &self.bundle, &rootfs, cgroups.paths(), &self.config);
        directory.write_config(&self.text)?;
        let (fifo, failure) = match gate {
            Gate::Socket => (None, None),
            Gate::Fifo => (Some(directory.make_fifo()?), Some(directory.make_failure()?)),
        };
        if self.process.terminal.is_none() {
            let uid = self.process.spec.uid;
            let users = &self.config.linux.uid_mappings;
            let users_are_own = self.namespaces.is_new("user");
            console::own_streams(if users_are_own { devices::on_host(uid, users) } else { uid })?;
        }
        let Self { config, process, namespaces, filter, nodes, .. } = self;
        let mut plan = Plan {
            config,
            record,
            namespaces,
            cgroups,
            process,
            filter,
            mounts,
            nodes,
            root,
            no_pivot: creation.no_pivot,
            no_new_keyring: creation.no_new_keyring,
        };

        let (socket, theirs) = frame::pair().when("make a socket")?;
        let ends = Ends {
            socket: theirs.as_fd(),
            gate: fifo.as_ref().zip(failure.as_ref()).map(|(fifo, failure)| (fifo.as_fd(), failure.as_fd())),
            preserved: &creation.preserved,
        };
        let mut keep = ends.all();
        keep.extend(plan.root.as_ref().map(|root| root.as_fd()));
        keep.extend(plan.mounts.iter().filter_map(Planned::fd));
        keep.extend(plan.namespaces.joined("mount"));
        let unified = plan.cgroups.unified()?;
        let cloned = plan.namespaces.clone(unified.as_ref().map(|fd| fd.as_fd()), &keep, || init::run(&plan, &ends));
        drop((fifo, failure));
        let Cloned { pid, pidfd } = cloned.when("clone its first process")?;
        drop(theirs);
        undo.process = Some(pidfd.try_clone().when("hold its first process")?);

        let number = pid.as_raw_nonzero().get().unsigned_abs();
        plan.record.pid = number;
        plan.record.start_time = state::stat(number).when("look at its first process")?.1;
        if plan.namespaces.is_new("user") {
            let linux = &plan.config.linux;
            user_namespace::write_maps(number, &id_maps(&linux.uid_mappings), &id_maps(&linux.gid_mappings))
                .when("write the id maps of its user namespace")?;
            frame::send(socket.as_fd(), MAPPED, &[]).when("speak to its first process")?;
        }
        plan.process.prepare(pid)?;
        directory.write(&plan.record)?;
        let terminal = attend(&socket, &plan)?;
        let terminal = match (terminal, &creation.console_socket) {
            (Some(master), Some(path)) => {
                console::hand_over(master.as_fd(), path)?;
                None
            }
            (terminal, _) => terminal,
        };
        if let Some(path) = &creation.pid_file {
            write_pid(path, number)?;
        }
        let Plan { config, record, cgroups, .. } = plan;
        Ok(Made { directory: directory.clone(), record, pidfd, socket, terminal, config, cgroups })
    }

    fn open_mounts(&mut self) -> Result<Vec<Planned>, OciError> {
        let mut planned = Vec::with_capacity(self.config.mounts.len());
        for mount in &self.config.mounts {
            let is_dev = matches!(mount.destination.trim_end_matches('/'), "/dev" | "dev");
            let dev = match is_dev && self.namespaces.is_new("user") {
                true => devices::make_dev(mount, &mut self.nodes, &self.config)?,
                false => None,
            };
            planned.push(match dev {
                Some(dev) => Planned::made(mount, dev),
                None => Planned::open(mount, &self.config, &self.namespaces)?,
            });
        }
        Ok(planned)
    }

    /// The root file system; `None` where it is in a mount namespace that the first process is yet to join.
    fn open_root(&self) -> Result<Option<OwnedFd>, OciError> {
        let step = || format!("open the root file system {}", self.rootfs.display());
        let path = std::ffi::CString::new(self.rootfs.as_os_str().as_encoded_bytes())
            .map_err(|_| OciError::config("root.path", "it has a zero byte"))?;
        match self.namespaces.of("mount") {
            Own::New => mounts::clone_root(&path, &self.config).map(Some).when(step()),
            Own::Joined => Ok(None),
            // the directory itself
            Own::Shared => {
                use rustix::fs::{CWD, Mode, OFlags};
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(CWD, &path, flags, Mode::empty()).map(Some).when(step())
            }
        }
    }
}

/// What would be found out in the middle.
fn check(config: &Config) -> Result<(), OciError> {
    let linux = &config.linux;
    let has = |kind: &str| linux.namespaces.iter().find(|namespace| namespace.kind == kind);
    let is_version = |version: &str| version.split('.').next() == Some("1");
    if !is_version(&config.oci_version) {
        return Err(OciError::config("ociVersion", format!("{:?} is not of version 1", config.oci_version)));
    }
    let own = [
        ("uts", "hostname", !config.hostname.is_empty()),
        ("uts", "domainname", !config.domainname.is_empty()),
        ("mount", "mounts", !config.mounts.is_empty()),
        ("mount", "linux.maskedPaths", !linux.masked_paths.is_empty()),
        ("mount", "linux.readonlyPaths", !linux.readonly_paths.is_empty()),
    ];
    for (kind, what, asked) in own {
        if asked && has(kind).is_none() {
            return Err(OciError::config(what, format!("it needs a {kind} namespace of the container's own")));
        }
    }
    let is_new = has("user").is_some_and(|user| user.path.as_deref().unwrap_or_default().is_empty());
    let has_maps = !linux.uid_mappings.is_empty() && !linux.gid_mappings.is_empty();
    if is_new && !has_maps {
        return Err(OciError::config("linux.uidMappings", "a new user namespace needs them, and gidMappings"));
    }
    if has("user").is_none() && (!linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty()) {
        return Err(OciError::config("linux.uidMappings", "they need a user namespace"));
    }
    for name in linux.sysctl.keys() {
        check_sysctl(name, config)?;
    }
    if let Some(personality) = &linux.personality {
        process::check_personality(personality)?;
    }
    if !linux.rootfs_propagation.is_empty() && options::propagation(&linux.rootfs_propagation).is_none() {
        let text = format!("{:?} is no propagation", linux.rootfs_propagation);
        return Err(OciError::config("linux.rootfsPropagation", text));
    }
    if linux.intel_rdt.is_some() {
        return Err(OciError::config("linux.intelRdt", "this runtime does not divide caches and memory bandwidth"));
    }
    Ok(())
}

/// Only what is the container's own: everything else would be the machine's.
fn check_sysctl(name: &str, config: &Config) -> Result<(), OciError> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let has = |kind: &str| config.linux.namespaces.iter().any(|namespace| namespace.kind == kind);
    let dotted = name.replace('/', ".");
    let needed = match dotted.as_str() {
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => "ipc",
        name if name.starts_with("net.") => "network",
        "kernel.domainname" => "uts",
        "kernel.hostname" => {
            return Err(OciError::config("linux.sysctl", "kernel.hostname is what hostname is for"));
        }
        // of whoever has the user namespace (Linux 6.11 and later)
        name if name.starts_with("user.") => "user",
        _ => return Err(OciError::config("linux.sysctl", format!("{name} is the whole machine's, not a container's"))),
    };
    if has(needed) {
        return Ok(());
    }
    Err(OciError::config("linux.sysctl", format!("{name} needs a {needed} namespace of the container's own")))
}

/// Listens to the first process until it is ready, and does for it what it asks. Gives its terminal, where it has one.
fn attend(socket: &OwnedFd, plan: &Plan) -> Result<Option<OwnedFd>, OciError> {
    loop {
        let told = frame::receive(socket.as_fd()).when("hear from its first process")?;
        let Some(mut told) = told else {
            return Err(OciError::Start(Failure::because("make it", "its first process was killed")));
        };
        match &told.body[..] {
            MOUNTED => {
                let state = plan.record.state(Status::Creating, Some(plan.record.pid));
                hooks::run("prestart", &plan.config.hooks.prestart, &state)?;
                hooks::run("createRuntime", &plan.config.hooks.create_runtime, &state)?;
                frame::send(socket.as_fd(), HOOKED, &[]).when("speak to its first process")?;
            }
            LISTENER => {
                if let (Some(filter), Some(listener)) = (&plan.filter, told.fds.pop()) {
                    filter.hand_over(listener.as_fd(), &plan.record, Status::Creating, plan.record.pid)?;
                }
                frame::send(socket.as_fd(), ANSWERED, &[]).when("speak to its first process")?;
            }
            READY => return Ok(told.fds.pop()),
            failure => return Err(OciError::Start(read_failure(failure))),
        }
    }
}

pub(super) fn read_failure(text: &[u8]) -> Failure {
    serde_json::from_slice(text).unwrap_or_else(|_| Failure::because("make it", "its first process said nonsense"))
}

impl Made {
    /// Lets its program be executed, and waits until it is.
    pub fn start(&self) -> Result<(), OciError> {
        frame::send(self.socket.as_fd(), START, &[]).when("speak to its first process")?;
        match frame::receive(self.socket.as_fd()).when("hear from its first process")? {
            // closed by `execve`, or by its end, which is told as that
            None => Ok(()),
            Some(frame) => Err(OciError::Start(read_failure(&frame.body))),
        }
    }
}

/// Writes a pid to another name and renames: whoever waits for the file finds the whole of it.
pub(super) fn write_pid(path: &Path, pid: u32) -> Result<(), OciError> {
    let step = || format!("write the pid file {}", path.display());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = fs::File::options().write(true).create_new(true).mode(0o644).open(&new).when(step())?;
    file.write_all(pid.to_string().as_bytes()).and_then(|()| fs::rename(&new, path)).when(step())
}
