//! Actions carried out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use sampan_container::{ContainerRecord, Containers, Images};
use sampan_model::view::{Change, ContainerCreate, DaemonView, DeployEvent};
use sampan_model::{ContainerName, ContainerSpec, Label};
use sampan_service::Services;
use sampan_store::{Records, WatchError};
use tokio::sync::mpsc;

use crate::action::{Force, LogRange};
use crate::{Action, ApiError, Caller, Outcome};

/// Deploy events and changes between the daemon and one that follows them.
const FOLLOWED: usize = 64;

/// What the daemon's process is asked to do with itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonOrder {
    /// End everything, keep the records.
    Stop,
    /// Execute its binary anew.
    Restart,
    /// End everything, keep nothing.
    Purge,
}

/// Everything that actions need.
pub struct Core {
    /// The containers.
    pub containers: Containers,
    /// The services.
    pub services: Services,
    /// The records.
    pub records: Arc<Records>,
    /// The daemon as it is now.
    pub daemon: Box<dyn Fn() -> DaemonView + Send + Sync>,
    /// Where orders to the daemon's process go.
    pub orders: mpsc::Sender<DaemonOrder>,
    /// `$SAMPAN_ROOT`, for messages.
    pub root: PathBuf,
}

impl Core {
    /// Carries out one action. Whoever may not ask was turned away before.
    ///
    /// # Errors
    /// It could not be done: why, and what to do next.
    pub async fn perform(&self, caller: &Caller, action: Action) -> Result<Outcome, ApiError> {
        tracing::debug!(uid = caller.uid, ?action, "asked");
        match action {
            Action::ShowDaemon => Ok(Outcome::Daemon(Box::new((self.daemon)()))),
            Action::StopDaemon => self.order(DaemonOrder::Stop).await,
            Action::RestartDaemon => self.order(DaemonOrder::Restart).await,
            Action::Purge => self.order(DaemonOrder::Purge).await,
            Action::NameImage(name, manifest) => {
                self.on_images(move |images| images.name(&name, &manifest)).await.map(Outcome::Image)
            }
            Action::ListImages => self.on_images(Images::list).await.map(Outcome::Images),
            Action::ShowImage(name) => self.on_images(move |images| images.get(&name)).await.map(Outcome::Image),
            Action::ForgetImage(name) => {
                self.on_images(move |images| images.forget(&name)).await?;
                self.services.collect_garbage().await;
                Ok(Outcome::Done)
            }
            Action::PutService(spec) => Ok(Outcome::Deploy(self.services.put(*spec).await?)),
            Action::ListServices => Ok(Outcome::Services(self.services.list())),
            Action::ShowService(name) => Ok(Outcome::Service(Box::new(self.services.get(&name)?))),
            Action::RemoveService(name) => {
                self.services.remove(&name).await?;
                Ok(Outcome::Done)
            }
            Action::FollowDeploy(name, version) => self.follow_deploy(&name, version),
            Action::CancelDeploy(name, version) => {
                self.services.cancel_deploy(&name, version).await?;
                Ok(Outcome::Done)
            }
            Action::Run(asked) => self.run(*asked).await,
            Action::ListContainers => {
                let records = self.containers.list();
                Ok(Outcome::Containers(
                    records.iter().map(|record| record.view(self.services.is_ready(record))).collect(),
                ))
            }
            Action::ShowContainer(name) => {
                let record = self.containers.find(&name)?;
                Ok(Outcome::Container(Box::new(record.view(self.services.is_ready(&record)))))
            }
            Action::StopContainer(name, grace) => {
                let record = self.containers.find(&name)?;
                not_a_replica(&record)?;
                self.containers.stop(&record.id, grace).await?;
                Ok(Outcome::Done)
            }
            Action::WaitContainer(name) => {
                let record = self.containers.find(&name)?;
                Ok(Outcome::Exit(self.containers.wait(&record.id).await?))
            }
            Action::RemoveContainer(name, force) => {
                let record = self.containers.find(&name)?;
                not_a_replica(&record)?;
                self.containers.remove(&record.id, force == Force::Yes).await?;
                self.services.collect_garbage().await;
                Ok(Outcome::Done)
            }
            Action::ReadLog(name, range) => self.read_log(&name, range),
            Action::Inspect(name) => self.inspect(&name),
            Action::FollowRecords(from) => self.follow_records(from),
        }
    }

    async fn order(&self, order: DaemonOrder) -> Result<Outcome, ApiError> {
        self.orders.send(order).await.map_err(|_| ApiError::stopping())?;
        Ok(Outcome::Begun)
    }

