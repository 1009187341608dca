use std::io::Write as _;

use ::tar::EntryType;
use proptest::prelude::*;
use sampan_store::Blobs;
use serde_json::{Value, json};

use super::*;
use crate::save::ArchiveKind;
use crate::save::tests::archive;
use crate::testing::{Tar, digest, gzip, image};
use crate::{ImageConfig, compose};

fn named(names: &[&str]) -> Vec<ImageName> {
    names.iter().map(|name| ImageName::parse(name).unwrap()).collect()
}

fn load_bytes(bytes: &[u8]) -> Result<(Loaded, tempfile::TempDir), LoadError> {
    let dir = tempfile::tempdir().unwrap();
    Ok((load(bytes, dir.path())?, dir))
}

/// An archive of these files.
fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let tar = files.iter().fold(Tar::new(), |tar, (name, bytes)| tar.entry(EntryType::Regular, name, "", bytes));
    tar.finish()
}

fn layer_tar() -> Vec<u8> {
    Tar::new().file("bin/a", "hello").finish()
}

/// The blobs of an image of one layer, packed by `pack`, and its manifest's bytes.
fn parts(architecture: &str, media_type: &str, pack: impl Fn(&[u8]) -> Vec<u8>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let tar = layer_tar();
    let blob = pack(&tar);
    let config =
        json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": format::MANIFEST,
        "config": {"mediaType": format::CONFIG, "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": media_type, "digest": digest(&blob), "size": blob.len()}]});
    (vec![blob, config], manifest.to_string().into_bytes())
}

