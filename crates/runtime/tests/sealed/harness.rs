//! A supervisor of a test's own, and containers on it.

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use sampan_model::view::TerminalSize;
use sampan_model::{ContainerId, IdRange};
use sampan_runtime::cgroup::{Cgroups, ContainerGroup, Group, Limits, Mounts};
use sampan_runtime::link::{Link, LinkError};
use sampan_runtime::supervisor::{self, SupervisorConfig};
use sampan_runtime::wire::{
    Capabilities, CgroupMounts, CreateSpec, Ended, Event, Failure, MountPoint, Node, ProcessSpec, Reply, Request,
    StartSpec, Welcome,
};
use sampan_runtime::{defaults, rootfs, seccomp};
use sampan_sys::{frame, process};

/// Longer than anything takes; what takes as long has hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The layer that all containers have: this program at `/probe`, what it is linked with, and little else.
pub struct Layer(tempfile::TempDir);

impl Layer {
    pub fn make() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let copy = |from: &Path, to: &str| {
            let to = root.path().join(to.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
            std::fs::copy(from, to).expect("a copy");
        };
        copy(&std::env::current_exe().expect("this program"), "probe");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let mut libraries: Vec<&str> =
            maps.lines().filter_map(|line| line.split_once('/').map(|(before, _)| &line[before.len()..])).collect();
        libraries.retain(|path| path.contains(".so"));
        libraries.dedup();
        for library in libraries {
            copy(library.as_ref(), library);
            let name = Path::new(library).file_name().expect("a name").to_string_lossy();
            if name.starts_with("ld-") {
                // the loader, where programs name it
                copy(library.as_ref(), &format!("lib64/{name}"));
                copy(library.as_ref(), &format!("lib/{name}"));
            }
        }
        for (name, text, mode) in [
            ("etc/secret", "of root only", 0o600),
            ("bin/no-program", "neither a script nor a program", 0o755),
            ("bin/other-machine", ELF_OF_ANOTHER_MACHINE, 0o755),
            ("bin/script", "#!/no/such/interpreter\n", 0o755),
            ("bin/not-executable", "", 0o644),
        ] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        }
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        Self(root)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// 64 bits, little-endian, for a machine (SPARC v9) that none of ours is.
const ELF_OF_ANOTHER_MACHINE: &str = "\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x2b\0\x01\0\0\0\0\0\0\0\0\0\0\0@\0\0\0\0\0\0\0\
                                      \0\0\0\0\0\0\0\0\0\0\0\0@\08\0\x01\0\0\0\0\0\0\0";

/// A process of root that does `words` (see `inside`), sealed as any.
pub fn process(words: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: ["/probe", "inside"].iter().chain(words).map(ToString::to_string).collect(),
        env: vec!["PATH=/usr/bin:/bin".into(), "GREETING=hello".into()],
        cwd: "/work/here".into(),
        uid: 0,
        gid: 0,
        groups: vec![],
        umask: defaults::UMASK,
        capabilities: Capabilities::of_user(0, defaults::DEFAULT_CAPABILITIES),
        no_new_privileges: true,
        seccomp: Some(seccomp::docker_default(defaults::DEFAULT_CAPABILITIES).to_hex()),
        limits: vec![],
        oom_score_adj: None,
    }
}

/// A container from its creation on.
#[derive(Debug, Clone)]
pub struct Spec {
    pub id: ContainerId,
    pub host_name: String,
    pub process: ProcessSpec,
    pub ids: IdRange,
    pub cgroup_files: Vec<String>,
    pub cgroup_mounts: CgroupMounts,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub writable_kernel: bool,
    pub nodes: Vec<Node>,
    pub sysctls: Vec<(String, String)>,
    pub shm_bytes: u64,
    pub server: Option<ContainerId>,
    pub mounts: Vec<MountPoint>,
    pub read_only: bool,
    pub stdin: bool,
    pub terminal: Option<TerminalSize>,
    pub init: bool,
}

impl Spec {
    pub fn create(&self) -> Request {
        let Self { id, ids, cgroup_files, cgroup_mounts, masked_paths, readonly_paths, .. } = self.clone();
        let Self { writable_kernel, nodes, sysctls, shm_bytes, server, .. } = self.clone();
        let spec = CreateSpec {
            id,
            ids,
            cgroup_files,
            cgroup_mounts,
            masked_paths,
            readonly_paths,
            writable_kernel,
            nodes,
            sysctls,
            shm_bytes,
            server,
        };
        Request::Create(Box::new(spec))
    }

