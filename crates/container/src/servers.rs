//! Servers with names: created, stopped, started, resized, closed; several containers on each.
//!
//! ```text
//! create ─▶ running ◀──▶ stopped
//!              └─────────────┴──▶ closing ─▶ (gone)
//! ```
//!
//! The status is what is intended: a server that is to run is made again by the next daemon, after a reboot too. How it
//! is made, and what keeps all who use it apart, is in [`named`](crate::named).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_model::view::{ContainerView, ServerResize, ServerView};
use sampan_model::{ContainerId, Label, ServerSize, ServerSpec, ServerStatus};
use serde::{Deserialize, Serialize};

use crate::named::Named;
use crate::server::Server;
use crate::{ContainerError, ContainerRecord, Containers};

/// The key that all servers' records start with.
pub(crate) const SERVERS: &str = "default/server/";

/// What is kept of a server with a name, under `default/server/NAME`.
///
/// ```json
/// {"id": "8c…", "spec": {"name": "lab", "size": {"cpus": 1.0, …}, …}, "index": 3, "address": "10.200.16.5",
///  "status": "running", "created_at": "2026-11-20T19:00:00Z"}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its id.
    pub id: ContainerId,
    /// What was asked for.
    pub spec: ServerSpec,
    /// Its index in the instance's block: address and user ids derive from it.
    pub index: u32,
    /// Its address.
    pub address: std::net::Ipv4Addr,
    /// What is intended of it.
    pub status: ServerStatus,
    /// When it was created.
    pub created_at: Timestamp,
}

impl ServerRecord {
    /// The record's key.
    pub fn key(&self) -> String {
        format!("{SERVERS}{}", self.spec.name)
    }

    /// As people and programs see it.
    pub fn view(&self, containers: Vec<ContainerView>, services: Vec<Label>) -> ServerView {
        let ServerSize { cpus, memory_bytes, pids } = self.spec.size;
        ServerView {
            kind: "server".to_owned(),
            id: self.id.clone(),
            name: self.spec.name.clone(),
            cpus,
            memory_bytes,
            pids,
            disk: self.spec.disk,
            status: self.status,
            address: (self.status == ServerStatus::Running).then_some(self.address),
            containers,
            services,
            owner: self.spec.owner.clone(),
            created_at: self.created_at,
        }
    }

    pub(crate) fn server(&self) -> Server {
        Server { id: self.id.clone(), index: self.index, size: self.spec.size, shared: true }
    }
}

impl Containers {
    /// The records of all servers with names, by name.
    pub fn servers(&self) -> Vec<ServerRecord> {
        let mut records: Vec<_> = self.inner.all_named().iter().map(|named| named.record()).collect();
        records.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        records
    }

