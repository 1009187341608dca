//! A server as it is made and taken down: its cgroup, its wire, its name service.
//!
//! Every container runs on one. One that asks for none has a server of its own, which begins and ends with its process
//! and has its id; the supervisor makes that one's namespaces in the same clone as the process. A server with a name
//! ([`servers`](crate::servers)) is there before its containers and after them. Everything else about the two is here,
//! once.

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use sampan_model::{ByteSize, ContainerId, ServerSize};
use sampan_runtime::cgroup::{CgroupError, ContainerGroup, Limits, Making, ServerGroup};

use crate::containers::{Container, Inner, lock};
use crate::{ContainerError, ContainerRecord};

/// A server: what its names, addresses and limits follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its own id, or that of its only container.
    pub(crate) id: ContainerId,
    /// Its index in the instance's block: address and user ids.
    pub(crate) index: u32,
    /// What its containers share.
    pub(crate) size: ServerSize,
    /// Whether it has a name, and so a life of its own.
    pub(crate) shared: bool,
}

impl Server {
    /// The server of a container.
    pub(crate) fn of(record: &ContainerRecord) -> Self {
        Self {
            id: record.server_id.clone().unwrap_or_else(|| record.id.clone()),
            index: record.server_index,
            size: record.spec.size,
            shared: record.server_id.is_some(),
        }
    }
}

/// A size as the kernel takes it.
pub(crate) fn limits(size: &ServerSize) -> Limits {
    Limits { cpu_milli: size.cpus.milli(), memory_bytes: size.memory_bytes.0, pids: size.pids }
}

impl Inner {
    /// A server's address. The block may be another one than when the server was created.
    pub(crate) fn address(&self, server: &Server) -> Ipv4Addr {
        self.block().server_address(server.index)
    }

    /// A server's cgroup, there or not.
    pub(crate) fn server_group(&self, server: &Server) -> Result<ServerGroup, CgroupError> {
        self.foundation.cgroups.server(server.id.short())
    }

    /// A container's cgroup, there or not.
    pub(crate) fn container_group(&self, record: &ContainerRecord) -> Result<ContainerGroup, CgroupError> {
        self.group_of(&record.id, &Server::of(record))
    }

    /// The same by its id and its server.
    pub(crate) fn group_of(&self, id: &ContainerId, server: &Server) -> Result<ContainerGroup, CgroupError> {
        let group = self.server_group(server)?;
        if server.shared { group.container(id.short()) } else { Ok(group.alone()) }
    }

    /// Begins to make a container's cgroup; where its server is its own, that is the server's.
    pub(crate) fn begin_group(
        &self,
        id: &ContainerId,
        server: &Server,
    ) -> Result<(ContainerGroup, Making), CgroupError> {
        let limits = limits(&server.size);
        if server.shared {
            self.server_group(server)?.begin_container(id.short(), &limits)
        } else {
            self.foundation.cgroups.begin_alone(server.id.short(), &limits)
        }
    }

    /// Wires a server's network namespace; the sockets of its name service. They are told to the edge when what runs on
    /// it may ask: what it asks before that waits in them.
    pub(crate) fn connect(&self, server: &Server, netns: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), ContainerError> {
        self.wires.wait_until_gone(server.index);
        let wired = self.foundation.network.attach(server.index, netns)?;
        Ok((wired.dns_udp, wired.dns_tcp))
    }

    /// Removes everything of a server outside its record; goes on past failures, which are logged.
    pub(crate) fn take_server_down(&self, server: &Server) {
        self.foundation.edge.remove_server(&server.id);
        self.wires.take_down(server.index);
        self.remove_server_group(server.id.short());
    }

    /// Ends what is left in a server's cgroup, and removes it.
    pub(crate) fn remove_server_group(&self, server: &str) {
        match self.foundation.cgroups.server(server) {
            Ok(group) => remove_group(&group, server),
            Err(error) => tracing::warn!(server, %error, "a server's cgroup could not be found"),
        }
    }

    /// The same for a container's on a server that stays.
    pub(crate) fn remove_container_group(&self, record: &ContainerRecord) {
        match self.container_group(record) {
            Ok(group) => remove_group(&group, record.id.short()),
            Err(error) => tracing::warn!(id = %record.id, %error, "a container's cgroup could not be found"),
        }
    }

    /// Changes the limits of a server whose cgroup is there: all of them, or none.
    ///
    /// # Errors
    /// [`ContainerError::MemoryInUse`], and the kernel's.
    pub(crate) fn resize_group(&self, server: &Server, size: &ServerSize) -> Result<(), ContainerError> {
        let group = self.server_group(server)?;
        // version 2 would kill for it, and version 1 refuse with a bare "busy"
        let used = group.usage()?.memory_bytes;
        let in_use = |used| ContainerError::MemoryInUse {
            used: ByteSize(used).to_string(),
            asked: size.memory_bytes.to_string(),
        };
        if used > size.memory_bytes.0 {
            return Err(in_use(used));
        }
        let Err(error) = group.update(&limits(size)) else { return Ok(()) };
        if let Err(error) = group.update(&limits(&server.size)) {
            tracing::warn!(id = %server.id, %error, "a server's limits are partly its new ones");
        }
        match &error {
            CgroupError::Write { path, source, .. }
                if path.to_string_lossy().contains("memory.") && source.kind() == std::io::ErrorKind::ResourceBusy =>
            {
                Err(in_use(group.usage()?.memory_bytes))
            }
            _ => Err(error.into()),
        }
    }

    /// Removes everything of a container outside its record, and its server with it where that is its own; goes on past
    /// failures, which are logged. Whether it was there.
    pub(crate) fn take_down(&self, container: &Container) -> bool {
        if container.is_down.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return false;
        }
        // what it had of a start that did not come
        drop(lock(&container.child).take());
        self.foundation.edge.unpublish(&container.id);
        let record = container.record();
        let server = Server::of(&record);
        self.delete_external(&record);
        if server.shared {
            self.remove_container_group(&record);
        } else {
            self.take_server_down(&server);
        }
        true
    }
}

fn remove_group(group: &sampan_runtime::cgroup::Tree, name: &str) {
    // as a rule all in it ended with its first process
    if group.remove_empty() {
        return;
    }
    if let Err(error) = group.kill() {
        tracing::warn!(name, %error, "what is in a cgroup could not be ended");
    }
    if let Err(error) = group.remove() {
        tracing::warn!(name, %error, "a cgroup could not be removed");
    }
}
