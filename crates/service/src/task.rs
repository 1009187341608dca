//! One service's task: observe, plan, execute, wait for a change, again.
//!
//! Each replica has a task of its own, which starts it, finds out when it is ready, and waits for its end; what it
//! learns it says to the service's task, which alone knows all replicas and decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sampan_container::{ContainerError, ContainerRecord, Containers};
use sampan_model::view::{DeployEvent, ErrorView};
use sampan_model::{ContainerId, ContainerName, ContainerStatus, EdgeStatus, ImageName, Label, ServiceSpec, Upstream};
use sampan_store::Durability;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::deploy::Desk;
use crate::plan::{Intended, Observed, Phase, plan};
use crate::record::{ReadyRecord, ServiceRecord, ready_key};
use crate::replica::{Run, Said, is_set};
use crate::services::{Inner, Ready};

/// How long requests under way may take before a replica that is replaced is asked to end.
const DRAIN: Duration = Duration::from_secs(10);
/// The same for a service that is removed: whoever removes it does not care for its answers.
const DRAIN_REMOVED: Duration = Duration::from_millis(500);
/// How long an app may take to end when it is asked to, as Docker gives it.
const GRACE: Duration = Duration::from_secs(10);
/// The first pause before a crashed replica's second start; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A replica that was ready for so long before it crashed is started again at once.
const STEADY: Duration = Duration::from_secs(10);
/// How long the edge may take to go by a new table.
const EDGE_WITHIN: Duration = Duration::from_secs(5);
/// How many of an app's last lines go with a failure.
const LOG_TAIL: usize = 20;

struct Replica {
    version: u64,
    /// The server with a name that it is on.
    server: Option<Label>,
    phase: Phase,
    id: Option<ContainerId>,
    ready: Option<ReadyRecord>,
    ready_since: Option<Instant>,
    /// Ends the replica's task where it only waits; dropped, it does so too.
    quit: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

struct Task {
    inner: Arc<Inner>,
    desk: Arc<Desk>,
    replicas: BTreeMap<u32, Replica>,
    say: mpsc::Sender<(u32, Said)>,
    said: mpsc::Receiver<(u32, Said)>,
    routed: Option<(Vec<Upstream>, u64)>,
    /// The version that `pause` and `retry_at` are of.
    version: Option<u64>,
    pause: Duration,
    retry_at: Option<Instant>,
}

/// Starts a service's task over the replicas that there are.
pub(crate) fn start(inner: &Arc<Inner>, desk: Arc<Desk>, replicas: Vec<Arc<ContainerRecord>>) {
    let (say, said) = mpsc::channel(64);
    let mut task = Task {
        inner: Arc::clone(inner),
        desk,
        replicas: BTreeMap::new(),
        say,
        said,
        routed: None,
        version: None,
        pause: Duration::ZERO,
        retry_at: None,
    };
    let spec = task.desk.intent().map(|record| record.spec);
    for record in replicas {
        task.adopt(&record, spec.as_ref());
    }
    // before the edge's table is opened: what is ready is in it from the first one on
    task.route_ready();
    inner.tasks.spawn(task.run());
}

impl Task {
    async fn run(mut self) {
        let mut stopping = self.inner.stopping();
        let desk = Arc::clone(&self.desk);
        loop {
            self.step().await;
            self.end_given_up();
            if self.replicas.is_empty() && self.desk.is_leaving() {
                break;
            }
            let retry_at = self.retry_at;
            tokio::select! {
                biased;
                () = is_set(&mut stopping) => return,
                said = self.said.recv() => {
                    if let Some((number, said)) = said {
                        self.hear(number, said).await;
                    }
                }
                () = desk.wake.notified() => {}
                () = async { match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                } } => self.retry_at = None,
            }
        }
        self.finish().await;
    }

