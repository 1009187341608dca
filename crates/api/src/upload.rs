//! Blobs on their way in: as they come, never held in memory, visible when they are verified and durable.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use sampan_container::Images;
use sampan_model::Digest;
use sampan_store::BlobError;
use tokio::sync::mpsc;

use crate::ApiError;
use crate::error::no_space;

/// The longest blob.
const LONGEST_BLOB: u64 = 64 << 30;
/// How long the other side may take for the next piece.
const STALL: Duration = Duration::from_secs(60);
/// Chunks between the socket and the disk.
const CHUNKS: usize = 16;

/// Takes a blob in. One that is here already is not read.
pub(crate) async fn receive(images: &Images, digest: Digest, body: Body) -> Result<(), ApiError> {
    images.expect_upload(&digest);
    let received = take_in(images, digest.clone(), body).await;
    if received.is_err() {
        images.expect_no_more(&digest);
    }
    received
}

async fn take_in(images: &Images, digest: Digest, body: Body) -> Result<(), ApiError> {
    let blobs = Arc::clone(images.blobs());
    let (sender, mut chunks) = mpsc::channel::<bytes::Bytes>(CHUNKS);
    let expected = digest.clone();
    let write = tokio::task::spawn_blocking(move || {
        let mut writer = blobs.writer()?;
        let mut length = 0;
        while let Some(chunk) = chunks.blocking_recv() {
            length += chunk.len() as u64;
            writer.write_all(&chunk).map_err(|error| writer.failed(error))?;
        }
        // an upload that broke off ends here too: its digest is then another one
        writer.commit(&expected).map(|()| length)
    });
    let mut stream = body.into_data_stream();
    let mut received: u64 = 0;
    let mut broken = None;
    loop {
        let Ok(chunk) = tokio::time::timeout(STALL, stream.next()).await else {
            broken =
                Some(ApiError::bad_request(format!("the upload of {digest} did not go on for {} s", STALL.as_secs())));
            break;
        };
        let Some(chunk) = chunk else { break };
        match chunk {
            Ok(chunk) => {
                received += chunk.len() as u64;
                if received > LONGEST_BLOB {
                    let message = format!("the blob {digest} is longer than {LONGEST_BLOB} bytes");
                    broken = Some(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message, None));
                    break;
                }
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broken = Some(ApiError::bad_request(format!("the upload of {digest} broke off: {error}")));
                break;
            }
        }
    }
    drop(sender);
    let written = write.await.map_err(|_| ApiError::stopping())?;
    match (broken, written) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => {
            sampan_container::failpoint::reach("blob_committed");
            Ok(())
        }
        (None, Err(error)) => Err(refused(&digest, &error)),
    }
}

fn refused(digest: &Digest, error: &BlobError) -> ApiError {
    match error {
        BlobError::NoSpace { .. } => no_space(format!("the blob {digest} could not be stored: {error}")),
        BlobError::DigestMismatch { .. } => {
            ApiError::new(StatusCode::BAD_REQUEST, "digest_mismatch", error.to_string(), Some("upload it again"))
        }
        other => {
            let cause = std::error::Error::source(other).map_or(String::new(), |cause| format!(": {cause}"));
            let message = format!("the blob {digest} could not be stored: {other}{cause}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, None)
        }
    }
}
