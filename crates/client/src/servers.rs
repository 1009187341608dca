//! Requests about servers that were asked for by name.

use std::time::Duration;

use hyper::Method;
use sampan_model::Label;
use sampan_model::view::{ServerCreate, ServerResize, ServerView};

use crate::connection::{Answer, Call, segment};
use crate::{Client, ClientError};

impl Client {
    /// Makes a server: `POST /v1/servers`. Returns when containers may run on it.
    ///
    /// # Errors
    /// `name_taken`, `too_large`, `no_server_left`… as [`ClientError::Api`]. Never made again: after a lost connection
    /// there may be a server.
    pub async fn create_server(&self, create: &ServerCreate) -> Result<ServerView, ClientError> {
        self.ask(&Call::new(Method::POST, "/v1/servers".into()).with_json(create)).await?.json().await
    }

    /// Every server that was asked for by name: `GET /v1/servers`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn servers(&self) -> Result<Vec<ServerView>, ClientError> {
        self.fetch("/v1/servers".into()).await
    }

    /// One server: `GET /v1/servers/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn server(&self, name: &Label) -> Result<ServerView, ClientError> {
        self.fetch(path(name)).await
    }

    /// Lets a stopped server run again, with the containers that ran on it: `POST /v1/servers/{name}/start`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn start_server(&self, name: &Label) -> Result<ServerView, ClientError> {
        self.ask_again(&Call::new(Method::POST, format!("{}/start", path(name))), Answer::json).await
    }

    /// Ends a server's containers, those that do not end by themselves after `timeout`, and gives back all that it
    /// takes but its disk; returns when that is done: `POST /v1/servers/{name}/stop`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn stop_server(&self, name: &Label, timeout: Duration) -> Result<ServerView, ClientError> {
        let path = format!("{}/stop?timeout_ms={}", path(name), timeout.as_millis());
        self.ask_again(&Call::new(Method::POST, path), Answer::json).await
    }

    /// Gives a server another size, while it runs too: `POST /v1/servers/{name}/resize`.
    ///
    /// # Errors
    /// `too_large`, `in_use` (its containers hold more memory), `not_found` as [`ClientError::Api`].
    pub async fn resize_server(&self, name: &Label, size: &ServerResize) -> Result<ServerView, ClientError> {
        let call = Call::new(Method::POST, format!("{}/resize", path(name))).with_json(size);
        self.ask_again(&call, Answer::json).await
    }

    /// Removes a server and everything on it; returns when it is gone: `DELETE /v1/servers/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn close_server(&self, name: &Label) -> Result<(), ClientError> {
        self.delete(path(name)).await
    }
}

fn path(name: &Label) -> String {
    format!("/v1/servers/{}", segment(name.as_str()))
}
