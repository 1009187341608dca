//! Requests about the daemon itself, and about whatever has a name.

use hyper::Method;
use sampan_model::view::{Change, DaemonView};

use crate::connection::{Answer, Call, segment};
use crate::{Client, ClientError, JsonLines};

impl Client {
    /// The daemon, its processes and what it warns of: `GET /v1/daemon`.
    ///
    /// # Errors
    /// [`ClientError`]; like every request that may be made twice, it is made again where the daemon went away.
    pub async fn daemon(&self) -> Result<DaemonView, ClientError> {
        self.fetch("/v1/daemon".into()).await
    }

    /// Begins to stop every container and the daemon: `POST /v1/daemon/stop`. Returns when it has begun; the end of
    /// the processes in [`DaemonView::processes`] is the end of it.
    ///
    /// # Errors
    /// [`ClientError`]. Never made again: a lost connection may be the success.
    pub async fn stop_daemon(&self) -> Result<(), ClientError> {
        self.post("/v1/daemon/stop").await
    }

    /// Begins to replace the daemon by a fresh process of its own binary: `POST /v1/daemon/restart`. Containers run on.
    ///
    /// # Errors
    /// [`ClientError`]. Never made again.
    pub async fn restart_daemon(&self) -> Result<(), ClientError> {
        self.post("/v1/daemon/restart").await
    }

    /// Begins to stop everything and to remove all records, images and logs: `POST /v1/purge`.
    ///
    /// # Errors
    /// [`ClientError`]. Never made again.
    pub async fn purge(&self) -> Result<(), ClientError> {
        self.post("/v1/purge").await
    }

    /// The service or container of this name as JSON, an array of one: `GET /v1/inspect/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn inspect(&self, name: &str) -> Result<Vec<serde_json::Value>, ClientError> {
        self.fetch(format!("/v1/inspect/{}", segment(name))).await
    }

    /// Every change of a record after revision `from`, without end: `GET /v1/events`.
    ///
    /// # Errors
    /// `revision_too_old` as [`ClientError::Api`]: list again and go on from the daemon's revision.
    pub async fn events(&self, from: u64) -> Result<JsonLines<Change>, ClientError> {
        let call = Call::new(Method::GET, format!("/v1/events?from={from}"));
        self.ask_again(&call, |answer| async { Ok(JsonLines::new(answer)) }).await
    }

    /// Asks once for something that must not be asked twice.
    pub(crate) async fn post(&self, path: &str) -> Result<(), ClientError> {
        let answer: Answer = self.ask(&Call::new(Method::POST, path.into())).await?;
        answer.finish().await
    }
}
