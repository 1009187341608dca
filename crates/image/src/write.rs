//! Making images: layers as tars, and the config and manifest over them, the same bytes for the same input each time.
//!
//! Layers are plain tars. On this machine a digest that is the diff id, and no time spent compressing, are worth more
//! than bytes on the disk; a layer that leaves the machine is compressed on its way out.
//!
//! Everything belongs to root and carries one time, [`TIME`]: what differs between two builds is what was built.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use ::tar::{EntryType, Header};
use sampan_model::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::format::{self, ConfigJson, Descriptor, ManifestJson};
use crate::{ImageConfig, Layer, LayerMediaType};

/// When everything in a layer was changed last: 1 January 1980, in seconds since 1970. The least time that a zip file
/// can say, which is why programs that make or read one (Python, Java) fail on files from 1970.
pub const TIME: u64 = 315_532_800;

const BLOCK: usize = 512;
/// A name that fits the header's own field; a longer one goes into a PAX header before it.
const SHORT: usize = 100;
/// The largest size that fits: 11 octal digits.
const SMALL: u64 = 0o777_7777_7777;

/// Writes one layer. Entries come in the order of [`Path`]'s `Ord`, which is by parts (`a`, `a/b`, `a-b`), so that the
/// same tree is the same bytes; directories above an entry that were not written yet are, with mode 0755.
pub struct LayerWriter<W> {
    out: Hashed<W>,
    last: Option<PathBuf>,
    /// Of the last entry: how many of its parts are directories that were written.
    directories: usize,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An entry has the place of one before it, or comes before it.
    #[error("the entry {} comes after {}: a layer's entries are sorted, each there once", .path.display(), .previous.display())]
    Unsorted {
        /// The entry.
        path: PathBuf,
        /// The one before it.
        previous: PathBuf,
    },
    /// An entry is below one that is no directory.
    #[error("the entry {} is below {}, which is no directory", .path.display(), .parent.display())]
    BelowNoDirectory {
        /// The entry.
        path: PathBuf,
        /// What it is below.
        parent: PathBuf,
    },
    /// A name that cannot be in a layer.
    #[error("{} is no name in a layer: it is empty, has '..' in it, or starts with '.wh.'", .0.display())]
    Name(PathBuf),
    /// A file is not as long as was said; it was changed meanwhile.
    #[error("the file {} did not have the {size} bytes it had at first: leave it alone and try again", .path.display())]
    Changed {
        /// Its name in the layer.
        path: PathBuf,
        /// The size that was said.
        size: u64,
    },
    /// A file could not be read.
    #[error("read the bytes of {}", .path.display())]
    Read {
        /// Its name in the layer.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer could not be written.
    #[error("write a layer at {}", .path.display())]
    Write {
        /// The entry.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer. Bytes are written in small pieces: a file wants an [`io::BufWriter`] around it.
    pub fn new(out: W) -> Self {
        Self { out: Hashed { inner: out, hash: Sha256::new(), size: 0 }, last: None, directories: 0 }
    }

    /// Adds a directory. Paths may start with `/` and mean the same without.
    ///
    /// # Errors
    /// The name is no good, or out of order, or the layer cannot be written.
    pub fn directory(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<(), WriteError> {
        let path = self.enter(path.as_ref())?;
        self.write_directory(&path, mode)?;
        self.directories = path.components().count();
        self.last = Some(path);
        Ok(())
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// As [`directory`](Self::directory); the bytes cannot be read, or are more or less than `size`.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, size: u64, bytes: impl Read) -> Result<(), WriteError> {
        let path = self.enter(path.as_ref())?;
        self.header(&path, EntryType::Regular, mode, size, &[])?;
        let mut bytes = bytes.take(size.saturating_add(1));
        let mut buffer = vec![0; 128 << 10];
        let mut copied = 0;
        loop {
            let read = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(WriteError::Read { path, source }),
            };
            copied += read as u64;
            if copied > size {
                break;
            }
            self.write(&path, &buffer[..read])?;
        }
        if copied != size {
            return Err(WriteError::Changed { path, size });
        }
        self.pad(&path, size)?;
        self.last = Some(path);
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), WriteError> {
        let path = self.enter(path.as_ref())?;
        self.header(&path, EntryType::Symlink, 0o777, 0, target.as_ref().as_os_str().as_bytes())?;
        self.last = Some(path);
        Ok(())
    }

    /// Ends the layer: says what it is, and gives back where it was written.
    ///
    /// # Errors
    /// The layer cannot be written.
    pub fn finish(mut self) -> Result<(Layer, W), WriteError> {
        let path = self.last.take().unwrap_or_default();
        self.write(&path, &[0; 2 * BLOCK])?;
        self.out.flush().map_err(|source| WriteError::Write { path, source })?;
        let digest = Digest::from_sha256(self.out.hash.finalize().into());
        let layer = Layer { diff_id: digest.clone(), digest, size: self.out.size, media_type: LayerMediaType::Tar };
        Ok((layer, self.out.inner))
    }

    /// Checks a name and its order, and adds the directories above it that were not added.
    fn enter(&mut self, path: &Path) -> Result<PathBuf, WriteError> {
        let path = clean(path)?;
        let mut shared = 0;
        if let Some(previous) = &self.last {
            if path <= *previous {
                return Err(WriteError::Unsorted { path, previous: previous.clone() });
            }
            shared = path.components().zip(previous.components()).take_while(|(a, b)| a == b).count();
            // what is shared of the last entry must be directories: all of it is only where the last one is one itself
            if shared > self.directories {
                return Err(WriteError::BelowNoDirectory { path, parent: previous.clone() });
            }
        }
        let parents = path.components().count() - 1;
        let mut parent = PathBuf::new();
        for (at, part) in path.components().take(parents).enumerate() {
            parent.push(part);
            if at >= shared {
                self.write_directory(&parent, 0o755)?;
            }
        }
        self.directories = parents;
        Ok(path)
    }

    fn write_directory(&mut self, path: &Path, mode: u32) -> Result<(), WriteError> {
        self.header(path, EntryType::Directory, mode, 0, &[])
    }

    fn header(&mut self, path: &Path, kind: EntryType, mode: u32, size: u64, link: &[u8]) -> Result<(), WriteError> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/'); // as all other writers have it
        }
        let mut pax = Vec::new();
        for (key, value) in [("path", &name[..]), ("linkpath", link)] {
            if value.len() > SHORT {
                pax_record(&mut pax, key, value);
            }
        }
        if size > SMALL {
            pax_record(&mut pax, "size", size.to_string().as_bytes());
        }
        if !pax.is_empty() {
            let header = ustar(b"pax", EntryType::XHeader, 0o644, pax.len() as u64, &[]);
            self.write(path, header.as_bytes())?;
            self.write(path, &pax)?;
            self.pad(path, pax.len() as u64)?;
        }
        let header = ustar(&name, kind, mode, if size > SMALL { 0 } else { size }, link);
        self.write(path, header.as_bytes())
    }

