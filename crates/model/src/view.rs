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
//! | `GET /v1/blobs/{digest}` | its bytes |
//! | `HEAD /v1/blobs/{digest}` | 200 where the daemon has it, else 404 |
//! | `PUT /v1/blobs/{digest}` (raw bytes) | 201 when it is verified and durable; 400 `digest_mismatch` |
//! | `PUT /v1/images/{name}` [`ImageTag`] | [`ImageView`]; 400 `blob_missing` names the blob |
//! | `GET /v1/images`, `GET /v1/images/{name}` | `[ImageView]`, [`ImageDetails`] |
//! | `DELETE /v1/images/{name}?force=true` | 204; 409 `in_use` without `force` |
//! | `POST /v1/images/prune?all=true` | [`PruneView`]; with `all` also images that nothing uses (an image named `prune` is `prune:latest` here) |
//! | `POST /v1/images/fsck?repair=true` | [`FsckView`], when everything was read |
//! | `PUT /v1/services/{name}` [`ServiceSpec`](crate::ServiceSpec) | [`Deploy`]; 409 `name_taken` where another source owns the name |
//! | `GET /v1/services`, `GET /v1/services/{name}` | `[ServiceView]`, `ServiceView` |
//! | `DELETE /v1/services/{name}` | 204 when its containers are gone |
//! | `GET /v1/services/{name}/deploys/{version}` | [`DeployEvent`]s, one JSON a line, the present one first, until it has ended |
//! | `DELETE /v1/services/{name}/deploys/{version}` | 204; gives the version up: back to the one before, or to no service |
//! | `POST /v1/containers?start=` [`ContainerCreate`] | [`ContainerView`], created and, unless `start=false`, started |
//! | `POST /v1/containers/attached` [`ContainerCreate`], upgraded to [`stream`](crate::stream) | created, attached to and started; the first frame is its view |
//! | `GET /v1/containers`, `GET /v1/containers/{id}` | `[ContainerView]`, `ContainerView`; `{id}`: a name, an id, or a prefix of one |
//! | `POST /v1/containers/{id}/start` | [`ContainerView`] |
//! | `POST /v1/containers/{id}/stop?timeout_ms=` | 204 when it has ended |
//! | `POST /v1/containers/{id}/restart?timeout_ms=` | [`ContainerView`], stopped and started again |
//! | `POST /v1/containers/{id}/kill?signal=` | 204; the signal by name or number, KILL unless given |
//! | `POST /v1/containers/{id}/pause`, `…/unpause` | 204 |
//! | `POST /v1/containers/{id}/rename?name=` | [`ContainerView`]; 409 `name_taken` |
//! | `POST /v1/containers/{id}/update` [`ContainerUpdate`] | [`ContainerView`] |
//! | `GET /v1/containers/{id}/top` | `[`[`ProcessRow`]`]` |
//! | `GET /v1/containers/{id}/stats` | [`Stats`] |
//! | `POST /v1/containers/{id}/attach?stdin=&start=`, upgraded to [`stream`](crate::stream) | what it writes from now on; what is written to it; with `start` it is started then |
//! | `POST /v1/containers/{id}/exec` [`ExecCreate`], upgraded to [`stream`](crate::stream) unless `detach` | one more process in it |
//! | `GET /v1/containers/{id}/files?path=&follow=` | a tar archive of the path |
//! | `GET /v1/containers/{id}/files/status?path=&follow=` | [`FileStatus`] |
//! | `PUT /v1/containers/{id}/files?path=` (a tar archive) | 204; unpacked below the directory `path` |
//! | `POST /v1/containers/{id}/wait` | [`Exit`] when it has ended |
//! | `DELETE /v1/containers/{id}?force=true` | 204; 409 `running` without `force` |
//! | `GET /v1/containers/{id}/logs?follow=&tail=&since=&until=` | log frames ([`LogFrame`]); with `follow` until the container has ended |
//! | `POST /v1/servers` [`ServerCreate`] | [`ServerView`] |
//! | `GET /v1/servers`, `GET /v1/servers/{name}` | `[ServerView]`, `ServerView` |
//! | `POST /v1/servers/{name}/start`, `…/stop?timeout_ms=` | [`ServerView`] when its containers have started or ended |
//! | `POST /v1/servers/{name}/resize` [`ServerResize`] | [`ServerView`] |
//! | `DELETE /v1/servers/{name}` | 204 when everything on it is gone |
//! | `POST /v1/volumes` [`VolumeCreate`] | [`VolumeView`] |
//! | `GET /v1/volumes`, `GET /v1/volumes/{name}` | `[VolumeView]`, `VolumeView` |
//! | `DELETE /v1/volumes/{name}` | 204; 409 `in_use` |
//! | `POST /v1/volumes/prune` | [`Pruned`] |
//! | `GET /v1/inspect/{name}` | array of the service, server, container, volume or image of that name |
//! | `GET /v1/events?from=REVISION` | [`Change`]s, one JSON a line, without end; 410 `revision_too_old` |
//! | `GET /openapi.json` | this table for programs |

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Confinement, ContainerId, ContainerName, ContainerState, Cpus, Digest, Disk, Label, Mount, Owner,
    PublishedPort, RestartPolicy, ServerSize, ServerStatus,
};

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// An error as programs and people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The servers that wait ready for containers, by the ids that these are going to have.
    #[serde(default)]
    pub parked: Vec<String>,
    /// What runs less well than it could, in words: listeners that could not be opened, forwarding that is blocked…
    pub warnings: Vec<String>,
}

