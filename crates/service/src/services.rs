//! The services of this instance: put, looked at, removed.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_container::{ContainerError, ContainerRecord, Containers, Images};
use sampan_model::view::{Deploy, ErrorView, PruneView, ServiceView};
use sampan_model::{Digest, ImageName, Label, Owner, RoutedService, ServiceSpec, Upstream};
use sampan_store::Records;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::ServiceError;
use crate::deploy::{Desk, starting};
use crate::record::{DeployRecord, READY, ReadyRecord, SERVICES, ServiceRecord, deploy_key, ready_key};
use crate::task;

/// The most replicas of one service.
const MOST_REPLICAS: u32 = 64;

/// All services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) containers: Containers,
    pub(crate) records: Arc<Records>,
    /// Where the edge serves HTTP.
    http: Vec<SocketAddr>,
    desks: Mutex<HashMap<Label, Arc<Desk>>>,
    routes: Mutex<BTreeMap<Label, Ready>>,
    /// Set when the daemon stops: what ends from then on was ended by it.
    stopping: watch::Sender<bool>,
    /// Every task of every service.
    pub(crate) tasks: TaskTracker,
}

/// The ready replicas of a service.
pub(crate) struct Ready {
    pub(crate) replicas: Vec<Upstream>,
    /// Whether requests are routed to them.
    pub(crate) ingress: bool,
}

