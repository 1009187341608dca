use std::collections::BTreeMap;

use sampan_store::Blobs;

use super::*;
use crate::ImageConfig;
use crate::archive::{Archive, Kind};
use crate::testing::{Tar, image};

fn store() -> (tempfile::TempDir, Blobs, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let config = ImageConfig { cmd: vec!["/a".into()], ..ImageConfig::default() };
    let tars = [Tar::new().file("a", "one").finish(), Tar::new().file("b", "two").finish()];
    let manifest = image(&blobs, &config, &tars);
    (dir, blobs, manifest)
}

fn saved(blobs: &Blobs, digest: &Digest, names: &[&str]) -> SavedImage {
    let read = |digest| std::fs::read(blobs.path(digest)).unwrap();
    let manifest = Manifest::parse(&read(digest)).unwrap();
    let image = manifest.image(&read(manifest.config())).unwrap();
    SavedImage { image, manifest, names: names.iter().map(|name| ImageName::parse(name).unwrap()).collect() }
}

pub(crate) fn archive(blobs: &Blobs, digest: &Digest, names: &[&str], kind: ArchiveKind) -> Vec<u8> {
    let saved = saved(blobs, digest, names);
    let mut writer = ArchiveWriter::new(Vec::new());
    writer.image(blobs, &saved).unwrap();
    writer.image(blobs, &saved).unwrap(); // all there already
    writer.finish(kind, &[saved]).unwrap()
}

fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = Archive::new(tar);
    let mut members = BTreeMap::new();
    while let Some(entry) = archive.next().unwrap() {
        let mut bytes = Vec::new();
        archive.data().read_to_end(&mut bytes).unwrap();
        if entry.kind == Kind::File {
            assert!(members.insert(String::from_utf8(entry.path).unwrap(), bytes).is_none());
        }
    }
    members
}

#[test]
fn an_oci_layout() {
    let (_dir, blobs, digest) = store();
    let members = members(&archive(&blobs, &digest, &["a/b:1", "c"], ArchiveKind::Oci));
    let names: Vec<_> = members.keys().filter(|name| !name.starts_with("blobs/sha256/")).collect();
    assert_eq!(names, ["index.json", "oci-layout"]);
    assert_eq!(members.len(), 2 + 4);
    assert_eq!(members["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value = serde_json::from_slice(&members["index.json"]).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let annotated = |at: usize, key: &str| entries[at]["annotations"][key].as_str().unwrap().to_owned();
    assert_eq!((annotated(0, IMAGE_NAME), annotated(0, REF_NAME)), ("a/b:1".into(), "1".into()));
    assert_eq!((annotated(1, IMAGE_NAME), annotated(1, REF_NAME)), ("c:latest".into(), "latest".into()));
    assert_eq!(entries[0]["digest"], digest.as_str());
    assert_eq!(entries[0]["size"], members[&path(&digest)].len());
}

#[test]
fn what_docker_loads() {
    let (_dir, blobs, digest) = store();
    let members = members(&archive(&blobs, &digest, &["c"], ArchiveKind::Docker));
    assert!(!members.contains_key(LAYOUT), "or Docker on containerd takes names that it does not find again");
    let manifest: serde_json::Value = serde_json::from_slice(&members[DOCKER]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["c:latest"]));
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    for path in layers.iter().chain([&manifest[0]["Config"]]) {
        assert!(members.contains_key(path.as_str().unwrap()), "{path}");
    }
    let top = saved(&blobs, &digest, &[]).image.layers[1].digest.hex().to_owned();
    let repositories: serde_json::Value = serde_json::from_slice(&members["repositories"]).unwrap();
    assert_eq!(repositories, serde_json::json!({ "c": { "latest": top } }));
}

#[test]
fn the_same_bytes_each_time() {
    let (_dir, blobs, digest) = store();
    for kind in [ArchiveKind::Oci, ArchiveKind::Docker] {
        assert!(archive(&blobs, &digest, &["c"], kind) == archive(&blobs, &digest, &["c"], kind));
    }
}

#[test]
fn damage_is_found_as_it_is_written() {
    let (_dir, blobs, digest) = store();
    let saved = saved(&blobs, &digest, &[]);
    let layer = &saved.image.layers[0];
    let mut bytes = std::fs::read(blobs.path(&layer.digest)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    for bytes in [bytes.clone(), bytes[..last].to_vec(), [bytes.clone(), vec![0]].concat()] {
        std::fs::write(blobs.path(&layer.digest), bytes).unwrap();
        let error = ArchiveWriter::new(Vec::new()).image(&blobs, &saved).unwrap_err();
        assert!(matches!(&error, SaveError::Damaged(digest) if *digest == layer.digest), "{error}");
    }
}
