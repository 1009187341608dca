//! Services on servers with names: one replica each, beside other containers, for as long as the server is there.
//!
//! A server that is stopped ends its services' replicas; they fail with that reason until it runs again. One that is
//! closed takes its services with it.

use sampan_container::{ContainerError, ServerRecord};
use sampan_model::{Label, ServerStatus, ServiceSpec};

use crate::services::Inner;
use crate::{ServiceError, Services};

impl Services {
    /// The services that are placed on a server, by name.
    pub fn on_server(&self, server: &Label) -> Vec<Label> {
        let desks = self.inner.desks();
        let placed = desks.values().filter(|desk| desk.intent().is_some_and(|record| record.is_on(server)));
        let mut names: Vec<Label> = placed.map(|desk| desk.name.clone()).collect();
        names.sort();
        names
    }

    /// Starts a server that is stopped, with the containers that ran on it; its services are tried again at once.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be made.
    pub async fn start_server(&self, server: &Label) -> Result<ServerRecord, ServiceError> {
        let started = self.inner.containers.start_server(server).await?;
        for name in self.on_server(server) {
            if let Some(desk) = self.inner.desks().get(&name) {
                desk.try_now();
            }
        }
        Ok(started)
    }

    /// Removes a server with everything on it, its services too. Comes back when nothing of it is left.
    ///
    /// # Errors
    /// There is none of that name, or something on it cannot be removed; the next daemon goes on with it.
    pub async fn close_server(&self, server: &Label) -> Result<(), ServiceError> {
        let (services, server) = (self.clone(), server.clone());
        // a task of its own: whoever asked may go away in the middle
        let closing = self.inner.tasks.spawn(async move {
            services.inner.containers.begin_close(&server).await?;
            for name in services.on_server(&server) {
                match services.remove(&name).await {
                    Ok(()) | Err(ServiceError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(services.inner.containers.close_server(&server).await?)
        });
        closing.await.unwrap_or(Err(ServiceError::Stopping))
    }

    /// Goes on closing the servers that a daemon before this one was about to close.
    pub(crate) fn finish_closing(&self) {
        for record in self.inner.containers.servers() {
            if record.status != ServerStatus::Closing {
                continue;
            }
            let services = self.clone();
            self.inner.tasks.spawn(async move {
                if let Err(error) = services.close_server(&record.spec.name).await {
                    tracing::warn!(server = %record.spec.name, %error, "a server could not be closed");
                }
            });
        }
    }
}

impl Inner {
    /// Whether a service can be where it is to be.
    pub(crate) fn check_placement(&self, spec: &ServiceSpec) -> Result<(), ServiceError> {
        let Some(server) = &spec.server else { return Ok(()) };
        if spec.replicas != 1 {
            return Err(ServiceError::PlacedReplicas { server: server.to_string(), asked: spec.replicas });
        }
        match self.containers.server(server)?.status {
            ServerStatus::Running => Ok(()),
            ServerStatus::Stopped => Err(ContainerError::ServerStopped(server.to_string()).into()),
            ServerStatus::Closing => Err(ContainerError::NoServer(server.to_string()).into()),
        }
    }
}
