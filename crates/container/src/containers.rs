//! The containers of this instance: created, looked up, stopped, waited for, removed.
//!
//! ```text
//! create ─▶ record ─▶ start ─▶ running ─▶ (exit | stop) ─▶ exited ─▶ remove ─▶ no record
//! ```
//!
//! One thing at a time is done with one container: its `turn`. The blocking parts (the supervisor's answers, mounts,
//! netlink, SQLite) run on tokio's blocking threads.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sampan_image::Image;
use sampan_model::instance::{Block, SERVERS};
use sampan_model::view::Exit;
use sampan_model::{ContainerId, ContainerSpec, ContainerState, ContainerStatus, Digest};
use sampan_network::Network;
use sampan_network::listening::Listening;
use sampan_runtime::cgroup::Group;
use sampan_runtime::logs;
use sampan_runtime::wire::{Ended, Event, Request};
use sampan_store::{Durability, Records};
use tokio::sync::watch;

use crate::wires::Wires;
use crate::{ContainerError, ContainerRecord, EdgeTables, Images, Machine, Supervisor, failpoint};

/// How long a container that is removed at its end is kept for those who wait for its end or read its log.
const KEPT_AFTER_EXIT: Duration = Duration::from_secs(10);

/// How long a container may take to end when it was killed: the kernel's business alone.
const KILLED_WITHIN: Duration = Duration::from_secs(30);

/// What containers stand on.
pub struct Foundation {
    /// Records.
    pub records: Arc<Records>,
    /// The images.
    pub images: Images,
    /// The network.
    pub network: Arc<Network>,
    /// The instance's cgroups.
    pub cgroups: Arc<Group>,
    /// The supervisor.
    pub supervisor: Arc<Supervisor>,
    /// The edge's table.
    pub edge: EdgeTables,
    /// This machine.
    pub machine: Machine,
    /// `$SAMPAN_ROOT/containers`.
    pub containers_dir: PathBuf,
    /// `$SAMPAN_ROOT/logs`.
    pub logs_dir: PathBuf,
}

/// All containers. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) foundation: Foundation,
    /// The default seccomp filter, hex, as the supervisor takes it.
    pub(crate) seccomp: String,
    /// The daemon stops: nothing is started any more.
    pub(crate) stopping: AtomicBool,
    pub(crate) wires: Arc<Wires>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    containers: HashMap<ContainerId, Arc<Container>>,
    servers: BTreeSet<u32>,
}

/// One container as the daemon knows it.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    record: Mutex<ContainerRecord>,
    state: watch::Sender<ContainerState>,
    /// Whether all its output is in its log.
    pub(crate) logged: watch::Sender<bool>,
    /// Held while something is done with it.
    pub(crate) turn: Mutex<()>,
    /// Whether nothing of its server is left outside its record, for all that is known.
    pub(crate) is_down: AtomicBool,
}

impl Container {
    fn new(record: ContainerRecord) -> Self {
        let logged = record.state.status != ContainerStatus::Running;
        Self {
            id: record.id.clone(),
            state: watch::Sender::new(record.state.clone()),
            record: Mutex::new(record),
            logged: watch::Sender::new(logged),
            turn: Mutex::new(()),
            is_down: AtomicBool::new(false),
        }
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Containers {
    /// No containers yet: [`adopt`](Self::adopt) comes next.
    pub fn new(foundation: Foundation) -> Self {
        let program = sampan_runtime::seccomp::docker_default(sampan_runtime::defaults::DEFAULT_CAPABILITIES);
        let seccomp = program.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let wires = Arc::new(Wires::new(Arc::clone(&foundation.network)));
        let stopping = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { foundation, seccomp, stopping, wires, index: Mutex::default() }) }
    }

    /// This machine.
    pub fn machine(&self) -> &Machine {
        &self.inner.foundation.machine
    }

    /// The images that containers are made from.
    pub fn images(&self) -> &Images {
        &self.inner.foundation.images
    }

