//! The table of all requests, and how each is parsed into an action.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use sampan_container::LogRange;
use sampan_model::view::{
    Change, ContainerCreate, ContainerUpdate, ContainerView, DaemonView, Deploy, DeployEvent, ExecCreate, ExecView,
    Exit, FileStatus, FsckView, ImageDetails, ImageTag, ImageView, ProcessRow, PruneView, Pruned, ServerCreate,
    ServerResize, ServerView, ServiceView, Stats, VolumeCreate, VolumeView,
};
use sampan_model::{Digest, ImageName, Label, ServiceSpec};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::endpoint::{Answer, Endpoint, delete, get, head, post, put};
use super::stream::{self, AttachQuery};
use super::{Native, files, operations, servers, volumes, write};
use crate::action::{Force, Repair, Start, Unused};
use crate::{Action, ApiError, Caller, core, download, metrics, openapi, upload};

/// The router: every request of the table, and no other.
pub(super) fn router() -> Router<Native> {
    table().into_iter().fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.handler))
}

/// Every request there is: what the router serves and what the page lists.
#[rustfmt::skip]
pub(crate) fn table() -> Vec<Endpoint> {
    const LOG: &str = "application/vnd.sampan.log";
    const STREAM: &str = "the connection is a stream of frames both ways (`Upgrade: sampan-stream`)";
    vec![
        get("/v1/daemon", "How the daemon is", Answer::json::<DaemonView>(), |a, c| perform(a, c, Ok(Action::ShowDaemon))),
        post("/v1/daemon/stop", "End every container and the daemon; the records stay", Answer::begun(), |a, c| perform(a, c, Ok(Action::StopDaemon))),
        post("/v1/daemon/restart", "Replace the daemon's process; apps run on", Answer::begun(), |a, c| perform(a, c, Ok(Action::RestartDaemon))),
        post("/v1/purge", "End everything and remove every record, image and log", Answer::begun(), |a, c| perform(a, c, Ok(Action::Purge))),

        head("/v1/blobs/{digest}", "Whether a blob is here", Answer::bare(200, "it is here"), has_blob).refuses(&["not_found"]),
        get("/v1/blobs/{digest}", "A blob", Answer::bytes("application/octet-stream"), get_blob).refuses(&["not_found"]),
        put("/v1/blobs/{digest}", "Store a blob; it is verified and durable when this answers", Answer::bare(201, "it is stored"), put_blob)
            .bytes("application/octet-stream").refuses(&["digest_mismatch"]),

        get("/v1/images", "All images", Answer::json::<Vec<ImageView>>(), |a, c| perform(a, c, Ok(Action::ListImages))),
        get("/v1/images/{*name}", "One image", Answer::json::<ImageDetails>(), show_image).refuses(&["not_found", "bad_image", "blob_missing"]),
        put("/v1/images/{*name}", "Name a manifest whose blobs are all here", Answer::json::<ImageView>(), name_image)
            .body::<ImageTag>().refuses(&["blob_missing", "bad_image"]),
        delete("/v1/images/{*name}", "Take an image's name away", Answer::done(), forget_image)
            .query::<ForgetQuery>().refuses(&["not_found", "in_use"]),
        post("/v1/images/prune", "Remove what no image needs", Answer::json::<PruneView>(), prune_images).query::<PruneQuery>(),
        post("/v1/images/fsck", "Read every image, and say what is wrong with any", Answer::json::<FsckView>(), examine_images)
            .query::<FsckQuery>(),

        get("/v1/services", "All services", Answer::json::<Vec<ServiceView>>(), |a, c| perform(a, c, Ok(Action::ListServices))),
        get("/v1/services/{name}", "One service", Answer::json::<ServiceView>(), show_service).refuses(&["not_found"]),
        put("/v1/services/{name}", "Intend a service; the deploy that begins is answered", Answer::json::<Deploy>(), put_service)
            .body::<ServiceSpec>().refuses(&["not_found", "name_taken", "removing", "too_large", "too_small", "bad_image", "blob_missing"]),
        delete("/v1/services/{name}", "Remove a service; answers when nothing of it is left", Answer::done(), remove_service).refuses(&["not_found"]),
        get("/v1/services/{name}/deploys/{version}", "Follow a deploy until it has ended; where it is now comes first", Answer::lines::<DeployEvent>(), follow_deploy)
            .refuses(&["not_found"]),
        delete("/v1/services/{name}/deploys/{version}", "Give a deploy up: back to the version before, or to no service", Answer::done(), cancel_deploy)
            .refuses(&["not_found"]),

        get("/v1/containers", "All containers", Answer::json::<Vec<ContainerView>>(), |a, c| perform(a, c, Ok(Action::ListContainers))),
        post("/v1/containers", "Create a container, and start it", Answer::json::<ContainerView>(), run)
            .query::<RunQuery>().body::<ContainerCreate>().refuses(&["not_found", "name_taken", "too_large", "too_small", "no_server_left", "server_stopped", "no_shared_disk", "start_failed", "not_found_executable", "not_executable", "bad_image", "blob_missing"]),
        post("/v1/containers/attached", "Create a container, attach to it and start it; the first frame is its view", Answer::bare(101, STREAM), stream::run)
            .body::<ContainerCreate>().refuses(&["not_found", "name_taken", "too_large", "too_small", "no_server_left", "bad_image", "blob_missing"]),
        get("/v1/containers/{id}", "One container", Answer::json::<ContainerView>(), show_container).refuses(&["not_found", "ambiguous"]),
        delete("/v1/containers/{id}", "Remove a container", Answer::done(), remove_container)
            .query::<RemoveQuery>().refuses(&["not_found", "ambiguous", "running", "in_use"]),
        post("/v1/containers/{id}/stop", "End a container; answers when it has ended", Answer::done(), stop_container)
            .query::<StopQuery>().refuses(&["not_found", "ambiguous", "in_use"]),
        post("/v1/containers/{id}/start", "Start a container that does not run", Answer::json::<ContainerView>(), operations::start)
            .refuses(&["not_found", "ambiguous", "in_use", "running", "server_stopped", "start_failed", "not_found_executable", "not_executable", "port_taken"]),
        post("/v1/containers/{id}/restart", "Stop a container, where it runs, and start it", Answer::json::<ContainerView>(), operations::restart)
            .query::<StopQuery>().refuses(&["not_found", "ambiguous", "in_use", "server_stopped", "start_failed", "not_found_executable", "not_executable", "port_taken"]),
        post("/v1/containers/{id}/kill", "Send a signal to a container's first process; a paused one goes on", Answer::done(), operations::kill)
            .query::<operations::KillQuery>().refuses(&["not_found", "ambiguous", "not_running"]),
        post("/v1/containers/{id}/pause", "Bring a container's processes to a halt", Answer::done(), operations::pause)
            .refuses(&["not_found", "ambiguous", "not_running", "paused"]),
        post("/v1/containers/{id}/unpause", "Let a paused container go on", Answer::done(), operations::unpause)
            .refuses(&["not_found", "ambiguous", "not_paused"]),
        post("/v1/containers/{id}/rename", "Give a container another name", Answer::json::<ContainerView>(), operations::rename)
            .query::<operations::RenameQuery>().refuses(&["not_found", "ambiguous", "in_use", "name_taken"]),
        post("/v1/containers/{id}/update", "Change a container while it is there", Answer::json::<ContainerView>(), operations::update)
            .body::<ContainerUpdate>().refuses(&["not_found", "ambiguous", "in_use", "too_large", "too_small", "shared_size"]),
        get("/v1/containers/{id}/top", "A running container's processes", Answer::json::<Vec<ProcessRow>>(), operations::top)
            .refuses(&["not_found", "ambiguous", "not_running"]),
        get("/v1/containers/{id}/stats", "What a running container uses now", Answer::json::<Stats>(), operations::stats)
            .refuses(&["not_found", "ambiguous", "not_running"]),
        post("/v1/containers/{id}/wait", "Wait until a container has ended", Answer::json::<Exit>(), wait_container).refuses(&["not_found", "ambiguous"]),
        post("/v1/containers/{id}/attach", "What a container writes from now on, and what is written to it", Answer::bare(101, STREAM), stream::attach)
            .query::<AttachQuery>().refuses(&["not_found", "ambiguous", "not_running", "in_use", "streams_lost"]),
        post("/v1/containers/{id}/exec", "Start one more process in a container; with `detach` it is only told: 200 and its pid", Answer::bare(101, STREAM), stream::exec)
            .or(Answer::json::<ExecView>()).body::<ExecCreate>().refuses(&["not_found", "ambiguous", "not_running", "paused", "start_failed", "not_found_executable", "not_executable"]),
        get("/v1/containers/{id}/logs", "A container's log, in frames of 16 bytes and a payload", Answer::bytes(LOG), read_log)
            .query::<LogQuery>().refuses(&["not_found", "ambiguous"]),

        get("/v1/servers", "All servers with names", Answer::json::<Vec<ServerView>>(), servers::list),
        post("/v1/servers", "Make a server; answers when containers may run on it", Answer::json::<ServerView>(), servers::create)
            .body::<ServerCreate>().refuses(&["name_taken", "too_large", "too_small", "no_server_left", "no_quota"]),
        get("/v1/servers/{name}", "One server, with what is on it", Answer::json::<ServerView>(), servers::show).refuses(&["not_found"]),
        post("/v1/servers/{name}/start", "Start a server and the containers that ran on it", Answer::json::<ServerView>(), servers::start).refuses(&["not_found"]),
        post("/v1/servers/{name}/stop", "Stop a server and everything on it", Answer::json::<ServerView>(), servers::stop)
            .query::<StopQuery>().refuses(&["not_found"]),
        post("/v1/servers/{name}/resize", "Give a server another size, while it runs too", Answer::json::<ServerView>(), servers::resize)
            .body::<ServerResize>().refuses(&["not_found", "in_use", "too_large", "too_small"]),
        delete("/v1/servers/{name}", "Remove a server with everything on it; answers when nothing of it is left", Answer::done(), servers::close).refuses(&["not_found"]),

        get("/v1/containers/{id}/files", "A path of a container as a tar archive, under its own last name", Answer::bytes(files::TAR), files::read)
            .query::<files::ReadQuery>().refuses(&["not_found", "ambiguous", "cannot_copy"]),
        get("/v1/containers/{id}/files/status", "What a path of a container is", Answer::json::<FileStatus>(), files::status)
            .query::<files::ReadQuery>().refuses(&["not_found", "ambiguous", "cannot_copy"]),
        put("/v1/containers/{id}/files", "Unpack a tar archive in a directory of a container", Answer::done(), files::write)
            .query::<files::WriteQuery>().bytes(files::TAR).refuses(&["not_found", "ambiguous", "cannot_copy"]),

        get("/v1/volumes", "All volumes", Answer::json::<Vec<VolumeView>>(), volumes::list),
        post("/v1/volumes", "Make a volume; one of that name that is the caller's already is answered as it is", Answer::json::<VolumeView>(), volumes::create)
            .body::<VolumeCreate>().refuses(&["name_taken"]),
        post("/v1/volumes/prune", "Remove every volume that nothing uses", Answer::json::<Pruned>(), volumes::prune),
        get("/v1/volumes/{name}", "One volume", Answer::json::<VolumeView>(), volumes::show).refuses(&["not_found"]),
        delete("/v1/volumes/{name}", "Remove a volume and what is in it", Answer::done(), volumes::remove).refuses(&["not_found", "in_use"]),

        get("/v1/inspect/{name}", "What a name means: an array of objects, each with its `kind`", Answer::json::<Vec<Object>>(), inspect)
            .refuses(&["not_found", "ambiguous"]),
        get("/v1/events", "The records' changes after a revision, without end", Answer::lines::<Change>(), follow_records)
            .query::<EventsQuery>().refuses(&["revision_too_old"]),
        get("/metrics", "What the daemon has counted and measured, in Prometheus's text format", Answer::bytes(metrics::MEDIA_TYPE), |a, c| perform(a, c, Ok(Action::ShowMetrics))),
        get("/openapi.json", "This page", Answer::json::<serde_json::Value>(), || async { ([(header::CONTENT_TYPE, "application/json")], openapi::PAGE.as_str()) }),
    ]
}