    async fn on_images<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Images) -> Result<T, sampan_container::ContainerError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let images = self.containers.images().clone();
        let done = tokio::task::spawn_blocking(move || work(&images)).await;
        Ok(done.map_err(|_| ApiError::stopping())??)
    }

    fn follow_deploy(&self, name: &Label, version: u64) -> Result<Outcome, ApiError> {
        let (first, watch) = self.services.watch_deploy(name, version)?;
        let (events, receiver) = mpsc::channel(FOLLOWED);
        tokio::spawn(async move {
            let mut watch = watch;
            let mut record = first;
            loop {
                let event = match record.version {
                    present if present == version => record.event,
                    later => DeployEvent::Superseded { by: later },
                };
                let is_end = event.is_end();
                if events.send(event).await.is_err() || is_end {
                    return;
                }
                let Some(watch) = &mut watch else { return };
                tokio::select! {
                    changed = watch.changed() => if changed.is_err() { return },
                    () = events.closed() => return,
                }
                record = watch.borrow_and_update().clone();
            }
        });
        Ok(Outcome::DeployEvents(receiver))
    }

    async fn run(&self, asked: ContainerCreate) -> Result<Outcome, ApiError> {
        let image_name = asked.image.clone();
        let image = self.on_images(move |images| images.resolve(&asked.image)).await?;
        let name = match asked.name {
            Some(name) => name,
            None => made_up_name()?,
        };
        let spec = ContainerSpec {
            size: asked.size,
            command: asked.command,
            env: asked.env,
            remove_at_exit: asked.remove_at_exit,
            ..ContainerSpec::new(name, image, image_name)
        };
        // a task of its own: whoever asked may go away in the middle, and no half is to be left then
        let containers = self.containers.clone();
        let started = tokio::spawn(async move {
            let record = containers.create(spec).await?;
            let started = containers.start(&record.id).await;
            if started.is_err() {
                // a container that never ran is nobody's: only the error is of use
                if let Err(error) = containers.remove(&record.id, true).await {
                    tracing::warn!(id = %record.id, %error, "a container that did not start could not be removed");
                }
            }
            started
        });
        let record = started.await.map_err(|_| ApiError::stopping())??;
        Ok(Outcome::Container(Box::new(record.view(None))))
    }

    fn read_log(&self, name: &str, range: LogRange) -> Result<Outcome, ApiError> {
        // of a service: its first replica's
        let record = self.containers.find(name).or_else(|error| {
            let replicas = self.containers.list();
            let mut replicas = replicas
                .into_iter()
                .filter(|record| record.spec.service.as_ref().is_some_and(|service| service.name.as_str() == name));
            replicas.next().ok_or(error)
        })?;
        Ok(Outcome::Log(self.containers.read_log(&record.id, range.follow, range.tail)?))
    }

    fn inspect(&self, name: &str) -> Result<Outcome, ApiError> {
        let service = Label::parse(name).ok().and_then(|label| self.services.get(&label).ok());
        let object = match service {
            Some(service) => serde_json::to_value(service),
            None => {
                let record = self.containers.find(name)?;
                serde_json::to_value(record.view(self.services.is_ready(&record)))
            }
        };
        Ok(Outcome::Objects(vec![object.expect("views have only text keys")]))
    }

    fn follow_records(&self, from: u64) -> Result<Outcome, ApiError> {
        let too_old = |error: WatchError| {
            let hint = "list what there is, and follow from the revision of `GET /v1/daemon`";
            ApiError::new(StatusCode::GONE, "revision_too_old", error.to_string(), Some(hint))
        };
        let mut watch = self.records.watch(from).map_err(too_old)?;
        let (changes, receiver) = mpsc::channel(FOLLOWED);
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    change = watch.next() => change,
                    () = changes.closed() => return,
                };
                let change = change
                    .map(|change| Change { revision: change.revision, key: change.key, value: change.value })
                    .map_err(too_old);
                let failed = change.is_err();
                if changes.send(change).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Outcome::Changes(receiver))
    }
}

/// A service's replicas are its own to end: it would start them again.
fn not_a_replica(record: &ContainerRecord) -> Result<(), ApiError> {
    match &record.spec.service {
        Some(service) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "in_use",
            format!(
                "container {:?} is a replica of the service {:?}",
                record.spec.name.as_str(),
                service.name.as_str()
            ),
            Some("remove the service: `sampan down NAME`"),
        )),
        None => Ok(()),
    }
}

/// A name for a container that was given none.
fn made_up_name() -> Result<ContainerName, ApiError> {
    const FIRST: [&str; 16] = [
        "amber", "brisk", "calm", "dusty", "early", "fair", "green", "hazy", "idle", "jolly", "keen", "lucid", "merry",
        "noble", "quiet", "rapid",
    ];
    const SECOND: [&str; 16] = [
        "anchor", "beacon", "cargo", "delta", "estuary", "ferry", "gull", "harbour", "island", "junk", "keel",
        "lagoon", "mast", "oar", "pier", "rudder",
    ];
    let mut bytes = [0; 8];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    read.map_err(|error| ApiError::bad_request(format!("no random bytes: {error}")))?;
    let pick = |words: &[&'static str; 16], byte: u8| words[usize::from(byte % 16)];
    let number = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]) % 1_000_000;
    let name = format!("{}_{}_{number}", pick(&FIRST, bytes[0]), pick(&SECOND, bytes[1]));
    ContainerName::parse(&name).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The grace that a container is given where none is asked for.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