    pub fn go(&self) -> Request {
        self.go_followed(0)
    }

    pub fn go_followed(&self, followers: usize) -> Request {
        let Self { id, host_name, process, mounts, read_only, stdin, terminal, init, .. } = self.clone();
        let external = None;
        let spec = StartSpec { id, host_name, process, mounts, read_only, stdin, terminal, init, followers, external };
        Request::Go(Box::new(spec))
    }
}

/// A supervisor and its daemon's end. Ended, with all that runs on it, when it is dropped.
pub struct Machine<'layer> {
    pub layer: &'layer Layer,
    pub root: tempfile::TempDir,
    pub config: SupervisorConfig,
    pub welcome: Welcome,
    pub link: Link,
    pub events: Receiver<Event>,
    pub group: Group,
    servers: AtomicU32,
}

impl<'layer> Machine<'layer> {
    pub fn start(layer: &'layer Layer) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = tempfile::tempdir().expect("a directory");
        // as a daemon's root: the run directory can be passed through, nothing else can
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o711)).expect("a mode");
        let run_dir = root.path().join("run");
        std::fs::create_dir(&run_dir).expect("a directory");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = Cgroups::detect()
            .expect("cgroups")
            .instance(&format!("sampan-test-{}-{number}", std::process::id()))
            .expect("a cgroup");
        let config = SupervisorConfig {
            exe: std::env::current_exe().expect("this program"),
            run_dir: run_dir.clone(),
            log_dir: root.path().join("logs"),
            tag: format!("test{number}"),
            logger_id: 999_999_001,
            edge_id: 999_999_002,
            cgroup_files: group.role("supervisor").expect("a cgroup"),
            stderr: root.path().join("messages"),
        };
        supervisor::start(&config).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        let (link, welcome, events) = connect(&run_dir);
        Self { layer, root, config, welcome, link, events, group, servers: AtomicU32::new(0) }
    }

    /// As another daemon.
    pub fn reconnect(&mut self) {
        (self.link, self.welcome, self.events) = connect(&self.config.run_dir);
    }

    /// A container that does `words` (see `inside`) as user `uid`.
    pub fn spec(&self, words: &[&str]) -> Spec {
        let number = self.servers.fetch_add(1, Ordering::Relaxed) + 1;
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Spec {
            id: ContainerId::from_bytes(id),
            host_name: "courses-1".into(),
            process: process(words),
            ids: IdRange { start: 3_000_000_000 + number * 65_536, length: 65_536 },
            cgroup_files: vec![],
            cgroup_mounts: CgroupMounts::V1 { hierarchies: vec![], unified: false },
            masked_paths: defaults::masked_paths(),
            readonly_paths: defaults::readonly_paths(),
            server: None,
            mounts: vec![],
            read_only: false,
            writable_kernel: false,
            nodes: vec![],
            sysctls: vec![],
            shm_bytes: defaults::SHM_BYTES,
            stdin: false,
            terminal: None,
            init: false,
        }
    }

    /// A cgroup for the container, on a server of its own.
    pub fn join(&self, spec: &mut Spec) -> ContainerGroup {
        let limits = Limits { cpu_milli: 1000, memory_bytes: 256 << 20, pids: 64 };
        let server = self.group.create_server(spec.id.short(), &limits).expect("a cgroup");
        let group = server.create_container("container", &limits).expect("a cgroup");
        spec.cgroup_files = group.files().iter().map(|file| file.display().to_string()).collect();
        spec.cgroup_mounts = match group.mounts() {
            Mounts::V2 => CgroupMounts::V2,
            Mounts::V1 { hierarchies, unified } => {
                CgroupMounts::V1 { hierarchies: hierarchies.clone(), unified: *unified }
            }
        };
        group
    }

    pub fn upper(&self, id: &ContainerId) -> PathBuf {
        self.root.path().join(id.short())
    }

    /// Creates it: its pid, and pidfd, user and network namespace.
    pub fn create(&self, spec: &Spec) -> Result<(u32, Vec<OwnedFd>), Failure> {
        match self.call(spec.create(), &[])? {
            (Reply::Created { pid }, fds) => Ok((pid, fds)),
            other => panic!("{other:?}"),
        }
    }

    /// Lets it go on.
    pub fn go(&self, spec: &Spec, fds: &[OwnedFd]) -> Result<(), Failure> {
        let upper = self.upper(&spec.id);
        let root = rootfs::mount_overlay(
            rootfs::Layers { places: None, image: &[self.layer.path()] },
            &upper,
            fds[1].as_fd(),
            spec.ids,
        )
        .expect("a root");
        self.call(spec.go(), &[root.as_fd()]).map(drop)
    }

    pub fn start_container(&self, spec: &Spec) -> Result<u32, Failure> {
        let (pid, fds) = self.create(spec)?;
        self.go(spec, &fds).map(|()| pid)
    }

    /// Runs it to its end, and gives its exit code and what it printed.
    pub fn run(&self, spec: &Spec) -> (Option<u8>, Vec<String>) {
        if let Err(failure) = self.start_container(spec) {
            panic!("{failure}");
        }
        let ended = self.exited(&spec.id);
        self.logged(&spec.id);
        self.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
        (ended.exit_code, self.output(&spec.id))
    }

    /// What it has printed, each line without its time, stream and tag.
    pub fn output(&self, id: &ContainerId) -> Vec<String> {
        let text = std::fs::read_to_string(self.config.log_dir.join(format!("{id}.log"))).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.splitn(4, ' ').nth(3)?.to_owned())).collect()
    }

    pub fn exited(&self, id: &ContainerId) -> Ended {
        self.wait_for(|event| match event {
            Event::Exited { id: of, ended, .. } if of == id => Some(ended.clone()),
            _ => None,
        })
    }

    /// The end of this life of it, and no other.
    pub fn life_ended(&self, id: &ContainerId, life: u32) -> Ended {
        self.wait_for(|event| match event {
            Event::Exited { id: of, pid, ended } if of == id => {
                assert_eq!(*pid, life, "{ended:?}");
                Some(ended.clone())
            }
            _ => None,
        })
    }

    pub fn logged(&self, id: &ContainerId) {
        self.wait_for(|event| matches!(event, Event::Logged { id: of, .. } if of == id).then_some(()));
    }

    pub fn wait_for<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("{error}; messages: {}", std::fs::read_to_string(&self.config.stderr).unwrap_or_default())
            });
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub fn call(
        &self,
        request: Request,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        self.link.call(request, fds).map_err(|error| match error {
            LinkError::Refused(failure) => failure,
            other => panic!("{other}"),
        })
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let (link, welcome, _events) = connect(&self.config.run_dir);
        for held in &welcome.containers {
            let id = held.id.clone();
            let _ = link.call(Request::Forget { id }, &[]);
        }
        let (closed, when_closed) = mpsc::channel::<()>();
        link.on_closed(move || drop(closed));
        while let Err(LinkError::Refused(_)) = link.call(Request::Shutdown, &[]) {
            std::thread::yield_now();
        }
        let _ = when_closed.recv_timeout(PATIENCE);
        // it may still be in a role's cgroup for a moment after its last word
        let pidfd = sampan_sys::pidfd::open(welcome.pid);
        if let Ok(pidfd) = pidfd {
            let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut poll, None);
        }
        for server in self.group.servers().expect("servers") {
            self.group.server(&server).expect("a cgroup").remove().expect("the cgroup is empty");
        }
        self.group.remove().expect("the cgroups are empty");
    }
}

