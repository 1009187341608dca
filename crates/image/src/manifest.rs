//! Reading an image: its manifest and config, checked against what is here and what this machine runs.

use std::fs::File;
use std::io::Read as _;

use sampan_model::{ByteSize, Digest};
use sampan_store::{BlobError, Blobs};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::format::{self, ConfigJson, IndexJson, ManifestJson};
use crate::{History, ImageConfig, Layer, LayerMediaType, host_architecture};

/// The largest manifest and the largest config, in bytes (what registries accept).
pub const LARGEST_JSON: u64 = 4 << 20;
/// The most layers: Docker's number, and far below the kernel's 500 under one overlay.
pub const MOST_LAYERS: usize = 127;

/// Where the bytes of images come from.
pub trait BlobSource {
    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`BlobError::Missing`] where it is not there.
    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError>;

    /// A blob's length in bytes.
    ///
    /// # Errors
    /// [`BlobError::Missing`] where it is not there.
    fn size(&self, digest: &Digest) -> Result<u64, BlobError>;
}

impl BlobSource for Blobs {
    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        Blobs::open_blob(self, digest)
    }

    fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        Blobs::size(self, digest)
    }
}

/// An image that is whole and can run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its manifest's digest: the image's.
    pub manifest: Digest,
    /// Its config's digest.
    pub config_digest: Digest,
    /// How it is run.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Config and layers together, in bytes.
    pub size: u64,
    /// When it was made, in RFC 3339, where its config says it; nothing of ours does.
    pub created: Option<String>,
    /// How it was made, the first step first.
    pub history: Vec<History>,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// One of its blobs is not here.
    #[error("blob {0} is not here: upload it before the image is named")]
    BlobMissing(Digest),
    /// One of its blobs cannot be read.
    #[error("read the {what} {digest}")]
    Blob {
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<BlobError>,
    },
    /// A manifest or config is too large.
    #[error("the {what} {digest} has {}; the limit is {}", ByteSize(*.size), ByteSize(LARGEST_JSON))]
    TooLarge {
        /// `manifest` or `config`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A manifest or config is not what its digest or its JSON should be.
    #[error("the {what} {digest} is not a valid one")]
    Malformed {
        /// `manifest` or `config`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest or config was damaged where it is kept.
    #[error("the {what} {digest} is damaged on the disk: remove the image and make or pull it again")]
    Damaged {
        /// `manifest` or `config`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// It is a list of images of several platforms.
    #[error("{0} is an index of images for several platforms: name the manifest of one of them")]
    Index(Digest),
    /// Some part is of a kind that is not known here.
    #[error("the {what} {digest} is of the type {media_type:?}, which cannot be used here")]
    MediaType {
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// Too many layers.
    #[error("the image has {0} layers; the limit is {MOST_LAYERS}")]
    TooManyLayers(usize),
    /// Manifest and config contradict one another.
    #[error("the manifest lists {layers} layers and the config {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A blob is not as long as the manifest says.
    #[error("the {what} {digest} has {actual} bytes and not the {announced} that the manifest says")]
    Size {
        /// `config` or `layer`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// In the manifest.
        announced: u64,
        /// Of the blob.
        actual: u64,
    },
    /// It is for another operating system.
    #[error("wrong operating system: image is {0}, this machine linux")]
    OperatingSystem(String),
    /// It is for another processor.
    #[error("wrong architecture: image is {0}, this machine {host}", host = host_architecture())]
    Architecture(String),
}

impl Image {
    /// Reads the image of a manifest, and checks that all of it is here and can run on this machine. The layers'
    /// bytes are not looked at: they were verified when they were kept, and are once more when they are unpacked.
    ///
    /// # Errors
    /// See [`ImageError`]; [`ImageError::BlobMissing`] names the first blob that is not here.
    pub fn read(blobs: &dyn BlobSource, manifest: &Digest) -> Result<Self, ImageError> {
        let image = Self::read_any(blobs, manifest)?;
        if image.config.os != "linux" {
            return Err(ImageError::OperatingSystem(image.config.os));
        }
        if image.config.architecture != host_architecture() {
            return Err(ImageError::Architecture(image.config.architecture));
        }
        Ok(image)
    }

    /// As [`read`](Self::read), for an image of whatever platform.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub(crate) fn read_any(blobs: &dyn BlobSource, manifest: &Digest) -> Result<Self, ImageError> {
        let manifest = Manifest::parse(&read_small(blobs, "manifest", manifest)?)?;
        check_size(blobs, "config", &manifest.json.config)?;
        let image = manifest.image(&read_small(blobs, "config", manifest.config())?)?;
        for descriptor in &manifest.json.layers {
            check_size(blobs, "layer", descriptor)?;
        }
        Ok(image)
    }
}

/// A manifest by itself: which other blobs are its image's.
#[derive(Debug)]
pub struct Manifest {
    digest: Digest,
    size: u64,
    json: ManifestJson,
}

impl Manifest {
    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        // an index is JSON of another shape, so it is asked about before the manifest's fields are missed
        if serde_json::from_slice::<IndexJson>(bytes).is_ok() {
            return Err(ImageError::Index(digest));
        }
        let json: ManifestJson = parse("manifest", &digest, bytes)?;
        let media_type = json.media_type.as_deref().unwrap_or(format::MANIFEST);
        check_type("manifest", &digest, media_type, &[format::MANIFEST, format::DOCKER_MANIFEST])?;
        let config = &json.config;
        check_type("config", &config.digest, &config.media_type, &[format::CONFIG, format::DOCKER_CONFIG])?;
        if json.layers.len() > MOST_LAYERS {
            return Err(ImageError::TooManyLayers(json.layers.len()));
        }
        Ok(Self { digest, size: bytes.len() as u64, json })
    }

    /// The digest of its image's config.
    pub fn config(&self) -> &Digest {
        &self.json.config.digest
    }

    /// Its type in a descriptor.
    pub(crate) fn media_type(&self) -> &str {
        self.json.media_type.as_deref().unwrap_or(format::MANIFEST)
    }

    /// Every blob of its image with its length, itself and the config first.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, u64)> {
        let others = std::iter::once(&self.json.config).chain(&self.json.layers);
        std::iter::once((&self.digest, self.size)).chain(others.map(|blob| (&blob.digest, blob.size)))
    }

    /// Its image, of whatever platform, by the config's bytes.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn image(&self, config: &[u8]) -> Result<Image, ImageError> {
        let descriptor = &self.json.config;
        let mut config_json: ConfigJson = parse("config", &descriptor.digest, config)?;
        let diff_ids = &config_json.rootfs.diff_ids;
        if diff_ids.len() != self.json.layers.len() {
            return Err(ImageError::LayerCount { layers: self.json.layers.len(), diff_ids: diff_ids.len() });
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (descriptor, diff_id) in self.json.layers.iter().zip(diff_ids) {
            let unknown = || ImageError::MediaType {
                what: "layer",
                digest: descriptor.digest.clone(),
                media_type: descriptor.media_type.clone(),
            };
            layers.push(Layer {
                digest: descriptor.digest.clone(),
                diff_id: diff_id.clone(),
                size: descriptor.size,
                media_type: LayerMediaType::parse(&descriptor.media_type).ok_or_else(unknown)?,
            });
        }
        let (created, history) = (config_json.created.take(), std::mem::take(&mut config_json.history));
        Ok(Image {
            manifest: self.digest.clone(),
            // sizes that a manifest claims: their sum may be anything
            size: layers.iter().fold(descriptor.size, |sum, layer| sum.saturating_add(layer.size)),
            config_digest: descriptor.digest.clone(),
            config: config_json.into(),
            layers,
            created,
            history,
        })
    }
}

