//! Files of containers: tar archives in and out, in pieces.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use sampan_container::ContainerRecord;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::places::Place;
use super::routes::{Asked, By};
use super::write;
use crate::ApiError;

/// The media type of a tar archive.
pub(super) const TAR: &str = "application/x-tar";
/// Pieces between the socket and the container.
const PIECES: usize = 8;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    /// An absolute path in the container.
    path: PathBuf,
    /// Where it is a link, what it leads to is meant.
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WriteQuery {
    /// An absolute path of a directory in the container.
    path: PathBuf,
}

fn find(State(native): &Asked, by: &By, name: &str) -> Result<Arc<ContainerRecord>, ApiError> {
    Ok(native.core.containers.find_of(&by.owner(), name)?)
}

pub(super) async fn status(asked: Asked, by: By, Path(name): Path<String>, query: Query<ReadQuery>) -> Response {
    let Query(ReadQuery { path, follow }) = query;
    let answered = async {
        let record = find(&asked, &by, &name)?;
        Ok::<_, ApiError>(asked.core.containers.file_status(&record.id, path, follow).await?)
    };
    match answered.await {
        Ok(status) => Json(status).into_response(),
        Err(refused) => write::error(&refused),
    }
}

pub(super) async fn read(
    asked: Asked,
    by: By,
    place: Option<Extension<Place>>,
    Path(name): Path<String>,
    query: Query<ReadQuery>,
) -> Response {
    let Query(ReadQuery { path, follow }) = query;
    let begun = async {
        let record = find(&asked, &by, &name)?;
        Ok::<_, ApiError>(asked.core.containers.read_files(&record.id, path, follow).await?)
    };
    match begun.await {
        Ok(pieces) => {
            // what is not whole breaks the connection off, so that nobody takes it for an archive
            let stream = unfold(Some((pieces, place)), |pieces| async move {
                let (mut pieces, place) = pieces?;
                match pieces.recv().await {
                    Some(Ok(piece)) if piece.is_empty() => None,
                    Some(Ok(piece)) => Some((Ok(piece), Some((pieces, place)))),
                    Some(Err(error)) => Some((Err(error), None)),
                    None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
                }
            });
            ([(header::CONTENT_TYPE, TAR)], Body::from_stream(stream)).into_response()
        }
        Err(refused) => write::error(&refused),
    }
}

pub(super) async fn write(
    asked: Asked,
    by: By,
    Path(name): Path<String>,
    Query(WriteQuery { path }): Query<WriteQuery>,
    body: Body,
) -> Response {
    let (sender, pieces) = mpsc::channel::<io::Result<Vec<u8>>>(PIECES);
    let received = receive(body, sender);
    let unpacked = async {
        let record = find(&asked, &by, &name)?;
        Ok::<_, ApiError>(asked.core.containers.write_files(&record.id, path, pieces).await?)
    };
    // the rest of what cannot be unpacked is heard out: whoever sends it hears the answer only then
    match tokio::join!(received, unpacked) {
        ((), Ok(())) => StatusCode::NO_CONTENT.into_response(),
        ((), Err(refused)) => write::error(&refused),
    }
}

async fn receive(body: Body, sender: mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let is_end = piece.is_err();
        let piece = piece.map(|bytes: Bytes| bytes.to_vec()).map_err(io::Error::other);
        // nobody takes it any more: see above
        let _ = sender.send(piece).await;
        if is_end {
            return;
        }
    }
}
