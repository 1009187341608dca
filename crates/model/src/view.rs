//! The native API's JSON, shared by the server (`sampan-api`) and the SDK (`sampan-client`).
//!
//! HTTP/1.1 on `$SAMPAN_ROOT/run/sampan.sock`. Bodies are JSON unless said; errors are [`ErrorBody`]; times RFC 3339,
//! sizes in bytes, durations in `_ms`.
//!
//! | request | answers |
//! |---|---|
//! | `GET /v1/daemon` | [`DaemonView`] |
//! | `POST /v1/daemon/stop` | 202; stops every container and the daemon, leaves nothing behind but the records |
//! | `POST /v1/daemon/restart` | 202; the daemon replaces itself by `execve` of its own binary |
//! | `POST /v1/purge` | 202; as `stop`, and removes all records, images and logs; the CLI removes the root after it |
//! | `HEAD /v1/blobs/{digest}` | 200 where the daemon has it, else 404 |
//! | `PUT /v1/blobs/{digest}` (raw bytes) | 201 when it is verified and durable; 400 `digest_mismatch` |
//! | `PUT /v1/images/{name}` [`ImageTag`] | [`ImageView`]; 400 `blob_missing` names the blob |
//! | `GET /v1/images`, `GET /v1/images/{name}` | `[ImageView]`, `ImageView` |
//! | `DELETE /v1/images/{name}` | 204; 409 `in_use` |
//! | `PUT /v1/services/{name}` [`ServiceSpec`](crate::ServiceSpec) | [`Deploy`]; 409 `name_taken` where another source owns the name |
//! | `GET /v1/services`, `GET /v1/services/{name}` | `[ServiceView]`, `ServiceView` |
//! | `DELETE /v1/services/{name}` | 204 when its containers are gone |
//! | `GET /v1/services/{name}/deploys/{version}` | [`DeployEvent`]s, one JSON a line, the present one first, until it has ended |
//! | `DELETE /v1/services/{name}/deploys/{version}` | 204; gives the version up: back to the one before, or to no service |
//! | `POST /v1/containers` [`ContainerCreate`] | [`ContainerView`], created and started |
//! | `GET /v1/containers`, `GET /v1/containers/{id}` | `[ContainerView]`, `ContainerView`; `{id}`: a name, an id, or a prefix of one |
//! | `POST /v1/containers/{id}/stop?timeout_ms=` | 204 when it has ended |
//! | `POST /v1/containers/{id}/wait` | [`Exit`] when it has ended |
//! | `DELETE /v1/containers/{id}?force=true` | 204; 409 `running` without `force` |
//! | `GET /v1/containers/{id}/logs?follow=&tail=` | log frames ([`LogFrame`]); with `follow` until the container has ended |
//! | `GET /v1/inspect/{name}` | array of the service or container of that name |
//! | `GET /v1/events?from=REVISION` | [`Change`]s, one JSON a line, without end; 410 `revision_too_old` |
//! | `GET /openapi.json` | this table for programs |

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, ContainerId, ContainerName, ContainerState, Cpus, Digest, Label, ServerSize};

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// An error as programs and people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// A stable word: `not_found`, `name_taken`, `too_large`, `digest_mismatch`, `no_space`, `bad_request`, `in_use`,
    /// `running`, `start_failed`, `revision_too_old`, `forbidden`, `internal`…
    pub code: String,
    /// What failed, on what, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The daemon and everything that runs for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Sampan's version.
    pub version: String,
    /// Its root.
    pub root: PathBuf,
    /// The native API's socket.
    pub socket: PathBuf,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// The records' revision.
    pub revision: u64,
    /// Where services are reached.
    pub http: Vec<SocketAddr>,
    /// The processes: `daemon`, `supervisor`, `logger`, `edge`.
    pub processes: Vec<ProcessView>,
    /// What runs less well than it could, in words: listeners that could not be opened, forwarding that is blocked…
    pub warnings: Vec<String>,
}

/// One of Sampan's own processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its role.
    pub role: String,
    /// Its pid.
    pub pid: u32,
}

/// Names a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTag {
    /// The manifest, uploaded before as a blob like its config and layers.
    pub manifest: Digest,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Always `image`.
    pub kind: String,
    /// Its name with its tag.
    pub name: String,
    /// Its manifest's digest.
    pub digest: Digest,
    /// Config and layers together, in bytes.
    pub size_bytes: u64,
    /// When it was named.
    pub created_at: Timestamp,
}

/// A deploy that has begun (or that was already there).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// The service.
    pub name: Label,
    /// The version, from 1.
    pub version: u64,
}

