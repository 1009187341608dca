//! Containers: what is asked for, and what has become of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Confinement, ContainerName, Digest, Label, Mount, Owner, PublishedPort, ServerSize};

/// One container, as it was asked for. Everything the image leaves open is resolved when the container is created, so
/// that two starts of one spec are the same start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerSpec {
    /// Its name, and its server's.
    pub name: ContainerName,
    /// Its server's host name.
    pub host_name: Label,
    /// The image's manifest.
    pub image: Digest,
    /// What the image was called when it was asked for, for people.
    pub image_name: String,
    /// Its server's size; that of a server with a name is written here when the container is created on it.
    pub size: ServerSize,
    /// Whose it is.
    #[serde(default)]
    pub owner: Owner,
    /// The server it runs on. `None`: one of its own, made with it and removed with it.
    #[serde(default)]
    pub server: Option<Label>,
    /// Replaces the image's entrypoint, and drops its command, where it is given.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command where it is not empty.
    pub command: Vec<String>,
    /// Added to the image's environment, later ones winning.
    pub env: Vec<(String, String)>,
    /// Replaces the image's user, `USER[:GROUP]`, names or numbers.
    #[serde(default)]
    pub user: Option<String>,
    /// Replaces the image's working directory.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Whatever its owner wants to tell it apart by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What is mounted in it, in this order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Ports of it that are reached from outside.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Its root file system cannot be written to.
    #[serde(default)]
    pub read_only: bool,
    /// What it is kept from, and what is opened to it.
    #[serde(default)]
    pub confinement: Confinement,
    /// Its standard input is a pipe that may be written to; else it is empty.
    #[serde(default)]
    pub stdin: bool,
    /// It has a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// A small first process of ours hands signals on to its command and reaps what that leaves.
    #[serde(default)]
    pub init: bool,
    /// The OCI runtime that executes it: a name or an absolute path. `None`: Sampan itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Whether it is started again when it has ended.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Replaces the image's signal to end it, by number.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// Its writable layer's size, on a server of its own. `None`: as much as the disk has.
    #[serde(default)]
    pub disk: Option<crate::Disk>,
    /// Removed when it has ended (`--rm`).
    pub remove_at_exit: bool,
    /// The service it is a replica of.
    pub service: Option<ServiceRef>,
}

impl ContainerSpec {
    /// A container of this image, and nothing asked for beside.
    pub fn new(name: ContainerName, image: Digest, image_name: impl Into<String>) -> Self {
        Self {
            host_name: name.host_name(),
            name,
            image,
            image_name: image_name.into(),
            size: ServerSize::default(),
            owner: Owner::default(),
            server: None,
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            user: None,
            working_dir: None,
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            read_only: false,
            confinement: Confinement::default(),
            stdin: false,
            terminal: false,
            init: false,
            runtime: None,
            restart: RestartPolicy::No,
            stop_signal: None,
            disk: None,
            remove_at_exit: false,
            service: None,
        }
    }
}

/// Whether a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It is not.
    #[default]
    No,
    /// Where its exit code was not 0.
    OnFailure {
        /// At most so often in a row; `None`: always.
        max_retries: Option<u32>,
    },
    /// It is, also at the daemon's start where it was stopped before.
    Always,
    /// It is, unless somebody stopped it.
    UnlessStopped,
}

/// Which replica of which version of which service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRef {
    /// The service.
    pub name: Label,
    /// Its version, from 1.
    pub version: u64,
    /// The replica's number, from 1.
    pub replica: u32,
}

/// Where a container is in its life.
///
/// ```text
/// created ──▶ running ──▶ exited ──▶ running …
///    └────────────┴──────────┴─────▶ removing ──▶ (gone)
///    └──▶ exited (it could not be started)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStatus {
    /// Recorded; no process yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended, or could not be started.
    Exited,
    /// It is being taken apart.
    Removing,
}

impl ContainerStatus {
    /// Whether a container may go from this status to `next`: the one transition table.
    pub fn may_become(self, next: Self) -> bool {
        use ContainerStatus::{Created, Exited, Removing, Running};
        matches!(
            (self, next),
            (Created, Running | Exited | Removing)
                | (Running, Exited | Removing)
                | (Exited, Running | Removing)
                | (Removing, Removing)
        )
    }

    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }
}

/// What has become of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerState {
    /// Where it is in its life.
    pub status: ContainerStatus,
    /// The exit code of its first process: 0–255, 128 + N for signal N. `None` while it runs, and where it is unknown
    /// (its supervisor was killed).
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
    /// Its processes are frozen. It is `running` all the same.
    #[serde(default)]
    pub paused: bool,
    /// How often its restart policy has started it again.
    #[serde(default)]
    pub restarts: u32,
    /// Why it could not be started.
    pub error: Option<String>,
    /// When its process was started last.
    pub started_at: Option<Timestamp>,
    /// When its process ended last.
    pub finished_at: Option<Timestamp>,
    /// Its first process on the host while it runs.
    pub pid: Option<u32>,
}

impl ContainerState {
    /// The state of a container that was just recorded.
    pub fn created() -> Self {
        Self {
            status: ContainerStatus::Created,
            exit_code: None,
            oom_killed: false,
            paused: false,
            restarts: 0,
            error: None,
            started_at: None,
            finished_at: None,
            pid: None,
        }
    }
}
