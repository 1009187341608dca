//! The containers of this instance: looked up, watched, waited for.
//!
//! ```text
//! create ─▶ record ─▶ start ─▶ running ─▶ (exit | stop) ─▶ exited ─▶ remove ─▶ no record
//! ```
//!
//! How each step is done is in `create`, `start`, `end` and `operations`; here is what they share. One thing at a time
//! is done with one container: its `turn`. The blocking parts (the supervisor's answers, mounts,
//! netlink, SQLite) run on tokio's blocking threads.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};
use sampan_image::Image;
use sampan_model::instance::Block;
use sampan_model::view::Exit;
use sampan_model::{ContainerId, ContainerName, ContainerState, ContainerStatus, Digest, Label, Owner};
use sampan_network::Network;
use sampan_network::listening::{self, Listening};
use sampan_runtime::cgroup::Group;
use sampan_runtime::logs;
use sampan_runtime::wire::Event;
use sampan_store::{Durability, Records, RecordsError};
use tokio::sync::watch;

use crate::attach::Streams;
use crate::binds::IdMaps;
use crate::child::Ahead;
use crate::confine::Filters;
use crate::exec::Execs;
use crate::going::Going;
use crate::named::Named;
use crate::pool::Pool;
use crate::roots::{Roots, Spare};
use crate::runtimes::Runtimes;
use crate::timing::{Metrics, Timing};
use crate::wires::Wires;
use crate::{ContainerError, ContainerRecord, EdgeTables, Images, Machine, Supervisor, Volumes};

/// How many descriptors a start may need at once; a sixteenth of all, where that is more, is for several of them.
const DESCRIPTORS_OF_A_START: u64 = 24;

/// How long one who reads a log waits for what a container that has ended said last.
const LOGGED_WITHIN: Duration = Duration::from_secs(2);

/// What containers stand on.
pub struct Foundation {
    /// Records.
    pub records: Arc<Records>,
    /// The images.
    pub images: Images,
    /// The volumes.
    pub volumes: Volumes,
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
    /// `$SAMPAN_ROOT/roots`.
    pub roots_dir: PathBuf,
    /// `$SAMPAN_ROOT/logs`.
    pub logs_dir: PathBuf,
    /// How many servers are to wait ready.
    pub pool_size: usize,
    /// Other OCI runtimes that may be asked for.
    pub runtimes: Runtimes,
}

/// All containers. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) foundation: Foundation,
    /// Filters of system calls that were made.
    pub(crate) filters: Filters,
    /// The daemon stops: nothing is started any more.
    pub(crate) stopping: AtomicBool,
    /// Root file systems.
    pub(crate) roots: Roots,
    pub(crate) wires: Arc<Wires>,
    /// Containers that are being removed, and that nobody is told of any more.
    pub(crate) going: Going,
    /// Servers that wait ready.
    pub(crate) pool: Pool,
    /// Processes beside containers' first ones.
    pub(crate) execs: Execs,
    /// How long what took.
    pub(crate) metrics: Metrics,
    /// Those who read logs.
    pub(crate) readers: Arc<crate::log::Readers>,
    /// For binds of callers who are not root.
    pub(crate) id_maps: IdMaps,
    index: Mutex<Index>,
}

#[derive(Default)]
pub(crate) struct Index {
    pub(crate) containers: HashMap<ContainerId, Arc<Container>>,
    by_name: HashMap<ContainerName, ContainerId>,
    /// Servers with names.
    pub(crate) named: HashMap<Label, Arc<Named>>,
    /// The indices of all servers, with names and without.
    pub(crate) servers: BTreeSet<u32>,
}

impl Index {
    /// Adds one, whose name nobody has.
    pub(crate) fn insert(&mut self, container: Arc<Container>) {
        self.by_name.insert(container.record().spec.name.clone(), container.id.clone());
        self.containers.insert(container.id.clone(), container);
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, container: &Container) {
        self.containers.remove(&container.id);
        let name = &container.record().spec.name;
        if self.by_name.get(name) == Some(&container.id) {
            self.by_name.remove(name);
        }
    }

    /// Has one go by another name, which nobody has.
    pub(crate) fn rename(&mut self, container: &Container, name: ContainerName) {
        self.by_name.remove(&container.record().spec.name);
        self.by_name.insert(name, container.id.clone());
    }

    fn of_name(&self, name: &str) -> Option<&Arc<Container>> {
        let name = ContainerName::parse(name).ok()?;
        self.by_name.get(&name).and_then(|id| self.containers.get(id))
    }

