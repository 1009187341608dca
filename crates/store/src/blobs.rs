//! Bytes by digest: one file each, `sha256/HEX` below the store's directory.
//!
//! A blob is either whole, verified and durable, or not there. Nothing here counts who uses a blob: whoever removes
//! one has made sure that nobody needs it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sampan_model::Digest;
use sha2::{Digest as _, Sha256};

/// What a blob is called while it is written. No digest starts with it.
const PARTIAL: &str = ".partial-";

/// A directory of blobs. Any number of threads may use it; one process at a time may [`open`](Self::open) it.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    next: AtomicU64,
}

/// Why a blob could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no blob of that digest.
    #[error("blob {0} is not here")]
    Missing(Digest),
    /// The bytes are not those that were announced.
    #[error("the bytes have the digest {actual} and not {expected}: they were changed or cut on the way")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The disk is full, or its owner's quota is.
    #[error("no space is left on the disk of {}", .path.display())]
    NoSpace {
        /// The file that was written.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file or directory could not be used.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BlobError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), source }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}

impl Blobs {
    /// Opens the store, makes its directories (0700) where they are not there, and removes what was being written when
    /// its last process ended. The caller holds the root's lock, or the directory is its own.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let blobs = Self { dir: dir.join("sha256"), next: AtomicU64::new(0) };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&blobs.dir);
        made.map_err(|source| BlobError::new("make", &blobs.dir, source))?;
        // a blob is no more durable than the directories it is in
        for above in [Some(dir), dir.parent()].into_iter().flatten().filter(|above| !above.as_os_str().is_empty()) {
            sync_directory(above)?;
        }
        for name in blobs.names()? {
            if name.starts_with(PARTIAL) {
                let path = blobs.dir.join(name);
                fs::remove_file(&path).map_err(|source| BlobError::new("remove the leftover", &path, source))?;
            }
        }
        Ok(blobs)
    }

    /// Whether the blob is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Opens the blob for reading.
    ///
    /// # Errors
    /// [`BlobError::Missing`] where it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| missing_or("open", digest, &path, source))
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// [`BlobError::Missing`] where it is not here.
    pub fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        let path = self.path(digest);
        let metadata = fs::metadata(&path).map_err(|source| missing_or("read the size of", digest, &path, source))?;
        Ok(metadata.len())
    }

    /// Starts a blob whose bytes are written to it, and which [`BlobWriter::commit`] makes visible. Dropped before
    /// that, it leaves nothing.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let path = self.dir.join(format!("{PARTIAL}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| BlobError::new("make", &path, source))?;
        Ok(BlobWriter { file, dir: self.dir.clone(), path, hash: Sha256::new(), size: 0 })
    }

    /// Keeps a blob that is small enough to be in memory, and says its digest.
    ///
    /// # Errors
    /// As of [`BlobWriter::commit`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        if !self.has(&digest) {
            let mut writer = self.writer()?;
            writer.write_all(bytes).map_err(|source| BlobError::new("write", &writer.path, source))?;
            writer.commit(&digest)?;
        }
        Ok(digest)
    }

    /// Removes the blob; one that is not here is removed already. Who has it open reads on.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BlobError::new("remove", &path, source)),
            _ => Ok(()),
        }
    }

    /// All blobs that are here, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let digests = self.names()?.into_iter().filter_map(|name| Digest::parse(&format!("sha256:{name}")).ok());
        Ok(digests.collect())
    }

    /// Reads the blob to its end and says the digest that its bytes have: another one than its own where the disk did not
    /// keep them.
    ///
    /// # Errors
    /// [`BlobError::Missing`] where it is not here; it cannot be read.
    pub fn read_digest(&self, digest: &Digest) -> Result<Digest, BlobError> {
        let mut file = self.open_blob(digest)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Digest::from_sha256(hash.finalize().into())),
                Ok(read) => hash.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BlobError::new("read", &self.path(digest), source)),
            }
        }
    }

    /// Takes a blob, which is damaged, out of sight and keeps it, below `broken/` in the store's directory; says where it
    /// is then.
    ///
    /// # Errors
    /// It cannot be renamed, or is not here.
    pub fn set_aside(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
        let broken = self.dir.with_file_name("broken");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&broken);
        made.map_err(|source| BlobError::new("make", &broken, source))?;
        let (path, aside) = (self.path(digest), broken.join(digest.hex()));
        fs::rename(&path, &aside).map_err(|source| missing_or("rename", digest, &path, source))?;
        sync_directory(&self.dir)?;
        Ok(aside)
    }

    /// The files in the store's directory that are none of its own. Blobs that are being written are.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn strays(&self) -> Result<Vec<PathBuf>, BlobError> {
        let is_own = |name: &String| name.starts_with(PARTIAL) || Digest::parse(&format!("sha256:{name}")).is_ok();
        Ok(self.names()?.into_iter().filter(|name| !is_own(name)).map(|name| self.dir.join(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>, BlobError> {
        let error = |source| BlobError::new("read", &self.dir, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(error)? {
            names.extend(entry.map_err(error)?.file_name().into_string());
        }
        Ok(names)
    }
}

fn sync_directory(dir: &Path) -> Result<(), BlobError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| BlobError::new("sync", dir, source))
}

fn missing_or(action: &'static str, digest: &Digest, path: &Path, source: io::Error) -> BlobError {
    match source.kind() {
        io::ErrorKind::NotFound => BlobError::Missing(digest.clone()),
        _ => BlobError::new(action, path, source),
    }
}

/// A blob while it is written; hashes as it goes. A full disk shows as an [`io::Error`] of kind `StorageFull` from
/// `write`; [`BlobWriter::failed`] turns it into a [`BlobError`].
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    dir: PathBuf,
    path: PathBuf,
    hash: Sha256,
    size: u64,
}

