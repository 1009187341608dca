//! A layer's tar → a directory tree that overlayfs takes as a lower one.
//!
//! The tar is a stranger's and this runs as root, so: every name is parsed into parts first (`entry_path`), every
//! directory on the way is resolved by the kernel with the layer as its root, links included (`tree`), devices are
//! not made, attributes that would steer overlayfs are refused, and everything has a bound. The bytes are hashed as they
//! are read, so that what stands there in the end is what the diff id names, or an error.
//!
//! What is kept: owners (below 65,536, all that a server has: a higher one is refused and not mapped onto somebody
//! else), modes with setuid, setgid and sticky, times, hard links, FIFOs, and the extended attributes `user.*` and
//! `security.capability`. What is dropped: device nodes (a container's `/dev` is made for it), other attributes.
//!
//! A whiteout `.wh.NAME` becomes overlayfs's: a character device 0:0. An opaque mark `.wh..wh..opq` becomes the
//! attribute `trusted.overlay.opaque=y`. Both mean lower layers only (image-spec 1.1 `layer.md`, "Whiteouts"); what
//! this same layer has of that name stays.
//!
//! A directory that a layer names only as part of a path is made as root's, mode 0755. Layers that leave out the
//! directories above their files therefore reset what lower layers say of these.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use sampan_model::{ByteSize, Digest};
use sha2::{Digest as _, Sha256};

use crate::LayerMediaType;
use crate::archive::{Archive, ArchiveError, Entry, Kind};
use crate::compression::Compression;
use crate::entry_path::{BadName, EntryPath};
use crate::tree::{Metadata, Owners, Tree};