    /// The edge's table.
    pub fn edge(&self) -> &EdgeTables {
        &self.inner.foundation.edge
    }

    /// The records of all containers, by name.
    pub fn list(&self) -> Vec<ContainerRecord> {
        let mut records: Vec<_> = self.inner.all().iter().map(|container| container.record()).collect();
        records.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        records
    }

    /// The container that a name, an id or the beginning of an id means.
    ///
    /// # Errors
    /// It means none, or several.
    pub fn find(&self, text: &str) -> Result<ContainerRecord, ContainerError> {
        self.inner.find(text).map(|container| container.record())
    }

    /// A container's state as it changes. It ends with the container.
    ///
    /// # Errors
    /// There is no such container.
    pub fn watch(&self, id: &ContainerId) -> Result<watch::Receiver<ContainerState>, ContainerError> {
        self.inner.get(id).map(|container| container.state.subscribe())
    }

    /// Records a container. It is not started.
    ///
    /// # Errors
    /// The name is taken, the size is more than the machine has, or the image cannot be run here.
    pub async fn create(&self, spec: ContainerSpec) -> Result<ContainerRecord, ContainerError> {
        self.blocking("creating a container", move |inner| inner.create(spec)).await
    }

    /// Starts a container that is not running.
    ///
    /// # Errors
    /// It runs already, or cannot be started: it is then `exited`, with the error in its state.
    pub async fn start(&self, id: &ContainerId) -> Result<ContainerRecord, ContainerError> {
        let id = id.clone();
        self.blocking("starting a container", move |inner| {
            let container = inner.get(&id)?;
            inner.start(&container)
        })
        .await
    }

