//! Requests about volumes.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::Response;
use sampan_model::Label;
use sampan_model::view::VolumeCreate;

use super::routes::{Asked, By, json, parse, perform};
use crate::Action;
use crate::volumes::VolumeAction;

pub(super) async fn list(asked: Asked, by: By) -> Response {
    perform(asked, by, Ok(Action::Volumes(VolumeAction::List))).await
}

pub(super) async fn create(asked: Asked, by: By, body: Bytes) -> Response {
    perform(asked, by, json::<VolumeCreate>(&body).map(|volume| Action::Volumes(VolumeAction::Create(volume)))).await
}

pub(super) async fn show(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<Label>(&name).map(|name| Action::Volumes(VolumeAction::Show(name)))).await
}

pub(super) async fn remove(asked: Asked, by: By, Path(name): Path<String>) -> Response {
    perform(asked, by, parse::<Label>(&name).map(|name| Action::Volumes(VolumeAction::Remove(name)))).await
}

pub(super) async fn prune(asked: Asked, by: By) -> Response {
    perform(asked, by, Ok(Action::Volumes(VolumeAction::Prune))).await
}
