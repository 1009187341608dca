//! A container's creation: everything that its image leaves open is resolved, and it is recorded. Nothing runs yet.

use std::sync::Arc;

use jiff::Timestamp;
use sampan_image::Image;
use sampan_model::instance::SERVERS;
use sampan_model::{ContainerId, ContainerSpec, ContainerState, signal};
use sampan_store::Durability;

use crate::child::Ahead;
use crate::containers::{Container, Index, Inner, lock};
use crate::pool::Pool;
use crate::server::Server;
use crate::timing::Laps;
use crate::volumes::volumes_of;
use crate::{ContainerError, ContainerRecord, Containers, confine, disk, failpoint, mounts};

/// The most containers of one instance, be it that they share servers: the supervisor holds descriptors for each.
const MOST_CONTAINERS: usize = SERVERS as usize;

/// What is asked of a container, told on a thread that may block: an image's name may have to be looked up.
pub trait Asked<E>: FnOnce() -> Result<ContainerSpec, E> + Send + 'static {}

impl<E, F: FnOnce() -> Result<ContainerSpec, E> + Send + 'static> Asked<E> for F {}

impl Containers {
    /// Records a container. It is not started.
    ///
    /// # Errors
    /// The name is taken, the size is more than the machine has, or the image cannot be run here; and what `asked` says.
    pub async fn create<E>(&self, asked: impl Asked<E>) -> Result<Arc<ContainerRecord>, E>
    where
        E: From<ContainerError> + Send + 'static,
    {
        self.of(asked, |inner, spec| inner.create(spec, Some(&inner.pool))).await
    }

    /// Creates a container and starts it, in one turn on one thread, which goes on to the end also where nobody waits for
    /// it any more. One that cannot be started is removed: only the error is of use.
    ///
    /// # Errors
    /// As of [`create`](Self::create) and [`start`](Self::start).
    pub async fn run<E>(&self, asked: impl Asked<E>) -> Result<Arc<ContainerRecord>, E>
    where
        E: From<ContainerError> + Send + 'static,
    {
        self.of(asked, |inner, spec| {
            let record = inner.create(spec, Some(&inner.pool))?;
            let container = inner.get(&record.id)?;
            let started = inner.start(&container);
            if started.is_err()
                && let Err(error) = inner.remove(&container)
            {
                tracing::warn!(id = %container.id, %error, "a container that did not start could not be removed");
            }
            started
        })
        .await
    }

    /// Records a container that is to be started later, by whoever wants it: the next daemon leaves it so.
    ///
    /// # Errors
    /// As of [`create`](Self::create).
    pub async fn create_for_later<E>(&self, asked: impl Asked<E>) -> Result<Arc<ContainerRecord>, E>
    where
        E: From<ContainerError> + Send + 'static,
    {
        self.of(asked, |inner, spec| {
            let record = inner.create(spec, None)?;
            let container = inner.get(&record.id)?;
            container.timing.forget();
            container.change(inner, |record| record.for_later = true);
            Ok(container.record())
        })
        .await
    }