    /// Asks a container to end, and ends it after `grace`. It stays, `exited`. One that does not run is left as it is.
    ///
    /// # Errors
    /// There is no such container, or the supervisor is gone.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        let mut state = container.state.subscribe();
        let has_ended = |state: &ContainerState| state.status != ContainerStatus::Running;
        if has_ended(&state.borrow_and_update()) {
            return Ok(());
        }
        let pid = container.running_pid().unwrap_or(0);
        if !grace.is_zero() && heeds_termination(pid) {
            self.signal(&container, TERMINATE).await?;
            if tokio::time::timeout(grace, state.wait_for(has_ended)).await.is_ok() {
                return Ok(());
            }
        }
        let killed = Arc::clone(&container);
        self.blocking("killing a container", move |inner| inner.kill(&killed)).await?;
        match tokio::time::timeout(KILLED_WITHIN, state.wait_for(has_ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ContainerError::Stuck(container.record().spec.name.to_string())),
        }
    }

    /// Removes a container and everything of it; one that runs is killed first where `force` says so.
    ///
    /// # Errors
    /// It runs, or something of it cannot be removed: its record then stays, `removing`.
    pub async fn remove(&self, id: &ContainerId, force: bool) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        let index = container.record().server_index;
        loop {
            if force {
                self.stop(id, Duration::ZERO).await?;
            }
            let removed = Arc::clone(&container);
            match self.blocking("removing a container", move |inner| inner.remove(&removed)).await {
                // it was just being started
                Err(ContainerError::Running(_)) if force => {}
                other => break other?,
            }
        }
        self.inner.wires.gone(index).await;
        Ok(())
    }

    /// Waits until a container has ended and, where it is to be removed then, until it is.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit, ContainerError> {
        let container = self.inner.get(id)?;
        let mut state = container.state.subscribe();
        let has_ended =
            |state: &ContainerState| matches!(state.status, ContainerStatus::Exited | ContainerStatus::Removing);
        let exit = match state.wait_for(has_ended).await {
            Ok(state) => Exit { exit_code: state.exit_code, oom_killed: state.oom_killed },
            Err(_) => Exit { exit_code: None, oom_killed: false },
        };
        if container.record().spec.remove_at_exit {
            self.remove_when_logged(&container).await;
        }
        Ok(exit)
    }

    /// The last lines of a container's output.
    pub async fn log_tail(&self, id: &ContainerId, lines: usize) -> Vec<String> {
        let Ok(container) = self.inner.get(id) else { return Vec::new() };
        // what the app said last is worth the wait for the logger, but not a long one
        let mut logged = container.logged.subscribe();
        if container.state.borrow().status == ContainerStatus::Exited {
            let _ = tokio::time::timeout(Duration::from_secs(2), logged.wait_for(|logged| *logged)).await;
        }
        let id = id.clone();
        self.blocking("reading a log", move |inner| Ok(logs::tail(&inner.foundation.logs_dir, &id, lines)))
            .await
            .unwrap_or_default()
    }

    /// Where the logs are, and whether all output of a container is in its log already.
    ///
    /// # Errors
    /// There is no such container.
    pub fn log(&self, id: &ContainerId) -> Result<(PathBuf, watch::Receiver<bool>), ContainerError> {
        let container = self.inner.get(id)?;
        Ok((self.inner.foundation.logs_dir.clone(), container.logged.subscribe()))
    }

    /// The port that an image declares: the lowest TCP one.
    ///
    /// # Errors
    /// The image is not complete or not for this machine.
    pub async fn declared_port(&self, manifest: &Digest) -> Result<Option<u16>, ContainerError> {
        let manifest = manifest.clone();
        self.blocking("reading an image", move |inner| {
            let image = Image::read(&**inner.foundation.images.blobs(), &manifest)?;
            let tcp = image.config.exposed_ports.iter().filter_map(|port| match port.split_once('/') {
                None => port.parse().ok(),
                Some((number, "tcp")) => number.parse().ok(),
                Some(_) => None,
            });
            Ok(tcp.min())
        })
        .await
    }

    /// What a running container listens on.
    ///
    /// # Errors
    /// It does not run, or its process has just ended.
    pub async fn listening(&self, id: &ContainerId) -> Result<Vec<Listening>, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("looking for listeners", move |_| {
            let pid = container.running_pid()?;
            sampan_network::listening::of_process(pid)
                .map_err(|source| ContainerError::Io { what: format!("read the sockets of process {pid}"), source })
        })
        .await
    }

    /// Makes a port that is bound to a running container's 127.0.0.1 only reachable from the edge.
    ///
    /// # Errors
    /// It does not run, or the kernel refuses.
    pub async fn reach_loopback(&self, id: &ContainerId, port: u16) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("reaching a loopback listener", move |inner| {
            use std::os::fd::AsFd as _;
            let pid = container.running_pid()?;
            let path = format!("/proc/{pid}/ns/net");
            let netns = std::fs::File::open(&path)
                .map_err(|source| ContainerError::Io { what: format!("open {path}"), source })?;
            Ok(inner.foundation.network.reach_loopback(netns.as_fd(), container.record().address, port)?)
        })
        .await
    }

    /// Ends every container, and lets no other start. What ran is marked to be started again by the next daemon.
    pub async fn stop_all(&self, grace: Duration) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        loop {
            // one that is just being started, or taken down, has its turn first
            let settled = self.blocking("waiting for containers' turns", |inner| {
                for container in inner.all() {
                    drop(lock(&container.turn));
                }
                Ok(())
            });
            let _ = settled.await;
            let mut running = self.inner.all();
            running.retain(|container| container.state.borrow().status == ContainerStatus::Running);
            if running.is_empty() {
                self.inner.wires.all_gone().await;
                return;
            }
            let stops: Vec<_> =
                running.into_iter().map(|one| tokio::spawn(self.clone().stop_one(one, grace))).collect();
            for stop in stops {
                if !matches!(stop.await, Ok(true)) {
                    return;
                }
            }
        }
    }

    /// Whether it was stopped.
    async fn stop_one(self, container: Arc<Container>, grace: Duration) -> bool {
        container.change(&self.inner, |record| record.resume = true);
        let stopped = self.stop(&container.id, grace).await;
        if let Err(error) = &stopped {
            tracing::warn!(id = %container.id, %error, "a container could not be stopped");
        }
        stopped.is_ok()
    }

    /// Takes in what the supervisor tells, until it is gone.
    pub async fn follow(&self, mut events: tokio::sync::mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Exited { id, ended } => {
                    let containers = self.clone();
                    tokio::task::spawn_blocking(move || {
                        if let Ok(container) = containers.inner.get(&id) {
                            let _turn = lock(&container.turn);
                            containers.inner.ended(&container, &ended);
                        }
                    });
                }
                Event::Logged { id } => {
                    if let Ok(container) = self.inner.get(&id) {
                        container.logged.send_replace(true);
                        self.remove_later(container);
                    }
                }
                Event::ExecExited { .. } => {}
                Event::Edge { status } => self.edge().told(&status),
                Event::RoleStarted { role, pid } => tracing::info!(role, pid, "started"),
            }
        }
    }

    /// Removes a container that is to be removed at its end, when those who might still read it had their time.
    fn remove_later(&self, container: Arc<Container>) {
        if !container.record().spec.remove_at_exit {
            return;
        }
        let containers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_AFTER_EXIT).await;
            containers.remove_when_logged(&container).await;
        });
    }

    async fn remove_when_logged(&self, container: &Arc<Container>) {
        let mut logged = container.logged.subscribe();
        let _ = tokio::time::timeout(KEPT_AFTER_EXIT, logged.wait_for(|logged| *logged)).await;
        let removed = Arc::clone(container);
        // its wire may be on its way out yet: nobody waits for that
        match self.blocking("removing a container", move |inner| inner.remove(&removed)).await {
            Ok(()) | Err(ContainerError::NotFound(_)) => {}
            Err(error) => tracing::warn!(id = %container.id, %error, "an ended container could not be removed"),
        }
    }

    async fn signal(&self, container: &Arc<Container>, signal: i32) -> Result<(), ContainerError> {
        let container = Arc::clone(container);
        self.blocking("sending a signal", move |inner| inner.signal(&container, signal)).await
    }

    /// Runs `work` on a blocking thread. It is carried out also where the caller stops waiting for it: what has begun
    /// is ended properly.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, ContainerError> + Send + 'static,
    ) -> Result<T, ContainerError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(ContainerError::Stopping(what)))
    }
}

