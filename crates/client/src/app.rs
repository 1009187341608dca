//! An app that a program holds.

use sampan_model::Label;
use sampan_model::view::{Deploy, DeployEvent, ServiceView};

use crate::watch::Fetch;
use crate::{Client, ClientError, DeployError, LogOptions, LogStream, Watch};

/// How often in a row a deploy is asked for again whose telling broke off.
const LOSSES: u32 = 5;

/// A service, and the version of it that was deployed: [`Server::deploy`](crate::Server::deploy),
/// [`Server::run`](crate::Server::run).
///
/// It is a name and a way to ask about it, cheap to clone. Dropping it does nothing: the app goes on.
#[derive(Debug, Clone)]
pub struct App {
    client: Client,
    name: Label,
    version: u64,
}

impl App {
    pub(crate) fn new(client: &Client, deployed: Deploy) -> Self {
        Self { client: client.clone(), name: deployed.name, version: deployed.version }
    }

    /// Its name.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// The version that was deployed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How it is now.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`] once it is removed.
    pub async fn view(&self) -> Result<ServiceView, ClientError> {
        self.client.service(&self.name).await
    }

    /// How it is, now and each time it is otherwise.
    ///
    /// # Errors
    /// [`ClientError`]. An app that is not there is the value `None`.
    pub async fn watch(&self) -> Result<Watch<ServiceView>, ClientError> {
        Watch::begin(&self.client, self.fetch()).await
    }

    /// How it is each time it is otherwise than at this revision, which an earlier watch told.
    pub fn watch_from(&self, revision: u64) -> Watch<ServiceView> {
        Watch::from(&self.client, self.fetch(), revision)
    }

    fn fetch(&self) -> Fetch<ServiceView> {
        let name = self.name.clone();
        Box::new(move |client| {
            let name = name.clone();
            Box::pin(async move { client.service(&name).await })
        })
    }

    /// Where it is reached over HTTP, as soon as it answers there: the first request to it is answered. Where another
    /// version has taken this one's place, that one's. Cancel-safe: the deploy goes on without anybody who waits.
    ///
    /// # Errors
    /// [`DeployError::Failed`] with the app's last lines where it was given up; [`DeployError::Client`].
    pub async fn http(&self) -> Result<String, DeployError> {
        let mut version = self.version;
        let mut losses = 0;
        loop {
            let error = match self.end_of(version, &mut losses).await {
                Ok(DeployEvent::Ready { url, .. }) => return Ok(url),
                Ok(DeployEvent::Failed { error, log_tail }) => {
                    return Err(DeployError::Failed { name: self.name.clone(), error, log_tail });
                }
                Ok(DeployEvent::Superseded { by }) => {
                    version = by;
                    continue;
                }
                Ok(DeployEvent::Waiting { .. }) => unreachable!("it is no end"),
                Err(error) => error,
            };
            losses += 1;
            if !error.is_lost() || losses > LOSSES {
                return Err(error.into());
            }
            self.client.revive(error).await?;
        }
    }

    /// The event that ends a version's deploy.
    async fn end_of(&self, version: u64, losses: &mut u32) -> Result<DeployEvent, ClientError> {
        let mut events = self.client.deploy_events(&self.name, version).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if event.is_end() {
                return Ok(event);
            }
            *losses = 0;
        }
        // a daemon that stops ends its answers properly; the next one knows more
        Err(ClientError::NoDaemon { socket: self.client.root().socket() })
    }

    /// What its first replica writes.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn logs(&self, options: LogOptions) -> Result<LogStream, ClientError> {
        self.client.logs(self.name.as_str(), options).await
    }

    /// Gives this version up where it is not ready yet: back to the one before, or to no app.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn give_up(&self) -> Result<(), ClientError> {
        self.client.give_up_deploy(&self.name, self.version).await
    }

    /// Removes it; returns when its containers are gone. Its server and its volumes stay.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn remove(self) -> Result<(), ClientError> {
        self.client.delete_service(&self.name).await
    }
}
