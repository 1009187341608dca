//! A root file system in a tar → an image of one layer.

use std::io::{self, BufReader, Read, Write};

use flate2::read::MultiGzDecoder;
use sampan_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, ArchiveError};
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
    /// It is compressed otherwise.
    #[error("the file is compressed with {0}: unpack it, or compress it with gzip")]
    Compression(&'static str),
    /// It cannot be read as a tar.
    #[error("read the file as the tar of a root file system")]
    Archive(#[from] ArchiveError),
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

/// Reads a tar of a root file system, plain or in gzip, and writes it to `layer` as the one layer of an image with
/// this config. Streams. A tar that could not be unpacked later is refused now.
///
/// # Errors
/// See [`ImportError`]; what was written to `layer` is to be thrown away then.
pub fn import_rootfs(reader: impl Read, layer: &mut impl Write, config: &ImageConfig) -> Result<Imported, ImportError> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut head = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut head).map_err(ArchiveError::Read)?;
    let whole = io::Cursor::new(head.clone()).chain(reader);
    match head.as_slice() {
        [0x1f, 0x8b, ..] => import_tar(MultiGzDecoder::new(BufReader::new(whole)), layer, config),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(ImportError::Compression("zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(ImportError::Compression("xz")),
        [b'B', b'Z', b'h', ..] => Err(ImportError::Compression("bzip2")),
        _ => import_tar(whole, layer, config),
    }
}

fn import_tar(reader: impl Read, layer: &mut impl Write, config: &ImageConfig) -> Result<Imported, ImportError> {
    let out = Hashed { inner: layer, hash: Sha256::new(), size: 0 };
    let tee = Tee { reader, out, failed: None };
    // the tar's headers are read in pieces of 512 bytes; the layer is written in larger ones
    let mut archive = Archive::new(BufReader::with_capacity(128 << 10, tee));
    let result = check(&mut archive);
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

fn check(archive: &mut Archive<impl Read>) -> Result<(), ImportError> {
    let mut empty = true;
    while let Some(entry) = archive.next()? {
        let name = || String::from_utf8_lossy(&entry.path).into_owned();
        EntryPath::parse(&entry.path).map_err(|source| ImportError::Name { name: name(), source })?;
        if check_owner(entry.uid, entry.gid).is_none() {
            return Err(ImportError::Owner { name: name(), uid: entry.uid, gid: entry.gid });
        }
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
