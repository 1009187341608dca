use serde_json::{Value, json};

use super::*;
use crate::compose;
use crate::testing::digest;

fn store() -> (tempfile::TempDir, Blobs) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    (dir, blobs)
}

#[test]
fn what_was_composed_is_read() {
    let (_dir, blobs) = store();
    let config = ImageConfig {
        entrypoint: vec!["/app/hello".into()],
        cmd: vec!["-v".into()],
        env: vec!["PATH=/bin".into()],
        working_dir: "/app".into(),
        user: "app:app".into(),
        exposed_ports: vec!["8080/tcp".into()],
        stop_signal: Some("SIGINT".into()),
        ..ImageConfig::default()
    };
    let blob = blobs.put(b"a layer").unwrap();
    let layer = Layer { digest: blob, diff_id: digest(b"its tar"), size: 7, media_type: LayerMediaType::TarGzip };
    let composed = compose(&config, std::slice::from_ref(&layer));
    let config_digest = blobs.put(&composed.config).unwrap();
    let manifest = blobs.put(&composed.manifest).unwrap();
    assert_eq!((&manifest, &config_digest), (&composed.digest, &composed.config_digest));
    let image = Image::read(&blobs, &manifest).unwrap();
    let size = 7 + composed.config.len() as u64;
    let history = vec![History { created_by: Some("sampan".into()), ..History::default() }];
    let (manifest_digest, layers) = (manifest.clone(), vec![layer.clone()]);
    let expected = Image { manifest: manifest_digest, config_digest, config, layers, size, created: None, history };
    assert_eq!(image, expected);
    blobs.remove(&layer.digest).unwrap();
    let error = Image::read(&blobs, &manifest).unwrap_err();
    assert!(matches!(&error, ImageError::BlobMissing(digest) if *digest == layer.digest), "{error}");
}

/// Docker's types, and the nulls that its Go writes.
fn docker() -> (Value, Value) {
    let config = json!({
        "architecture": host_architecture(), "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {"Entrypoint": null, "Cmd": ["sh"], "Env": null, "ExposedPorts": null, "Labels": null, "Volumes": null,
                   "User": "", "OnBuild": null, "StopSignal": ""},
        "rootfs": {"type": "layers", "diff_ids": null}, "history": [{"created_by": "x", "empty_layer": true}]
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format::DOCKER_MANIFEST, "layers": [],
        "config": {"mediaType": format::DOCKER_CONFIG, "digest": "", "size": 0, "urls": []}
    });
    (config, manifest)
}

fn read(config: &Value, mut manifest: Value) -> Result<Image, ImageError> {
    let (_dir, blobs) = store();
    let bytes = config.to_string();
    if manifest["config"]["digest"] == "" {
        manifest["config"]["digest"] = json!(blobs.put(bytes.as_bytes()).unwrap());
        manifest["config"]["size"] = json!(bytes.len());
    }
    let manifest = blobs.put(manifest.to_string().as_bytes()).unwrap();
    Image::read(&blobs, &manifest)
}

#[test]
fn dockers_manifests_are_read() {
    let (config, manifest) = docker();
    let image = read(&config, manifest.clone()).unwrap();
    assert_eq!(image.config, ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() });
    let (mut config, mut manifest) = (config, manifest);
    config["config"] = Value::Null;
    manifest.as_object_mut().unwrap().remove("mediaType");
    assert_eq!(read(&config, manifest).unwrap().config, ImageConfig::default());
}

#[test]
fn what_is_refused() {
    let check = |change: &dyn Fn(&mut Value, &mut Value), words: &str| {
        let (mut config, mut manifest) = docker();
        change(&mut config, &mut manifest);
        let error = read(&config, manifest).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let other = if host_architecture() == "arm64" { "amd64" } else { "arm64" };
    let words = format!("wrong architecture: image is {other}, this machine {}", host_architecture());
    check(&|config, _| config["architecture"] = json!(other), &words);
    check(&|config, _| config["os"] = json!("windows"), "wrong operating system: image is windows");
    check(&|_, manifest| manifest["mediaType"] = json!("text/plain"), "text/plain");
    check(&|_, manifest| *manifest = json!({"schemaVersion": 2, "manifests": []}), "is an index");
    check(&|_, manifest| *manifest = json!([]), "the manifest sha256:");
    check(&|_, manifest| manifest["config"]["mediaType"] = json!("a/b"), "the config sha256:");
    check(&|_, manifest| manifest["config"]["digest"] = json!("sha256:short"), "the manifest sha256:");
    check(&|_, manifest| manifest["config"]["digest"] = json!(digest(b"missing")), "is not here");
    check(
        &|config, _| config["rootfs"] = json!({"type": "layers", "diff_ids": [digest(b"a")]}),
        "0 layers and the config 1",
    );
    let layer = |media_type: &str| json!({"mediaType": media_type, "digest": digest(b"missing"), "size": 7});
    check(&|_, manifest| manifest["layers"] = json!(vec![layer("x"); 128]), "128 layers; the limit is 127");
    let one_layer = |config: &mut Value, manifest: &mut Value, media_type: &str| {
        config["rootfs"]["diff_ids"] = json!([digest(b"a")]);
        manifest["layers"] = json!([layer(media_type)]);
    };
    let lz4 = "application/vnd.oci.image.layer.v1.tar+lz4";
    check(&|config, manifest| one_layer(config, manifest, lz4), "cannot be used here");
    check(&|config, manifest| one_layer(config, manifest, LayerMediaType::Tar.as_str()), "is not here");
}

#[test]
fn bytes_on_the_disk_are_not_believed() {
    let (_dir, blobs) = store();
    let large = blobs.put(&vec![b' '; (LARGEST_JSON + 1) as usize]).unwrap();
    let error = Image::read(&blobs, &large).unwrap_err().to_string();
    assert!(error.contains("the limit is 4MiB"), "{error}");
    let manifest = blobs.put(b"{}").unwrap();
    std::fs::write(blobs.path(&manifest), "[]").unwrap();
    let error = Image::read(&blobs, &manifest).unwrap_err();
    assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
}
