//! What a restart policy stands on: starts that nobody asked for, and whether somebody wanted a container to end.
//!
//! The policy itself, when to start what again, is `sampan-service`'s.

use std::sync::Arc;
use std::time::Duration;

use sampan_model::{ContainerId, ContainerStatus, ServerStatus};

use crate::containers::lock;
use crate::servers::whole;
use crate::{ContainerError, ContainerRecord, Containers};

impl Containers {
    /// The record of the container with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn record(&self, id: &ContainerId) -> Result<Arc<ContainerRecord>, ContainerError> {
        self.inner.get(id).map(|container| container.record())
    }

    /// [Stops](Self::stop) a container because somebody wants it stopped: its restart policy leaves it so. It is ended after
    /// `grace` also where whoever asked does not wait for that.
    ///
    /// # Errors
    /// As of [`stop`](Self::stop).
    pub async fn stop_by_hand(&self, id: &ContainerId, grace: Duration) -> Result<(), ContainerError> {
        let (containers, id) = (self.clone(), id.clone());
        whole("stopping a container", async move {
            containers.want_stopped(&id).await?;
            containers.stop(&id, grace).await
        })
        .await
    }

    /// Remembers that somebody wants a container to end, until it is started again. A start by its policy that is under
    /// way has its turn first.
    ///
    /// # Errors
    /// There is none.
    pub async fn want_stopped(&self, id: &ContainerId) -> Result<(), ContainerError> {
        self.set_stopped(id, true).await
    }

    /// Forgets that somebody wanted a container to end.
    ///
    /// # Errors
    /// There is none.
    pub async fn want_running(&self, id: &ContainerId) -> Result<(), ContainerError> {
        self.set_stopped(id, false).await
    }

    async fn set_stopped(&self, id: &ContainerId, stopped: bool) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("stopping a container", move |inner| {
            let _turn = lock(&container.turn);
            if container.record().stopped != stopped {
                container.change(inner, |record| record.stopped = stopped);
            }
            Ok(())
        })
        .await
    }

    /// Starts a container by its restart policy, and counts that; one that somebody has stopped meanwhile is left so.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub async fn start_again(&self, id: &ContainerId) -> Result<Arc<ContainerRecord>, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("starting a container again", move |inner| {
            let _turn = lock(&container.turn);
            let record = container.record();
            if record.stopped || record.state.status != ContainerStatus::Exited {
                return Ok(record);
            }
            if let Some(named) = inner.named_of(&record)?
                && named.record().status != ServerStatus::Running
            {
                // no try that counts
                return Err(ContainerError::ServerStopped(named.record().spec.name.to_string()));
            }
            container.change(inner, |record| record.state.restarts = record.state.restarts.saturating_add(1));
            inner.refuse_to_start(&container)?;
            inner.start_in_turn(&container)
        })
        .await
    }
}