impl Services {
    /// The services that the records tell of, as [`Containers::adopt`] left their containers: each gets its task, and
    /// the edge its table.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn load(
        containers: Containers,
        records: Arc<Records>,
        http: Vec<SocketAddr>,
    ) -> Result<Self, ServiceError> {
        let inner = Arc::new(Inner {
            containers,
            records,
            http,
            desks: Mutex::default(),
            routes: Mutex::default(),
            stopping: watch::Sender::new(false),
            tasks: TaskTracker::new(),
        });
        let services = Self { inner };
        services.take_over().await?;
        services.inner.tasks.spawn(crate::restart::run(Arc::clone(&services.inner)));
        // what an uploader sent, or a removal left, when the daemon before was killed
        let inner = Arc::clone(&services.inner);
        services.inner.tasks.spawn(async move { inner.collect_garbage().await });
        services.inner.containers.edge().open();
        services.finish_closing();
        Ok(services)
    }

    async fn take_over(&self) -> Result<(), ServiceError> {
        let inner = &self.inner;
        let mut replicas: HashMap<Label, Vec<Arc<ContainerRecord>>> = HashMap::new();
        let mut ready = Vec::new();
        for record in inner.containers.list() {
            if let Some(service) = &record.spec.service {
                ready.push(ready_key(&record.id));
                replicas.entry(service.name.clone()).or_default().push(record);
            }
        }
        for (key, _) in inner.records.list::<ReadyRecord>(READY)? {
            if !ready.contains(&key) {
                inner.records.delete(&key)?;
            }
        }
        for (_, record) in inner.records.list::<ServiceRecord>(SERVICES)? {
            let record = record.value;
            let name = record.spec.name.clone();
            let deploy = inner.records.get::<DeployRecord>(&deploy_key(&name))?;
            let deploy = deploy.map_or_else(|| starting(record.version, record.owner.clone()), |deploy| deploy.value);
            let desk = Arc::new(Desk::new(name.clone(), Arc::clone(&inner.records), Some(record), deploy));
            inner.desks().insert(name.clone(), Arc::clone(&desk));
            task::start(inner, desk, replicas.remove(&name).unwrap_or_default());
        }
        // replicas of a service that is gone: its removal, or its first deploy's failure, was interrupted
        for (name, records) in replicas {
            // told as it ended, if the daemon before had come to say so
            let deploy = inner.records.get::<DeployRecord>(&deploy_key(&name))?;
            let deploy = deploy.map_or_else(|| starting(0, Owner::default()), |deploy| deploy.value);
            let desk = Arc::new(Desk::new(name.clone(), Arc::clone(&inner.records), None, deploy));
            inner.desks().insert(name, Arc::clone(&desk));
            task::start(inner, desk, records);
        }
        Ok(())
    }

    /// Intends a service. The same spec again is the same version; another is the next one, which is brought up beside
    /// the present one. Comes back when that is recorded; [`watch_deploy`](Self::watch_deploy) tells how it goes.
    ///
    /// # Errors
    /// The name is another source's, the spec cannot be met on this machine, or the image cannot be run here.
    pub async fn put(&self, spec: ServiceSpec, asker: &Owner) -> Result<Deploy, ServiceError> {
        let image = spec.image.clone();
        let put = self.put_checked(spec, asker).await;
        if put.is_err() {
            self.inner.containers.images().of(asker).give_up_upload(&image);
            self.inner.collect_garbage().await;
        }
        put
    }

    async fn put_checked(&self, spec: ServiceSpec, asker: &Owner) -> Result<Deploy, ServiceError> {
        self.check(&spec).await?;
        let inner = &self.inner;
        let name = spec.name.clone();
        let version = loop {
            // a service on its way out goes first
            let leaving = inner.desks().get(&name).filter(|desk| desk.is_leaving()).cloned();
            if let Some(desk) = leaving {
                inner.until_gone(&desk).await?;
            }
            match put(inner, spec.clone(), asker) {
                // removed in between
                Err(ServiceError::Removing(_)) => {}
                other => break other?,
            }
        };
        sampan_container::failpoint::reach("service_recorded");
        Ok(Deploy { name, version })
    }

    async fn check(&self, spec: &ServiceSpec) -> Result<(), ServiceError> {
        if !(1..=MOST_REPLICAS).contains(&spec.replicas) {
            return Err(ServiceError::Replicas { asked: spec.replicas, most: MOST_REPLICAS });
        }
        if let Some(name) = spec.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(ServiceError::EnvironmentName(name.clone()));
        }
        self.inner.check_placement(spec)?;
        self.inner.containers.machine().holds(&spec.size)?;
        self.inner.containers.declared_port(&spec.image).await?;
        Ok(())
    }

    /// How a deploy goes: its present event, and each that follows.
    ///
    /// # Errors
    /// There is no such deploy.
    pub fn watch_deploy(
        &self,
        name: &Label,
        version: u64,
    ) -> Result<(DeployRecord, Option<watch::Receiver<DeployRecord>>), ServiceError> {
        if let Some(desk) = self.inner.desks().get(name) {
            let watch = desk.watch_deploy();
            let now = watch.borrow().clone();
            return Ok((now, Some(watch)));
        }
        // the desk of a service whose first deploy failed is gone; its record is not
        let record = self.inner.records.get::<DeployRecord>(&deploy_key(name))?;
        let record = record.filter(|record| record.value.version >= version);
        match record {
            Some(record) => Ok((record.value, None)),
            None => Err(ServiceError::NoDeploy { name: name.to_string(), version }),
        }
    }

    /// Whose a service is; or was, where the last deploy of that name failed and there is none.
    pub fn owner(&self, name: &Label) -> Option<Owner> {
        let deploy = self.inner.desks().get(name).map(|desk| desk.watch_deploy().borrow().owner.clone());
        let recorded = || self.inner.records.get::<DeployRecord>(&deploy_key(name)).ok().flatten();
        deploy.or_else(|| recorded().map(|record| record.value.owner))
    }

    /// Gives a deploy up, where it is still under way; comes back when nothing of its version is left.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn cancel_deploy(&self, name: &Label, version: u64) -> Result<(), ServiceError> {
        let Some(desk) = self.inner.desks().get(name).cloned() else { return Ok(()) };
        let error = ErrorView {
            code: "cancelled".to_owned(),
            message: format!("the deploy of version {version} of {name:?} was given up"),
            hint: None,
        };
        self.inner.give_up(&desk, version, error, Vec::new())?;
        // it has ended when nothing of that version is left
        let mut deploy = desk.watch_deploy();
        let mut stopping = self.inner.stopping();
        let has_ended = |record: &DeployRecord| record.version != version || record.event.is_end();
        tokio::select! {
            _ = deploy.wait_for(has_ended) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return Err(ServiceError::Stopping),
        }
        if desk.intent().is_none() {
            self.inner.until_gone(&desk).await?;
        }
        Ok(())
    }

    /// All services, by name.
    pub fn list(&self) -> Vec<ServiceView> {
        let mut desks: Vec<_> = self.inner.desks().values().cloned().collect();
        desks.sort_by(|a, b| a.name.cmp(&b.name));
        desks.iter().filter_map(|desk| self.view(desk)).collect()
    }

    /// The service of a name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &Label) -> Result<ServiceView, ServiceError> {
        let desk = self.inner.desks().get(name).cloned();
        desk.and_then(|desk| self.view(&desk)).ok_or_else(|| ServiceError::NotFound(name.to_string()))
    }

    /// Removes a service; comes back when nothing of it is left.
    ///
    /// # Errors
    /// There is none of that name, or the daemon stops.
    pub async fn remove(&self, name: &Label) -> Result<(), ServiceError> {
        let not_found = || ServiceError::NotFound(name.to_string());
        let desk = self.inner.desks().get(name).cloned().ok_or_else(not_found)?;
        desk.remove()?;
        self.inner.until_gone(&desk).await
    }

    /// Removes the bytes of images that nothing has any more. What cannot be removed is logged: it is tried again the
    /// next time.
    pub async fn collect_garbage(&self) {
        self.inner.collect_garbage().await;
    }

    /// Removes what [`collect_garbage`](Self::collect_garbage) does, and with `all` also the images that no container and
    /// no service has; says what that was.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub async fn prune_images(&self, all: bool, asker: &Owner) -> Result<PruneView, ServiceError> {
        let asker = asker.clone();
        self.inner.collect(move |images, of_use| images.of(&asker).prune(all, of_use.into_keys().collect())).await
    }

    /// The manifest of every image that services have, each with the words for one of those: `service "hello"`.
    pub fn images(&self) -> HashMap<Digest, String> {
        self.inner.images()
    }

    /// Stops reconciling, and waits until nothing is being done any more: the daemon is about to end every container,
    /// and that is nobody's crash.
    pub async fn stop(&self) {
        self.inner.stopping.send_replace(true);
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Whether a container is a ready replica; `None` where it is no replica.
    pub fn is_ready(&self, record: &ContainerRecord) -> Option<bool> {
        let service = record.spec.service.as_ref()?;
        let routes = self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = routes.get(&service.name);
        Some(ready.is_some_and(|ready| ready.replicas.iter().any(|one| one.replica == record.spec.name)))
    }

    fn view(&self, desk: &Desk) -> Option<ServiceView> {
        let record = desk.intent()?;
        let mut replicas: Vec<Arc<ContainerRecord>> = self.inner.containers.list();
        replicas.retain(|one| one.spec.service.as_ref().is_some_and(|service| service.name == desk.name));
        let views: Vec<_> = replicas.iter().map(|one| one.view(self.is_ready(one))).collect();
        let ready = views.iter().filter(|view| view.ready == Some(true)).count();
        let health = match ready {
            _ if desk.is_deploying(record.version) && !record.deployed => "starting",
            0 => "failing",
            some if some < record.spec.replicas as usize => "degraded",
            _ => "ready",
        };
        let routes = self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let port = routes.get(&desk.name).and_then(|ready| ready.replicas.first()).map(|one| one.address.port());
        let port = port.filter(|_| record.spec.ingress);
        drop(routes);
        Some(ServiceView {
            kind: "service".to_owned(),
            name: desk.name.clone(),
            url: self.inner.url_of(&record.spec),
            image: record.spec.image,
            source: record.spec.source,
            size: record.spec.size,
            replicas: views,
            health: health.to_owned(),
            reason: desk.reason().filter(|_| health != "ready"),
            version: record.version,
            port,
            created_at: record.created_at,
        })
    }
}

