//! Requests about volumes.

use hyper::Method;
use sampan_model::Label;
use sampan_model::view::{Pruned, VolumeCreate, VolumeView};

use crate::connection::{Answer, Call, segment};
use crate::{Client, ClientError};

impl Client {
    /// Makes a volume: `POST /v1/volumes`.
    ///
    /// # Errors
    /// `name_taken` as [`ClientError::Api`]. Never made again: after a lost connection there may be a volume.
    pub async fn create_volume(&self, create: &VolumeCreate) -> Result<VolumeView, ClientError> {
        self.ask(&Call::new(Method::POST, "/v1/volumes".into()).with_json(create)).await?.json().await
    }

    /// Every volume: `GET /v1/volumes`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volumes(&self) -> Result<Vec<VolumeView>, ClientError> {
        self.fetch("/v1/volumes".into()).await
    }

    /// One volume: `GET /v1/volumes/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn volume(&self, name: &Label) -> Result<VolumeView, ClientError> {
        self.fetch(path(name)).await
    }

    /// Removes a volume and what is in it: `DELETE /v1/volumes/{name}`.
    ///
    /// # Errors
    /// `in_use`, `not_found` as [`ClientError::Api`].
    pub async fn delete_volume(&self, name: &Label) -> Result<(), ClientError> {
        self.delete(path(name)).await
    }

    /// Removes every volume that nothing uses: `POST /v1/volumes/prune`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn prune_volumes(&self) -> Result<Pruned, ClientError> {
        self.ask_again(&Call::new(Method::POST, "/v1/volumes/prune".into()), Answer::json).await
    }
}

fn path(name: &Label) -> String {
    format!("/v1/volumes/{}", segment(name.as_str()))
}
