//! Containers: what is asked for, and what has become of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerName, Digest, Label, ServerSize};

/// One container on a server of its own, as it was asked for. Everything the image leaves open is resolved when the
/// container is created, so that two starts of one spec are the same start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name, and its server's.
    pub name: ContainerName,
    /// Its server's host name.
    pub host_name: Label,
    /// The image's manifest.
    pub image: Digest,
    /// What the image was called when it was asked for, for people.
    pub image_name: String,
    /// Its server's size.
    pub size: ServerSize,
    /// Replaces the image's entrypoint, and drops its command, where it is given.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command where it is not empty.
    pub command: Vec<String>,
    /// Added to the image's environment, later ones winning.
    pub env: Vec<(String, String)>,
    /// Removed when it has ended (`--rm`).
    pub remove_at_exit: bool,
    /// The service it is a replica of.
    pub service: Option<ServiceRef>,
}

/// Which replica of which version of which service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Where it is in its life.
    pub status: ContainerStatus,
    /// The exit code of its first process: 0–255, 128 + N for signal N. `None` while it runs, and where it is unknown
    /// (its supervisor was killed).
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
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
            error: None,
            started_at: None,
            finished_at: None,
            pid: None,
        }
    }
}