/// One of Sampan's own processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessView {
    /// Its role.
    pub role: String,
    /// Its pid.
    pub pid: u32,
}

/// Names a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageTag {
    /// The manifest, uploaded before as a blob like its config and layers.
    pub manifest: Digest,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// An image with all that it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageDetails {
    /// Its name and digest.
    #[serde(flatten)]
    pub image: ImageView,
    /// Its config's digest, which Docker calls the image's id.
    pub config_digest: Digest,
    /// Go's word for the processor it is for: `amd64`, `arm64`…
    pub architecture: String,
    /// The operating system it is for.
    pub os: String,
    /// When it was made, in RFC 3339, where it says so; what `sampan build` makes does not.
    pub made_at: Option<String>,
    /// How it is run.
    pub config: ImageConfigView,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerView>,
    /// How it was made, the first step first.
    pub history: Vec<HistoryView>,
}

/// How an image is run. Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageConfigView {
    /// The start of the command line, which `run IMAGE ARGS` does not replace.
    pub entrypoint: Vec<String>,
    /// The rest of it, which it does.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where the command starts.
    pub working_dir: String,
    /// Whom it runs as: a name or an id, `USER:GROUP`.
    pub user: String,
    /// The ports it declares: `8080/tcp`.
    pub ports: Vec<String>,
    /// Anything.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerView {
    /// The digest of its blob.
    pub digest: Digest,
    /// The digest of its tar, unpacked.
    pub diff_id: Digest,
    /// The blob's length in bytes.
    pub size_bytes: u64,
    /// How the blob is packed.
    pub media_type: String,
}

/// A step by which an image was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryView {
    /// When, in RFC 3339, where it is said.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// What somebody noted.
    pub comment: Option<String>,
    /// The layer that it made, where it made one.
    pub layer: Option<Digest>,
    /// That layer's length in bytes; else 0.
    pub size_bytes: u64,
}

/// What a cleaning of images has taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PruneView {
    /// The names of images.
    pub removed: Vec<String>,
    /// Blobs.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// What they took on the disk, in bytes.
    pub freed_bytes: u64,
}

/// What an examination of all images has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FsckView {
    /// How many images were looked at: those that have a name, a container or a service.
    pub images: u64,
    /// How many blobs were read and compared with their digests.
    pub blobs: u64,
    /// How many unpacked layers were compared with their blobs.
    pub layers: u64,
    /// Bytes of blobs and layers that nothing needs: the next cleaning takes them away.
    pub unused_bytes: u64,
    /// What is wrong.
    pub problems: Vec<FsckProblem>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FsckProblem {
    /// `record`, `image`, `blob`, `layer` or `stray`.
    pub kind: String,
    /// Which: a name, a digest or a path.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
    /// What was done about it; `None` where nothing was.
    pub repaired: Option<String>,
    /// What is left to do, for people.
    pub hint: Option<String>,
}

