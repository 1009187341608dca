//! Requests about a container that is there.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use sampan_model::ContainerName;
use sampan_model::view::ContainerUpdate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::routes::{Asked, By, StopQuery, json, perform};
use crate::operations::Operation;
use crate::{Action, ApiError, core};

async fn act(asked: Asked, by: By, id: String, operation: Result<Operation, ApiError>) -> Response {
    perform(asked, by, operation.map(|operation| Action::Operate(id, operation))).await
}

pub(super) async fn start(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    act(asked, by, id, Ok(Operation::Start)).await
}

pub(super) async fn restart(asked: Asked, by: By, Path(id): Path<String>, query: Query<StopQuery>) -> Response {
    let grace = query.timeout_ms.map_or(core::GRACE, Duration::from_millis);
    act(asked, by, id, Ok(Operation::Restart(grace))).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KillQuery {
    /// The signal, by name or number; KILL where it is not said.
    signal: Option<String>,
}

pub(super) async fn kill(asked: Asked, by: By, Path(id): Path<String>, query: Query<KillQuery>) -> Response {
    let signal = query.0.signal.unwrap_or_else(|| "KILL".to_owned());
    act(asked, by, id, Ok(Operation::Kill(signal))).await
}

pub(super) async fn pause(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    act(asked, by, id, Ok(Operation::Pause)).await
}

pub(super) async fn unpause(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    act(asked, by, id, Ok(Operation::Unpause)).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameQuery {
    /// The new name.
    name: ContainerName,
}

pub(super) async fn rename(asked: Asked, by: By, Path(id): Path<String>, query: Query<RenameQuery>) -> Response {
    act(asked, by, id, Ok(Operation::Rename(query.0.name))).await
}

pub(super) async fn update(asked: Asked, by: By, Path(id): Path<String>, body: Bytes) -> Response {
    act(asked, by, id, json::<ContainerUpdate>(&body).map(Operation::Update)).await
}

pub(super) async fn top(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    act(asked, by, id, Ok(Operation::Top)).await
}

pub(super) async fn stats(asked: Asked, by: By, Path(id): Path<String>) -> Response {
    act(asked, by, id, Ok(Operation::Stats)).await
}
