//! Images → an archive that other programs read: an OCI image layout in a tar, or what `docker load` takes.
//!
//! ```text
//! blobs/sha256/HEX   every blob once, as it is kept: the image's digest is the same here, there and in the archive
//! index.json         the manifests, with their names as annotations
//! oci-layout         Oci only: {"imageLayoutVersion":"1.0.0"}
//! manifest.json      Docker only: configs and layers by their paths here, with their names
//! repositories       Docker only: NAME → TAG → the topmost layer
//! ```
//!
//! The one difference that is not in Docker's own words: its archives here lack `oci-layout`. A Docker on containerd
//! that finds one takes the names in `index.json` as they are, and so stores `hello:latest` where `docker run hello`
//! never looks; without it, it takes those of `manifest.json` and completes them as it does any name. Every other
//! reader decides by `index.json` or `manifest.json`.
//!
//! Nothing in an archive tells when or where it was written: same images and names, same bytes.
//!
//! Source: image-spec 1.1 `image-layout.md`, `annotations.md`; Docker's `docker save` (API 1.44).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use ::tar::EntryType;
use sampan_model::{Digest, ImageName};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::format::{self, IndexEntry, IndexJson, PlatformJson};
use crate::write::{to_json, ustar};
use crate::{BlobSource, Image, Manifest};

pub(crate) const LAYOUT: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
pub(crate) const DOCKER: &str = "manifest.json";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

const BLOCK: u64 = 512;
/// The largest size that a header says: 11 octal digits.
const LARGEST: u64 = 0o777_7777_7777;

/// Which archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI image layout.
    Oci,
    /// What `docker save` writes.
    Docker,
}

/// An image in an archive, by the names it has there.
#[derive(Debug)]
pub struct SavedImage {
    /// Its manifest.
    pub manifest: Manifest,
    /// The image.
    pub image: Image,
    /// Its names; none is fine.
    pub names: Vec<ImageName>,
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A blob cannot be read.
    #[error("read the blob {0}")]
    Read(Digest, #[source] io::Error),
    /// A blob is not what its digest says.
    #[error("the blob {0} is damaged: `sampan image fsck` says what else is")]
    Damaged(Digest),
    /// A blob is larger than a tar can say.
    #[error("the blob {0} has {1} bytes, more than a tar archive can hold in one file")]
    TooLarge(Digest, u64),
    /// The archive cannot be written.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// Writes one archive: blobs first, in any order, then what names them.
pub struct ArchiveWriter<W> {
    out: W,
    written: BTreeSet<Digest>,
}

/// A blob that is being written; its bytes come as they come.
pub struct BlobInArchive<'a, W> {
    archive: &'a mut ArchiveWriter<W>,
    digest: Digest,
    size: u64,
    hash: Sha256,
    left: u64,
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts an archive. Small pieces are written: a file wants an [`io::BufWriter`] around it.
    pub fn new(out: W) -> Self {
        Self { out, written: BTreeSet::new() }
    }

    /// Whether the blob is in the archive already.
    pub fn has(&self, digest: &Digest) -> bool {
        self.written.contains(digest)
    }

    /// Starts a blob of `size` bytes, which is not in the archive yet.
    ///
    /// # Errors
    /// It is too large, or the archive cannot be written.
    pub fn blob(&mut self, digest: &Digest, size: u64) -> Result<BlobInArchive<'_, W>, SaveError> {
        if size > LARGEST {
            return Err(SaveError::TooLarge(digest.clone(), size));
        }
        if self.written.is_empty() {
            self.directory("blobs/")?;
            self.directory("blobs/sha256/")?;
        }
        self.header(&path(digest), size)?;
        Ok(BlobInArchive { archive: self, digest: digest.clone(), size, hash: Sha256::new(), left: size })
    }