/// A deploy that has begun (or that was already there).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deploy {
    /// The service.
    pub name: Label,
    /// The version, from 1.
    pub version: u64,
}

/// Where a deploy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum DeployEvent {
    /// Under way.
    Waiting {
        /// What it waits for, for people: "an image", "port 8080 to answer HTTP".
        on: String,
    },
    /// All its replicas are ready and routed to. The deploy has ended.
    Ready {
        /// `http://NAME.localhost:PORT/`; empty where requests are not routed to it.
        url: String,
        /// The port inside that was chosen; 0 where requests are not routed to it.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceView {
    /// Always `service`.
    pub kind: String,
    /// Its name.
    pub name: Label,
    /// Where it is reached; empty where requests are not routed to it.
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
    /// Why it is not `ready`, where that is known.
    #[serde(default)]
    pub reason: Option<String>,
    /// Its version, from 1.
    pub version: u64,
    /// The port inside, once it is known.
    pub port: Option<u16>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A container to create. What is left out is the image's, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerCreate {
    /// Its name; one is made up where none is given.
    pub name: Option<ContainerName>,
    /// The image: a name or a digest.
    pub image: String,
    /// Replaces the image's entrypoint, and drops its command.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command (not its entrypoint).
    pub command: Vec<String>,
    /// Added to the image's environment.
    pub env: Vec<(String, String)>,
    /// Its server's size.
    pub size: ServerSize,
    /// The server it runs on; one of its own where none is given.
    pub server: Option<Label>,
    /// The host name of its own server: its name unless given.
    pub host_name: Option<Label>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// Its working directory.
    pub working_dir: Option<String>,
    /// Whatever it is to be told apart by.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
    /// Ports that are reached from outside.
    pub ports: Vec<PublishedPort>,
    /// Each port that the image declares is published too, on a free one.
    pub publish_all: bool,
    /// Its root file system cannot be written to.
    pub read_only: bool,
    /// What it is kept from, and what is opened to it.
    pub confinement: Confinement,
    /// Its standard input may be written to.
    pub stdin: bool,
    /// It has a terminal.
    pub terminal: bool,
    /// The terminal's size at the start.
    pub terminal_size: Option<TerminalSize>,
    /// A small first process of ours.
    pub init: bool,
    /// The OCI runtime that executes it: a name that the daemon knows, or, of user 0, an absolute path. Sampan itself
    /// where none is given.
    pub runtime: Option<String>,
    /// Whether it is started again.
    pub restart: RestartPolicy,
    /// Replaces the image's signal to end it: a name or a number.
    pub stop_signal: Option<String>,
    /// Bounds what it writes.
    pub disk: Option<Disk>,
    /// Removed when it has ended.
    pub remove_at_exit: bool,
}

/// A terminal's size, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// What of a container can be changed while it is there. What is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerUpdate {
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Memory.
    pub memory_bytes: Option<ByteSize>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Whether it is started again.
    pub restart: Option<RestartPolicy>,
}

/// One more process in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecCreate {
    /// The command line.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Another user than the container's.
    pub user: Option<String>,
    /// Another working directory than the container's.
    pub working_dir: Option<String>,
    /// It has all capabilities there are in the container's user namespace.
    pub privileged: bool,
    /// Its standard input may be written to.
    pub stdin: bool,
    /// It has a terminal.
    pub terminal: bool,
    /// The terminal's size at the start.
    pub terminal_size: Option<TerminalSize>,
    /// Nobody waits for it, and nobody sees what it writes: 200 with [`ExecView`] instead of an upgrade.
    pub detach: bool,
}

/// A process that was started in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecView {
    /// It, on the host.
    pub pid: u32,
}

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRow {
    /// It, on the host.
    pub pid: u32,
    /// It, in the container.
    pub inner_pid: u32,
    /// Its parent, in the container; 0 where that is outside.
    pub inner_ppid: u32,
    /// Its user, in the container.
    pub uid: u32,
    /// Its state, a letter as `ps` has it.
    pub state: String,
    /// Memory of its own and shared, in bytes.
    pub resident_bytes: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its command line.
    pub command: String,
}

