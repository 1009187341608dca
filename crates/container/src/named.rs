//! Servers with names as the daemon holds them: made, taken down, taken over from a daemon before this one.
//!
//! The status in the record is what is intended. What there is of a server (namespaces, wire, cgroup) is *made* or not,
//! and making it is tried again whenever a container is started on it.
//!
//! One of start, stop, resize and close at a time: the server's `turn`. Its `gate` is held for reading by whoever starts
//! a container on it, and for writing by whoever makes it, takes it down or changes it; a container's own turn comes
//! before its server's gate.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use sampan_model::view::ServerResize;
use sampan_model::{ContainerId, ContainerStatus, Label, ServerSize, ServerSpec, ServerStatus};
use sampan_runtime::wire::{self, Reply, Request, Welcome};
use sampan_store::Durability;

use crate::containers::{Container, Inner, lock};
use crate::create::new_id;
use crate::edge::dns_keys;
use crate::server::{Server, limits};
use crate::servers::{SERVERS, ServerRecord};
use crate::start::unexpected;
use crate::{ContainerError, ContainerRecord, disk, failpoint};

/// A server with a name as the daemon knows it.
pub(crate) struct Named {
    record: Mutex<ServerRecord>,
    /// Whether it is made.
    gate: RwLock<bool>,
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The containers on it that are being killed, for which its limit on processor time is lifted.
    dying: Mutex<BTreeSet<ContainerId>>,
    /// Held while its disk is mounted.
    disk: Mutex<()>,
}

impl Named {
    pub(crate) fn new(record: ServerRecord) -> Self {
        Self {
            record: Mutex::new(record),
            gate: RwLock::new(false),
            turn: tokio::sync::Mutex::default(),
            dying: Mutex::default(),
            disk: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> ServerRecord {
        lock(&self.record).clone()
    }

    /// The turn to mount its disk.
    pub(crate) fn disk_turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.disk)
    }

    fn read(&self) -> RwLockReadGuard<'_, bool> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, bool> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record, and keeps it.
    pub(crate) fn change(&self, inner: &Inner, change: impl FnOnce(&mut ServerRecord)) -> Result<(), ContainerError> {
        let mut record = lock(&self.record);
        let mut next = record.clone();
        change(&mut next);
        if next != *record {
            inner.foundation.records.put(&next.key(), &next, Durability::Intent)?;
            *record = next;
        }
        Ok(())
    }

    pub(crate) fn refuse_if_closing(&self) -> Result<(), ContainerError> {
        let record = self.record();
        match record.status {
            ServerStatus::Closing => Err(ContainerError::NoServer(record.spec.name.to_string())),
            ServerStatus::Running | ServerStatus::Stopped => Ok(()),
        }
    }
}

impl Container {
    pub(crate) fn is_on(&self, server: &ContainerId) -> bool {
        self.record().server_id.as_ref() == Some(server)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.record().state.status == ContainerStatus::Running
    }
}

impl Inner {
    /// The server of a name.
    pub(crate) fn named(&self, name: &Label) -> Result<Arc<Named>, ContainerError> {
        let found = self.index().named.get(name).cloned();
        found.ok_or_else(|| ContainerError::NoServer(name.to_string()))
    }

    pub(crate) fn all_named(&self) -> Vec<Arc<Named>> {
        self.index().named.values().cloned().collect()
    }

    /// The server that a container is to be started on, where it has a name.
    pub(crate) fn named_of(&self, record: &ContainerRecord) -> Result<Option<Arc<Named>>, ContainerError> {
        record.spec.server.as_ref().map(|name| self.named(name)).transpose()
    }

