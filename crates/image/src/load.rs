//! An archive of images, from whoever → the images in it as files named by digest.
//!
//! ```text
//! archive ─▶ members: every file hashed and kept under its digest, links as texts      (load/members.rs)
//!        ─▶ index.json, or manifest.json of an older `docker save`, names the images
//!        ─▶ this machine's platform, where there are several
//!        ─▶ every digest, size and layer verified, as unpacking it will
//! ```
//!
//! The archive is a stranger's: a name in it is looked up in a table and never given to the kernel, so there is no name
//! and no link that leads anywhere. Everything has a bound, and is written once: to the directory of the caller.
//!
//! An image in an OCI layout keeps its manifest, and so its digest. One in an older `docker save` has none, and is given
//! the manifest that [`compose`](crate::compose) would write over its config and layers, which stay as they are.
//!
//! Source: image-spec 1.1 `image-layout.md`, `image-index.md`; Docker's `docker save` (API 1.24 to 1.44).

mod members;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use sampan_model::{Digest, ImageName};
use serde::Deserialize;

use crate::compression::{Compression, CompressionError};
use crate::format::{self, ConfigJson, IndexEntry, IndexJson};
use crate::manifest::LARGEST_JSON;
use crate::save::{DOCKER, IMAGE_NAME, INDEX, REF_NAME};
use crate::write::manifest;
use crate::{
    ArchiveError, BadName, BlobSource, Image, ImageError, Layer, Manifest, UnpackError, check_layer, host_architecture,
};

use members::Members;

/// How deep an index may be in an index.
const DEEPEST: usize = 3;
/// The most entries of an index, and images of an archive.
const MOST_IMAGES: usize = 1000;

/// What an archive holds for this machine.
#[derive(Debug)]
pub struct Loaded {
    /// Its images.
    pub images: Vec<LoadedImage>,
    /// What was left out, in words.
    pub notes: Vec<String>,
}

/// An image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its manifest's digest.
    pub manifest: Digest,
    /// The names it has in the archive, as texts that are names.
    pub names: Vec<ImageName>,
    /// Its blobs, in the order to upload them: the manifest last.
    pub blobs: Vec<LoadedBlob>,
}

