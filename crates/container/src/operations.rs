//! What is done to a container that is there: signalled, paused, restarted, renamed, changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sampan_model::view::ContainerUpdate;
use sampan_model::{ContainerId, ContainerName, ContainerStatus, ServerSize};

use crate::containers::{Container, Inner, lock};
use crate::end::KILL;
use crate::server::Server;
use crate::{ContainerError, ContainerRecord, Containers};

impl Containers {
    /// Sends a signal to a container's first process. One that is paused goes on, so that it can take it.
    ///
    /// # Errors
    /// There is no such container, it does not run, or there is no such signal.
    pub async fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("sending a signal", move |inner| {
            container.running_pid()?;
            inner.thaw(&container)?;
            if signal == KILL { inner.kill(&container) } else { inner.signal(&container, signal) }
        })
        .await
    }

    /// Stops a container, where it runs, and starts it. One that is to be removed at its end is not.
    ///
    /// # Errors
    /// It cannot be stopped or started.
    pub async fn restart(&self, id: &ContainerId, grace: Duration) -> Result<Arc<ContainerRecord>, ContainerError> {
        let (containers, container) = (self.clone(), self.inner.get(id)?);
        // a task of its own: whoever asked may go away in the middle, and it is not to stay stopped then
        let restarting = tokio::spawn(async move {
            let _kept = Kept::new(&container);
            containers.stop(&container.id, grace).await?;
            match containers.start(&container.id).await {
                // by its restart policy: as well
                Err(ContainerError::Running(_)) => Ok(container.record()),
                started => started,
            }
        });
        restarting.await.unwrap_or(Err(ContainerError::Stopping("restarting a container")))
    }

    /// Brings all processes of a container to a halt, exec's too. It stays `running`.
    ///
    /// # Errors
    /// It does not run, is paused already, or its processes do not come to rest.
    pub async fn pause(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("pausing a container", move |inner| {
            let _turn = lock(&container.turn);
            container.running_pid()?;
            let record = container.record();
            if record.state.paused {
                return Err(ContainerError::Paused(record.spec.name.to_string()));
            }
            inner.container_group(&record)?.freeze()?;
            container.change(inner, |record| record.state.paused = true);
            Ok(())
        })
        .await
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    /// It is not paused.
    pub async fn unpause(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("unpausing a container", move |inner| {
            if inner.thaw(&container)? {
                Ok(())
            } else {
                Err(ContainerError::NotPaused(container.record().spec.name.to_string()))
            }
        })
        .await
    }

    /// Gives a container another name. Its host name stays what it was.
    ///
    /// # Errors
    /// The name is taken.
    pub async fn rename(&self, id: &ContainerId, name: ContainerName) -> Result<Arc<ContainerRecord>, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("renaming a container", move |inner| {
            // held, so that nobody takes the name in between
            let mut index = inner.index();
            if !index.containers.contains_key(&container.id) {
                return Err(ContainerError::NotFound(container.id.short().to_owned()));
            }
            index.refuse_taken(&name, &container.record().spec.owner, Some(&container.id))?;
            index.rename(&container, name.clone());
            container.change(inner, |record| record.spec.name = name);
            drop(index);
            Ok(container.record())
        })
        .await
    }

    /// Changes a container's size and what becomes of it at its end, while it runs too.
    ///
    /// # Errors
    /// The size is more than the machine has, less than is in use, or its server's, which it shares.
    pub async fn update(
        &self,
        id: &ContainerId,
        update: ContainerUpdate,
    ) -> Result<Arc<ContainerRecord>, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("changing a container", move |inner| {
            let _turn = lock(&container.turn);
            inner.update(&container, &update)?;
            Ok(container.record())
        })
        .await
    }
}

/// While it lives, a container's end is not its removal's beginning.
struct Kept(Arc<Container>);

impl Kept {
    fn new(container: &Arc<Container>) -> Self {
        container.is_kept.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(container))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.is_kept.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    /// Lets the processes of a container go on; whether they were at a halt.
    pub(crate) fn thaw(&self, container: &Container) -> Result<bool, ContainerError> {
        let _turn = lock(&container.turn);
        let record = container.record();
        if !record.state.paused {
            return Ok(false);
        }
        self.container_group(&record)?.thaw()?;
        container.change(self, |record| record.state.paused = false);
        Ok(true)
    }

    /// The container has its turn.
    fn update(&self, container: &Container, update: &ContainerUpdate) -> Result<(), ContainerError> {
        let record = container.record();
        let server = Server::of(&record);
        let size = ServerSize {
            cpus: update.cpus.unwrap_or(server.size.cpus),
            memory_bytes: update.memory_bytes.unwrap_or(server.size.memory_bytes),
            pids: update.pids.unwrap_or(server.size.pids),
        };
        if size != server.size {
            if let Some(shared) = &record.spec.server {
                let container = record.spec.name.to_string();
                return Err(ContainerError::SharedSize { container, server: shared.to_string() });
            }
            self.foundation.machine.holds(&size)?;
            if record.state.status == ContainerStatus::Running {
                self.resize_group(&server, &size)?;
            }
        }
        container.change(self, |record| {
            record.spec.size = size;
            record.spec.restart = update.restart.unwrap_or(record.spec.restart);
        });
        Ok(())
    }
}