/// Where a deploy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum DeployEvent {
    /// Under way.
    Waiting {
        /// What it waits for, for people: "an image", "port 8080 to answer HTTP".
        on: String,
    },
    /// All its replicas are ready and routed to. The deploy has ended.
    Ready {
        /// `http://NAME.localhost:PORT/`.
        url: String,
        /// The port inside that was chosen.
        port: u16,
        /// Why that one: "given", "declared by the image", "the app listens on it"…
        port_source: String,
    },
    /// It was given up; what was before is as it was. The deploy has ended.
    Failed {
        /// Why, for people.
        error: ErrorView,
        /// The app's last lines.
        log_tail: Vec<String>,
    },
    /// A later version took its place. The deploy has ended.
    Superseded {
        /// That version.
        by: u64,
    },
}

impl DeployEvent {
    /// Whether nothing comes after it.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Waiting { .. })
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Always `service`.
    pub kind: String,
    /// Its name.
    pub name: Label,
    /// Where it is reached.
    pub url: String,
    /// The image's manifest.
    pub image: Digest,
    /// The directory it was made from.
    pub source: Option<PathBuf>,
    /// The size of each replica's server.
    pub size: ServerSize,
    /// Its replicas.
    pub replicas: Vec<ContainerView>,
    /// `ready`, `starting`, `degraded` (some replicas not ready) or `failing` (none is).
    pub health: String,
    /// Its version, from 1.
    pub version: u64,
    /// The port inside, once it is known.
    pub port: Option<u16>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A container to create and start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerCreate {
    /// Its name; one is made up where none is given.
    #[serde(default)]
    pub name: Option<ContainerName>,
    /// The image: a name or a digest.
    pub image: String,
    /// Replaces the image's command (not its entrypoint).
    #[serde(default)]
    pub command: Vec<String>,
    /// Added to the image's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Its server's size.
    #[serde(default)]
    pub size: ServerSize,
    /// Removed when it has ended.
    #[serde(default)]
    pub remove_at_exit: bool,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Always `container`.
    pub kind: String,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// The image, by the name it was asked for.
    pub image: String,
    /// The server it runs on.
    pub server: ServerView,
    /// What has become of it.
    pub state: ContainerState,
    /// Whether it answers (replicas of services only).
    pub ready: Option<bool>,
    /// Its command line.
    pub command: Vec<String>,
    /// Mounts of the user's: none yet.
    pub mounts: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Published ports: none yet.
    pub ports: Vec<String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The server under a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its name.
    pub name: ContainerName,
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory_bytes: ByteSize,
    /// Its address, while it has one.
    pub address: Option<Ipv4Addr>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0–255; `None` where it is unknown.
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
}

/// A record that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The records' revision with this change.
    pub revision: u64,
    /// The record's key: `TENANT/KIND/NAME`.
    pub key: String,
    /// Its new value; `None` where it was deleted.
    pub value: Option<serde_json::Value>,
}

/// The head of one frame of a log stream, `application/vnd.sampan.log`: 16 bytes, then as many bytes as it says.
///
/// ```text
/// byte 0       1 stdout, 2 stderr
/// bytes 1–3    zero
/// bytes 4–7    length of the payload, big-endian, at most 65,536
/// bytes 8–15   when it was written, in nanoseconds since 1970, big-endian, signed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFrame {
    /// 1 stdout, 2 stderr.
    pub stream: u8,
    /// The payload's length in bytes.
    pub length: u32,
    /// Nanoseconds since 1970.
    pub at_ns: i64,
}

impl LogFrame {
    /// The length of the head.
    pub const HEAD: usize = 16;
    /// The longest payload.
    pub const LONGEST: u32 = 65_536;

    /// The head's bytes.
    pub fn encode(self) -> [u8; Self::HEAD] {
        let mut bytes = [0; Self::HEAD];
        bytes[0] = self.stream;
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..].copy_from_slice(&self.at_ns.to_be_bytes());
        bytes
    }

    /// The head that the bytes say, unless they are no head.
    pub fn decode(bytes: [u8; Self::HEAD]) -> Option<Self> {
        let [stream @ (1 | 2), 0, 0, 0, l0, l1, l2, l3, at @ ..] = bytes else { return None };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        (length <= Self::LONGEST).then_some(Self { stream, length, at_ns: i64::from_be_bytes(at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_frames_come_back() {
        let frame = LogFrame { stream: 2, length: 65_536, at_ns: -7 };
        assert_eq!(LogFrame::decode(frame.encode()), Some(frame));
        assert_eq!(LogFrame::decode([3; 16]), None);
    }
}
