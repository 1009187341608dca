//! Blobs on their way out: as they lie on the disk, never held in memory.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sampan_container::{ContainerError, Images};
use sampan_model::Digest;
use sampan_store::BlobError;
use tokio_util::io::ReaderStream;

use crate::ApiError;

/// How much is read at once.
const PIECE: usize = 128 << 10;

/// A blob as an answer, as far as it is the viewer's to read. Removed meanwhile, it is sent to its end nevertheless.
pub(crate) async fn send(images: &Images, digest: Digest) -> Result<Response, ApiError> {
    let images = images.clone();
    let opened = tokio::task::spawn_blocking(move || match images.may_read(&digest)? {
        true => Ok((images.blobs().open_blob(&digest)?, images.blobs().size(&digest)?)),
        false => Err(ContainerError::Blob(BlobError::Missing(digest))),
    });
    let (file, size) = match opened.await.map_err(|_| ApiError::stopping())? {
        Ok(opened) => opened,
        Err(ContainerError::Blob(error @ BlobError::Missing(_))) => {
            let hint = "`sampan image ls` lists the images, `sampan image inspect NAME` their blobs";
            return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", error.to_string(), Some(hint)));
        }
        Err(error) => return Err(error.into()),
    };
    let body = Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE));
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
    Ok((headers, body).into_response())
}
