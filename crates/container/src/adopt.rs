//! Taking over what is there: how every daemon begins, whether the one before it stopped, was killed or never was.
//!
//! | record | supervisor holds it as | what becomes of it |
//! |---|---|---|
//! | running | running | goes on |
//! | running | exited | ended, as the supervisor says |
//! | running | – | ended, exit code unknown; started again where the machine was rebooted or the daemon stopped |
//! | created | running (go was said, the daemon died) | goes on, as running |
//! | created | waiting, exited, – | ended: whoever asked for it asks again |
//! | created for later | – | goes on, as created |
//! | exited | anything | the supervisor forgets it |
//! | removing | anything | removed |
//! | – | anything | killed and forgotten |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use sampan_model::{ContainerId, ContainerState, ContainerStatus, ServerStatus};
use sampan_runtime::wire::{Ended, Held, Phase, Request, Welcome};

use crate::containers::{Container, Inner};
use crate::edge::dns_keys;
use crate::record::CONTAINERS;
use crate::server::Server;
use crate::{ContainerError, ContainerRecord, Containers};

impl Containers {
    /// Takes over the containers that the records and the supervisor tell of, and removes what belongs to none. To be
    /// called before the supervisor's events are [followed](Self::follow): those that came meanwhile wait, and are of
    /// containers that are known by then. Those that are to be started again come back.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn adopt(&self, welcome: &Welcome) -> Result<Vec<ContainerId>, ContainerError> {
        let welcome = welcome.clone();
        self.blocking("taking over containers", move |inner| inner.adopt(&welcome)).await
    }

    /// Starts again what is to run, and finishes removals that were interrupted.
    pub async fn resume(&self, to_start: Vec<ContainerId>) {
        for id in to_start {
            if let Err(error) = self.start(&id).await {
                tracing::warn!(%id, %error, "a container that ran before could not be started again");
            }
        }
        for record in self.list() {
            let is_over = record.spec.remove_at_exit && record.state.status == ContainerStatus::Exited;
            if (is_over || record.state.status == ContainerStatus::Removing)
                && let Err(error) = self.remove(&record.id, true).await
            {
                tracing::warn!(id = %record.id, %error, "a container's removal could not be finished");
            }
        }
    }
}

impl Inner {
    fn adopt(&self, welcome: &Welcome) -> Result<Vec<ContainerId>, ContainerError> {
        self.roots
            .prepare()
            .map_err(|source| ContainerError::Io { what: "prepare root file systems".into(), source })?;
        self.adopt_servers(welcome)?;
        let mut held: HashMap<&ContainerId, &Held> = welcome.containers.iter().map(|held| (&held.id, held)).collect();
        let mut to_resume = Vec::new();
        for (_, record) in self.foundation.records.list::<ContainerRecord>(CONTAINERS)? {
            let container = self.know(record.value);
            if self.adopt_one(&container, held.remove(&container.id), &welcome.sockets) {
                to_resume.push(container.id.clone());
            }
        }
        for stranger in held.values() {
            self.end_process(stranger);
        }
        self.remove_leftovers();
        self.settle_servers();
        Ok(to_resume)
    }

