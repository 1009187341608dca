//! Requests about containers. A container is named by its name, its id or an unambiguous prefix of that.

use std::time::Duration;

use hyper::Method;
use sampan_model::ContainerName;
use sampan_model::view::{ContainerCreate, ContainerUpdate, ContainerView, Exit, ProcessRow, Stats};

use crate::connection::{Answer, Call, segment};
use crate::{Client, ClientError};

impl Client {
    /// Creates a container and starts it: `POST /v1/containers`.
    ///
    /// # Errors
    /// `start_failed`, `not_found` (the image), `name_taken`… as [`ClientError::Api`]. Never made again: after a lost
    /// connection there may be a container.
    pub async fn create_container(&self, create: &ContainerCreate) -> Result<ContainerView, ClientError> {
        self.ask(&Call::new(Method::POST, "/v1/containers".into()).with_json(create)).await?.json().await
    }

    /// Creates a container without starting it: `POST /v1/containers?start=false`.
    ///
    /// # Errors
    /// As [`create_container`](Self::create_container), but for what only a start finds out.
    pub async fn create_container_unstarted(&self, create: &ContainerCreate) -> Result<ContainerView, ClientError> {
        self.ask(&Call::new(Method::POST, "/v1/containers?start=false".into()).with_json(create)).await?.json().await
    }

    /// Every container, those of services and those that have ended too: `GET /v1/containers`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn containers(&self) -> Result<Vec<ContainerView>, ClientError> {
        self.fetch("/v1/containers".into()).await
    }

    /// One container: `GET /v1/containers/{id}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn container(&self, container: &str) -> Result<ContainerView, ClientError> {
        self.fetch(path(container)).await
    }

    /// Starts a container that does not run: `POST /v1/containers/{id}/start`.
    ///
    /// # Errors
    /// `running`, `start_failed`, `not_found` as [`ClientError::Api`].
    pub async fn start_container(&self, container: &str) -> Result<ContainerView, ClientError> {
        self.order(container, "start").await?.json().await
    }

    /// Asks a container to end and kills it after `timeout`; returns when it has ended:
    /// `POST /v1/containers/{id}/stop`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn stop_container(&self, container: &str, timeout: Duration) -> Result<(), ClientError> {
        let path = format!("{}/stop?timeout_ms={}", path(container), timeout.as_millis());
        self.ask_again(&Call::new(Method::POST, path), Answer::finish).await
    }

    /// Stops a container as [`stop_container`](Self::stop_container) does and starts it again:
    /// `POST /v1/containers/{id}/restart`.
    ///
    /// # Errors
    /// `start_failed`, `not_found` as [`ClientError::Api`].
    pub async fn restart_container(&self, container: &str, timeout: Duration) -> Result<ContainerView, ClientError> {
        self.order(container, &format!("restart?timeout_ms={}", timeout.as_millis())).await?.json().await
    }

    /// Sends a container's first process a signal, by its name or number: `POST /v1/containers/{id}/kill`.
    ///
    /// # Errors
    /// `not_running`, `not_found`, `bad_request` (no such signal) as [`ClientError::Api`].
    pub async fn kill_container(&self, container: &str, signal: &str) -> Result<(), ClientError> {
        self.order(container, &format!("kill?signal={}", segment(signal))).await?.finish().await
    }

    /// Freezes a container's processes: `POST /v1/containers/{id}/pause`.
    ///
    /// # Errors
    /// `not_running`, `not_found` as [`ClientError::Api`].
    pub async fn pause_container(&self, container: &str) -> Result<(), ClientError> {
        self.order(container, "pause").await?.finish().await
    }

    /// Lets them go on: `POST /v1/containers/{id}/unpause`.
    ///
    /// # Errors
    /// `not_running`, `not_found` as [`ClientError::Api`].
    pub async fn unpause_container(&self, container: &str) -> Result<(), ClientError> {
        self.order(container, "unpause").await?.finish().await
    }

    /// Gives a container another name: `POST /v1/containers/{id}/rename`.
    ///
    /// # Errors
    /// `name_taken`, `not_found` as [`ClientError::Api`].
    pub async fn rename_container(&self, container: &str, name: &ContainerName) -> Result<ContainerView, ClientError> {
        self.order(container, &format!("rename?name={}", segment(name.as_str()))).await?.json().await
    }

    /// Changes a container while it is there: `POST /v1/containers/{id}/update`.
    ///
    /// # Errors
    /// `too_large`, `not_found` as [`ClientError::Api`].
    pub async fn update_container(
        &self,
        container: &str,
        update: &ContainerUpdate,
    ) -> Result<ContainerView, ClientError> {
        let call = Call::new(Method::POST, format!("{}/update", path(container))).with_json(update);
        self.ask_again(&call, Answer::json).await
    }

    /// A running container's processes: `GET /v1/containers/{id}/top`.
    ///
    /// # Errors
    /// `not_running`, `not_found` as [`ClientError::Api`].
    pub async fn container_processes(&self, container: &str) -> Result<Vec<ProcessRow>, ClientError> {
        self.fetch(format!("{}/top", path(container))).await
    }

    /// What a running container uses at this moment: `GET /v1/containers/{id}/stats`.
    ///
    /// # Errors
    /// `not_running`, `not_found` as [`ClientError::Api`].
    pub async fn container_stats(&self, container: &str) -> Result<Stats, ClientError> {
        self.fetch(format!("{}/stats", path(container))).await
    }

    /// Waits until a container has ended: `POST /v1/containers/{id}/wait`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn wait_container(&self, container: &str) -> Result<Exit, ClientError> {
        self.ask_again(&Call::new(Method::POST, format!("{}/wait", path(container))), Answer::json).await
    }

    /// Removes a container that has ended: `DELETE /v1/containers/{id}`.
    ///
    /// # Errors
    /// `running`, `not_found` as [`ClientError::Api`].
    pub async fn delete_container(&self, container: &str) -> Result<(), ClientError> {
        self.delete(path(container)).await
    }

    /// Kills a container and removes it: `DELETE /v1/containers/{id}?force=true`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn kill_and_delete_container(&self, container: &str) -> Result<(), ClientError> {
        self.delete(format!("{}?force=true", path(container))).await
    }

    /// Asks once for what must not be done twice.
    async fn order(&self, container: &str, word: &str) -> Result<Answer, ClientError> {
        self.ask(&Call::new(Method::POST, format!("{}/{word}", path(container)))).await
    }
}

pub(crate) fn path(container: &str) -> String {
    format!("/v1/containers/{}", segment(container))
}