    /// The one that a name, an id or the beginning of an id means, among those that `is_there` says are there.
    fn find(&self, text: &str, is_there: impl Fn(&Container) -> bool) -> Result<Arc<Container>, ContainerError> {
        if let Some(named) = self.of_name(text).filter(|named| is_there(named)) {
            return Ok(Arc::clone(named));
        }
        let whole = ContainerId::parse(text).ok().and_then(|id| self.containers.get(&id));
        if let Some(container) = whole.filter(|container| is_there(container)) {
            return Ok(Arc::clone(container));
        }
        let begins = |container: &&Arc<Container>| !text.is_empty() && container.id.as_str().starts_with(text);
        let mut matching = self.containers.values().filter(begins).filter(|container| is_there(container));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous(text.to_owned())),
            (None, _) => Err(ContainerError::NotFound(text.to_owned())),
        }
    }

    /// Refuses a name that another container has than `own`.
    /// Which one that is, is told to those alone who may touch it.
    pub(crate) fn refuse_taken(
        &self,
        name: &ContainerName,
        asker: &Owner,
        own: Option<&ContainerId>,
    ) -> Result<(), ContainerError> {
        match self.of_name(name.as_str()).filter(|other| Some(&other.id) != own) {
            Some(other) if !asker.may_touch(&lock(&other.record).spec.owner) => {
                Err(ContainerError::Strangers(name.to_string()))
            }
            Some(other) => Err(ContainerError::NameTaken { name: name.to_string(), id: other.id.short().to_owned() }),
            None => Ok(()),
        }
    }
}

