//! What is kept of a service.
//!
//! `default/service/NAME` is what is intended; `default/deploy/NAME` is the last deploy and how it stands, kept also
//! when it failed and the service is gone, so that whoever began it learns how it ended; `default/ready/ID` is where a
//! ready replica answers, so that the next daemon goes on routing to it.

use std::net::SocketAddr;

use jiff::Timestamp;
use sampan_model::view::DeployEvent;
use sampan_model::{ContainerId, Digest, Label, Owner, ServiceSpec};
use serde::{Deserialize, Serialize};

pub(crate) const SERVICES: &str = "default/service/";
pub(crate) const READY: &str = "default/ready/";

pub(crate) fn service_key(name: &Label) -> String {
    format!("{SERVICES}{name}")
}

pub(crate) fn deploy_key(name: &Label) -> String {
    format!("default/deploy/{name}")
}

pub(crate) fn ready_key(id: &ContainerId) -> String {
    format!("{READY}{id}")
}

/// What is intended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The spec of the version that is to run.
    pub spec: ServiceSpec,
    /// Whose it is: whoever asked for it first.
    #[serde(default)]
    pub owner: Owner,
    /// That version.
    pub version: u64,
    /// The latest version there was, be it that it failed.
    #[serde(default)]
    pub latest: u64,
    /// Whether that version was ready once.
    pub deployed: bool,
    /// The last version before it that was ready, to go back to.
    pub previous: Option<Previous>,
    /// It is being removed.
    #[serde(default)]
    pub removing: bool,
    /// When the service was made.
    pub created_at: Timestamp,
}

impl ServiceRecord {
    /// Whether it is intended to be on this server.
    pub(crate) fn is_on(&self, server: &Label) -> bool {
        self.spec.server.as_ref() == Some(server)
    }

    /// The images that are of use to it: what runs, and what there is to go back to.
    pub fn images(&self) -> impl Iterator<Item = &Digest> {
        [&self.spec.image].into_iter().chain(self.previous.as_ref().map(|previous| &previous.spec.image))
    }
}

/// A version that was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its spec.
    pub spec: ServiceSpec,
    /// Its number.
    pub version: u64,
}

/// The last deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRecord {
    /// The version it is a deploy of.
    pub version: u64,
    /// Whose the service is, or was.
    #[serde(default)]
    pub owner: Owner,
    /// How it stands.
    pub event: DeployEvent,
}

/// Where a ready replica answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyRecord {
    /// The address and port.
    pub address: SocketAddr,
    /// Why that port.
    pub port_source: String,
    /// When the process that answers there was started: the record says nothing of a later one.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}