/// What a container uses at one moment. Rates are the difference of two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// The container.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When.
    pub at: Timestamp,
    /// Processor time so far, in microseconds.
    pub cpu_us: u64,
    /// Of how many processors.
    pub cpus: Cpus,
    /// Memory, without what the kernel would give back at once.
    pub memory_bytes: u64,
    /// At most so much.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes received so far by its server.
    pub received_bytes: u64,
    /// Bytes sent so far by its server.
    pub sent_bytes: u64,
    /// Bytes read from disks so far.
    pub read_bytes: u64,
    /// Bytes written to disks so far.
    pub written_bytes: u64,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    pub server: ServerBrief,
    /// What has become of it.
    pub state: ContainerState,
    /// Whether it answers (replicas of services only).
    pub ready: Option<bool>,
    /// Its command line.
    pub command: Vec<String>,
    /// Its user, `USER[:GROUP]`; `None`: the image's.
    pub user: Option<String>,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// What it is kept from, and what is opened to it.
    pub confinement: Confinement,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input may be written to.
    pub stdin: bool,
    /// The OCI runtime that executes it, where that is not Sampan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Whether it is started again.
    pub restart: RestartPolicy,
    /// Whose it is.
    pub owner: Owner,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where the time of its start went; in the answer to a request that started it, and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timing: Vec<TimingStep>,
}

/// A step of a start, and how long it took: the daemon's own, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimingStep {
    /// What was done. Which steps there are changes with how a start is done.
    pub step: String,
    /// In microseconds.
    pub us: u64,
}

/// The server under a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerBrief {
    /// Its name: its own, or that of its only container.
    pub name: String,
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory_bytes: ByteSize,
    /// Its address, while it has one.
    pub address: Option<Ipv4Addr>,
}

/// A server to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCreate {
    /// Its name.
    pub name: Label,
    /// Its size.
    #[serde(default)]
    pub size: ServerSize,
    /// Bounds what its containers write.
    #[serde(default)]
    pub disk: Option<Disk>,
}

/// A server's new size. What is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerResize {
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Memory.
    pub memory_bytes: Option<ByteSize>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A server that was asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerView {
    /// Always `server`.
    pub kind: String,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: Label,
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory_bytes: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// Bounds what its containers write.
    pub disk: Option<Disk>,
    /// Whether containers may run on it.
    pub status: ServerStatus,
    /// Its address, while it has one.
    pub address: Option<Ipv4Addr>,
    /// The containers on it.
    pub containers: Vec<ContainerView>,
    /// The services on it.
    pub services: Vec<Label>,
    /// Whose it is.
    pub owner: Owner,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A volume to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeCreate {
    /// Its name.
    pub name: Label,
    /// Its labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A volume: a directory that outlives its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeView {
    /// Always `volume`.
    pub kind: String,
    /// Its name.
    pub name: Label,
    /// Where it is; only root comes there.
    pub path: PathBuf,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The names of the containers and services that it is mounted in.
    pub used_by: Vec<String>,
    /// Whose it is.
    pub owner: Owner,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a path in a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileStatus {
    /// Its last name; `.` for the root.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// How long it is.
    pub size_bytes: u64,
    /// Its mode.
    pub mode: u32,
    /// Where it leads, if it is a link.
    pub link_target: Option<String>,
}

/// What a name in a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Other,
}

/// What was removed because nothing used it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pruned {
    /// Names, or digests of what has none.
    pub removed: Vec<String>,
    /// How much space it took.
    pub freed_bytes: u64,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// 0–255; `None` where it is unknown.
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
}

/// A record that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
/// byte 0       0 stdin, 1 stdout, 2 stderr, 3 control (0 and 3 in a [`stream`](crate::stream) only)
/// bytes 1–3    zero
/// bytes 4–7    length of the payload, big-endian, at most 65,536
/// bytes 8–15   when it was written, in nanoseconds since 1970, big-endian, signed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFrame {
    /// 0 stdin, 1 stdout, 2 stderr, 3 control.
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
    /// From the logger: that was all that was written. A stream of its frames that ends without it was cut short.
    pub const END: Self = Self { stream: 3, length: 0, at_ns: 0 };

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
        let [stream @ 0..=3, 0, 0, 0, l0, l1, l2, l3, at @ ..] = bytes else { return None };
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
        assert_eq!(LogFrame::decode([4; 16]), None);
    }
}