/// One container as the daemon knows it.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    record: Mutex<Arc<ContainerRecord>>,
    state: watch::Sender<ContainerState>,
    /// Whether all its output is in its log.
    pub(crate) logged: watch::Sender<bool>,
    /// Held while something is done with it.
    pub(crate) turn: Mutex<()>,
    /// Whether nothing of it, and of a server of its own, is left outside its record, for all that is known.
    pub(crate) is_down: AtomicBool,
    /// The first process of its present life, or of its last.
    pub(crate) life: AtomicU32,
    /// Whether its record is gone, or going; set while `keeping` is held.
    is_removed: AtomicBool,
    /// Held while the record is changed and kept, so that what is kept last is what it was last.
    keeping: Mutex<()>,
    /// By how many it is wanted to stay, also where it is to be removed at its end.
    pub(crate) is_kept: AtomicUsize,
    /// What its streams begin with.
    pub(crate) streams: Streams,
    /// Where the time of its start goes.
    pub(crate) timing: Timing,
    /// The server and the child that it has already, until it is started.
    pub(crate) child: Mutex<Option<Ahead>>,
    /// Its root file system, where that may serve again.
    pub(crate) root: Mutex<Option<Spare>>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        let logged = record.state.status != ContainerStatus::Running;
        Self {
            id: record.id.clone(),
            state: watch::Sender::new(record.state.clone()),
            record: Mutex::new(Arc::new(record)),
            logged: watch::Sender::new(logged),
            turn: Mutex::new(()),
            is_down: AtomicBool::new(false),
            life: AtomicU32::new(0),
            is_removed: AtomicBool::new(false),
            keeping: Mutex::new(()),
            is_kept: AtomicUsize::new(0),
            streams: Streams::default(),
            timing: Timing::default(),
            child: Mutex::default(),
            root: Mutex::default(),
        }
    }

    /// Its record as it is now. Cheap: it is copied by whoever changes it.
    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        Arc::clone(&lock(&self.record))
    }

    /// Its state as it changes.
    pub(crate) fn state(&self) -> watch::Receiver<ContainerState> {
        self.state.subscribe()
    }

    /// Waits until what a container that has ended said last is in its log: the end is told before. It is worth the wait
    /// for the logger, but not a long one.
    pub(crate) async fn last_words(&self) {
        if self.state.borrow().status == ContainerStatus::Exited {
            self.all_logged().await;
        }
    }

    /// Waits until the logger has nothing more to write of what has ended, a while at most.
    pub(crate) async fn all_logged(&self) {
        let mut logged = self.logged.subscribe();
        let _ = tokio::time::timeout(LOGGED_WITHIN, logged.wait_for(|logged| *logged)).await;
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Containers {
    /// No containers yet: [`adopt`](Self::adopt) comes next.
    pub fn new(foundation: Foundation) -> Self {
        let wires = Arc::new(Wires::new(Arc::clone(&foundation.network)));
        let stopping = AtomicBool::new(false);
        let roots = Roots::new(foundation.roots_dir.clone());
        let pool = Pool::new(foundation.pool_size);
        Self {
            inner: Arc::new(Inner {
                foundation,
                filters: Filters::default(),
                stopping,
                roots,
                wires,
                going: Going::default(),
                pool,
                execs: Execs::default(),
                metrics: Metrics::default(),
                readers: Arc::default(),
                id_maps: IdMaps::default(),
                index: Mutex::default(),
            }),
        }
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
    pub fn list(&self) -> Vec<Arc<ContainerRecord>> {
        let mut records: Vec<_> = self.inner.seen().iter().map(|container| container.record()).collect();
        records.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        records
    }

    /// The container that a name, an id or the beginning of an id means.
    ///
    /// # Errors
    /// It means none, or several.
    pub fn find(&self, text: &str) -> Result<Arc<ContainerRecord>, ContainerError> {
        self.inner.find(text).map(|container| container.record())
    }

    /// A container's state as it changes. It ends with the container.
    ///
    /// # Errors
    /// There is no such container.
    pub fn watch(&self, id: &ContainerId) -> Result<watch::Receiver<ContainerState>, ContainerError> {
        self.inner.get(id).map(|container| container.state.subscribe())
    }

    /// Starts a container that is not running.
    ///
    /// # Errors
    /// It runs already, or cannot be started: it is then `exited`, with the error in its state.
    pub async fn start(&self, id: &ContainerId) -> Result<Arc<ContainerRecord>, ContainerError> {
        let id = id.clone();
        self.blocking("starting a container", move |inner| {
            let container = inner.get(&id)?;
            inner.start(&container)
        })
        .await
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
        container.last_words().await;
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
        self.blocking("looking for listeners", move |inner| {
            let pid = container.running_pid()?;
            let record = container.record();
            let found = if record.server_id.is_some() {
                // what others on its server listen on is not its
                listening::of_processes(&inner.container_group(&record)?.pids()?)
            } else {
                listening::of_process(pid)
            };
            found.map_err(|source| ContainerError::Io { what: format!("read the sockets of process {pid}"), source })
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

    /// Takes in what the supervisor tells, until it is gone.
    pub async fn follow(&self, mut events: tokio::sync::mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Exited { id, pid, ended } => {
                    let containers = self.clone();
                    tokio::task::spawn_blocking(move || match containers.inner.get(&id) {
                        Ok(container) => {
                            let _turn = lock(&container.turn);
                            // the end of an earlier life says nothing of the present one
                            if container.life.load(Ordering::SeqCst) == pid {
                                containers.inner.ended(&container, &ended);
                            }
                        }
                        Err(_) => containers.inner.unpark(&id),
                    });
                }
                Event::Logged { id, pid } => {
                    // the last words of an earlier life say nothing of the present one
                    if let Ok(container) = self.inner.get(&id)
                        && container.life.load(Ordering::SeqCst) == pid
                    {
                        container.logged.send_replace(true);
                        self.remove_later(container);
                    }
                }
                Event::ExecExited { pid, ended, .. } => self.inner.execs.ended(pid, ended),
                Event::Edge { status } => self.edge().told(&status),
                Event::RoleStarted { role, pid } => tracing::info!(role, pid, "started"),
            }
        }
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

impl Inner {
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        lock(&self.index).containers.values().cloned().collect()
    }

    /// Those that anybody is told of.
    pub(crate) fn seen(&self) -> Vec<Arc<Container>> {
        let mut all = self.all();
        all.retain(|container| !self.going.is(&container.id));
        all
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Result<Arc<Container>, ContainerError> {
        let found = lock(&self.index).containers.get(id).cloned();
        found.ok_or_else(|| ContainerError::NotFound(id.short().to_owned()))
    }

    fn find(&self, text: &str) -> Result<Arc<Container>, ContainerError> {
        self.find_among(text, |_| true)
    }

    /// As [`Index::find`], among those that anybody is told of.
    pub(crate) fn find_among(
        &self,
        text: &str,
        is_there: impl Fn(&Container) -> bool,
    ) -> Result<Arc<Container>, ContainerError> {
        lock(&self.index).find(text, |container| !self.going.is(&container.id) && is_there(container))
    }

    /// Removes a container that has ended, is to be removed then, and is only kept for its last readers: its name is asked
    /// for again. Others' is left to its time.
    pub(crate) fn make_way(&self, name: &ContainerName, asker: &Owner) {
        let Some(container) = lock(&self.index).of_name(name.as_str()).cloned() else { return };
        let record = container.record();
        let is_over = record.spec.remove_at_exit && record.state.status == ContainerStatus::Exited;
        if is_over && asker.may_touch(&record.spec.owner) && container.is_kept.load(Ordering::SeqCst) == 0
            // whoever was quicker to remove or start it has done so
            && let Err(error) = self.remove(&container)
        {
            tracing::debug!(id = %container.id, %error, "an ended container's name was asked for");
        }
    }

    /// Whether anything may begin.
    pub(crate) fn refuse_while_stopping(&self, what: &'static str) -> Result<(), ContainerError> {
        if self.stopping.load(Ordering::SeqCst) { Err(ContainerError::Stopping(what)) } else { Ok(()) }
    }

    /// A start needs some descriptors for a moment, and the supervisor hands some over: where they cannot be taken, the
    /// connection to it is lost. So none is begun where few are left, be it that others are begun in this moment.
    pub(crate) fn refuse_without_descriptors(&self) -> Result<(), ContainerError> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let left = DESCRIPTORS_OF_A_START.max(limit / 16);
        // the kernel gives the lowest number that is free
        match eventfd(0, EventfdFlags::CLOEXEC) {
            Ok(next) if u64::try_from(next.as_raw_fd()).is_ok_and(|next| next + left <= limit) => Ok(()),
            _ => Err(ContainerError::NoDescriptors(limit)),
        }
    }

    /// Knows a container from its record (a daemon before this one made it).
    pub(crate) fn know(&self, record: ContainerRecord) -> Arc<Container> {
        let server_index = record.server_index;
        let container = Arc::new(Container::new(record));
        let mut index = lock(&self.index);
        index.servers.insert(server_index);
        index.insert(Arc::clone(&container));
        container
    }

    pub(crate) fn block(&self) -> Block {
        self.foundation.network.block()
    }
}

impl Container {
    /// Changes the record, keeps it, and tells those who watch. A record that cannot be kept is logged: the next
    /// daemon finds out from what runs.
    pub(crate) fn change(&self, inner: &Inner, change: impl FnOnce(&mut ContainerRecord)) {
        let _order = lock(&self.keeping);
        let record = self.changed(change);
        self.keep(inner, &record);
        self.state.send_replace(record.state.clone());
    }

    /// As [`change`](Self::change), told before it is kept: of what the next daemon finds out where this one is killed in
    /// between.
    pub(crate) fn change_told_first(&self, inner: &Inner, change: impl FnOnce(&mut ContainerRecord)) {
        let _order = lock(&self.keeping);
        let record = self.changed(change);
        self.state.send_replace(record.state.clone());
        self.keep(inner, &record);
    }

    /// As [`change`](Self::change), not kept at all.
    pub(crate) fn change_unkept(&self, change: impl FnOnce(&mut ContainerRecord)) {
        let _order = lock(&self.keeping);
        let record = self.changed(change);
        self.state.send_replace(record.state.clone());
    }

    fn changed(&self, change: impl FnOnce(&mut ContainerRecord)) -> Arc<ContainerRecord> {
        let mut record = lock(&self.record);
        let before = record.state.status;
        change(Arc::make_mut(&mut record));
        let after = record.state.status;
        debug_assert!(before == after || before.may_become(after), "{before:?} may not become {after:?}");
        Arc::clone(&record)
    }

    /// Nobody who reads the record waits for that; whoever changes it does.
    fn keep(&self, inner: &Inner, record: &ContainerRecord) {
        // of one that was removed while somebody waited to change it, no record is to come back
        if !self.is_removed.load(Ordering::SeqCst)
            && let Err(error) = inner.foundation.records.put(&record.key(), record, Durability::RunState)
        {
            tracing::error!(id = %self.id, %error, "a container's record could not be written");
        }
    }

    /// Deletes the record, for good: a change that comes later is not kept.
    pub(crate) fn delete_record(&self, inner: &Inner) -> Result<Arc<ContainerRecord>, ContainerError> {
        let _order = lock(&self.keeping);
        self.is_removed.store(true, Ordering::SeqCst);
        let record = self.record();
        // the disk's answer is waited for by nobody who looks for a container; and one that is to be removed at its end is
        // removed again where a power cut brings its record back
        let durability = if record.spec.remove_at_exit { Durability::RunState } else { Durability::Intent };
        let deleted: Result<_, RecordsError> =
            inner.foundation.records.transaction(durability, |transaction| transaction.delete(&record.key()));
        if deleted.is_err() {
            self.is_removed.store(false, Ordering::SeqCst);
        }
        deleted?;
        Ok(record)
    }

    pub(crate) fn running_pid(&self) -> Result<u32, ContainerError> {
        let pid = self.state.borrow().pid;
        pid.ok_or_else(|| ContainerError::NotRunning(lock(&self.record).spec.name.to_string()))
    }
}
