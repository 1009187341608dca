//! Requests about files of containers: tar archives in and out, in pieces.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use sampan_model::view::FileStatus;

use crate::connection::{Call, segment};
use crate::stream::Pieces;
use crate::{Client, ClientError};

/// A tar archive on its way out of a container.
///
/// Dropping it closes the connection. One that breaks off ends with an error, never as if it were whole.
pub struct FileStream {
    pieces: Pieces,
}

impl FileStream {
    /// The next piece; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        std::future::poll_fn(|context| self.pieces.poll(context)).await
    }
}

impl Client {
    /// What a path in a container is; with `follow`, what it leads to where it is a link:
    /// `GET /v1/containers/{id}/files/status`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn file_status(&self, container: &str, path: &str, follow: bool) -> Result<FileStatus, ClientError> {
        self.fetch(format!("{}/status?path={}&follow={follow}", files(container), segment(path))).await
    }

    /// A path of a container as a tar archive, under its own last name: `GET /v1/containers/{id}/files`.
    ///
    /// # Errors
    /// `not_found`, `cannot_copy` as [`ClientError::Api`].
    pub async fn read_files(&self, container: &str, path: &str, follow: bool) -> Result<FileStream, ClientError> {
        let path = format!("{}?path={}&follow={follow}", files(container), segment(path));
        let answer = self.ask_again(&Call::new(Method::GET, path), async |answer| Ok(answer)).await?;
        Ok(FileStream { pieces: Pieces::new(answer) })
    }

    /// Unpacks a tar archive in a directory of a container: `PUT /v1/containers/{id}/files`.
    ///
    /// # Errors
    /// `not_found`, `cannot_copy` as [`ClientError::Api`]. Never made again: an archive is sent once.
    pub async fn write_files(
        &self,
        container: &str,
        directory: &str,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<(), ClientError> {
        let path = format!("{}?path={}", files(container), segment(directory));
        let body = StreamBody::new(archive.map_ok(Frame::data)).boxed();
        self.ask(&Call::new(Method::PUT, path).with_stream(body)).await?.finish().await
    }
}

fn files(container: &str) -> String {
    format!("/v1/containers/{}/files", segment(container))
}