    async fn of<T, E>(
        &self,
        asked: impl Asked<E>,
        make: impl FnOnce(&Inner, ContainerSpec) -> Result<T, ContainerError> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ContainerError> + Send + 'static,
    {
        let made = move |inner: &Inner| Ok(asked().and_then(|spec| Ok(make(inner, spec)?)));
        self.blocking("creating a container", made).await?
    }
}

impl Inner {
    /// `pool`: where one that is to be started at once gets a server from that waits ready.
    fn create(&self, mut spec: ContainerSpec, pool: Option<&Pool>) -> Result<Arc<ContainerRecord>, ContainerError> {
        let mut laps = Laps::begin();
        self.foundation.machine.holds(&spec.size)?;
        self.check_ports(spec.owner.uid, &spec.ports)?;
        mounts::check(&spec.mounts)?;
        confine::check(&spec)?;
        self.foundation.runtimes.check(&mut spec)?;
        for volume in volumes_of(&spec.mounts) {
            self.foundation.volumes.refuse_taken(volume, &spec.owner)?;
        }
        spec.disk.as_ref().map_or(Ok(()), disk::check)?;
        self.make_way(&spec.name, &spec.owner);
        let _as_it_is = self.foundation.images.hold();
        let image = self.foundation.images.image(&spec.image)?;
        if let (None, Some(given)) = (spec.stop_signal, &image.config.stop_signal) {
            // nonsense is as good as nothing, as to Docker
            spec.stop_signal = signal::parse(given).ok();
        }
        let named = spec.server.as_ref().map(|name| self.named(name)).transpose()?;
        let _kept = named.as_ref().map(|named| self.keep(named)).transpose()?;
        let server = named.as_ref().map(|named| named.record());
        if let Some(server) = &server {
            // whoever asked may have had one of that name until a moment ago
            if !spec.owner.may_touch(&server.spec.owner) {
                return Err(ContainerError::NoServer(server.spec.name.to_string()));
            }
            // a part of it is no wish that could be kept: what runs on it shares all of it
            spec.size = server.spec.size;
            spec.host_name.clone_from(&server.spec.name);
            if spec.disk.is_some() {
                return Err(ContainerError::ServerDisk);
            }
        }
        let command = command_line(&spec, &image)?;
        let env = environment(&spec, &image);

        let mut index = self.index();
        index.refuse_taken(&spec.name, &spec.owner, None)?;
        if index.containers.len() >= MOST_CONTAINERS {
            return Err(ContainerError::TooManyContainers(MOST_CONTAINERS));
        }
        // what is not usual may not be possible
        let begins = pool.is_some() && server.is_none() && confine::is_usual(&spec.confinement);
        let parked = pool.filter(|_| begins).and_then(Pool::take);
        let (id, server_index, child) = match (parked, &server) {
            (Some(parked), _) => (parked.id, parked.index, Some(parked.child)),
            (None, Some(server)) => (new_id()?, server.index, None),
            (None, None) => (new_id()?, self.free_index(&index)?, None),
        };
        let container = Arc::new(Container::new(ContainerRecord {
            id: id.clone(),
            spec,
            server_id: server.map(|server| server.id),
            server_index,
            address: self.block().server_address(server_index),
            command,
            env,
            state: ContainerState::created(),
            boot_id: self.foundation.machine.boot_id.clone(),
            resume: false,
            stopped: false,
            for_later: false,
            created_at: Timestamp::now(),
            timing: Vec::new(),
        }));
        let record = container.record();
        index.servers.insert(server_index);
        let child = match child {
            Some(child) => Some(Ahead::Ready(child)),
            // the supervisor clones while this is recorded; what is in the way is its start's to say
            None if begins && self.refuse_to_begin().is_ok() => {
                self.begin_child(&id, &Server::of(&record), &record.spec.confinement).ok().map(Ahead::Begun)
            }
            None => None,
        };
        *lock(&container.child) = child;
        if let Err(error) = self.foundation.records.put(&record.key(), &*record, Durability::RunState) {
            drop(index);
            self.take_down(&container);
            self.forget(&id);
            if record.server_id.is_none() {
                self.index().servers.remove(&server_index);
            }
            return Err(error.into());
        }
        laps.lap("spec");
        container.timing.created(laps);
        index.insert(container);
        drop(index);
        failpoint::reach("container_recorded");
        if let Some(size) = &record.spec.disk
            && let Err(error) = disk::make(&self.foundation.containers_dir.join(record.id.as_str()), size)
        {
            // what of it could not be removed goes at the next start
            let _ = self.get(&record.id).and_then(|container| self.remove(&container));
            return Err(error.into());
        }
        Ok(record)
    }

    /// A server's index that is nobody's.
    pub(crate) fn free_index(&self, index: &Index) -> Result<u32, ContainerError> {
        // in their order
        let mut taken = index.servers.iter().copied().peekable();
        let is_free = |server: &u32| taken.next_if_eq(server).is_none() && !self.wires.is_going(*server);
        (0..SERVERS).find(is_free).ok_or(ContainerError::NoServerLeft(SERVERS))
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

pub(crate) fn new_id() -> Result<ContainerId, ContainerError> {
    let mut bytes = [0; 32];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(32) => Ok(ContainerId::from_bytes(bytes)),
        Ok(_) => Err(ContainerError::Stopping("making an id")),
        Err(source) => Err(ContainerError::Io { what: "read random bytes".to_owned(), source: source.into() }),
    }
}
