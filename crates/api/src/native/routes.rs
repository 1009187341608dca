//! Requests parsed into actions.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use sampan_model::view::{ContainerCreate, ImageTag};
use sampan_model::{Digest, ImageName, Label, ServiceSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Native, write};
use crate::action::{Force, LogRange};
use crate::{Action, ApiError, Caller, core, openapi, upload};

/// The longest body of a request that is not a blob.
const LONGEST_BODY: usize = 1 << 20;

pub(super) fn router() -> Router<Native> {
    Router::new()
        .route("/v1/daemon", get(|a, c| perform(a, c, Ok(Action::ShowDaemon))))
        .route("/v1/daemon/stop", post(|a, c| perform(a, c, Ok(Action::StopDaemon))))
        .route("/v1/daemon/restart", post(|a, c| perform(a, c, Ok(Action::RestartDaemon))))
        .route("/v1/purge", post(|a, c| perform(a, c, Ok(Action::Purge))))
        .route("/v1/images", get(|a, c| perform(a, c, Ok(Action::ListImages))))
        .route("/v1/images/{*name}", get(show_image).put(name_image).delete(forget_image))
        .route("/v1/services", get(|a, c| perform(a, c, Ok(Action::ListServices))))
        .route("/v1/services/{name}", get(show_service).put(put_service).delete(remove_service))
        .route("/v1/services/{name}/deploys/{version}", get(follow_deploy).delete(cancel_deploy))
        .route("/v1/containers", get(|a, c| perform(a, c, Ok(Action::ListContainers))).post(run))
        .route("/v1/containers/{id}", get(show_container).delete(remove_container))
        .route("/v1/containers/{id}/stop", post(stop_container))
        .route("/v1/containers/{id}/wait", post(wait_container))
        .route("/v1/containers/{id}/logs", get(read_log))
        .route("/v1/inspect/{name}", get(inspect))
        .route("/v1/events", get(follow_records))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], openapi::page()) }))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        // blobs have a limit of their own
        .route("/v1/blobs/{digest}", put(put_blob).head(has_blob).layer(DefaultBodyLimit::disable()))
}

type Asked = State<Native>;
type By = Extension<Caller>;

async fn perform(State(native): Asked, Extension(caller): By, action: Result<Action, ApiError>) -> Response {
    write::outcome(match action {
        Ok(action) => native.core.perform(&caller, action).await,
        Err(error) => Err(error),
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}

fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
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

async fn forget_image(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<ImageName>(&name).map(Action::ForgetImage)).await
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

async fn run(asked: Asked, by: By, body: Bytes) -> Response {
    perform(asked, by, json::<ContainerCreate>(&body).map(|asked| Action::Run(Box::new(asked)))).await
}

async fn show_container(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    perform(asked, by, Ok(Action::ShowContainer(id))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

async fn remove_container(asked: Asked, by: By, Path(id): Path<String>, query: Query<RemoveQuery>) -> Response {
    let force = if query.force { Force::Yes } else { Force::No };
    perform(asked, by, Ok(Action::RemoveContainer(id, force))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopQuery {
    timeout_ms: Option<u64>,
}

async fn stop_container(asked: Asked, by: By, Path(id): Path<String>, query: Query<StopQuery>) -> Response {
    let grace = query.timeout_ms.map_or(core::GRACE, Duration::from_millis);
    perform(asked, by, Ok(Action::StopContainer(id, grace))).await
}

async fn wait_container(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    perform(asked, by, Ok(Action::WaitContainer(id))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    follow: bool,
    tail: Option<usize>,
}

async fn read_log(asked: Asked, by: By, Path(id): Path<String>, query: Query<LogQuery>) -> Response {
    let range = LogRange { follow: query.follow, tail: query.tail };
    perform(asked, by, Ok(Action::ReadLog(id, range))).await
}

async fn inspect(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, Ok(Action::Inspect(name))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    from: u64,
}

async fn follow_records(asked: Asked, by: By, query: Query<EventsQuery>) -> Response {
    perform(asked, by, Ok(Action::FollowRecords(query.from))).await
}

async fn has_blob(State(native): Asked, Path(digest): Path<String>) -> StatusCode {
    let Ok(digest) = Digest::parse(&digest) else { return StatusCode::NOT_FOUND };
    let images = native.core.containers.images().clone();
    // it may have to wait for garbage to be collected
    match tokio::task::spawn_blocking(move || images.has_for_upload(&digest)).await {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn put_blob(State(native): Asked, Path(digest): Path<String>, body: Body) -> Response {
    let received = match parse::<Digest>(&digest) {
        Ok(digest) => upload::receive(native.core.containers.images(), digest, body).await,
        Err(error) => Err(error),
    };
    match received {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(refused) => write::error(&refused),
    }
}
