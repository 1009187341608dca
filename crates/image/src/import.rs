//! A root file system in a tar → an image of one layer.

use std::io::{self, BufReader, Read, Write};

use sampan_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, ArchiveError};
use crate::compression::{CompressionError, decompress};
use crate::entry_path::{BadName, EntryPath};
use crate::unpack::check_owner;
use crate::write::{Composed, Hashed, compose};
use crate::{ImageConfig, Layer, LayerMediaType};

/// What an import has made; the layer's bytes are where they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The layer: a plain tar.
    pub layer: Layer,
    /// The config and manifest over it.
    pub composed: Composed,
}

/// Why a tar could not be made an image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is compressed otherwise, or cannot be read.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// It cannot be read as a tar.
    #[error("read the file as the tar of a root file system")]
    Archive(#[from] ArchiveError),
    /// It holds images, each in layers, and no root file system.
    #[error("the tar is an archive of images, as `docker save` writes them: load it with `sampan image load -i FILE`")]
    HoldsImages,
    /// It has no entries.
    #[error("the tar is empty: it is to hold a root file system")]
    Empty,
    /// An entry has a name that cannot be unpacked.
    #[error("the entry {name:?} cannot be in an image")]
    Name {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: BadName,
    },
    /// An entry belongs to a user that no server has.
    #[error("the entry {name:?} belongs to user {uid} and group {gid}: a server has those below 65536")]
    Owner {
        /// Its name.
        name: String,
        /// Its owner.
        uid: u64,
        /// Its group.
        gid: u64,
    },
    /// The layer could not be written.
    #[error("write the image's layer")]
    Write(#[source] io::Error),
}

/// Reads a tar of a root file system, plain or in gzip or zstd, and writes it to `layer` as the one layer of an image with
/// this config. Streams. A tar that could not be unpacked later is refused now.
///
/// # Errors
/// See [`ImportError`]; what was written to `layer` is to be thrown away then.
pub fn import_rootfs(reader: impl Read, layer: &mut impl Write, config: &ImageConfig) -> Result<Imported, ImportError> {
    import_tar(decompress(reader)?, layer, config)
}

fn import_tar(reader: impl Read, layer: &mut impl Write, config: &ImageConfig) -> Result<Imported, ImportError> {
    let out = Hashed { inner: layer, hash: Sha256::new(), size: 0 };
    let tee = Tee { reader, out, failed: None };
    // the tar's headers are read in pieces of 512 bytes; the layer is written in larger ones
    let mut archive = Archive::new(BufReader::with_capacity(128 << 10, tee));
    let mut names = TopNames::default();
    let result = check_each(&mut archive, |path| names.add(path)).and_then(|()| names.check());
    let mut rest = archive.into_inner();
    // padding after the tar's end belongs to the layer as well
    let drained =
        result.and_then(|()| io::copy(&mut rest, &mut io::sink()).map_err(|source| ArchiveError::Read(source).into()));
    let tee = rest.into_inner();
    if let Some(error) = tee.failed {
        return Err(ImportError::Write(error));
    }
    drained?;
    let mut out = tee.out;
    out.flush().map_err(ImportError::Write)?;
    let digest = Digest::from_sha256(out.hash.finalize().into());
    let layer = Layer { diff_id: digest.clone(), digest, size: out.size, media_type: LayerMediaType::Tar };
    let composed = compose(config, std::slice::from_ref(&layer));
    Ok(Imported { layer, composed })
}

/// Whether all that is at the top of a tar is what an archive of images has there.
#[derive(Debug, Default)]
struct TopNames {
    has_index: bool,
    has_others: bool,
}

impl TopNames {
    fn add(&mut self, path: &[u8]) {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        match path.split(|&byte| byte == b'/').next().unwrap_or_default() {
            b"manifest.json" | b"index.json" => self.has_index = true,
            b"" | b"." | b"oci-layout" | b"blobs" | b"repositories" => {}
            // docker save's, before it wrote OCI's: the ids of layers and of configs
            name if name.len() >= 64 && name[..64].iter().all(u8::is_ascii_hexdigit) => {}
            _ => self.has_others = true,
        }
    }

    fn check(&self) -> Result<(), ImportError> {
        if self.has_index && !self.has_others { Err(ImportError::HoldsImages) } else { Ok(()) }
    }
}

fn check_each(archive: &mut Archive<impl Read>, mut see: impl FnMut(&[u8])) -> Result<(), ImportError> {
    let mut empty = true;
    while let Some(entry) = archive.next()? {
        let name = || String::from_utf8_lossy(&entry.path).into_owned();
        EntryPath::parse(&entry.path).map_err(|source| ImportError::Name { name: name(), source })?;
        if check_owner(entry.uid, entry.gid).is_none() {
            return Err(ImportError::Owner { name: name(), uid: entry.uid, gid: entry.gid });
        }
        see(&entry.path);
        empty = false;
    }
    if empty { Err(ImportError::Empty) } else { Ok(()) }
}

/// Writes what is read through it. Keeps a failure to write, which its reader could only take for one to read.
struct Tee<R, W> {
    reader: R,
    out: W,
    failed: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(bytes)?;
        match self.out.write_all(&bytes[..read]) {
            Ok(()) => Ok(read),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the copy could not be written"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