    /// Whether it is to be started again.
    fn adopt_one(&self, container: &Arc<Container>, held: Option<&Held>, sockets: &[String]) -> bool {
        let record = container.record();
        container.life.store(held.map_or(0, |held| held.life), Ordering::SeqCst);
        match (record.state.status, held.map(|held| (&held.phase, held.pid))) {
            (ContainerStatus::Running | ContainerStatus::Created, Some((Phase::Running { at }, pid))) => {
                container.logged.send_replace(false);
                // told to be paused by a daemon that was killed then, it may not be in the record
                let paused = self.container_group(&record).and_then(|group| group.is_frozen()).unwrap_or(false);
                container.change(self, |record| {
                    record.state = ContainerState {
                        status: ContainerStatus::Running,
                        started_at: Some(*at),
                        pid: Some(pid),
                        paused,
                        restarts: record.state.restarts,
                        ..ContainerState::created()
                    };
                    // told to end by a daemon that was killed before it did: it runs, and its policy looks after it
                    record.resume = false;
                });
                self.adopt_name_service(container, pid, sockets);
                self.adopt_ports(container, sockets);
                false
            }
            (ContainerStatus::Running, Some((Phase::Exited(ended), _))) => {
                // whether its output was logged to the end was told to nobody: it was, or is in this moment
                container.logged.send_replace(true);
                self.ended(container, ended);
                false
            }
            (ContainerStatus::Running, _) => {
                let rebooted = record.boot_id != self.foundation.machine.boot_id;
                if let Some(held) = held {
                    self.end_process(held);
                }
                container.logged.send_replace(true);
                self.ended(container, &Ended { exit_code: None, at: Timestamp::now() });
                record.spec.service.is_none() && rebooted && self.may_resume(&record)
            }
            (ContainerStatus::Created, None) if record.for_later => {
                self.take_down(container);
                false
            }
            (ContainerStatus::Created, _) => {
                if let Some(held) = held {
                    self.end_process(held);
                }
                self.take_down(container);
                container.change(self, |record| {
                    record.state.status = ContainerStatus::Exited;
                    record.state.error = Some("the daemon was stopped while it was being started".to_owned());
                    record.state.finished_at = Some(Timestamp::now());
                });
                false
            }
            (ContainerStatus::Exited | ContainerStatus::Removing, held_now) => {
                if held_now.is_some() {
                    self.take_down(container);
                    self.forget(&container.id);
                }
                record.resume && record.spec.service.is_none() && self.may_resume(&record)
            }
        }
    }

    /// The name service of a running server goes on; where its sockets went with a supervisor, new ones are made.
    fn adopt_name_service(&self, container: &Container, pid: u32, sockets: &[String]) {
        use std::os::fd::AsFd as _;
        let record = container.record();
        if record.server_id.is_some() {
            // its server's, which goes on by itself
            return;
        }
        if dns_keys(&container.id).iter().all(|key| sockets.contains(key)) {
            self.foundation.edge.add_server(&container.id, None);
            return;
        }
        let made = std::fs::File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|source| ContainerError::Io { what: format!("open the network of process {pid}"), source })
            .and_then(|netns| Ok(self.foundation.network.name_service(record.server_index, netns.as_fd())?));
        match made {
            Ok(sockets) => self.foundation.edge.add_server(&container.id, Some(sockets)),
            Err(error) => tracing::warn!(id = %container.id, %error, "a server is without name service"),
        }
    }

    /// Whether a container's server is intended to run.
    fn may_resume(&self, record: &ContainerRecord) -> bool {
        match self.named_of(record) {
            Ok(None) => true,
            Ok(Some(named)) => named.record().status == ServerStatus::Running,
            Err(_) => false,
        }
    }

    fn end_process(&self, held: &Held) {
        if !matches!(held.phase, Phase::Exited(_)) {
            let kill = Request::Signal { id: held.id.clone(), signal: 9 };
            if let Err(error) = self.foundation.supervisor.call(kill, &[]) {
                tracing::warn!(id = %held.id, %error, "a process without a record could not be ended");
            }
        }
        self.forget(&held.id);
    }

    /// Removes wires, cgroups and directories of servers that no running container has; goes on past failures.
    fn remove_leftovers(&self) {
        let records: Vec<Arc<ContainerRecord>> = self.all().iter().map(|container| container.record()).collect();
        let running = records.iter().filter(|record| record.state.status == ContainerStatus::Running);
        let mut servers: Vec<Server> = running.map(|record| Server::of(record)).collect();
        servers.extend(self.made_servers());
        match self.foundation.network.attached() {
            Ok(indices) => {
                for index in indices {
                    if !servers.iter().any(|server| server.index == index)
                        && let Err(error) = self.foundation.network.detach(index)
                    {
                        tracing::warn!(index, %error, "a wire that belongs to no server could not be removed");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the servers' wires cannot be listed"),
        }
        match self.foundation.cgroups.servers() {
            Ok(names) => {
                for name in names {
                    if !servers.iter().any(|server| server.id.short() == name) {
                        self.remove_server_group(&name);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the servers' cgroups cannot be listed"),
        }
        let Ok(entries) = std::fs::read_dir(&self.foundation.containers_dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !records.iter().any(|record| record.id.as_str() == name)
                && !self.all_named().iter().any(|named| named.record().id.as_str() == name)
                && let Err(error) = crate::tree::remove(&entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a directory that belongs to no container stays");
            }
        }
    }
}