/// The most entries in a layer.
pub const MOST_ENTRIES: u64 = 1_000_000;
/// The most bytes in a layer's tar: a gzip of 64 MiB can unpack to this.
pub const MOST_BYTES: u64 = 64 << 30;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnpackStats {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of the tar, uncompressed.
    pub bytes: u64,
    /// Device nodes that were left out.
    pub devices_skipped: u64,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The tar cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layer is not the one its image names.
    #[error("the layer's tar has the digest {actual} and not {expected}: remove the image and make or pull it again")]
    DiffId {
        /// What the image names.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// An entry's name, or a link's target, was refused.
    #[error("the entry {entry:?} of the layer has a name that is refused: {name:?}")]
    Name {
        /// The entry.
        entry: String,
        /// The name: its own or its target's.
        name: String,
        /// Why.
        #[source]
        source: BadName,
    },
    /// A whiteout of nothing.
    #[error("the entry {0:?} of the layer is a whiteout of no name")]
    Whiteout(String),
    /// An entry belongs to a user that no server has.
    #[error("the entry {entry:?} belongs to user {uid} and group {gid}: a server has those below 65536")]
    Owner {
        /// The entry.
        entry: String,
        /// Its owner.
        uid: u64,
        /// Its group.
        gid: u64,
    },
    /// An entry has an attribute that would steer overlayfs.
    #[error("the entry {entry:?} has the attribute {name:?}, which only the layer store may set")]
    Attribute {
        /// The entry.
        entry: String,
        /// The attribute.
        name: String,
    },
    /// Too many entries.
    #[error("the layer has more than {MOST_ENTRIES} entries")]
    TooManyEntries,
    /// Too many bytes.
    #[error("the layer unpacks to more than {}", ByteSize(MOST_BYTES))]
    TooLarge,
    /// The disk is full, or its owner's quota is.
    #[error("no space is left on the disk of {} for the layer: free some, or remove images", .path.display())]
    NoSpace {
        /// Where it was unpacked to.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An entry could not be made.
    #[error("unpack the entry {entry:?} below {}", .path.display())]
    Entry {
        /// The entry.
        entry: String,
        /// Where it was unpacked to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a layer's blob into a directory that is empty and nobody else's, and verifies it against its diff id. Where
/// it fails, what is there is to be removed.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack_layer(
    blob: File,
    media_type: LayerMediaType,
    diff_id: &Digest,
    into: &Path,
) -> Result<UnpackStats, UnpackError> {
    read_layer(blob, media_type, diff_id, |archive| unpack_entries(archive, into))
}

/// Reads a layer's blob as [`unpack_layer`] does and makes nothing of it: whether it can be unpacked, and is what its
/// diff id names.
///
/// # Errors
/// See [`UnpackError`].
pub fn check_layer(blob: File, media_type: LayerMediaType, diff_id: &Digest) -> Result<UnpackStats, UnpackError> {
    read_layer(blob, media_type, diff_id, |archive| {
        let mut stats = UnpackStats::default();
        while let Some(entry) = archive.next()? {
            count(&mut stats)?;
            check_entry(&entry)?;
        }
        Ok(stats)
    })
}

/// The owner and group of an entry, where a server has such.
pub(crate) fn check_owner(uid: u64, gid: u64) -> Option<(u32, u32)> {
    Some((u16::try_from(uid).ok()?.into(), u16::try_from(gid).ok()?.into()))
}

/// A layer's tar, which is hashed as it is read.
pub(crate) type LayerTar = Archive<BufReader<Metered<Box<dyn Read>>>>;

/// Hands the tar of a layer's blob to `work`, and verifies all of it then.
pub(crate) fn read_layer(
    blob: File,
    media_type: LayerMediaType,
    diff_id: &Digest,
    work: impl FnOnce(&mut LayerTar) -> Result<UnpackStats, UnpackError>,
) -> Result<UnpackStats, UnpackError> {
    let tar = Compression::of(media_type).decoder(BufReader::with_capacity(128 << 10, blob));
    let metered = Metered { reader: tar, hash: Sha256::new(), bytes: 0 };
    let mut archive = Archive::new(BufReader::with_capacity(128 << 10, metered));
    let result = work(&mut archive);
    let mut rest = archive.into_inner();
    // what follows the end of the tar belongs to the diff id as well
    let result = result.and_then(|stats| {
        io::copy(&mut rest, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(stats)
    });
    let metered = rest.into_inner();
    if metered.bytes > MOST_BYTES {
        return Err(UnpackError::TooLarge);
    }
    let mut stats = result?;
    stats.bytes = metered.bytes;
    let actual = Digest::from_sha256(metered.hash.finalize().into());
    if actual == *diff_id { Ok(stats) } else { Err(UnpackError::DiffId { expected: diff_id.clone(), actual }) }
}

fn unpack_entries(archive: &mut Archive<impl Read>, into: &Path) -> Result<UnpackStats, UnpackError> {
    let mut stats = UnpackStats::default();
    let root = |source| io_error("/", into, source);
    let mut tree = Tree::open(into, Owners::Kept).map_err(root)?;
    while let Some(entry) = archive.next()? {
        count(&mut stats)?;
        if entry.kind == Kind::Device {
            stats.devices_skipped += 1;
            continue;
        }
        unpack_entry(archive, &mut tree, &entry, into)?;
    }
    tree.finish().map_err(root)?;
    Ok(stats)
}

pub(crate) fn count(stats: &mut UnpackStats) -> Result<(), UnpackError> {
    stats.entries += 1;
    if stats.entries > MOST_ENTRIES { Err(UnpackError::TooManyEntries) } else { Ok(()) }
}

/// What of an entry is refused without a look at the disk.
pub(crate) fn check_entry(entry: &Entry) -> Result<(), UnpackError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let this = || text(&entry.path);
    let parse = |name: &[u8]| {
        EntryPath::parse(name).map_err(|source| UnpackError::Name { entry: this(), name: text(name), source })
    };
    let path = parse(&entry.path)?;
    if let Kind::HardLink(target) = &entry.kind {
        parse(target)?;
    }
    if let Some(hidden) = path.split().and_then(|(_, last)| last.strip_prefix(b".wh."))
        && matches!(hidden, b"" | b"." | b"..")
    {
        return Err(UnpackError::Whiteout(this()));
    }
    if entry.kind != Kind::Device && check_owner(entry.uid, entry.gid).is_none() {
        return Err(UnpackError::Owner { entry: this(), uid: entry.uid, gid: entry.gid });
    }
    let steers = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    match entry.xattrs.iter().find(|(name, _)| steers(name)) {
        Some((name, _)) => Err(UnpackError::Attribute { entry: this(), name: text(name) }),
        None => Ok(()),
    }
}

pub(crate) fn unpack_entry(
    archive: &mut Archive<impl Read>,
    tree: &mut Tree,
    entry: &Entry,
    into: &Path,
) -> Result<(), UnpackError> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let this = || name(&entry.path);
    let parse = |bytes: &[u8]| {
        EntryPath::parse(bytes).map_err(|source| UnpackError::Name { entry: this(), name: name(bytes), source })
    };
    let failed = |source| io_error(&this(), into, source);
    let path = parse(&entry.path)?;
    if let Some((parent, last)) = path.split()
        && let Some(hidden) = last.strip_prefix(b".wh.")
    {
        return match hidden {
            b".wh..opq" => tree.make_opaque(parent).map_err(failed),
            // marks of AUFS about itself
            _ if hidden.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(UnpackError::Whiteout(this())),
            _ => tree.white_out(parent, hidden).map_err(failed),
        };
    }
    let owner = check_owner(entry.uid, entry.gid);
    let (uid, gid) = owner.ok_or_else(|| UnpackError::Owner { entry: this(), uid: entry.uid, gid: entry.gid })?;
    let mut metadata = Metadata { uid, gid, mode: entry.mode, mtime: entry.mtime, xattrs: Vec::new() };
    for (attribute, value) in &entry.xattrs {
        if attribute.starts_with(b"trusted.overlay.") || attribute.starts_with(b"user.overlay.") {
            return Err(UnpackError::Attribute { entry: this(), name: name(attribute) });
        }
        if attribute.starts_with(b"user.") || attribute == b"security.capability" {
            metadata.xattrs.push((attribute, value));
        }
    }
    let Some((parent, last)) = path.split() else {
        // the root: a layer can say what it is like, and nothing else of it
        return match entry.kind {
            Kind::Directory => tree.root(&metadata).map_err(failed),
            _ => Err(UnpackError::Name { entry: this(), name: this(), source: BadName::Empty }),
        };
    };
    match &entry.kind {
        Kind::Directory => tree.directory(&path, parent, last, &metadata).map_err(failed),
        Kind::File => {
            let copied = tree.file(parent, last, &metadata, &mut archive.data());
            // the source of an error here can be the tar too: its own words say so
            let copied = copied.map_err(failed)?;
            if copied == entry.size { Ok(()) } else { Err(ArchiveError::CutOff.into()) }
        }
        Kind::Symlink(target) => tree.symlink(parent, last, target, &metadata).map_err(failed),
        Kind::HardLink(target) => {
            let target = parse(target)?;
            let to = target.split().unwrap_or((b"", b"."));
            tree.hard_link(parent, last, to).map_err(failed)
        }
        Kind::Fifo => tree.fifo(parent, last, &metadata).map_err(failed),
        Kind::Device => Ok(()),
    }
}

pub(crate) fn io_error(entry: &str, path: &Path, source: io::Error) -> UnpackError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            UnpackError::NoSpace { path: path.to_owned(), source }
        }
        _ => UnpackError::Entry { entry: entry.to_owned(), path: path.to_owned(), source },
    }
}

/// Hashes and counts what is read through it, and ends at the limit.
pub(crate) struct Metered<R> {
    reader: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.bytes > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.reader.read(bytes)?;
        self.hash.update(&bytes[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
