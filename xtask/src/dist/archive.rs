//! Archives that are the same bytes for the same files: sorted, root's, at one time.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

/// Whether a file is a program or a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Relative.
    pub path: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Entry {
    /// A file with this content.
    pub fn file(path: impl Into<String>, bytes: &[u8], executable: Executable) -> Self {
        let mode = if executable == Executable::Yes { 0o755 } else { 0o644 };
        Self { path: path.into(), mode, bytes: bytes.to_vec() }
    }

    /// The same, compressed; its name gets `.gz`.
    pub fn gz(path: impl AsRef<str>, bytes: &[u8]) -> Result<Self> {
        Ok(Self::file(format!("{}.gz", path.as_ref()), &gz(bytes)?, Executable::No))
    }

    /// How many bytes it holds.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A compressed tar of the files and the directories above them.
pub fn tar_gz(entries: &[Entry], made_at: u64) -> Result<Vec<u8>> {
    let mut files: Vec<&Entry> = entries.iter().collect();
    files.sort();
    let directories: BTreeSet<&Path> = files
        .iter()
        .flat_map(|file| Path::new(&file.path).ancestors().skip(1))
        .filter(|path| !path.as_os_str().is_empty() && *path != Path::new("."))
        .collect();
    let mut tar = tar::Builder::new(Vec::new());
    for directory in directories {
        let mut header = header(tar::EntryType::Directory, 0o755, 0, made_at);
        tar.append_data(&mut header, format!("{}/", directory.display()), std::io::empty())
            .with_context(|| format!("add {}", directory.display()))?;
    }
    for file in files {
        let mut header = header(tar::EntryType::Regular, file.mode, file.length(), made_at);
        tar.append_data(&mut header, &file.path, file.bytes.as_slice())
            .with_context(|| format!("add {}", file.path))?;
    }
    gz(&tar.into_inner().context("end the archive")?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64, made_at: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(made_at);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Compressed, without a name or a time in its head.
pub fn gz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("compress")
}

/// In hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let a = Entry::file("top/a", b"a", Executable::Yes);
        let b = Entry::file("top/sub/b", b"b", Executable::No);
        let one = tar_gz(&[a.clone(), b.clone()], 1_000_000).unwrap();
        assert_eq!(one, tar_gz(&[b, a], 1_000_000).unwrap());
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(one.as_slice()));
        let found: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.mtime().unwrap())
            })
            .collect();
        let expected = [("top/", 0o755), ("top/sub/", 0o755), ("top/a", 0o755), ("top/sub/b", 0o644)];
        assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode, 1_000_000)));
    }
}