    /// The server of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn server(&self, name: &Label) -> Result<ServerRecord, ContainerError> {
        self.inner.named(name).map(|named| named.record())
    }

    /// The containers on a server, by name.
    pub fn on_server(&self, server: &ContainerId) -> Vec<Arc<ContainerRecord>> {
        self.list().into_iter().filter(|record| record.server_id.as_ref() == Some(server)).collect()
    }

    /// Creates a server; it runs when this comes back.
    ///
    /// # Errors
    /// The name is taken, the size is more than the machine has, or no server is left.
    pub async fn create_server(&self, spec: ServerSpec) -> Result<ServerRecord, ContainerError> {
        self.blocking("creating a server", move |inner| inner.create_server(spec)).await
    }

    /// Starts a server that is stopped, and the containers on it that ran when it was. Comes back when they have been
    /// started; which of them could not is in their states.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be made: it is then stopped.
    pub async fn start_server(&self, name: &Label) -> Result<ServerRecord, ContainerError> {
        let (containers, named) = (self.clone(), self.inner.named(name)?);
        whole("starting a server", async move { containers.start_named(&named).await }).await
    }

    /// Stops a server: its containers are asked to end, ended after `grace`, and nothing of it is left but its record
    /// and what they wrote.
    ///
    /// # Errors
    /// There is none of that name, or a container on it does not end.
    pub async fn stop_server(&self, name: &Label, grace: Duration) -> Result<ServerRecord, ContainerError> {
        let (containers, named) = (self.clone(), self.inner.named(name)?);
        whole("stopping a server", async move { containers.stop_named(&named, grace).await }).await
    }

    /// Gives a server another size, while it runs too.
    ///
    /// # Errors
    /// There is none of that name; the size is more than the machine has, or its memory less than is in use.
    pub async fn resize_server(&self, name: &Label, resize: ServerResize) -> Result<ServerRecord, ContainerError> {
        let (containers, named) = (self.clone(), self.inner.named(name)?);
        whole("resizing a server", async move {
            let _turn = named.turn.lock().await;
            let resized = Arc::clone(&named);
            containers.blocking("resizing a server", move |inner| inner.resize_server(&resized, &resize)).await?;
            Ok(named.record())
        })
        .await
    }

    /// Lets nothing come to a server any more: [`close_server`](Self::close_server) is to follow.
    ///
    /// # Errors
    /// There is none of that name, or its record cannot be written.
    pub async fn begin_close(&self, name: &Label) -> Result<(), ContainerError> {
        let named = self.inner.named(name)?;
        self.blocking("closing a server", move |inner| {
            // who is starting or creating a container on it comes first
            let _gate = named.write();
            named.change(inner, |record| record.status = ServerStatus::Closing)
        })
        .await
    }

    /// Removes a server with everything on it. Comes back when nothing of it is left.
    ///
    /// # Errors
    /// There is none of that name, or something on it cannot be removed: the record then stays, `closing`.
    pub async fn close_server(&self, name: &Label) -> Result<(), ContainerError> {
        let (containers, named) = (self.clone(), self.inner.named(name)?);
        let name = name.clone();
        whole("closing a server", async move {
            containers.begin_close(&name).await?;
            let _turn = named.turn.lock().await;
            let id = named.record().id;
            let removals: Vec<_> = containers
                .on_server(&id)
                .into_iter()
                .map(|on| {
                    let containers = containers.clone();
                    tokio::spawn(async move { containers.remove(&on.id, true).await })
                })
                .collect();
            for removal in removals {
                match removal.await {
                    Ok(Ok(()) | Err(ContainerError::NotFound(_))) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(ContainerError::Stopping("closing a server")),
                }
            }
            let closed = Arc::clone(&named);
            containers.blocking("closing a server", move |inner| inner.remove_server(&closed)).await?;
            containers.inner.wires.gone(named.record().index).await;
            Ok(())
        })
        .await
    }

    async fn start_named(&self, named: &Arc<Named>) -> Result<ServerRecord, ContainerError> {
        let _turn = named.turn.lock().await;
        let made = Arc::clone(named);
        self.blocking("starting a server", move |inner| inner.start_server(&made)).await?;
        let resumed = self.on_server(&named.record().id);
        let resumed = resumed.into_iter().filter(|record| record.resume && record.spec.service.is_none());
        let starts: Vec<_> = resumed
            .map(|record| {
                let containers = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = containers.start(&record.id).await {
                        tracing::warn!(id = %record.id, %error, "a container could not be started with its server");
                    }
                })
            })
            .collect();
        for start in starts {
            // the tasks do not panic; a runtime that ends takes this one with it
            let _ = start.await;
        }
        Ok(named.record())
    }

    async fn stop_named(&self, named: &Arc<Named>, grace: Duration) -> Result<ServerRecord, ContainerError> {
        let _turn = named.turn.lock().await;
        let stopped = Arc::clone(named);
        self.blocking("stopping a server", move |inner| {
            let _gate = stopped.write();
            stopped.refuse_if_closing()?;
            stopped.change(inner, |record| record.status = ServerStatus::Stopped)
        })
        .await?;
        let id = named.record().id;
        let mut running = self.inner.all();
        running.retain(|container| container.is_on(&id) && container.is_running());
        let stops: Vec<_> = running.into_iter().map(|one| tokio::spawn(self.clone().stop_one(one, grace))).collect();
        let mut all = true;
        for stop in stops {
            all &= matches!(stop.await, Ok(true));
        }
        if !all {
            return Err(ContainerError::Stuck(format!("on server {}", named.record().spec.name)));
        }
        let down = Arc::clone(named);
        self.blocking("stopping a server", move |inner| {
            inner.unmake(&down);
            Ok(())
        })
        .await?;
        let record = named.record();
        self.inner.wires.gone(record.index).await;
        Ok(record)
    }
}

/// Carries `work` out to its end, also where whoever asked for it goes away.
pub(crate) async fn whole<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T, ContainerError>> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::spawn(work).await.unwrap_or(Err(ContainerError::Stopping(what)))
}
