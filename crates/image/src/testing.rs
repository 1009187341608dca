//! Tars that no honest program writes, for tests.

use std::io::Write as _;

use ::tar::{EntryType, Header};
use sampan_model::Digest;
use sampan_store::Blobs;
use sha2::{Digest as _, Sha256};

use crate::{ImageConfig, Layer, LayerMediaType, compose};

/// A tar that is being made; entries are taken as they are.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        for (kind, text) in [(EntryType::GNULongName, name), (EntryType::GNULongLink, link)] {
            if text.len() > 100 {
                self = self.raw(kind, "././@LongLink", "", text.as_bytes(), 0);
            }
        }
        self.raw(kind, &name[..name.len().min(100)], &link[..link.len().min(100)], data, 0)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", data.as_bytes())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    pub(crate) fn owned_file(self, name: &str, uid: u64) -> Self {
        self.raw(EntryType::Regular, name, "", b"", uid)
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| *length == rest + length.to_string().len()).unwrap();
            data += &format!("{length} {key}={value}\n");
        }
        self.raw(EntryType::XHeader, "pax", "", data.as_bytes(), 0)
    }

    pub(crate) fn raw(mut self, kind: EntryType, name: &str, link: &str, data: &[u8], uid: u64) -> Self {
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(uid);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// An image of these layers' tars in a store of its own; returns its manifest.
pub(crate) fn image(blobs: &Blobs, config: &ImageConfig, tars: &[Vec<u8>]) -> Digest {
    let layer = |tar: &Vec<u8>| {
        let digest = blobs.put(tar).unwrap();
        Layer { diff_id: digest.clone(), digest, size: tar.len() as u64, media_type: LayerMediaType::Tar }
    };
    let composed = compose(config, &tars.iter().map(layer).collect::<Vec<_>>());
    blobs.put(&composed.config).unwrap();
    blobs.put(&composed.manifest).unwrap()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
