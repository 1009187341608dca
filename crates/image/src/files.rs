//! Blobs as files of their digests' names in a directory: what `pack` writes, and what an archive was read into.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use sampan_model::Digest;
use sampan_store::BlobError;

use crate::BlobSource;

/// A directory of blobs, each a file of its 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFiles {
    dir: PathBuf,
}

impl BlobFiles {
    /// The blobs in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }
}

impl BlobSource for BlobFiles {
    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| missing_or(digest, path, source))
    }

    fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        let path = self.path(digest);
        fs::metadata(&path).map(|metadata| metadata.len()).map_err(|source| missing_or(digest, path, source))
    }
}

fn missing_or(digest: &Digest, path: PathBuf, source: io::Error) -> BlobError {
    match source.kind() {
        io::ErrorKind::NotFound => BlobError::Missing(digest.clone()),
        _ => BlobError::Io { action: "open", path, source },
    }
}
