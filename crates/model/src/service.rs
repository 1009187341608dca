//! Services: what is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, Label, Mount, ServerSize};

/// A named app as it is asked for. Two equal specs are one version: putting the same spec again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name; `NAME.localhost` reaches it.
    pub name: Label,
    /// The directory it was made from: who owns the name. `None` where it came from no directory.
    pub source: Option<PathBuf>,
    /// The image's manifest.
    pub image: Digest,
    /// The size of each replica's server.
    #[serde(default)]
    pub size: ServerSize,
    /// How many replicas, at least 1.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Replaces the image's entrypoint and command where it is not empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment, added to the image's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The port to route to. `None`: the image's declared one, else what the process listens on.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether requests are routed to it. What is not routed has no port to answer on, and is ready when it has run for
    /// a moment.
    #[serde(default = "yes")]
    pub ingress: bool,
    /// How a replica is known to be ready.
    #[serde(default)]
    pub health: Health,
    /// What is mounted in each replica.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The server that its one replica runs on. `None`: each replica has one of its own.
    #[serde(default)]
    pub server: Option<Label>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// How a replica is known to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// A path that must answer 2xx or 3xx. `None`: any HTTP answer to `GET /` will do.
    pub path: Option<String>,
    /// How long a new replica may take until it is ready, in milliseconds.
    pub start_timeout_ms: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self { path: None, start_timeout_ms: 60_000 }
    }
}
