//! The files of an archive, kept under the digests of their bytes, and a table of the names they have in it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sampan_model::{ByteSize, Digest};
use sha2::{Digest as _, Sha256};

use super::LoadError;
use crate::BlobFiles;
use crate::archive::{Archive, ArchiveError, Entry, Kind};
use crate::compression::decompress;
use crate::entry_path::{BadName, EntryPath};

/// The most files, directories and links.
const MOST: usize = 100_000;
/// The most bytes of all files together.
const MOST_BYTES: u64 = 256 << 30;
/// How many links may lead to one another.
const MOST_LINKS: usize = 8;
/// The longest target of a link.
const LONGEST_TARGET: usize = 4096;
const BLOBS: &str = "blobs/sha256/";

/// What an archive holds.
pub(super) struct Members {
    dir: PathBuf,
    blobs: BlobFiles,
    files: HashMap<String, Member>,
    /// From a link's name to the name it stands for.
    links: HashMap<String, String>,
}

/// A file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub digest: Digest,
    pub size: u64,
}

impl Members {
    /// Reads an archive to its end.
    pub(super) fn read(reader: impl Read, into: &Path) -> Result<Self, LoadError> {
        let mut members =
            Self { dir: into.to_owned(), blobs: BlobFiles::new(into), files: HashMap::new(), links: HashMap::new() };
        // the headers are read in pieces of 512 bytes
        let mut archive = Archive::new(BufReader::with_capacity(128 << 10, decompress(reader)?));
        let mut bytes = 0u64;
        let mut count = 0;
        while let Some(entry) = archive.next()? {
            bytes = bytes.saturating_add(entry.size);
            if bytes > MOST_BYTES {
                return Err(LoadError::TooLarge(ByteSize(MOST_BYTES)));
            }
            count += 1;
            if count > MOST {
                return Err(LoadError::TooMany(MOST));
            }
            let name = name_of(&entry)?;
            match &entry.kind {
                Kind::Directory => {}
                Kind::File => {
                    let member = members.keep(&mut archive.data(), entry.size)?;
                    members.add(name, member)?;
                }
                // a megabyte that no name has is not kept a hundred thousand times
                Kind::Symlink(target) | Kind::HardLink(target) if target.len() > LONGEST_TARGET => {
                    return Err(LoadError::Name { name, source: BadName::TooLong });
                }
                Kind::Symlink(target) => {
                    let target = beside(&name, target);
                    members.link(name, target)?;
                }
                Kind::HardLink(target) => {
                    let target = String::from_utf8_lossy(target).into_owned();
                    members.link(name, target)?;
                }
                Kind::Fifo => return Err(LoadError::Kind(name, "pipe")),
                Kind::Device => return Err(LoadError::Kind(name, "device")),
            }
        }
        Ok(members)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The file of a name, links followed.
    pub(super) fn find(&self, name: &str) -> Result<&Member, LoadError> {
        let missing = || LoadError::Missing(name.to_owned());
        let clean = |name: &str| EntryPath::parse(name.as_bytes()).ok().and_then(|path| text(path.as_bytes()));
        let mut at = clean(name).ok_or_else(missing)?;
        for _ in 0..=MOST_LINKS {
            if let Some(member) = self.files.get(&at) {
                return Ok(member);
            }
            at = self.links.get(&at).and_then(|target| clean(target)).ok_or_else(missing)?;
        }
        Err(missing())
    }

    /// Where a file is kept.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.path(digest)
    }

    /// All files as blobs.
    pub(super) fn blobs(&self) -> &BlobFiles {
        &self.blobs
    }

    /// All of a file, which the caller knows to be small.
    pub(super) fn bytes(&self, member: &Member) -> Result<Vec<u8>, LoadError> {
        let path = self.path(&member.digest);
        fs::read(&path).map_err(|source| LoadError::Io { action: "read", path, source })
    }

    /// The first bytes of a file, by which a compression is known.
    pub(super) fn head(&self, member: &Member) -> Result<Vec<u8>, LoadError> {
        let mut head = Vec::with_capacity(6);
        let read = self.open_layer(&member.digest)?.take(6).read_to_end(&mut head);
        let path = self.path(&member.digest);
        read.map_err(|source| LoadError::Io { action: "read", path, source })?;
        Ok(head)
    }

    pub(super) fn open_layer(&self, digest: &Digest) -> Result<File, LoadError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| LoadError::Io { action: "open", path, source })
    }

    /// Keeps bytes that are none of the archive's.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<Digest, LoadError> {
        self.keep(&mut &*bytes, bytes.len() as u64).map(|member| member.digest)
    }

    /// Writes a file under the digest of its bytes.
    fn keep(&self, data: &mut impl Read, size: u64) -> Result<Member, LoadError> {
        let partial = self.dir.join("partial");
        let failed = |action| {
            let path = partial.clone();
            move |source| LoadError::Io { action, path, source }
        };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let mut file = file.map_err(failed("make"))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        let mut copied = 0;
        loop {
            match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    file.write_all(&buffer[..read]).map_err(failed("write"))?;
                    copied += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error).into()),
            }
        }
        if copied != size {
            return Err(ArchiveError::CutOff.into());
        }
        let digest = Digest::from_sha256(hash.finalize().into());
        fs::rename(&partial, self.path(&digest)).map_err(failed("rename"))?;
        Ok(Member { digest, size })
    }

    fn add(&mut self, name: String, member: Member) -> Result<(), LoadError> {
        // what is not a digest there (`blobs/sha256/x`) is nobody's blob, and not found as one
        let said = name.strip_prefix(BLOBS).and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        if said.is_some_and(|digest| digest != member.digest) {
            return Err(LoadError::Digest { name, actual: member.digest });
        }
        if self.links.contains_key(&name) {
            return Err(LoadError::Duplicate(name));
        }
        match self.files.insert(name.clone(), member.clone()) {
            Some(before) if before != member => Err(LoadError::Duplicate(name)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, name: String, target: String) -> Result<(), LoadError> {
        if self.files.contains_key(&name) {
            return Err(LoadError::Duplicate(name));
        }
        match self.links.insert(name.clone(), target.clone()) {
            Some(before) if before != target => Err(LoadError::Duplicate(name)),
            _ => Ok(()),
        }
    }
}

fn name_of(entry: &Entry) -> Result<String, LoadError> {
    let shown = || String::from_utf8_lossy(&entry.path).into_owned();
    let path = EntryPath::parse(&entry.path).map_err(|source| LoadError::Name { name: shown(), source })?;
    // a name that is no text is looked up by nobody
    Ok(text(path.as_bytes()).unwrap_or_else(shown))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// What a symbolic link stands for: `../abc/layer.tar` in `def/layer.tar`. One that leads out of the archive keeps a
/// `..`, and is found nowhere.
fn beside(name: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target).into_owned();
    if target.starts_with('/') {
        return target;
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
