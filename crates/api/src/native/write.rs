//! Outcomes and errors as HTTP.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{ApiError, Outcome, metrics};

/// What became of an action.
pub(super) fn outcome(result: Result<Outcome, ApiError>) -> Response {
    match result {
        Err(refused) => error(&refused),
        Ok(Outcome::Done) => StatusCode::NO_CONTENT.into_response(),
        Ok(Outcome::Begun) => StatusCode::ACCEPTED.into_response(),
        Ok(Outcome::Daemon(view)) => Json(view).into_response(),
        Ok(Outcome::Metrics(page)) => ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], page).into_response(),
        Ok(Outcome::Image(view)) => Json(view).into_response(),
        Ok(Outcome::ImageDetails(details)) => Json(details).into_response(),
        Ok(Outcome::Pruned(view)) => Json(view).into_response(),
        Ok(Outcome::Examined(view)) => Json(view).into_response(),
        Ok(Outcome::Images(views)) => Json(views).into_response(),
        Ok(Outcome::Deploy(deploy)) => Json(deploy).into_response(),
        Ok(Outcome::Service(view)) => Json(view).into_response(),
        Ok(Outcome::Services(views)) => Json(views).into_response(),
        Ok(Outcome::Container(view)) => Json(view).into_response(),
        Ok(Outcome::Containers(views)) => Json(views).into_response(),
        Ok(Outcome::Volume(view)) => Json(view).into_response(),
        Ok(Outcome::Volumes(views)) => Json(views).into_response(),
        Ok(Outcome::VolumesPruned(pruned)) => Json(pruned).into_response(),
        Ok(Outcome::Server(view)) => Json(view).into_response(),
        Ok(Outcome::Servers(views)) => Json(views).into_response(),
        Ok(Outcome::Processes(rows)) => Json(rows).into_response(),
        Ok(Outcome::Stats(stats)) => Json(stats).into_response(),
        Ok(Outcome::Exit(exit)) => Json(exit).into_response(),
        Ok(Outcome::Objects(objects)) => Json(objects).into_response(),
        Ok(Outcome::DeployEvents(events)) => lines(mapped(events, |event| line(&event))),
        Ok(Outcome::Changes(changes)) => lines(mapped(changes, |change| match change {
            Ok(change) => line(&change),
            Err(refused) => line(&refused.body()),
        })),
        Ok(Outcome::Log(frames)) => {
            let body = Body::from_stream(mapped(frames, |(frame, payload)| {
                let mut bytes = Vec::with_capacity(payload.len() + 16);
                bytes.extend_from_slice(&frame.encode());
                bytes.extend_from_slice(&payload);
                Bytes::from(bytes)
            }));
            ([(header::CONTENT_TYPE, "application/vnd.sampan.log")], body).into_response()
        }
    }
}

/// What could not be done.
pub(super) fn error(error: &ApiError) -> Response {
    (error.status, Json(error.body())).into_response()
}

fn lines(stream: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).expect("views have only text keys");
    text.push(b'\n');
    Bytes::from(text)
}

fn mapped<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
    map: impl Fn(T) -> Bytes + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
    unfold((receiver, map), |(mut receiver, map)| async move {
        let item = receiver.recv().await?;
        let bytes = map(item);
        Some((Ok(bytes), (receiver, map)))
    })
}