/// What `inspect` shows, by its `kind`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "it is only described: what is shown was made JSON before")]
enum Object {
    Service(ServiceView),
    Server(ServerView),
    Container(ContainerView),
    Volume(VolumeView),
    Image(ImageDetails),
}

pub(super) type Asked = State<Native>;
pub(super) type By = Extension<Caller>;

pub(super) async fn perform(State(native): Asked, Extension(caller): By, action: Result<Action, ApiError>) -> Response {
    write::outcome(match action {
        Ok(action) => native.core.perform(&caller, action).await,
        Err(error) => Err(error),
    })
}

pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}

pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body is not as it should be: {error}")))
}

async fn show_image(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<ImageName>(&name).map(Action::ShowImage)).await
}

async fn name_image(asked: Asked, by: By, Path(name): Path<String>, body: Bytes) -> Response {
    let action = parse::<ImageName>(&name)
        .and_then(|name| json::<ImageTag>(&body).map(|tag| Action::NameImage(name, tag.manifest)));
    perform(asked, by, action).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForgetQuery {
    /// Also where something uses the image, which goes on to.
    #[serde(default)]
    force: bool,
}

async fn forget_image(asked: Asked, by: By, Path(name): Path<String>, query: Query<ForgetQuery>) -> Response {
    let force = if query.force { Force::Yes } else { Force::No };
    perform(asked, by, parse::<ImageName>(&name).map(|name| Action::ForgetImage(name, force))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PruneQuery {
    /// Also the images that no container and no service has.
    #[serde(default)]
    all: bool,
}

async fn prune_images(asked: Asked, by: By, query: Query<PruneQuery>) -> Response {
    let unused = if query.all { Unused::Removed } else { Unused::Kept };
    perform(asked, by, Ok(Action::PruneImages(unused))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FsckQuery {
    /// Mend what can be.
    #[serde(default)]
    repair: bool,
}

async fn examine_images(asked: Asked, by: By, query: Query<FsckQuery>) -> Response {
    let repair = if query.repair { Repair::Yes } else { Repair::No };
    perform(asked, by, Ok(Action::ExamineImages(repair))).await
}

async fn show_service(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<Label>(&name).map(Action::ShowService)).await
}

async fn put_service(asked: Asked, by: By, Path(name): Path<String>, body: Bytes) -> Response {
    let action = parse::<Label>(&name).and_then(|name| {
        let spec: ServiceSpec = json(&body)?;
        if spec.name == name {
            Ok(Action::PutService(Box::new(spec)))
        } else {
            Err(ApiError::bad_request(format!("the path names {name:?}, the spec {:?}", spec.name)))
        }
    });
    perform(asked, by, action).await
}

async fn remove_service(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<Label>(&name).map(Action::RemoveService)).await
}

async fn follow_deploy(asked: Asked, by: By, Path((name, version)): Path<(String, String)>) -> Response {
    perform(asked, by, deploy(&name, &version).map(|(name, version)| Action::FollowDeploy(name, version))).await
}

async fn cancel_deploy(asked: Asked, by: By, Path((name, version)): Path<(String, String)>) -> Response {
    perform(asked, by, deploy(&name, &version).map(|(name, version)| Action::CancelDeploy(name, version))).await
}

fn deploy(name: &str, version: &str) -> Result<(Label, u64), ApiError> {
    Ok((parse(name)?, parse(version)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RunQuery {
    /// Whether it is started; it is where nothing is said.
    start: Option<bool>,
}

async fn run(asked: Asked, by: By, query: Query<RunQuery>, body: Bytes) -> Response {
    let start = if query.start == Some(false) { Start::Later } else { Start::Now };
    perform(asked, by, json::<ContainerCreate>(&body).map(|asked| Action::Run(Box::new(asked), start))).await
}

async fn show_container(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    perform(asked, by, Ok(Action::ShowContainer(id))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// Kill it first where it runs.
    #[serde(default)]
    force: bool,
}

async fn remove_container(asked: Asked, by: By, Path(id): Path<String>, query: Query<RemoveQuery>) -> Response {
    let force = if query.force { Force::Yes } else { Force::No };
    perform(asked, by, Ok(Action::RemoveContainer(id, force))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopQuery {
    /// How long it may take by itself until it is killed; 10,000 where it is not said.
    pub(super) timeout_ms: Option<u64>,
}

async fn stop_container(asked: Asked, by: By, Path(id): Path<String>, query: Query<StopQuery>) -> Response {
    let grace = query.timeout_ms.map_or(core::GRACE, Duration::from_millis);
    perform(asked, by, Ok(Action::StopContainer(id, grace))).await
}

async fn wait_container(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    perform(asked, by, Ok(Action::WaitContainer(id))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Go on until the container has ended.
    #[serde(default)]
    follow: bool,
    /// Only so many last lines of what is there.
    tail: Option<usize>,
    /// Only what was written then or later.
    since: Option<Timestamp>,
    /// Only what was written before; a log that is followed ends there.
    until: Option<Timestamp>,
}

async fn read_log(asked: Asked, by: By, Path(id): Path<String>, query: Query<LogQuery>) -> Response {
    let Query(LogQuery { follow, tail, since, until }) = query;
    let range = LogRange { follow, tail, since, until };
    perform(asked, by, Ok(Action::ReadLog(id, range))).await
}

async fn inspect(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, Ok(Action::Inspect(name))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// The revision after which the changes are told.
    #[serde(default)]
    from: u64,
}

async fn follow_records(asked: Asked, by: By, query: Query<EventsQuery>) -> Response {
    perform(asked, by, Ok(Action::FollowRecords(query.from))).await
}

async fn has_blob(State(native): Asked, Extension(caller): By, Path(digest): Path<String>) -> StatusCode {
    let Ok(digest) = Digest::parse(&digest) else { return StatusCode::NOT_FOUND };
    let images = native.core.containers.images().of(&caller.owner());
    // it may have to wait for garbage to be collected
    match tokio::task::spawn_blocking(move || images.has_for_upload(&digest)).await {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn get_blob(State(native): Asked, Extension(caller): By, Path(digest): Path<String>) -> Response {
    let sent = match parse::<Digest>(&digest) {
        Ok(digest) => download::send(&native.core.containers.images().of(&caller.owner()), digest).await,
        Err(error) => Err(error),
    };
    sent.unwrap_or_else(|refused| write::error(&refused))
}

async fn put_blob(State(native): Asked, Extension(caller): By, Path(digest): Path<String>, body: Body) -> Response {
    let received = match parse::<Digest>(&digest) {
        Ok(digest) => upload::receive(&native.core.containers.images().of(&caller.owner()), digest, body).await,
        Err(error) => Err(error),
    };
    match received {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(refused) => write::error(&refused),
    }
}
