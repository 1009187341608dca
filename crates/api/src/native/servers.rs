//! Requests about servers with names.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use sampan_model::Label;
use sampan_model::view::{ServerCreate, ServerResize};

use super::routes::{Asked, By, StopQuery, json, parse, perform};
use crate::servers::ServerAction;
use crate::{Action, ApiError, core};

async fn act(asked: Asked, by: By, action: Result<ServerAction, ApiError>) -> Response {
    perform(asked, by, action.map(Action::Servers)).await
}

pub(super) async fn list(asked: Asked, by: By) -> Response {
    act(asked, by, Ok(ServerAction::List)).await
}

pub(super) async fn create(asked: Asked, by: By, body: Bytes) -> Response {
    act(asked, by, json::<ServerCreate>(&body).map(ServerAction::Create)).await
}

pub(super) async fn show(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    act(asked, by, parse::<Label>(&name).map(ServerAction::Show)).await
}

pub(super) async fn start(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    act(asked, by, parse::<Label>(&name).map(ServerAction::Start)).await
}

pub(super) async fn stop(asked: Asked, by: By, Path(name): Path<String>, query: Query<StopQuery>) -> Response {
    let grace = query.timeout_ms.map_or(core::GRACE, Duration::from_millis);
    act(asked, by, parse::<Label>(&name).map(|name| ServerAction::Stop(name, grace))).await
}

pub(super) async fn resize(asked: Asked, by: By, Path(name): Path<String>, body: Bytes) -> Response {
    let action = parse::<Label>(&name).and_then(|name| Ok(ServerAction::Resize(name, json::<ServerResize>(&body)?)));
    act(asked, by, action).await
}

pub(super) async fn close(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    act(asked, by, parse::<Label>(&name).map(ServerAction::Close)).await
}
