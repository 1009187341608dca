//! A server that a program holds.

use std::path::PathBuf;
use std::time::Duration;

use sampan_model::view::{ServerResize, ServerView};
use sampan_model::{ByteSize, Cpus, Label};

use crate::deploy::{Deploy, Run};
use crate::watch::Fetch;
use crate::{Client, ClientError, Watch};

/// A server: a sized slice of the machine that containers run on. Made by [`Cloud::server`](crate::Cloud::server).
///
/// It is a name and a way to ask about it, cheap to clone. Dropping it does nothing: the server goes on until it is
/// closed, by this program or another.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    name: Label,
}

impl Server {
    pub(crate) fn new(client: &Client, name: Label) -> Self {
        Self { client: client.clone(), name }
    }

    /// Its name.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// How it is now.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`] once it is closed.
    pub async fn view(&self) -> Result<ServerView, ClientError> {
        self.client.server(&self.name).await
    }

    /// How it is, now and each time it is otherwise.
    ///
    /// # Errors
    /// [`ClientError`]. A server that is not there is the value `None`.
    pub async fn watch(&self) -> Result<Watch<ServerView>, ClientError> {
        Watch::begin(&self.client, self.fetch()).await
    }

    /// How it is each time it is otherwise than at this revision, which an earlier watch told.
    pub fn watch_from(&self, revision: u64) -> Watch<ServerView> {
        Watch::from(&self.client, self.fetch(), revision)
    }

    fn fetch(&self) -> Fetch<ServerView> {
        let name = self.name.clone();
        Box::new(move |client| {
            let name = name.clone();
            Box::pin(async move { client.server(&name).await })
        })
    }

    /// Compiles the source in a directory, as this user and with this machine's toolchain, and runs it here as a
    /// service. To be awaited; what can be said of it is said before.
    pub fn deploy(&self, directory: impl Into<PathBuf>) -> Deploy {
        Deploy::new(&self.client, directory.into()).on(&self.name)
    }

    /// Runs an image here as a service. To be awaited; what can be said of it is said before.
    pub fn run(&self, image: impl Into<String>) -> Run {
        Run::new(&self.client, image.into()).on(&self.name)
    }

    /// Gives it another size, while its containers run.
    ///
    /// # Errors
    /// `too_large`, `in_use` (they hold more memory), `not_found` as [`ClientError::Api`].
    pub async fn resize(&self, cpus: Cpus, memory: ByteSize) -> Result<ServerView, ClientError> {
        let size = ServerResize { cpus: Some(cpus), memory_bytes: Some(memory), pids: None };
        self.client.resize_server(&self.name, &size).await
    }

    /// Ends its containers, those that do not end by themselves after `timeout`, and keeps what they wrote.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn stop(&self, timeout: Duration) -> Result<ServerView, ClientError> {
        self.client.stop_server(&self.name, timeout).await
    }

    /// Lets it run again, with the containers that ran on it.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn start(&self) -> Result<ServerView, ClientError> {
        self.client.start_server(&self.name).await
    }

    /// Removes it and everything on it; returns when it is gone. Where the future is dropped, what was begun is finished
    /// by the daemon. Closing one that is closed already is an error, `not_found`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.client.close_server(&self.name).await
    }
}