/// A blob of an image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is compressed otherwise, or cannot be read.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// It is no tar, or cut off.
    #[error("read the archive")]
    Archive(#[from] ArchiveError),
    /// It has a name that is refused.
    #[error("the archive has a file of the name {name:?}, which is refused")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: BadName,
    },
    /// It has two different files of one name.
    #[error("the archive has two files of the name {0:?} that differ")]
    Duplicate(String),
    /// It has what no archive of images has.
    #[error("the archive has {0:?}, which is a {1}: no archive of images has one")]
    Kind(String, &'static str),
    /// It has too many files.
    #[error("the archive has more than {0} files")]
    TooMany(usize),
    /// It is too large.
    #[error("the archive unpacks to more than {0}")]
    TooLarge(sampan_model::ByteSize),
    /// A blob's bytes are not what its name says.
    #[error("the file {name:?} of the archive has the digest {actual}: it was changed or damaged")]
    Digest {
        /// Its name.
        name: String,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// Something that is named is not there.
    #[error("the archive is not whole: {0:?} is missing")]
    Missing(String),
    /// A description cannot be read.
    #[error("the file {name:?} of the archive is not as it should be")]
    Json {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A description is too large, or lists too much.
    #[error("the file {0:?} of the archive is larger than any such file: the limits are {limit} and {MOST_IMAGES} images", limit = sampan_model::ByteSize(LARGEST_JSON))]
    Description(String),
    /// It holds no images at all.
    #[error("the archive holds no images: there is neither {INDEX:?} nor {DOCKER:?} in it")]
    NoImages,
    /// It was written by a Docker of before 2016.
    #[error("the archive was written by a Docker before 1.10, whose images have no digests: save it with a newer one")]
    TooOld,
    /// None of its images runs here.
    #[error("the archive holds images for {}, and this machine is linux/{}", .0.join(", "), host_architecture())]
    Platform(Vec<String>),
    /// An image of it cannot be used.
    #[error("the image {0} of the archive cannot be used")]
    Image(Digest, #[source] Box<ImageError>),
    /// A layer of it cannot be unpacked.
    #[error("the layer {0} of the archive cannot be used")]
    Layer(Digest, #[source] Box<UnpackError>),
    /// A file could not be kept.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Reads an archive, plain, in gzip or in zstd, and keeps what it holds as files in `into`, a directory that is empty
/// and the caller's to remove.
///
/// # Errors
/// See [`LoadError`].
pub fn load(reader: impl Read, into: &Path) -> Result<Loaded, LoadError> {
    let mut members = Members::read(reader, into)?;
    let mut loading = Loading { candidates: Vec::new(), notes: Vec::new() };
    if members.has(INDEX) {
        let names = docker_names(&members)?;
        loading.index(&members, INDEX, &[], 0)?;
        // a name that Docker completed with its own registry's is the shorter one there
        for candidate in &mut loading.candidates {
            if let Some(names) = names.get(&candidate.config) {
                candidate.names.clone_from(names);
            }
        }
    } else if members.has(DOCKER) {
        loading.docker(&mut members)?;
    } else if members.has("repositories") {
        return Err(LoadError::TooOld);
    } else {
        return Err(LoadError::NoImages);
    }
    loading.finish(&members)
}

/// An image that an archive names.
struct Candidate {
    manifest: Digest,
    config: Digest,
    names: Vec<ImageName>,
    /// `linux/arm64`, with `/v8` where it says so.
    platform: String,
    fits: bool,
}

struct Loading {
    candidates: Vec<Candidate>,
    notes: Vec<String>,
}

impl Loading {
    /// Takes in what an index lists, and the indexes in it.
    fn index(&mut self, members: &Members, name: &str, names: &[ImageName], depth: usize) -> Result<(), LoadError> {
        let index: IndexJson = json(name, &small(members, name)?)?;
        if index.manifests.len() > MOST_IMAGES || depth > DEEPEST {
            return Err(LoadError::Description(name.to_owned()));
        }
        for entry in &index.manifests {
            let path = blob(&entry.digest);
            let own = names_of(entry);
            let names = if own.is_empty() { names } else { &own };
            match entry.media_type.as_str() {
                format::INDEX | format::DOCKER_INDEX => self.index(members, &path, names, depth + 1)?,
                format::MANIFEST | format::DOCKER_MANIFEST => {
                    self.manifest(members, entry, names)?;
                }
                other => self.notes.push(format!("left out {}, which is no image but {other}", entry.digest)),
            }
            if self.candidates.len() > MOST_IMAGES {
                return Err(LoadError::Description(name.to_owned()));
            }
        }
        Ok(())
    }

    fn manifest(&mut self, members: &Members, entry: &IndexEntry, names: &[ImageName]) -> Result<(), LoadError> {
        // what BuildKit says of a build stands in an index as an image for no platform
        if entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
            return Ok(());
        }
        let path = blob(&entry.digest);
        // an index that was thinned out to one platform still lists the others
        let elsewhere = |platform: &format::PlatformJson| !fits(&platform.os, &platform.architecture);
        if let Some(platform) = entry.platform.as_ref().filter(|platform| elsewhere(platform))
            && !members.has(&path)
        {
            self.notes.push(format!("left out the image for {}/{}", platform.os, platform.architecture));
            return Ok(());
        }
        let bytes = small(members, &path)?;
        let unusable = |error| LoadError::Image(entry.digest.clone(), Box::new(error));
        let manifest = match Manifest::parse(&bytes) {
            // signatures and the like stand beside images in the clothes of one
            Err(ImageError::MediaType { what: "config", media_type, .. }) => {
                self.notes.push(format!("left out {}, which is no image but {media_type}", entry.digest));
                return Ok(());
            }
            parsed => parsed.map_err(unusable)?,
        };
        let config_path = blob(manifest.config());
        let config: ConfigJson = json(&config_path, &small(members, &config_path)?)?;
        let variant = entry.platform.as_ref().and_then(|platform| platform.variant.as_deref());
        let variant = variant.map_or(String::new(), |variant| format!("/{variant}"));
        // one image may be listed once for each of its names
        let known = self.candidates.iter_mut().find(|known| known.manifest == entry.digest);
        match known {
            Some(known) => known.names.extend(names.iter().cloned()),
            None => self.candidates.push(Candidate {
                manifest: entry.digest.clone(),
                config: manifest.config().clone(),
                names: names.to_vec(),
                fits: fits(&config.os, &config.architecture),
                platform: format!("{}/{}{variant}", config.os, config.architecture),
            }),
        }
        Ok(())
    }

    /// Takes in the images of a `docker save` from before it wrote OCI layouts.
    fn docker(&mut self, members: &mut Members) -> Result<(), LoadError> {
        let images: Vec<DockerImage> = json(DOCKER, &small(members, DOCKER)?)?;
        if images.len() > MOST_IMAGES {
            return Err(LoadError::Description(DOCKER.to_owned()));
        }
        for image in images {
            let config = members.find(&image.config)?.clone();
            let config_json: ConfigJson = json(&image.config, &small(members, &image.config)?)?;
            let diff_ids = &config_json.rootfs.diff_ids;
            if diff_ids.len() != image.layers.len() {
                let count = ImageError::LayerCount { layers: image.layers.len(), diff_ids: diff_ids.len() };
                return Err(LoadError::Image(config.digest, Box::new(count)));
            }
            let mut layers = Vec::with_capacity(diff_ids.len());
            for (name, diff_id) in image.layers.iter().zip(diff_ids) {
                let member = members.find(name)?;
                let media_type = Compression::sniff(&members.head(member)?)?.layer_type();
                layers.push(Layer {
                    digest: member.digest.clone(),
                    diff_id: diff_id.clone(),
                    size: member.size,
                    media_type,
                });
            }
            let composed = members.put(&manifest(config.digest.clone(), config.size, &layers))?;
            self.candidates.push(Candidate {
                manifest: composed,
                config: config.digest,
                names: image.names(),
                fits: fits(&config_json.os, &config_json.architecture),
                platform: format!("{}/{}", config_json.os, config_json.architecture),
            });
        }
        Ok(())
    }

    /// Chooses, verifies.
    fn finish(mut self, members: &Members) -> Result<Loaded, LoadError> {
        if self.candidates.is_empty() {
            return Err(LoadError::NoImages);
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = self.candidates.into_iter().partition(|candidate| candidate.fits);
        let others = elsewhere.into_iter().map(|candidate| candidate.platform).collect::<Vec<_>>();
        if here.is_empty() {
            return Err(LoadError::Platform(others));
        }
        self.notes.extend(others.iter().map(|platform| format!("left out the image for {platform}")));
        let mut images: Vec<LoadedImage> = Vec::with_capacity(here.len());
        for candidate in here {
            let unusable = |error| LoadError::Image(candidate.manifest.clone(), Box::new(error));
            let image = Image::read(members.blobs(), &candidate.manifest).map_err(unusable)?;
            let mut names = candidate.names;
            // of several that fit (amd64 and amd64/v3), the first has the name
            names.retain(|name| !images.iter().any(|image| image.names.contains(name)));
            names.sort();
            names.dedup();
            if !images.is_empty() && names.is_empty() {
                self.notes.push(format!("left out another image for {}", candidate.platform));
                continue;
            }
            for layer in &image.layers {
                let failed = |error| LoadError::Layer(layer.digest.clone(), Box::new(error));
                let file = members.open_layer(&layer.digest)?;
                check_layer(file, layer.media_type, &layer.diff_id).map_err(failed)?;
            }
            let of_layers = image.layers.iter().map(|layer| &layer.digest);
            let digests = of_layers.chain([&image.config_digest, &image.manifest]);
            let blob = |digest: &Digest| LoadedBlob {
                digest: digest.clone(),
                path: members.path(digest),
                size: members.blobs().size(digest).unwrap_or_default(),
            };
            images.push(LoadedImage { blobs: digests.map(blob).collect(), manifest: candidate.manifest, names });
        }
        Ok(Loaded { images, notes: self.notes })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerImage {
    fn names(&self) -> Vec<ImageName> {
        let texts = self.repo_tags.iter().flatten();
        texts.filter_map(|text| ImageName::parse(text).ok()).collect()
    }
}

/// The names in a `manifest.json` beside an index, by the config they are of.
fn docker_names(members: &Members) -> Result<BTreeMap<Digest, Vec<ImageName>>, LoadError> {
    if !members.has(DOCKER) {
        return Ok(BTreeMap::new());
    }
    let images: Vec<DockerImage> = json(DOCKER, &small(members, DOCKER)?)?;
    let named = images.into_iter().map(|image| (image.names(), image.config)).filter(|(names, _)| !names.is_empty());
    named.map(|(names, config)| Ok((members.find(&config)?.digest.clone(), names))).collect()
}

/// The names that an index has for an entry. A bare tag, as `docker save` writes it into the second one, is none.
fn names_of(entry: &IndexEntry) -> Vec<ImageName> {
    let full = entry.annotations.get(IMAGE_NAME);
    let reference = entry.annotations.get(REF_NAME).filter(|text| text.as_str() != "latest");
    let name = full.or(reference).and_then(|text| ImageName::parse(text).ok());
    name.into_iter().collect()
}

fn fits(os: &str, architecture: &str) -> bool {
    os == "linux" && architecture == host_architecture()
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn small(members: &Members, name: &str) -> Result<Vec<u8>, LoadError> {
    let member = members.find(name)?;
    if member.size > LARGEST_JSON {
        return Err(LoadError::Description(name.to_owned()));
    }
    members.bytes(member)
}

fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Json { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests;