fn blob_error(what: &'static str, digest: &Digest, source: BlobError) -> ImageError {
    match source {
        BlobError::Missing(digest) => ImageError::BlobMissing(digest),
        source => ImageError::Blob { what, digest: digest.clone(), source: Box::new(source) },
    }
}

/// Reads a manifest or config, and verifies it: it is small, and everything hangs on it.
pub(crate) fn read_small(blobs: &dyn BlobSource, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let size = blobs.size(digest).map_err(|source| blob_error(what, digest, source))?;
    if size > LARGEST_JSON {
        return Err(ImageError::TooLarge { what, digest: digest.clone(), size });
    }
    let file = blobs.open_blob(digest).map_err(|source| blob_error(what, digest, source))?;
    let mut bytes = Vec::new();
    let read = file.take(LARGEST_JSON).read_to_end(&mut bytes);
    read.map_err(|source| {
        let source = BlobError::Io { action: "read", path: digest.hex().into(), source };
        blob_error(what, digest, source)
    })?;
    if Digest::from_sha256(Sha256::digest(&bytes).into()) == *digest {
        Ok(bytes)
    } else {
        Err(ImageError::Damaged { what, digest: digest.clone() })
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, digest: &Digest, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Malformed { what, digest: digest.clone(), source })
}

fn check_type(what: &'static str, digest: &Digest, media_type: &str, known: &[&str]) -> Result<(), ImageError> {
    if known.contains(&media_type) {
        Ok(())
    } else {
        Err(ImageError::MediaType { what, digest: digest.clone(), media_type: media_type.to_owned() })
    }
}

fn check_size(blobs: &dyn BlobSource, what: &'static str, descriptor: &format::Descriptor) -> Result<(), ImageError> {
    let digest = &descriptor.digest;
    let actual = blobs.size(digest).map_err(|source| blob_error(what, digest, source))?;
    if actual == descriptor.size {
        Ok(())
    } else {
        Err(ImageError::Size { what, digest: digest.clone(), announced: descriptor.size, actual })
    }
}

#[cfg(test)]
mod tests;