    /// Opens a server for a container to be started on it: it is made, and stays so until the guard is dropped.
    ///
    /// # Errors
    /// It is not intended to run, or it cannot be made.
    pub(crate) fn enter<'named>(&self, named: &'named Named) -> Result<RwLockReadGuard<'named, bool>, ContainerError> {
        loop {
            let gate = named.read();
            let record = named.record();
            match record.status {
                ServerStatus::Running if *gate => return Ok(gate),
                ServerStatus::Running => {}
                ServerStatus::Stopped | ServerStatus::Closing => {
                    return Err(ContainerError::ServerStopped(record.spec.name.to_string()));
                }
            }
            drop(gate);
            self.make_if_wanted(named)?;
        }
    }

    /// Keeps a server as it is while a container is recorded on it, be it running or stopped.
    pub(crate) fn keep<'named>(&self, named: &'named Named) -> Result<RwLockReadGuard<'named, bool>, ContainerError> {
        let gate = named.read();
        named.refuse_if_closing().map(|()| gate)
    }

    pub(crate) fn create_server(&self, spec: ServerSpec) -> Result<ServerRecord, ContainerError> {
        self.refuse_while_stopping("creating a server")?;
        self.foundation.machine.holds(&spec.size)?;
        spec.disk.as_ref().map_or(Ok(()), disk::check)?;
        let mut index = self.index();
        if index.named.contains_key(&spec.name) {
            return Err(ContainerError::ServerTaken(spec.name.to_string()));
        }
        let number = self.free_index(&index)?;
        let record = ServerRecord {
            id: new_id()?,
            spec,
            index: number,
            address: self.block().server_address(number),
            status: ServerStatus::Running,
            created_at: Timestamp::now(),
        };
        self.foundation.records.put(&record.key(), &record, Durability::Intent)?;
        index.servers.insert(number);
        let named = Arc::new(Named::new(record.clone()));
        index.named.insert(record.spec.name.clone(), Arc::clone(&named));
        drop(index);
        failpoint::reach("server_recorded");
        let home = self.foundation.containers_dir.join(record.id.as_str());
        let disk = record.spec.disk.as_ref().map_or(Ok(()), |disk| disk::make(&home, disk).map(drop));
        match disk.map_err(ContainerError::from).and_then(|()| self.make_if_wanted(&named)) {
            Ok(()) => Ok(named.record()),
            Err(error) => {
                // only the error is of use; and who has seen it already is to leave it alone
                named.change(self, |record| record.status = ServerStatus::Closing)?;
                self.remove_server(&named)?;
                Err(error)
            }
        }
    }

    pub(crate) fn start_server(&self, named: &Named) -> Result<(), ContainerError> {
        self.refuse_while_stopping("starting a server")?;
        {
            let _gate = named.write();
            named.refuse_if_closing()?;
            named.change(self, |record| record.status = ServerStatus::Running)?;
        }
        let made = self.make_if_wanted(named);
        if made.is_err() {
            let _gate = named.write();
            named.change(self, |record| {
                if record.status == ServerStatus::Running {
                    record.status = ServerStatus::Stopped;
                }
            })?;
        }
        made
    }

    /// Makes a server that is to run and is not made.
    fn make_if_wanted(&self, named: &Named) -> Result<(), ContainerError> {
        let mut is_made = named.write();
        if *is_made || named.record().status != ServerStatus::Running {
            return Ok(());
        }
        let server = named.record().server();
        if self.all().iter().any(|container| container.is_on(&server.id) && container.is_running()) {
            // it could not be taken over: what runs on it is not to suffer for that
            self.go_on(&server, &[])?;
        } else if let Err(error) = self.make_server(&server) {
            self.forget_server(&server);
            self.take_server_down(&server);
            return Err(error);
        }
        *is_made = true;
        let address = self.address(&server);
        named.change(self, |record| record.address = address)
    }

    fn make_server(&self, server: &Server) -> Result<(), ContainerError> {
        self.foundation.cgroups.create_server(server.id.short(), &limits(&server.size))?;
        let (_userns, netns) = self.server_namespaces(server)?;
        failpoint::reach("server_made");
        let sockets = self.connect(server, netns.as_fd())?;
        self.foundation.edge.add_server(&server.id, Some(sockets));
        Ok(())
    }

    /// A server's user and network namespace, made where the supervisor does not hold them.
    fn server_namespaces(&self, server: &Server) -> Result<(OwnedFd, OwnedFd), ContainerError> {
        let spec = wire::ServerSpec { id: server.id.clone(), ids: self.block().server_ids(server.index) };
        let (reply, fds) = self.foundation.supervisor.call(Request::MakeServer(spec), &[])?;
        let Reply::ServerMade = reply else { return Err(unexpected("make a server")) };
        let [userns, netns]: [OwnedFd; 2] = fds.try_into().map_err(|_| unexpected("make a server"))?;
        Ok((userns, netns))
    }

    /// Takes a server down that has no running container, and so everything of it but its record.
    pub(crate) fn unmake(&self, named: &Named) {
        let mut is_made = named.write();
        let server = named.record().server();
        // also where it is not made for all that is known: what is left of a failure goes as well
        self.forget_server(&server);
        self.take_server_down(&server);
        *is_made = false;
    }

    fn forget_server(&self, server: &Server) {
        let forget = Request::ForgetServer { id: server.id.clone() };
        if let Err(error) = self.foundation.supervisor.call(forget, &[]) {
            tracing::warn!(id = %server.id, %error, "the supervisor could not be told to forget a server");
        }
    }

    pub(crate) fn remove_server(&self, named: &Named) -> Result<(), ContainerError> {
        self.unmake(named);
        let record = named.record();
        let directory = self.foundation.containers_dir.join(record.id.as_str());
        crate::tree::remove(&directory)
            .map_err(|source| ContainerError::Io { what: format!("remove {}", directory.display()), source })?;
        // held, so that who learns of the record's end finds no server, and nobody takes the name, which is its key, before
        let mut index = self.index();
        self.foundation.records.delete(&record.key())?;
        index.named.remove(&record.spec.name);
        index.servers.remove(&record.index);
        Ok(())
    }

    pub(crate) fn resize_server(&self, named: &Named, resize: &ServerResize) -> Result<(), ContainerError> {
        let is_made = named.write();
        named.refuse_if_closing()?;
        let server = named.record().server();
        let size = ServerSize {
            cpus: resize.cpus.unwrap_or(server.size.cpus),
            memory_bytes: resize.memory_bytes.unwrap_or(server.size.memory_bytes),
            pids: resize.pids.unwrap_or(server.size.pids),
        };
        self.foundation.machine.holds(&size)?;
        if *is_made {
            self.resize_group(&server, &size)?;
        }
        named.change(self, |record| record.spec.size = size)?;
        for container in self.all().into_iter().filter(|container| container.is_on(&server.id)) {
            container.change(self, |record| record.spec.size = size);
        }
        Ok(())
    }

    /// Lifts the limit on processor time of a container's server, before the container is killed: it is not to wait for
    /// its share to die. On a server that stays, until it has ended.
    pub(crate) fn lift_limit(&self, record: &ContainerRecord) -> Result<(), ContainerError> {
        if let Some(named) = self.named_of(record)? {
            lock(&named.dying).insert(record.id.clone());
        }
        Ok(self.server_group(&Server::of(record))?.lift_cpu_limit()?)
    }

    /// The container has ended: where it was killed, the others on its server have their limit again.
    pub(crate) fn limit_again(&self, record: &ContainerRecord) {
        let Ok(Some(named)) = self.named_of(record) else { return };
        let is_last = {
            let mut dying = lock(&named.dying);
            dying.remove(&record.id) && dying.is_empty()
        };
        let is_made = named.read();
        if is_last && *is_made {
            let server = named.record().server();
            if let Err(error) = self.server_group(&server).and_then(|group| group.update(&limits(&server.size))) {
                tracing::warn!(id = %server.id, %error, "a server's limits could not be set again");
            }
        }
    }

    /// Knows the servers of the records, as a daemon before this one left them. What is made of them goes on.
    pub(crate) fn adopt_servers(&self, welcome: &Welcome) -> Result<(), ContainerError> {
        for (_, record) in self.foundation.records.list::<ServerRecord>(SERVERS)? {
            let record = record.value;
            let server = record.server();
            let is_held = welcome.servers.contains(&record.id);
            let named = Arc::new(Named::new(record.clone()));
            if is_held && record.status == ServerStatus::Running {
                match self.go_on(&server, &welcome.sockets) {
                    Ok(()) => *named.write() = true,
                    Err(error) => tracing::warn!(id = %server.id, %error, "a server could not be taken over"),
                }
            }
            let mut index = self.index();
            index.servers.insert(record.index);
            index.named.insert(record.spec.name, named);
        }
        let named = self.all_named();
        for id in welcome.servers.iter().filter(|id| !named.iter().any(|one| one.record().id == **id)) {
            let stranger = Server { id: id.clone(), index: 0, size: ServerSize::default(), shared: true };
            self.forget_server(&stranger);
        }
        Ok(())
    }

    /// The wire and the name service of a server go on; where they went with a supervisor, there are new ones.
    fn go_on(&self, server: &Server, sockets: &[String]) -> Result<(), ContainerError> {
        // a daemon that was killed while it killed a container on it had lifted one
        self.server_group(server)?.update(&limits(&server.size))?;
        let network = &self.foundation.network;
        let is_wired = network.attached()?.contains(&server.index);
        if is_wired && dns_keys(&server.id).iter().all(|key| sockets.contains(key)) {
            self.foundation.edge.add_server(&server.id, None);
            return Ok(());
        }
        let (_userns, netns) = self.server_namespaces(server)?;
        let made = match is_wired {
            true => network.name_service(server.index, netns.as_fd())?,
            false => self.connect(server, netns.as_fd())?,
        };
        self.foundation.edge.add_server(&server.id, Some(made));
        Ok(())
    }

    /// Makes the servers that are to run and are not made, and takes down what is left of the others.
    pub(crate) fn settle_servers(&self) {
        for named in self.all_named() {
            let record = named.record();
            if record.status != ServerStatus::Running {
                self.unmake(&named);
            } else if let Err(error) = self.make_if_wanted(&named) {
                tracing::warn!(server = %record.spec.name, %error, "a server could not be made again");
            }
        }
    }

    /// Those that are made.
    pub(crate) fn made_servers(&self) -> Vec<Server> {
        let named = self.all_named();
        named.iter().filter(|named| *named.read()).map(|named| named.record().server()).collect()
    }
}
