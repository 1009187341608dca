//! Requests about images and the blobs they are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use sampan_model::view::{FsckView, ImageDetails, ImageTag, ImageView, PruneView};
use sampan_model::{Digest, ImageName};
use tokio_util::io::ReaderStream;

use crate::connection::{Answer, Call, RequestBody, segment};
use crate::stream::Pieces;
use crate::{Client, ClientError};

/// How much of a file is read at once.
const PIECE: usize = 128 << 10;

/// A blob in a file, to be sent as often as it takes.
pub(crate) struct Upload {
    path: PathBuf,
    /// Told the length of each piece that goes out, and of what is sent again.
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Upload {
    /// The file as a body, streamed: a blob is never in memory as a whole.
    pub(crate) async fn body(&self) -> Result<RequestBody, ClientError> {
        let file = tokio::fs::File::open(&self.path)
            .await
            .map_err(|source| ClientError::File { path: self.path.clone(), source })?;
        let progress = Arc::clone(&self.progress);
        let pieces = ReaderStream::with_capacity(file, PIECE)
            .inspect_ok(move |piece| progress(piece.len() as u64))
            .map_ok(Frame::data);
        Ok(StreamBody::new(pieces).boxed())
    }
}

impl Client {
    /// Whether the daemon has a blob: `HEAD /v1/blobs/{digest}`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, ClientError> {
        match self.ask_again(&Call::new(Method::HEAD, blob(digest)), Answer::finish).await {
            Ok(()) => Ok(true),
            Err(ClientError::Api { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob that the daemon does not have: `HEAD`, then `PUT /v1/blobs/{digest}`. Returns when it is verified
    /// and durable; whether it had to be sent. `progress` is told of every piece that goes out, in bytes.
    ///
    /// # Errors
    /// `digest_mismatch`, `no_space` as [`ClientError::Api`]; [`ClientError::File`] where the file cannot be opened.
    pub async fn upload_blob(
        &self,
        digest: &Digest,
        file: &Path,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<bool, ClientError> {
        if self.has_blob(digest).await? {
            return Ok(false);
        }
        let upload = Upload { path: file.into(), progress: Arc::new(progress) };
        self.ask_again(&Call::new(Method::PUT, blob(digest)).with_file(upload), Answer::finish).await?;
        Ok(true)
    }

    /// Gives a manifest a name: `PUT /v1/images/{name}`. Its blobs were uploaded before.
    ///
    /// # Errors
    /// `blob_missing` as [`ClientError::Api`].
    pub async fn put_image(&self, name: &ImageName, manifest: &Digest) -> Result<ImageView, ClientError> {
        self.put(image(name), &ImageTag { manifest: manifest.clone() }).await
    }

    /// Every image: `GET /v1/images`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn images(&self) -> Result<Vec<ImageView>, ClientError> {
        self.fetch("/v1/images".into()).await
    }

    /// One image: `GET /v1/images/{name}`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn image(&self, name: &ImageName) -> Result<ImageDetails, ClientError> {
        self.fetch(image(name)).await
    }

    /// Removes a name, and what nothing else needs: `DELETE /v1/images/{name}`.
    ///
    /// # Errors
    /// `in_use`, `not_found` as [`ClientError::Api`].
    pub async fn delete_image(&self, name: &ImageName) -> Result<(), ClientError> {
        self.delete(image(name)).await
    }

    /// Removes a name although a container or a service has the image, which goes on to have it:
    /// `DELETE /v1/images/{name}?force=true`.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn untag_image(&self, name: &ImageName) -> Result<(), ClientError> {
        self.delete(format!("{}?force=true", image(name))).await
    }

    /// A blob, from its beginning to its end: `GET /v1/blobs/{digest}`. Who reads it compares it with its digest.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn blob(&self, digest: &Digest) -> Result<BlobStream, ClientError> {
        let answer = self.ask(&Call::new(Method::GET, blob(digest))).await?;
        Ok(BlobStream { pieces: Pieces::new(answer) })
    }

    /// Removes what no image needs, and with `all` the images that no container and no service has:
    /// `POST /v1/images/prune`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn prune_images(&self, all: bool) -> Result<PruneView, ClientError> {
        let call = Call::new(Method::POST, format!("/v1/images/prune?all={all}"));
        self.ask_again(&call, Answer::json).await
    }

    /// Has every image read and compared with its digests, and with `repair` what can be mended, mended:
    /// `POST /v1/images/fsck`. Takes as long as reading all of them does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn examine_images(&self, repair: bool) -> Result<FsckView, ClientError> {
        let call = Call::new(Method::POST, format!("/v1/images/fsck?repair={repair}"));
        self.ask_again(&call, Answer::json).await
    }
}

/// A blob as it comes.
pub struct BlobStream {
    pieces: Pieces,
}

impl BlobStream {
    /// The next bytes; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<bytes::Bytes, ClientError>> {
        std::future::poll_fn(|context| self.pieces.poll(context)).await
    }
}

fn blob(digest: &Digest) -> String {
    format!("/v1/blobs/{}", segment(digest.as_str()))
}

fn image(name: &ImageName) -> String {
    format!("/v1/images/{}", segment(name.as_str()))
}