    /// Writes all blobs of an image that are not in the archive yet.
    ///
    /// # Errors
    /// One of them cannot be read or is damaged, or the archive cannot be written.
    pub fn image(&mut self, blobs: &dyn BlobSource, saved: &SavedImage) -> Result<(), SaveError> {
        for (digest, size) in saved.manifest.blobs() {
            if self.has(digest) {
                continue;
            }
            let unreadable = |error| SaveError::Read(digest.clone(), io::Error::other(error));
            let mut file = blobs.open_blob(digest).map_err(unreadable)?;
            let mut blob = self.blob(digest, size)?;
            let mut buffer = vec![0; 128 << 10];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => blob.write(&buffer[..read])?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(SaveError::Read(digest.clone(), error)),
                }
            }
            blob.finish()?;
        }
        Ok(())
    }

    /// Writes what names the images, whose blobs are all in the archive, and ends it.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn finish(mut self, kind: ArchiveKind, images: &[SavedImage]) -> Result<W, SaveError> {
        self.file(INDEX, &to_json(&index(images)))?;
        match kind {
            ArchiveKind::Oci => self.file(LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?,
            ArchiveKind::Docker => {
                self.file(DOCKER, &to_json(&docker_manifest(images)))?;
                let repositories = repositories(images);
                if !repositories.is_empty() {
                    self.file("repositories", &to_json(&repositories))?;
                }
            }
        }
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(SaveError::Write)?;
        Ok(self.out)
    }

    fn directory(&mut self, name: &str) -> Result<(), SaveError> {
        let header = ustar(name.as_bytes(), EntryType::Directory, 0o755, 0, &[]);
        self.write(header.as_bytes())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        self.header(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn header(&mut self, name: &str, size: u64) -> Result<(), SaveError> {
        let header = ustar(name.as_bytes(), EntryType::Regular, 0o644, size, &[]);
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), SaveError> {
        let over = (size % BLOCK) as usize;
        if over == 0 { Ok(()) } else { self.write(&[0; BLOCK as usize][over..]) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        self.out.write_all(bytes).map_err(SaveError::Write)
    }
}

impl<W: Write> BlobInArchive<'_, W> {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// They are more than the blob has, or the archive cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| SaveError::Damaged(self.digest.clone()))?;
        self.hash.update(bytes);
        self.archive.write(bytes)
    }

    /// Ends the blob.
    ///
    /// # Errors
    /// It is not what its digest says, or the archive cannot be written.
    pub fn finish(self) -> Result<(), SaveError> {
        let Self { archive, digest, size, hash, left } = self;
        if left > 0 || Digest::from_sha256(hash.finalize().into()) != digest {
            return Err(SaveError::Damaged(digest));
        }
        archive.pad(size)?;
        archive.written.insert(digest);
        Ok(())
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// One entry a name: that is how readers find an image by it.
fn index(images: &[SavedImage]) -> IndexJson {
    let entry = |saved: &SavedImage, annotations| IndexEntry {
        media_type: saved.manifest.media_type().to_owned(),
        digest: saved.image.manifest.clone(),
        size: saved.manifest.blobs().next().map_or(0, |(_, size)| size),
        annotations,
        platform: Some(PlatformJson {
            architecture: saved.image.config.architecture.clone(),
            os: saved.image.config.os.clone(),
            variant: None,
        }),
    };
    let named = |name: &ImageName| {
        let (_, tag) = name.as_str().rsplit_once(':').unwrap_or((name.as_str(), "latest"));
        BTreeMap::from([(IMAGE_NAME.to_owned(), name.to_string()), (REF_NAME.to_owned(), tag.to_owned())])
    };
    let entries = images.iter().flat_map(|saved| match saved.names.as_slice() {
        [] => vec![entry(saved, BTreeMap::new())],
        names => names.iter().map(|name| entry(saved, named(name))).collect(),
    });
    IndexJson { schema_version: 2, media_type: Some(format::INDEX.to_owned()), manifests: entries.collect() }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage<'a> {
    config: String,
    repo_tags: &'a [ImageName],
    layers: Vec<String>,
}

fn docker_manifest(images: &[SavedImage]) -> Vec<DockerImage<'_>> {
    images
        .iter()
        .map(|saved| DockerImage {
            config: path(&saved.image.config_digest),
            repo_tags: &saved.names,
            layers: saved.image.layers.iter().map(|layer| path(&layer.digest)).collect(),
        })
        .collect()
}

fn repositories(images: &[SavedImage]) -> BTreeMap<&str, BTreeMap<&str, &str>> {
    let mut repositories: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for saved in images {
        let Some(top) = saved.image.layers.last() else { continue };
        for name in &saved.names {
            if let Some((repository, tag)) = name.as_str().rsplit_once(':') {
                repositories.entry(repository).or_default().insert(tag, top.digest.hex());
            }
        }
    }
    repositories
}

#[cfg(test)]
pub(crate) mod tests;