    /// One round: plan for what there is, and begin what the plan says.
    async fn step(&mut self) {
        let record = self.desk.intent().filter(|record| !record.removing);
        let version = record.as_ref().map(|record| record.version);
        if self.version != version {
            // another version is not to wait for what this one's crashes have earned
            self.version = version;
            self.pause = Duration::ZERO;
            self.retry_at = None;
        }
        if self.desk.takes_try() {
            self.pause = Duration::ZERO;
            self.retry_at = None;
        }
        let placed = record.as_ref().and_then(|record| record.spec.server.clone());
        let intended = record.as_ref().map(|record| Intended {
            version: record.version,
            replicas: record.spec.replicas,
            may_start: self.retry_at.is_none(),
        });
        let observed: Vec<Observed> = self
            .replicas
            .iter()
            .map(|(&number, replica)| Observed {
                number,
                version: replica.version,
                phase: replica.phase,
                in_the_way: placed.is_some() && replica.server == placed,
            })
            .collect();
        let plan = plan(intended, &observed);
        let revision = self.route(&plan.route);
        for number in plan.retire {
            self.retire(number, revision, record.is_none());
        }
        let Some(record) = record else { return };
        if plan.blocked {
            let on = "the version before it to end, as both would have one address";
            self.desk.wait_for(record.version, on.to_owned());
        }
        for number in plan.create {
            self.begin(number, &record, None);
        }
        for number in plan.restart {
            let id = self.replicas.get(&number).and_then(|replica| replica.id.clone());
            self.begin(number, &record, id);
        }
        if plan.complete && self.desk.is_deploying(record.version) {
            self.complete(&record, revision).await;
        }
    }

    /// A deploy that was given up has ended when nothing of its version is left; one of a version that was ready once
    /// is only tried again.
    fn end_given_up(&self) {
        let Some(version) = self.desk.given_up() else { return };
        let is_intended = self.desk.intent().is_some_and(|record| record.version == version);
        let is_left = self.replicas.values().any(|replica| replica.version == version);
        // where nothing at all is left, the service's own end comes first
        if is_intended || (!is_left && self.desk.intent().is_some()) {
            self.desk.tell_given_up();
        }
    }

    /// Everything intended is ready: the deploy ends when the edge goes by the table that says so.
    async fn complete(&mut self, record: &ServiceRecord, revision: u64) {
        let mut status = self.inner.containers.edge().status();
        let applied = |status: &EdgeStatus| status.applied >= revision;
        if tokio::time::timeout(EDGE_WITHIN, status.wait_for(applied)).await.is_err() {
            tracing::warn!(service = %self.desk.name, revision, "the edge does not go by its table yet");
        }
        let ready = self.replicas.values().filter(|replica| replica.version == record.version);
        let Some(ready) = ready.filter_map(|replica| replica.ready.as_ref()).next() else { return };
        let event = DeployEvent::Ready {
            url: self.inner.url_of(&record.spec),
            port: ready.address.port(),
            port_source: ready.port_source.clone(),
        };
        sampan_container::failpoint::reach("deploy_ready");
        if let Err(error) = self.desk.succeed(record.version, event) {
            tracing::error!(service = %self.desk.name, %error, "a deploy's end could not be recorded");
        }
    }

    async fn hear(&mut self, number: u32, said: Said) {
        let name = self.desk.name.clone();
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        let retiring = replica.phase == Phase::Retiring;
        match said {
            Said::Removed => {
                self.replicas.remove(&number);
                // its version's image may have been the last use of some bytes
                self.inner.collect_garbage().await;
            }
            Said::Created(id) => replica.id = Some(id),
            _ if retiring => {}
            Said::Waiting(on) => self.desk.wait_for(replica.version, on),
            Said::Ready(ready) => {
                if let Some(id) = &replica.id
                    && let Err(error) = self.inner.records.put(&ready_key(id), &ready, Durability::RunState)
                {
                    tracing::warn!(service = %name, %error, "a ready replica could not be recorded");
                }
                replica.phase = Phase::Ready;
                replica.ready = Some(ready);
                replica.ready_since = Some(Instant::now());
                self.desk.set_reason(None);
            }
            Said::NotReady(error) => {
                self.desk.set_reason(Some(error.message.clone()));
                self.fail(number, error).await;
            }
            Said::Ended(error) => {
                self.desk.set_reason(Some(error.message.clone()));
                let was_steady = replica.ready_since.is_some_and(|since| since.elapsed() >= STEADY);
                replica.phase = Phase::Ended;
                replica.ready = None;
                replica.ready_since = None;
                if self.desk.is_deploying(replica.version) {
                    self.fail(number, error).await;
                } else {
                    tracing::warn!(service = %name, number, reason = error.message, "a replica ended");
                    self.back_off(was_steady);
                }
            }
        }
    }