/// Intends the spec at its service's desk, a new one where there is none. One put at a time, whatever its name: each is
/// a few records.
fn put(inner: &Arc<Inner>, spec: ServiceSpec, asker: &Owner) -> Result<u64, ServiceError> {
    let name = spec.name.clone();
    let image = spec.image.clone();
    let mut desks = inner.desks();
    let version = match desks.get(&name) {
        Some(desk) if desk.is_leaving() => return Err(ServiceError::Removing(name.to_string())),
        Some(desk) => desk.put(spec, asker, inner.is_all_ready(desk))?,
        None => {
            let before = inner.records.get::<DeployRecord>(&deploy_key(&name))?;
            let before = before.map_or_else(|| starting(0, Owner::default()), |deploy| deploy.value);
            let desk = Arc::new(Desk::new(name.clone(), Arc::clone(&inner.records), None, before));
            let version = desk.put(spec, asker, false)?;
            desks.insert(name.clone(), Arc::clone(&desk));
            task::start(inner, desk, Vec::new());
            version
        }
    };
    // the service has the image already: the name is for people
    if let Ok(image_name) = ImageName::parse(name.as_str())
        && let Err(error) = inner.containers.images().of(asker).name(&image_name, &image)
    {
        tracing::warn!(service = %name, %error, "a service's image has no name");
    }
    Ok(version)
}