impl BlobWriter {
    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The error that a failed write to this blob is.
    pub fn failed(&self, source: io::Error) -> BlobError {
        BlobError::new("write", &self.path, source)
    }

    /// Verifies the bytes and makes the blob visible; when this returns, it survives a power cut. A blob that is
    /// already here stays as it is.
    ///
    /// # Errors
    /// [`BlobError::DigestMismatch`] where the bytes have another digest; nothing is kept then.
    pub fn commit(self, expected: &Digest) -> Result<(), BlobError> {
        let actual = self.digest();
        if actual != *expected {
            return Err(BlobError::DigestMismatch { expected: expected.clone(), actual });
        }
        self.publish(&actual)
    }

    /// As [`commit`](Self::commit), for bytes that nobody has announced: says their digest.
    ///
    /// # Errors
    /// The file cannot be synced or renamed.
    pub fn finish(self) -> Result<Digest, BlobError> {
        let digest = self.digest();
        self.publish(&digest)?;
        Ok(digest)
    }

    fn digest(&self) -> Digest {
        Digest::from_sha256(self.hash.clone().finalize().into())
    }

    fn publish(self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.dir.join(digest.hex());
        // where it is here already, dropping self removes the copy; the directory is synced all the same, for the one
        // who renamed it may not have come so far
        if !path.exists() {
            self.file.sync_all().map_err(|source| BlobError::new("sync", &self.path, source))?;
            fs::rename(&self.path, &path).map_err(|source| BlobError::new("rename to", &path, source))?;
        }
        sync_directory(&self.dir)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // gone already where it was committed; what cannot be removed now is a leftover for the next open
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(bytes).into())
    }

    #[test]
    fn a_blob_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"hello ").unwrap();
        writer.write_all(b"world").unwrap();
        let expected = digest(b"hello world");
        assert!(!blobs.has(&expected));
        writer.commit(&expected).unwrap();
        assert_eq!(io::read_to_string(blobs.open_blob(&expected).unwrap()).unwrap(), "hello world");
        assert_eq!(blobs.size(&expected).unwrap(), 11);
        assert_eq!(blobs.put(b"hello world").unwrap(), expected);
        assert_eq!(blobs.list().unwrap(), std::slice::from_ref(&expected));
        blobs.remove(&expected).unwrap();
        blobs.remove(&expected).unwrap();
        assert!(matches!(blobs.open_blob(&expected), Err(BlobError::Missing(_))));
        assert!(matches!(blobs.size(&expected), Err(BlobError::Missing(_))));
    }

    #[test]
    fn wrong_bytes_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"tampered").unwrap();
        let error = writer.commit(&digest(b"original")).unwrap_err().to_string();
        assert!(
            error.contains(digest(b"tampered").as_str()) && error.contains(digest(b"original").as_str()),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path().join("sha256")).unwrap().count(), 0);
    }

    #[test]
    fn what_was_being_written_in_a_crash_is_invisible_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"half").unwrap();
        std::mem::forget(writer); // as a kill would
        assert_eq!(blobs.list().unwrap(), []);
        let blobs = Blobs::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("sha256")).unwrap().count(), 0);
        assert_eq!(blobs.put(b"half").unwrap(), digest(b"half"));
    }

    #[test]
    fn what_the_disk_did_not_keep_is_found_and_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let kept = blobs.put(b"original").unwrap();
        assert_eq!(blobs.read_digest(&kept).unwrap(), kept);
        fs::write(blobs.path(&kept), "tampered").unwrap();
        assert_eq!(blobs.read_digest(&kept).unwrap(), digest(b"tampered"));
        let aside = blobs.set_aside(&kept).unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "tampered");
        assert!(matches!(blobs.set_aside(&kept), Err(BlobError::Missing(_))));
        assert_eq!(blobs.put(b"original").unwrap(), kept, "it can come again");
        let _being_written = blobs.writer().unwrap();
        assert_eq!(blobs.strays().unwrap(), Vec::<PathBuf>::new());
        fs::write(blobs.path(&kept).with_file_name("x"), "").unwrap();
        assert_eq!(blobs.strays().unwrap(), [blobs.path(&kept).with_file_name("x")]);
    }

    #[test]
    fn two_writers_of_one_blob_both_succeed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writers = [blobs.writer().unwrap(), blobs.writer().unwrap()];
        for writer in &mut writers {
            writer.write_all(b"same").unwrap();
        }
        for writer in writers {
            writer.commit(&digest(b"same")).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("sha256")).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_named() {
        let source = io::Error::from(rustix::io::Errno::NOSPC);
        let error = BlobError::new("write", Path::new("/x"), source);
        assert!(matches!(error, BlobError::NoSpace { .. }), "{error}");
    }
}