/// A container's cgroup in its server's.
pub const CONTAINER_CGROUP: &str = "container";

const TERMINATE: i32 = 15;
const KILL: i32 = 9;

/// Whether a container's first process would do anything about SIGTERM. The kernel delivers to the first process of a
/// pid namespace only what it catches or takes from its blocked signals: one that does neither would be waited for in
/// vain, for the whole grace period.
fn heeds_termination(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        mask & (1 << (TERMINATE - 1)) != 0
    };
    has("SigCgt:") || has("SigBlk:")
}

impl Inner {
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        lock(&self.index).containers.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Result<Arc<Container>, ContainerError> {
        let found = lock(&self.index).containers.get(id).cloned();
        found.ok_or_else(|| ContainerError::NotFound(id.short().to_owned()))
    }

    fn find(&self, text: &str) -> Result<Arc<Container>, ContainerError> {
        let all = self.all();
        if let Some(named) = all.iter().find(|container| lock(&container.record).spec.name.as_str() == text) {
            return Ok(Arc::clone(named));
        }
        let mut matching = all.iter().filter(|container| !text.is_empty() && container.id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous(text.to_owned())),
            (None, _) => Err(ContainerError::NotFound(text.to_owned())),
        }
    }

    fn create(&self, spec: ContainerSpec) -> Result<ContainerRecord, ContainerError> {
        self.foundation.machine.holds(&spec.size)?;
        let _as_it_is = self.foundation.images.hold();
        let image = Image::read(&**self.foundation.images.blobs(), &spec.image)?;
        let command = command_line(&spec, &image)?;
        let env = environment(&spec, &image);
        let id = new_id()?;

        let mut index = lock(&self.index);
        let same_name = index.containers.values().find(|other| lock(&other.record).spec.name == spec.name);
        if let Some(other) = same_name {
            return Err(ContainerError::NameTaken { name: spec.name.to_string(), id: other.id.short().to_owned() });
        }
        let is_free = |server: &u32| !index.servers.contains(server) && !self.wires.is_going(*server);
        let free = (0..SERVERS).find(is_free);
        let server_index = free.ok_or(ContainerError::NoServerLeft(SERVERS))?;
        let record = ContainerRecord {
            id: id.clone(),
            spec,
            server_index,
            address: self.block().server_address(server_index),
            command,
            env,
            state: ContainerState::created(),
            boot_id: self.foundation.machine.boot_id.clone(),
            resume: false,
            created_at: Timestamp::now(),
        };
        self.foundation.records.put(&record.key(), &record, Durability::RunState)?;
        index.servers.insert(server_index);
        index.containers.insert(id, Arc::new(Container::new(record.clone())));
        drop(index);
        failpoint::reach("container_recorded");
        Ok(record)
    }

    /// Knows a container from its record (a daemon before this one made it).
    pub(crate) fn know(&self, record: ContainerRecord) -> Arc<Container> {
        let container = Arc::new(Container::new(record.clone()));
        let mut index = lock(&self.index);
        index.servers.insert(record.server_index);
        index.containers.insert(record.id, Arc::clone(&container));
        container
    }

    pub(crate) fn block(&self) -> Block {
        self.foundation.network.block()
    }

    fn signal(&self, container: &Container, signal: i32) -> Result<(), ContainerError> {
        let id = container.id.clone();
        match self.foundation.supervisor.call(Request::Signal { id, signal }, &[]) {
            Ok(_) => Ok(()),
            // ESRCH: it ended in between, and its end is on the way
            Err(sampan_runtime::link::LinkError::Refused(failure)) if failure.errno == 3 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a container's first process, and with it all others. They are not to wait for processor time to die.
    fn kill(&self, container: &Container) -> Result<(), ContainerError> {
        let group = self.foundation.cgroups.server(container.id.short(), CONTAINER_CGROUP)?;
        if let Err(error) = group.lift_cpu_limit() {
            tracing::warn!(id = %container.id, %error, "a container is killed within its limit on processor time");
        }
        self.signal(container, KILL)
    }

    /// A container's process has ended: its record says how, and everything of its server goes. In this order, so that
    /// nobody who waits for the end waits for that too; a daemon that is killed in between finds the leftovers by the
    /// record.
    pub(crate) fn ended(&self, container: &Container, ended: &Ended) {
        if container.state.borrow().status != ContainerStatus::Running {
            return;
        }
        let oom_killed = self.cgroup_oom_kills(container) > 0;
        container.change(self, |record| {
            record.state.status = ContainerStatus::Exited;
            record.state.exit_code = ended.exit_code;
            record.state.oom_killed = oom_killed;
            record.state.finished_at = Some(ended.at);
            record.state.pid = None;
        });
        self.take_server_down(container);
        self.forget(container);
    }

    fn cgroup_oom_kills(&self, container: &Container) -> u64 {
        let group = self.foundation.cgroups.server(container.id.short(), CONTAINER_CGROUP);
        group.and_then(|group| group.oom_kills()).unwrap_or_else(|error| {
            tracing::warn!(id = %container.id, %error, "the memory kills cannot be read");
            0
        })
    }

    /// Removes everything of a container's server outside its record; goes on past failures, which are logged.
    pub(crate) fn take_server_down(&self, container: &Container) {
        if container.is_down.swap(true, Ordering::SeqCst) {
            return;
        }
        let record = container.record();
        self.foundation.edge.remove_server(&container.id);
        self.wires.take_down(record.server_index);
        self.remove_cgroup(container.id.short());
    }

    /// Ends what is left in a server's cgroup, and removes it.
    pub(crate) fn remove_cgroup(&self, server: &str) {
        let group = match self.foundation.cgroups.server(server, CONTAINER_CGROUP) {
            Ok(group) => group,
            Err(error) => {
                tracing::warn!(server, %error, "a server's cgroup could not be found");
                return;
            }
        };
        if let Err(error) = group.kill() {
            tracing::warn!(server, %error, "what is in a server's cgroup could not be ended");
        }
        if let Err(error) = group.remove() {
            tracing::warn!(server, %error, "a server's cgroup could not be removed");
        }
    }

    pub(crate) fn forget(&self, container: &Container) {
        if let Err(error) = self.foundation.supervisor.call(Request::Forget { id: container.id.clone() }, &[]) {
            tracing::warn!(id = %container.id, %error, "the supervisor could not be told to forget a container");
        }
    }

    fn remove(&self, container: &Container) -> Result<(), ContainerError> {
        let _turn = lock(&container.turn);
        if self.get(&container.id).is_err() {
            return Err(ContainerError::NotFound(container.id.short().to_owned()));
        }
        if container.state.borrow().status == ContainerStatus::Running {
            return Err(ContainerError::Running(container.record().spec.name.to_string()));
        }
        container.change(self, |record| record.state.status = ContainerStatus::Removing);
        self.take_server_down(container);
        self.forget(container);
        let directory = self.foundation.containers_dir.join(container.id.as_str());
        crate::tree::remove(&directory)
            .map_err(|source| ContainerError::Io { what: format!("remove {}", directory.display()), source })?;
        logs::remove(&self.foundation.logs_dir, &container.id)
            .map_err(|source| ContainerError::Io { what: format!("remove the log of {}", container.id), source })?;
        let record = container.record();
        self.foundation.records.delete(&record.key())?;
        let mut index = lock(&self.index);
        index.containers.remove(&container.id);
        index.servers.remove(&record.server_index);
        Ok(())
    }
}

impl Container {
    /// Changes the record, keeps it, and tells those who watch. A record that cannot be kept is logged: the next
    /// daemon finds out from what runs.
    pub(crate) fn change(&self, inner: &Inner, change: impl FnOnce(&mut ContainerRecord)) {
        let mut record = lock(&self.record);
        let before = record.state.status;
        change(&mut record);
        let after = record.state.status;
        debug_assert!(before == after || before.may_become(after), "{before:?} may not become {after:?}");
        if let Err(error) = inner.foundation.records.put(&record.key(), &*record, Durability::RunState) {
            tracing::error!(id = %self.id, %error, "a container's record could not be written");
        }
        let state = record.state.clone();
        drop(record);
        self.state.send_replace(state);
    }

    fn running_pid(&self) -> Result<u32, ContainerError> {
        self.state.borrow().pid.ok_or_else(|| ContainerError::NotFound(self.id.short().to_owned()))
    }
}

/// The image's entrypoint and command under the spec's, as Docker puts them together.
fn command_line(spec: &ContainerSpec, image: &Image) -> Result<Vec<String>, ContainerError> {
    let config = &image.config;
    let command = if spec.command.is_empty() && spec.entrypoint.is_none() { &config.cmd } else { &spec.command };
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&config.entrypoint);
    let line: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if line.is_empty() { Err(ContainerError::NoCommand(spec.image_name.clone())) } else { Ok(line) }
}

/// The image's environment under the spec's, with the `PATH` and `HOSTNAME` that Docker adds.
fn environment(spec: &ContainerSpec, image: &Image) -> Vec<String> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env: Vec<(String, String)> =
        vec![("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), spec.host_name.to_string())];
    let image_env = image.config.env.iter().filter_map(|pair| pair.split_once('='));
    let image_env = image_env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in image_env.chain(spec.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(pair) => pair.1 = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn new_id() -> Result<ContainerId, ContainerError> {
    let mut bytes = [0; 32];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(32) => Ok(ContainerId::from_bytes(bytes)),
        Ok(_) => Err(ContainerError::Stopping("making an id")),
        Err(source) => Err(ContainerError::Io { what: "read random bytes".to_owned(), source: source.into() }),
    }
}