impl Inner {
    pub(crate) fn desks(&self) -> MutexGuard<'_, HashMap<Label, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Where a service is reached; nothing where no requests are routed to it.
    pub(crate) fn url_of(&self, spec: &ServiceSpec) -> String {
        if spec.ingress { self.url(&spec.name) } else { String::new() }
    }

    fn url(&self, name: &Label) -> String {
        match self.http.first().map(SocketAddr::port) {
            None | Some(80) => format!("http://{name}.localhost/"),
            Some(port) => format!("http://{name}.localhost:{port}/"),
        }
    }

    /// Gives a deploy up, where it is still under way; its image has the service's name no more.
    pub(crate) fn give_up(
        &self,
        desk: &Desk,
        version: u64,
        error: ErrorView,
        log_tail: Vec<String>,
    ) -> Result<(), ServiceError> {
        let Some(spec) = desk.fail(version, error, log_tail) else { return Ok(()) };
        // an image of that name may be somebody else's, and stays so
        let owner = desk.watch_deploy().borrow().owner.clone();
        let images = self.containers.images().of(&owner);
        let Ok(name) = ImageName::parse(desk.name.as_str()) else { return Ok(()) };
        images.forget_if(&name, &spec.image)?;
        match desk.intent().map(|before| images.name(&name, &before.spec.image)) {
            None | Some(Ok(_) | Err(ContainerError::Strangers(_))) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// See [`Services::collect_garbage`].
    pub(crate) async fn collect_garbage(self: &Arc<Self>) {
        let collected = self.collect(|images, of_use| images.collect_garbage(of_use.into_keys().collect()));
        if let Err(error) = collected.await {
            tracing::warn!(%error, "images of no use could not be removed");
        }
    }

    /// Collects garbage while nothing is intended, and then deletes it.
    async fn collect<T: Send + 'static>(
        self: &Arc<Self>,
        collect: impl FnOnce(&Images, HashMap<Digest, String>) -> Result<T, ContainerError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let inner = Arc::clone(self);
        let collected = tokio::task::spawn_blocking(move || {
            let images = inner.containers.images();
            let collected = {
                // held throughout, and taken before the images' own lock as a put does: nothing is intended meanwhile
                let desks = inner.desks();
                collect(images, images_of(&desks))?
            };
            images.sweep()?;
            Ok(collected)
        });
        collected.await.map_err(|_| ServiceError::Stopping)?
    }

    fn images(&self) -> HashMap<Digest, String> {
        images_of(&self.desks())
    }

    /// Whether all replicas that are intended are ready.
    fn is_all_ready(&self, desk: &Desk) -> bool {
        let wanted = desk.intent().map_or(0, |record| record.spec.replicas as usize);
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(&desk.name).map_or(0, |ready| ready.replicas.len()) >= wanted
    }

    /// Sends a service's requests to these, and to no others; `None` where the service is gone. The revision of the
    /// edge's table that says so comes back.
    pub(crate) fn route(&self, name: &Label, ready: Option<Ready>) -> u64 {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        match ready {
            Some(ready) => routes.insert(name.clone(), ready),
            None => routes.remove(name),
        };
        // to the edge there is no service that nothing is routed to
        let services = routes.iter().filter(|(_, ready)| ready.ingress);
        let services =
            services.map(|(name, ready)| RoutedService { name: name.clone(), upstreams: ready.replicas.clone() });
        self.containers.edge().set_services(services.collect())
    }

    /// Waits until nothing of a service is left.
    async fn until_gone(&self, desk: &Desk) -> Result<(), ServiceError> {
        let mut gone = desk.gone.subscribe();
        let mut stopping = self.stopping();
        tokio::select! {
            _ = gone.wait_for(|gone| *gone) => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(ServiceError::Stopping),
        }
    }
}

/// The images of these services, each with the words for one that has it.
fn images_of(desks: &HashMap<Label, Arc<Desk>>) -> HashMap<Digest, String> {
    let mut images = HashMap::new();
    for desk in desks.values() {
        let Some(record) = desk.intent() else { continue };
        for image in record.images() {
            images.insert(image.clone(), format!("service {:?}", desk.name.as_str()));
        }
    }
    images
}