    fn back_off(&mut self, was_steady: bool) {
        self.pause = if was_steady { Duration::ZERO } else { (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
        if !self.pause.is_zero() {
            self.retry_at = Some(Instant::now() + self.pause);
        }
    }

    /// The deploy that this replica belongs to cannot succeed.
    async fn fail(&mut self, number: u32, error: ErrorView) {
        let Some(replica) = self.replicas.get(&number) else { return };
        let version = replica.version;
        let log_tail = match &replica.id {
            Some(id) => self.inner.containers.log_tail(id, LOG_TAIL).await,
            None => Vec::new(),
        };
        if let Err(error) = self.inner.give_up(&self.desk, version, error, log_tail) {
            tracing::error!(service = %self.desk.name, %error, "a deploy's failure could not be recorded");
        }
        // of a version that was ready once, a replica is tried again
        self.back_off(false);
    }

    fn route_ready(&mut self) {
        let ready = self.replicas.iter().filter(|(_, replica)| replica.phase == Phase::Ready);
        let ready: Vec<u32> = ready.map(|(number, _)| *number).collect();
        self.route(&ready);
    }

    /// Sends requests to these replicas; the revision of the table that says so.
    fn route(&mut self, numbers: &[u32]) -> u64 {
        let upstreams: Vec<Upstream> = numbers
            .iter()
            .filter_map(|number| {
                let ready = self.replicas.get(number)?.ready.as_ref()?;
                Some(Upstream { replica: ContainerName::of_replica(&self.desk.name, *number), address: ready.address })
            })
            .collect();
        match &self.routed {
            Some((routed, revision)) if *routed == upstreams => *revision,
            _ => {
                let ingress = self.desk.intent().is_none_or(|record| record.spec.ingress);
                let ready = Ready { replicas: upstreams.clone(), ingress };
                let revision = self.inner.route(&self.desk.name, Some(ready));
                self.routed = Some((upstreams, revision));
                revision
            }
        }
    }

    /// Creates a replica, or starts one again that has ended.
    fn begin(&mut self, number: u32, record: &ServiceRecord, id: Option<ContainerId>) {
        let (quit, quitting) = watch::channel(false);
        let run = Run {
            containers: self.inner.containers.clone(),
            name: self.desk.name.clone(),
            number,
            version: record.version,
            owner: record.owner.clone(),
            spec: record.spec.clone(),
            quitting,
            say: self.say.clone(),
        };
        let task = self.inner.tasks.spawn(run.start_and_tend(id.clone()));
        let replica = Replica {
            version: record.version,
            server: record.spec.server.clone(),
            phase: Phase::Starting,
            id,
            ready: None,
            ready_since: None,
            quit,
            task: Some(task),
        };
        self.replicas.insert(number, replica);
    }

    /// Takes over a replica that a daemon before this one started.
    fn adopt(&mut self, record: &Arc<ContainerRecord>, spec: Option<&ServiceSpec>) {
        let Some(service) = &record.spec.service else { return };
        let ready = self.inner.records.get::<ReadyRecord>(&ready_key(&record.id)).ok().flatten();
        // one of an earlier process says nothing of this one
        let ready = ready.map(|ready| ready.value).filter(|ready| ready.started_at == record.state.started_at);
        let running = record.state.status == ContainerStatus::Running;
        let phase = match (running, &ready) {
            (true, Some(_)) => Phase::Ready,
            (true, None) => Phase::Starting,
            (false, _) => Phase::Ended,
        };
        let (quit, quitting) = watch::channel(false);
        let task = spec.filter(|_| running).map(|spec| {
            let run = Run {
                containers: self.inner.containers.clone(),
                name: self.desk.name.clone(),
                number: service.replica,
                version: service.version,
                owner: record.spec.owner.clone(),
                spec: spec.clone(),
                quitting,
                say: self.say.clone(),
            };
            self.inner.tasks.spawn(run.tend(Arc::clone(record), phase == Phase::Ready))
        });
        let replica = Replica {
            version: service.version,
            server: record.spec.server.clone(),
            phase,
            id: Some(record.id.clone()),
            ready: ready.filter(|_| running),
            ready_since: None,
            quit,
            task,
        };
        self.replicas.insert(service.replica, replica);
    }

    /// Takes a replica out of service: drained, stopped, removed, by a task of its own.
    fn retire(&mut self, number: u32, revision: u64, removed: bool) {
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        replica.phase = Phase::Retiring;
        let was_ready = replica.ready.take().map(|ready| ready.address);
        replica.quit.send_replace(true);
        let task = replica.task.take();
        let id = replica.id.clone();
        let inner = Arc::clone(&self.inner);
        let name = ContainerName::of_replica(&self.desk.name, number);
        let service = self.desk.name.clone();
        let say = self.say.clone();
        let mut stopping = self.inner.stopping();
        self.inner.tasks.spawn(async move {
            if let Some(task) = task {
                // it ends as soon as what it does with the container is done
                let _ = task.await;
            }
            // a replica that was being created has told its id to nobody yet
            let id = id.or_else(|| {
                let found = inner.containers.find(name.as_str()).ok()?;
                // somebody's container may have the name that the replica was refused
                let is_ours =
                    found.spec.service.as_ref().is_some_and(|own| own.name == service && own.replica == number);
                is_ours.then_some(found.id.clone())
            });
            if let Some(id) = id {
                if let Some(address) = was_ready {
                    let limit = if removed { DRAIN_REMOVED } else { DRAIN };
                    tokio::select! {
                        () = drained(&inner.containers, address, revision, limit) => {}
                        () = is_set(&mut stopping) => {}
                    }
                }
                remove(&inner.containers, &id, &mut stopping).await;
                if let Err(error) = inner.records.delete(&ready_key(&id)) {
                    tracing::warn!(%id, %error, "a replica's record could not be removed");
                }
            }
            let _ = say.send((number, Said::Removed)).await;
        });
    }

    /// Nothing is left of the service: its records go, and the image that was made for it.
    async fn finish(self) {
        self.inner.route(&self.desk.name, None);
        if let (Some(record), Ok(name)) = (self.desk.intent(), ImageName::parse(self.desk.name.as_str()))
            && let Err(error) = self.inner.containers.images().of(&record.owner).forget_if(&name, &record.spec.image)
        {
            tracing::warn!(service = %self.desk.name, %error, "a service's image keeps its name");
        }
        {
            // from here on a put of this name begins anew
            let mut desks = self.inner.desks();
            self.desk.close();
            desks.remove(&self.desk.name);
        }
        self.inner.collect_garbage().await;
        self.desk.tell_given_up();
        self.desk.gone.send_replace(true);
    }
}

/// Waits until the edge sends a replica no more requests and none is under way, or for `limit`.
async fn drained(containers: &Containers, address: SocketAddr, revision: u64, limit: Duration) {
    let mut status = containers.edge().status();
    let idle = |status: &EdgeStatus| status.applied >= revision && !status.in_flight.contains_key(&address);
    if tokio::time::timeout(limit, status.wait_for(idle)).await.is_err() {
        tracing::warn!(%address, "a replica is ended with requests under way");
    }
}

/// Ends and removes a container; tried until it is gone, or the daemon stops: the next one finds it.
async fn remove(containers: &Containers, id: &ContainerId, stopping: &mut watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let stopped = containers.stop(id, GRACE).await;
        match stopped.and(containers.remove(id, true).await) {
            Ok(()) | Err(ContainerError::NotFound(_)) => return,
            Err(error) => tracing::warn!(%id, %error, "a replica could not be removed, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = is_set(stopping) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