fn entry(manifest: &[u8], more: Value) -> Value {
    let mut entry = json!({"mediaType": format::MANIFEST, "digest": digest(manifest), "size": manifest.len()});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

/// An OCI layout of these blobs and this index.
fn layout(blobs: &[Vec<u8>], manifests: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    let names: Vec<String> = blobs.iter().map(|bytes| blob(&digest(bytes))).collect();
    let named = names.iter().map(String::as_str).zip(blobs.iter().map(Vec::as_slice));
    files(&named.chain([(INDEX, index.as_slice())]).collect::<Vec<_>>())
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A zstd frame of one raw block a 64 KiB.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]; // no checksum, window of 2 MiB
    let blocks: Vec<_> = bytes.chunks(64 << 10).collect();
    for (at, block) in blocks.iter().enumerate() {
        let head = u32::from(at + 1 == blocks.len()) | (block.len() as u32) << 3;
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

#[test]
fn what_was_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let manifest = image(&blobs, &ImageConfig::default(), &[layer_tar(), Tar::new().file("b", "").finish()]);
    for kind in [ArchiveKind::Oci, ArchiveKind::Docker] {
        let plain = archive(&blobs, &manifest, &["a/b:1", "c"], kind);
        for bytes in [gzip(&plain), zstd(&plain), plain] {
            let (loaded, _dir) = load_bytes(&bytes).unwrap();
            let [image] = loaded.images.as_slice() else { panic!("{loaded:?}") };
            assert_eq!((&image.manifest, &image.names), (&manifest, &named(&["a/b:1", "c"])));
            assert_eq!(image.blobs.last().map(|blob| &blob.digest), Some(&manifest));
            assert_eq!(image.blobs.len(), 4);
            assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
            for blob in &image.blobs {
                let bytes = std::fs::read(&blob.path).unwrap();
                assert_eq!((digest(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
            }
        }
    }
}

#[test]
fn packed_layers_keep_their_manifest() {
    for (media_type, pack) in [(GZIP, gzip as fn(&[u8]) -> Vec<u8>), (ZSTD, zstd)] {
        let (mut blobs, manifest) = parts(host_architecture(), media_type, pack);
        blobs.push(manifest.clone());
        let bytes = layout(&blobs, &[entry(&manifest, json!({"annotations": {REF_NAME: "box:1"}}))]);
        let (loaded, _dir) = load_bytes(&bytes).unwrap();
        assert_eq!(loaded.images[0].manifest, digest(&manifest));
        assert_eq!(loaded.images[0].names, named(&["box:1"]));
    }
}

#[test]
fn a_docker_save_of_before_layouts() {
    let tar = layer_tar();
    let config = json!({"architecture": host_architecture(), "os": "linux", "config": {"Cmd": ["a"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar), digest(&tar)]}});
    let config = config.to_string();
    let manifest =
        json!([{"Config": "abc.json", "RepoTags": ["box:1", "Not A Name"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let bytes = Tar::new()
        .file("abc.json", &config)
        .dir("1/")
        .entry(EntryType::Regular, "1/layer.tar", "", &gzip(&tar))
        .symlink("2/layer.tar", "../1/layer.tar")
        .file(DOCKER, &manifest.to_string())
        .finish();
    let (loaded, dir) = load_bytes(&bytes).unwrap();
    let image = &loaded.images[0];
    assert_eq!(image.names, named(&["box:1"]));
    assert_eq!(image.blobs[2].digest, digest(config.as_bytes()));
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join(image.manifest.hex())).unwrap()).unwrap();
    assert_eq!(manifest["layers"][1]["mediaType"], GZIP);
    // of plain layers and a config of ours, the manifest is the one that was there at first
    let layer = Layer {
        digest: digest(&tar),
        diff_id: digest(&tar),
        size: tar.len() as u64,
        media_type: crate::LayerMediaType::Tar,
    };
    let composed = compose(&ImageConfig::default(), &[layer]);
    let manifest = json!([{"Config": "c", "RepoTags": null, "Layers": ["l"]}]).to_string();
    let (loaded, _dir) =
        load_bytes(&files(&[("c", &composed.config), ("l", &tar), (DOCKER, manifest.as_bytes())])).unwrap();
    assert_eq!(loaded.images[0].manifest, composed.digest);
}

#[test]
fn this_machine_s_platform_is_taken() {
    let (mut blobs, here) = parts(host_architecture(), GZIP, gzip);
    let (others, elsewhere) = parts("riscv64", GZIP, gzip);
    blobs.extend(others);
    blobs.extend([here.clone(), elsewhere.clone()]);
    let platform = |architecture: &str| json!({"platform": {"os": "linux", "architecture": architecture}});
    let inner = json!({"schemaVersion": 2, "mediaType": format::INDEX, "manifests": [
        entry(&elsewhere, platform("riscv64")),
        entry(&here, platform(host_architecture())),
        entry(b"what BuildKit says of it", json!({"platform": {"os": "unknown", "architecture": "unknown"}})),
        entry(b"not in the archive", platform("s390x")),
    ]});
    let inner = inner.to_string().into_bytes();
    blobs.push(inner.clone());
    let outer = json!({"mediaType": format::INDEX, "digest": digest(&inner), "size": inner.len(), "annotations": {IMAGE_NAME: "box:1"}});
    let (loaded, _dir) = load_bytes(&layout(&blobs, &[outer])).unwrap();
    let [image] = loaded.images.as_slice() else { panic!("{loaded:?}") };
    assert_eq!((&image.manifest, &image.names), (&digest(&here), &named(&["box:1"])));
    assert_eq!(loaded.notes, ["left out the image for linux/s390x", "left out the image for linux/riscv64"]);

    let error = load_bytes(&layout(&blobs, &[entry(&elsewhere, json!({}))])).unwrap_err().to_string();
    assert!(error.contains("holds images for linux/riscv64, and this machine is linux/"), "{error}");
}

#[test]
fn what_is_refused() {
    let (blobs, manifest) = parts(host_architecture(), GZIP, gzip);
    let whole = [blobs.clone(), vec![manifest.clone()]].concat();
    let index = || json!({"schemaVersion": 2, "manifests": [entry(&manifest, json!({}))]}).to_string();
    let with = |tar: Tar| tar.file(INDEX, &index()).finish();
    let without = |at: usize| {
        let mut left = whole.clone();
        left.remove(at);
        layout(&left, &[entry(&manifest, json!({}))])
    };
    let named_wrongly = files(&[(&blob(&digest(b"another")), b"one")]);
    let mut other_tar = parts(host_architecture(), GZIP, |_| gzip(&Tar::new().file("bin/a", "other").finish()));
    other_tar.0.push(other_tar.1.clone());
    let hostile = Tar::new().file("../../etc/x", "").finish();
    let config = json!({"architecture": host_architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&hostile)]}}).to_string();
    let docker = |layer: &str| json!([{"Config": "c", "RepoTags": [], "Layers": [layer]}]).to_string();
    let huge = {
        let mut tar = files(&[("blob", b"x")]);
        tar[124..135].copy_from_slice(b"77777777777");
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let index_in_itself = {
        let deep = |inner: &[u8]| {
            json!({"schemaVersion": 2, "manifests": [{"mediaType": format::INDEX, "digest": digest(inner), "size": 1}]})
                .to_string()
        };
        let mut all = vec![deep(b"end")];
        for _ in 0..5 {
            all.push(deep(all[all.len() - 1].as_bytes()));
        }
        let names: Vec<String> = all.iter().map(|bytes| blob(&digest(bytes.as_bytes()))).collect();
        let mut list: Vec<_> = names.iter().map(String::as_str).zip(all.iter().map(String::as_bytes)).collect();
        list.push((INDEX, all[5].as_bytes()));
        files(&list)
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            b"not a tar, and longer than one block of it would have to be".repeat(20),
            "read the archive: it is not a tar",
        ),
        (b"\xfd7zXZ\0".to_vec(), "compressed with xz"),
        (Vec::new(), "holds no images"),
        (files(&[("bin/sh", b"#!")]), "holds no images"),
        (files(&[("repositories", b"{}")]), "before 1.10"),
        (gzip(&whole[0])[..20].to_vec(), "read the"),
        (huge, "cut off"),
        (with(Tar::new().file("../x", "")), "\"../x\", which is refused"),
        (with(Tar::new().file(&"a/".repeat(200), "")), "which is refused"),
        (with(Tar::new().symlink("x", &"a".repeat(5000))), "which is refused"),
        (with(Tar::new().entry(EntryType::Fifo, "x", "", b"")), "is a pipe"),
        (with(Tar::new().entry(EntryType::Char, "x", "", b"")), "is a device"),
        (with(Tar::new().file("x", "1").file("./x", "2")), "two files of the name \"x\""),
        (with(Tar::new().symlink("x", "y").file("x", "2")), "two files of the name \"x\""),
        (named_wrongly, "has the digest"),
        (without(0), "is not here"),
        (without(1), "is missing"),
        (without(2), "is missing"),
        (layout(&other_tar.0, &[entry(&other_tar.1, json!({}))]), "has the digest"),
        (layout(&[], &[]), "holds no images"),
        (files(&[(INDEX, b"{")]), "\"index.json\" of the archive is not as it should be"),
        (index_in_itself, "larger than any such file"),
        (
            files(&[("c", config.as_bytes()), ("l", &hostile), (DOCKER, docker("l").as_bytes())]),
            "a name that is refused",
        ),
        (files(&[("c", config.as_bytes()), (DOCKER, docker("../../../etc/passwd").as_bytes())]), "is missing"),
        (files(&[("c", config.as_bytes()), (DOCKER, docker("/etc/passwd").as_bytes())]), "is missing"),
        (
            Tar::new().file("c", &config).symlink("l", "/etc/passwd").file(DOCKER, &docker("l")).finish(),
            "\"l\" is missing",
        ),
        (Tar::new().file("c", &config).symlink("l", "l").file(DOCKER, &docker("l")).finish(), "\"l\" is missing"),
        (Tar::new().symlink("l", "../../x").file("c", &config).file(DOCKER, &docker("l")).finish(), "\"l\" is missing"),
    ];
    for (bytes, words) in cases {
        let error = load_bytes(&bytes).map(|(loaded, _)| loaded).expect_err(words);
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
}

#[test]
fn nothing_is_written_beside_the_directory() {
    let parent = tempfile::tempdir().unwrap();
    let into = parent.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let tar = Tar::new().symlink("out", "..").file("out/x", "escaped").file("/y", "escaped").finish();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).unwrap();
    assert!(matches!(load(packed.finish().unwrap().as_slice(), &into), Err(LoadError::NoImages)));
    let names: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["into"]);
}

/// An archive of every kind of description.
fn seed() -> Vec<u8> {
    let (blobs, manifest) = parts(host_architecture(), GZIP, gzip);
    let index =
        json!({"schemaVersion": 2, "manifests": [entry(&manifest, json!({"annotations": {IMAGE_NAME: "box:1"}}))]});
    let docker = json!([{"Config": blob(&digest(&blobs[1])), "RepoTags": ["box:1"], "Layers": ["link"]}]);
    let tar = Tar::new().dir("blobs/").symlink("link", &blob(&digest(&blobs[0])));
    let all = [blobs, vec![manifest]].concat();
    let tar = all.iter().fold(tar, |tar, bytes| tar.entry(EntryType::Regular, &blob(&digest(bytes)), "", bytes));
    tar.file(DOCKER, &docker.to_string()).file(INDEX, &index.to_string()).finish()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// No bytes make it panic; what is loaded nevertheless is what its digests say, and lies in the directory.
    #[test]
    fn damaged_archives_are_errors_or_whole(at in prop::collection::vec((0usize..6144, any::<u8>()), 1..4), packed: bool) {
        let mut bytes = seed();
        for (at, byte) in at {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if packed {
            bytes = gzip(&bytes);
        }
        let Ok((loaded, dir)) = load_bytes(&bytes) else { return Ok(()) };
        for found in loaded.images.iter().flat_map(|image| &image.blobs) {
            prop_assert_eq!(found.path.parent(), Some(dir.path()));
            prop_assert_eq!(digest(&std::fs::read(&found.path).unwrap()), found.digest.clone());
        }
    }

    /// Whatever a description says, it is looked up in the archive and nowhere else.
    #[test]
    fn hostile_descriptions_are_errors(names in prop::collection::vec("[./a-c]{0,12}|/etc/passwd|blobs/sha256/[a-f0-9]{64}", 1..4)) {
        let docker = json!([{"Config": names[0], "RepoTags": names, "Layers": names}]).to_string();
        let loaded = load_bytes(&Tar::new().symlink("a", &names[0]).file(DOCKER, &docker).finish());
        prop_assert!(loaded.is_err());
    }
}
