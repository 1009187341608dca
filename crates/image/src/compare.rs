//! Two images that should be the same: where they first differ.
//!
//! Configs are compared field by field, layers from the lowest on, and in a layer the tars entry by entry: whoever asks
//! wants to know which file, and what of it. Nothing is unpacked and nothing held in memory.

use std::fmt;
use std::io::{self, BufReader, Read};

use sampan_model::Digest;
use sampan_store::BlobError;
use serde_json::Value;

use crate::archive::{Archive, ArchiveError, Entry};
use crate::compression::Compression;
use crate::manifest::read_small;
use crate::{BlobSource, Image, ImageError, Layer};

/// Where two images first differ, in words for people: "layer 2: app/hello: its content, from byte 4096 on".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A field of their configs.
    Config {
        /// Its name, with those above it: `config.Entrypoint`.
        field: String,
    },
    /// How many layers they have.
    LayerCount(usize, usize),
    /// A path in a layer.
    Path {
        /// The layer's number, from 1, the lowest first.
        layer: usize,
        /// The path.
        path: String,
        /// What of it.
        what: String,
    },
    /// How a layer is packed, or what follows its tar; its content is the same.
    Packing {
        /// The layer's number, from 1.
        layer: usize,
    },
    /// Their manifests alone.
    Manifest,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field } => write!(f, "config: the field {field}"),
            Self::LayerCount(one, other) => write!(f, "one has {one} layers and the other {other}"),
            Self::Path { layer, path, what } => write!(f, "layer {layer}: {path}: {what}"),
            Self::Packing { layer } => write!(f, "layer {layer}: the same files, packed in another way"),
            Self::Manifest => f.write_str("the same config and layers under different manifests"),
        }
    }
}

/// Why images could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A blob cannot be opened.
    #[error("open the layer {0}")]
    Blob(Digest, #[source] BlobError),
    /// A config cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer cannot be read.
    #[error("read the layer {0}")]
    Layer(Digest, #[source] ArchiveError),
}

/// An image, and where its blobs are.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its blobs: the config, and those layers that the other has not.
    pub blobs: &'a dyn BlobSource,
}

/// Where two images first differ: layers first, since what differs there makes the configs differ as well. `None` where
/// they are the same.
///
/// # Errors
/// See [`CompareError`].
pub fn first_difference(one: Side<'_>, other: Side<'_>) -> Result<Option<Difference>, CompareError> {
    if one.image.manifest == other.image.manifest {
        return Ok(None);
    }
    for (at, (a, b)) in one.image.layers.iter().zip(&other.image.layers).enumerate() {
        if a.digest != b.digest {
            let difference = match (a.diff_id == b.diff_id, at + 1) {
                (true, layer) => Difference::Packing { layer },
                (false, layer) => match in_layers(&mut tar(one, a)?, &mut tar(other, b)?, a, b)? {
                    Some((path, what)) => Difference::Path { layer, path, what },
                    None => Difference::Packing { layer },
                },
            };
            return Ok(Some(difference));
        }
    }
    let (a, b) = (one.image.layers.len(), other.image.layers.len());
    if a != b {
        return Ok(Some(Difference::LayerCount(a, b)));
    }
    Ok(Some(match in_values("", &config(one)?, &config(other)?) {
        Some(field) => Difference::Config { field },
        None => Difference::Manifest,
    }))
}

type Tar = Archive<BufReader<Box<dyn Read>>>;

fn tar(side: Side<'_>, layer: &Layer) -> Result<Tar, CompareError> {
    let blob = side.blobs.open_blob(&layer.digest).map_err(|error| CompareError::Blob(layer.digest.clone(), error))?;
    let reader = Compression::of(layer.media_type).decoder(BufReader::with_capacity(128 << 10, blob));
    Ok(Archive::new(BufReader::with_capacity(128 << 10, reader)))
}

/// The first path of two tars that differs, and what of it.
fn in_layers(a: &mut Tar, b: &mut Tar, one: &Layer, other: &Layer) -> Result<Option<(String, String)>, CompareError> {
    let broken = |layer: &Layer| {
        let digest = layer.digest.clone();
        move |error| CompareError::Layer(digest, error)
    };
    loop {
        let (left, right) = (a.next().map_err(broken(one))?, b.next().map_err(broken(other))?);
        let (left, right) = match (left, right) {
            (None, None) => return Ok(None),
            (Some(left), Some(right)) if left.path == right.path => (left, right),
            // layers are sorted: the lesser name is the one that the other lacks
            (left, right) => {
                let paths = (left.map(|entry| text(&entry.path)), right.map(|entry| text(&entry.path)));
                return Ok(Some(match paths {
                    (Some(left), Some(right)) if left > right => (right, "only in the second".to_owned()),
                    (Some(left), _) => (left, "only in the first".to_owned()),
                    (None, right) => (right.unwrap_or_default(), "only in the second".to_owned()),
                }));
            }
        };
        if let Some(what) = in_heads(&left, &right) {
            return Ok(Some((text(&left.path), what)));
        }
        let place = in_bytes(&mut a.data(), &mut b.data());
        if let Some(at) = place.map_err(|error| broken(one)(ArchiveError::Read(error)))? {
            return Ok(Some((text(&left.path), format!("its content, from byte {at} on"))));
        }
    }
}

fn in_heads(a: &Entry, b: &Entry) -> Option<String> {
    if a.kind != b.kind {
        return Some("its kind, or where it links to".to_owned());
    }
    if a.size != b.size {
        return Some(format!("its size, {} and {} bytes", a.size, b.size));
    }
    if a.mode != b.mode {
        return Some(format!("its mode, {:o} and {:o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        return Some(format!("its owner, {}:{} and {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if a.mtime != b.mtime {
        return Some("its time".to_owned());
    }
    (a.xattrs != b.xattrs).then(|| "its attributes".to_owned())
}

/// Where two streams first differ.
pub(crate) fn in_bytes(a: &mut impl Read, b: &mut impl Read) -> io::Result<Option<u64>> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut at = 0;
    loop {
        let (read, other) = (fill(a, &mut left)?, fill(b, &mut right)?);
        let same = left[..read].iter().zip(&right[..other]).take_while(|(a, b)| a == b).count();
        if same < read.max(other) {
            return Ok(Some(at + same as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        at += read as u64;
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn config(side: Side<'_>) -> Result<Value, CompareError> {
    let digest = &side.image.config_digest;
    let bytes = read_small(side.blobs, "config", digest)?;
    let malformed = |source| ImageError::Malformed { what: "config", digest: digest.clone(), source };
    Ok(serde_json::from_slice(&bytes).map_err(malformed)?)
}

/// The first field of two JSON values that differs.
fn in_values(name: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                in_values(&name, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            })
        }
        (a, b) => (a != b).then(|| name.to_owned()),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