    fn pad(&mut self, path: &Path, size: u64) -> Result<(), WriteError> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.write(path, &[0; BLOCK][over..]) }
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes).map_err(|source| WriteError::Write { path: path.to_owned(), source })
    }
}

fn clean(path: &Path) -> Result<PathBuf, WriteError> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if !name.as_bytes().starts_with(b".wh.") => clean.push(name),
            _ => return Err(WriteError::Name(path.to_owned())),
        }
    }
    if clean.as_os_str().is_empty() { Err(WriteError::Name(path.to_owned())) } else { Ok(clean) }
}

pub(crate) fn ustar(name: &[u8], kind: EntryType, mode: u32, size: u64, link: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    let fields = header.as_ustar_mut().expect("it was made as ustar");
    // a name that is cut here stands whole in the PAX header before
    let (name, link) = (&name[..name.len().min(SHORT)], &link[..link.len().min(SHORT)]);
    fields.name[..name.len()].copy_from_slice(name);
    fields.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size);
    header.set_cksum();
    header
}

/// `LENGTH KEY=VALUE\n`, the length counting its own digits.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3; // space, equals sign, line feed
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Hashes and counts what goes through to `inner`.
pub(crate) struct Hashed<W> {
    pub inner: W,
    pub hash: Sha256,
    pub size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The two JSON blobs that make layers an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Their digest.
    pub config_digest: Digest,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Their digest: the image's.
    pub digest: Digest,
}

/// Writes the config and the manifest of an image of these layers, lowest first. Same input, same bytes.
pub fn compose(config: &ImageConfig, layers: &[Layer]) -> Composed {
    let config = to_json(&ConfigJson::new(config, layers));
    let config_digest = Digest::from_sha256(Sha256::digest(&config).into());
    let manifest = manifest(config_digest.clone(), config.len() as u64, layers);
    let digest = Digest::from_sha256(Sha256::digest(&manifest).into());
    Composed { config, config_digest, manifest, digest }
}

/// The manifest over a config and layers that are there.
pub(crate) fn manifest(config: Digest, config_size: u64, layers: &[Layer]) -> Vec<u8> {
    to_json(&ManifestJson {
        schema_version: 2,
        media_type: Some(format::MANIFEST.to_owned()),
        config: Descriptor { media_type: format::CONFIG.to_owned(), digest: config, size: config_size },
        layers: layers
            .iter()
            .map(|layer| Descriptor {
                media_type: layer.media_type.as_str().to_owned(),
                digest: layer.digest.clone(),
                size: layer.size,
            })
            .collect(),
    })
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("structs, strings and maps with text for keys are JSON")
}

#[cfg(test)]
mod tests;
