//! Actions carried out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use sampan_container::{ContainerError, ContainerRecord, Containers, Images, LogRange};
use sampan_model::view::{Change, ContainerCreate, DaemonView, DeployEvent};
use sampan_model::{ImageName, Label};
use sampan_service::Services;
use sampan_store::{Records, WatchError};
use tokio::sync::mpsc;

use crate::action::{Force, Repair, Start, Unused};
use crate::owners::{Sieve, is_for_governors, only_governors};
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
        if is_for_governors(&action) && !caller.governs {
            return Err(only_governors());
        }
        match action {
            Action::ShowDaemon => Ok(Outcome::Daemon(Box::new((self.daemon)()))),
            Action::ShowMetrics => self.metrics().await.map(Outcome::Metrics),
            Action::StopDaemon => self.order(DaemonOrder::Stop).await,
            Action::RestartDaemon => self.order(DaemonOrder::Restart).await,
            Action::Purge => self.order(DaemonOrder::Purge).await,
            Action::NameImage(name, manifest) => {
                self.on_images(caller, move |images| images.name(&name, &manifest)).await.map(Outcome::Image)
            }
            Action::ListImages => self.on_images(caller, Images::list).await.map(Outcome::Images),
            Action::ShowImage(name) => {
                let details = self.on_images(caller, move |images| images.details(&name)).await?;
                Ok(Outcome::ImageDetails(Box::new(details)))
            }
            Action::ForgetImage(name, force) => {
                let mut services = self.services.images();
                let own = self.own_services(caller);
                for words in services.values_mut() {
                    // to anybody else its name is not there
                    if !own.iter().any(|service| *words == format!("service {:?}", service.name.as_str())) {
                        *words = "another user's service".to_owned();
                    }
                }
                self.on_images(caller, move |images| match force {
                    Force::Yes => images.forget(&name),
                    Force::No => images.remove(&name, &services),
                })
                .await?;
                self.services.collect_garbage().await;
                Ok(Outcome::Done)
            }
            Action::PruneImages(unused) => {
                Ok(Outcome::Pruned(self.services.prune_images(unused == Unused::Removed, &caller.owner()).await?))
            }
            Action::ExamineImages(repair) => {
                let services = self.services.images();
                let examined =
                    self.on_images(caller, move |images| images.fsck(repair == Repair::Yes, &services)).await?;
                if repair == Repair::Yes {
                    // the parts of images whose names were taken away
                    self.services.collect_garbage().await;
                }
                Ok(Outcome::Examined(examined))
            }
            Action::PutService(spec) => {
                if let Some(server) = &spec.server {
                    caller.own_server(&self.containers, server)?;
                }
                Ok(Outcome::Deploy(self.services.put(*spec, &caller.owner()).await?))
            }
            Action::ListServices => Ok(Outcome::Services(self.own_services(caller))),
            Action::ShowService(name) => {
                self.own_service(caller, &name)?;
                Ok(Outcome::Service(Box::new(self.services.get(&name)?)))
            }
            Action::RemoveService(name) => {
                self.own_service(caller, &name)?;
                self.services.remove(&name).await?;
                Ok(Outcome::Done)
            }
            Action::FollowDeploy(name, version) => {
                self.own_service(caller, &name)?;
                self.follow_deploy(&name, version)
            }
            Action::CancelDeploy(name, version) => {
                self.own_service(caller, &name)?;
                self.services.cancel_deploy(&name, version).await?;
                Ok(Outcome::Done)
            }
            Action::Run(asked, start) => self.run(caller, *asked, start).await,
            Action::Servers(action) => self.servers(caller, action).await,
            Action::Operate(name, operation) => {
                let record = self.own_container(caller, &name)?;
                self.operate(record, operation).await
            }
            Action::Volumes(action) => self.volumes(caller.owner(), action).await,
            Action::ListContainers => {
                let records = self.containers.list_of(&caller.owner());
                Ok(Outcome::Containers(
                    records.iter().map(|record| record.view(self.services.is_ready(record))).collect(),
                ))
            }
            Action::ShowContainer(name) => {
                let record = self.own_container(caller, &name)?;
                Ok(Outcome::Container(Box::new(record.view(self.services.is_ready(&record)))))
            }
            Action::StopContainer(name, grace) => {
                let record = self.own_container(caller, &name)?;
                not_a_replica(&record)?;
                self.containers.stop_by_hand(&record.id, grace).await?;
                Ok(Outcome::Done)
            }
            Action::WaitContainer(name) => {
                let record = self.own_container(caller, &name)?;
                Ok(Outcome::Exit(self.containers.wait(&record.id).await?))
            }
            Action::RemoveContainer(name, force) => {
                let record = self.own_container(caller, &name)?;
                not_a_replica(&record)?;
                if force == Force::Yes {
                    self.containers.want_stopped(&record.id).await?;
                }
                self.containers.remove(&record.id, force == Force::Yes).await?;
                let image = record.spec.image.clone();
                // the container is gone, whatever can be found out of its image
                if !self.on_images(caller, move |images| images.is_named(&image)).await.unwrap_or(false) {
                    // it was there for its containers alone
                    self.services.collect_garbage().await;
                }
                Ok(Outcome::Done)
            }
            Action::ReadLog(name, range) => self.read_log(caller, &name, range).await,
            Action::Inspect(name) => self.inspect(caller, &name).await,
            Action::FollowRecords(from) => self.follow_records(caller, from),
        }
    }

    async fn order(&self, order: DaemonOrder) -> Result<Outcome, ApiError> {
        self.orders.send(order).await.map_err(|_| ApiError::stopping())?;
        Ok(Outcome::Begun)
    }

    /// Does something with the images as they are to the caller.
    pub(crate) async fn on_images<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&Images) -> Result<T, sampan_container::ContainerError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let images = self.containers.images().of(&caller.owner());
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

    async fn run(&self, caller: &Caller, asked: ContainerCreate, start: Start) -> Result<Outcome, ApiError> {
        let (containers, caller) = (self.containers.clone(), caller.clone());
        let spec = move || caller.spec_of(&containers, asked);
        let record = match start {
            Start::Now => self.containers.run(spec).await?,
            Start::Later => self.containers.create_for_later(spec).await?,
        };
        Ok(Outcome::Container(Box::new(record.view(None))))
    }

    async fn read_log(&self, caller: &Caller, name: &str, range: LogRange) -> Result<Outcome, ApiError> {
        // of a service: its first replica's
        let owner = caller.owner();
        let record = self.containers.find_of(&owner, name).or_else(|error| {
            let replicas = self.containers.list_of(&owner);
            let mut replicas = replicas
                .into_iter()
                .filter(|record| record.spec.service.as_ref().is_some_and(|service| service.name.as_str() == name));
            replicas.next().ok_or(error)
        })?;
        Ok(Outcome::Log(self.containers.read_log(&record.id, range).await?))
    }

    async fn inspect(&self, caller: &Caller, name: &str) -> Result<Outcome, ApiError> {
        let mut objects = Vec::new();
        if let Ok(label) = Label::parse(name) {
            let service = self.own_service(caller, &label).ok().and_then(|()| self.services.get(&label).ok());
            objects.extend(service.map(|service| object(&service)));
            let server = caller.own_server(&self.containers, &label).ok();
            objects.extend(server.map(|server| object(&self.server_view(&server))));
        }
        match self.containers.find_of(&caller.owner(), name) {
            // the beginning of an id is not what is meant where something has that name
            Ok(record) if objects.is_empty() || record.spec.name.as_str() == name => {
                objects.push(object(&record.view(self.services.is_ready(&record))));
            }
            Err(error) if objects.is_empty() => objects.push(match self.own_volume(caller, name).await {
                Some(volume) => object(&volume),
                None => self.inspect_image(caller, name, error).await?,
            }),
            Ok(_) | Err(_) => {}
        }
        Ok(Outcome::Objects(objects))
    }

    /// The image of a name that nothing else has: `error` says so.
    async fn inspect_image(
        &self,
        caller: &Caller,
        name: &str,
        error: ContainerError,
    ) -> Result<serde_json::Value, ApiError> {
        // that there is no container of the name is the better answer where there is no image either
        let (ContainerError::NotFound(_), Ok(image)) = (&error, ImageName::parse(name)) else {
            return Err(error.into());
        };
        match self.on_images(caller, move |images| images.details(&image)).await {
            Err(refused) if refused.view.code == "not_found" => Err(error.into()),
            details => Ok(object(&details?)),
        }
    }

    fn follow_records(&self, caller: &Caller, from: u64) -> Result<Outcome, ApiError> {
        let too_old = |error: WatchError| {
            let hint = "list what there is, and follow from the revision of `GET /v1/daemon`";
            ApiError::new(StatusCode::GONE, "revision_too_old", error.to_string(), Some(hint))
        };
        let mut watch = self.records.watch(from).map_err(too_old)?;
        let mut sieve = Sieve::new(caller, self);
        let (changes, receiver) = mpsc::channel(FOLLOWED);
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    change = watch.next() => change,
                    () = changes.closed() => return,
                };
                let view = |change: sampan_store::Change| {
                    let value = change.value()?;
                    Ok(Change { revision: change.revision, key: change.key.to_string(), value })
                };
                let change = change.and_then(view).map_err(too_old);
                if change.as_ref().is_ok_and(|change| !sieve.passes(change)) {
                    continue;
                }
                let failed = change.is_err();
                if changes.send(change).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Outcome::Changes(receiver))
    }
}

/// A view among others of other kinds.
fn object(view: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(view).expect("views have only text keys")
}

/// A service's replicas are its own to end: it would start them again.
pub(crate) fn not_a_replica(record: &ContainerRecord) -> Result<(), ApiError> {
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

/// The grace that a container is given where none is asked for.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