pub fn connect(run_dir: &Path) -> (Link, Welcome, Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let (link, welcome) = Link::connect(run_dir, move |event| {
        let _ = sender.send(event);
    })
    .expect("a supervisor");
    (link, welcome, events)
}

/// An edge that says what it was handed: `TABLE-REVISION TABLE SOCKETS`.
pub fn edge() -> ExitCode {
    let control = process::inherited(3).expect("the supervisor's socket");
    let mut sockets: Vec<String> = vec![];
    while let Ok(Some(frame)) = frame::receive(control.as_fd()) {
        let message: serde_json::Value = serde_json::from_slice(&frame.body).expect("JSON");
        let keys = |name: &str| -> Option<Vec<String>> { serde_json::from_value(message.get(name)?.clone()).ok() };
        let mut table = String::new();
        if let Some(new) = keys("sockets") {
            assert_eq!(new.len(), frame.fds.len());
            sockets.extend(new);
        }
        if let Some(keep) = keys("keep") {
            sockets.retain(|key| keep.contains(key));
            std::io::Read::read_to_string(
                &mut std::fs::File::from(frame.fds.into_iter().next().expect("a table")),
                &mut table,
            )
            .expect("a table");
        }
        sockets.sort();
        let ids = format!("{} {}", rustix::process::getuid().as_raw(), std::process::id());
        let _ = frame::send(control.as_fd(), format!("{} {table} {sockets:?} {ids}", message["table"]).as_bytes(), &[]);
    }
    let _ = std::io::stdout().flush();
    ExitCode::SUCCESS
}
