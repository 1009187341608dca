//! Requests about services and their deploys.

use hyper::Method;
use sampan_model::view::{Deploy, DeployEvent, ServiceView};
use sampan_model::{Label, ServiceSpec};

use crate::connection::{Call, segment};
use crate::{Client, ClientError, JsonLines};

impl Client {
    /// Asks for a service to be as `spec` says: `PUT /v1/services/{name}`. Returns when that is recorded; follow
    /// [`Client::deploy_events`] to see it become so.
    ///
    /// # Errors
    /// `name_taken`, `too_large`, `blob_missing`… as [`ClientError::Api`].
    pub async fn put_service(&self, spec: &ServiceSpec) -> Result<Deploy, ClientError> {
        self.put(service(&spec.name), spec).await
    }

    /// Every service: `GET /v1/services`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn services(&self) -> Result<Vec<ServiceView>, ClientError> {
        self.fetch("/v1/services".into()).await
    }

    /// One service: `GET /v1/services/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn service(&self, name: &Label) -> Result<ServiceView, ClientError> {
        self.fetch(service(name)).await
    }

    /// Removes a service; returns when its containers are gone: `DELETE /v1/services/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn delete_service(&self, name: &Label) -> Result<(), ClientError> {
        self.delete(service(name)).await
    }

    /// Where a deploy is, now and at every step until it has ended: `GET /v1/services/{name}/deploys/{version}`.
    /// Asking again after a lost connection tells the present step first.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn deploy_events(&self, name: &Label, version: u64) -> Result<JsonLines<DeployEvent>, ClientError> {
        let call = Call::new(Method::GET, deploy(name, version));
        self.ask_again(&call, |answer| async { Ok(JsonLines::new(answer)) }).await
    }

    /// Gives a version up: back to the one before, or to no service: `DELETE /v1/services/{name}/deploys/{version}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn give_up_deploy(&self, name: &Label, version: u64) -> Result<(), ClientError> {
        self.delete(deploy(name, version)).await
    }
}

fn service(name: &Label) -> String {
    format!("/v1/services/{}", segment(name.as_str()))
}

fn deploy(name: &Label, version: u64) -> String {
    format!("{}/deploys/{version}", service(name))
}
