//! Requests about containers. A container is named by its name, its id or an unambiguous prefix of that.

use std::time::Duration;

use hyper::Method;
use sampan_model::view::{ContainerCreate, ContainerView, Exit};

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

    /// Asks a container to end and kills it after `timeout`; returns when it has ended:
    /// `POST /v1/containers/{id}/stop`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn stop_container(&self, container: &str, timeout: Duration) -> Result<(), ClientError> {
        let path = format!("{}/stop?timeout_ms={}", path(container), timeout.as_millis());
        self.ask_again(&Call::new(Method::POST, path), Answer::finish).await
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
}

fn path(container: &str) -> String {
    format!("/v1/containers/{}", segment(container))
}
