use std::os::unix::fs::MetadataExt as _;

use sampan_store::Blobs;

use super::*;
use crate::testing::{Tar, image};
use crate::{Image, ImageConfig};

fn bundle(config: &ImageConfig, tars: &[Vec<u8>]) -> Result<(tempfile::TempDir, Value), BundleError> {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
    let image = Image::read(&blobs, &image(&blobs, config, tars)).unwrap();
    let into = dir.path().join("bundle");
    fs::create_dir(&into).unwrap();
    write_bundle(&image, &blobs, &into)?;
    let config = serde_json::from_slice(&fs::read(into.join("config.json")).unwrap()).unwrap();
    Ok((dir, config))
}

fn config() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/app".into()],
        cmd: vec!["-v".into()],
        env: vec!["A=b".into()],
        user: "1000:1000".into(),
        exposed_ports: vec!["9000/tcp".into()],
        labels: [("x".to_owned(), "y".to_owned())].into(),
        ..ImageConfig::default()
    }
}

#[test]
fn what_to_execute() {
    let (dir, json) = bundle(&config(), &[Tar::new().file("app", "#!").finish()]).unwrap();
    let process = &json["process"];
    assert_eq!(process["args"], json!(["/app", "-v"]));
    assert_eq!(process["env"], json!(["A=b", PATH, "HOME=/", "PORT=9000"]));
    assert_eq!(process["cwd"], "/");
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(json["annotations"]["x"], "y");
    assert_eq!(json["annotations"]["org.opencontainers.image.exposedPorts"], "9000/tcp");
    let rootfs = dir.path().join("bundle/rootfs");
    assert_eq!(fs::metadata(rootfs).unwrap().mode() & 0o777, 0o755);
    if rustix::process::geteuid().is_root() {
        assert_eq!(process["user"], json!({ "uid": 1000, "gid": 1000, "additionalGids": [] }));
        assert_eq!(process["capabilities"]["effective"], json!([]), "the user is not root");
    } else {
        assert_eq!(json["linux"]["uidMappings"][0]["containerID"], 0);
    }
}

#[test]
fn layers_lie_over_one_another() {
    let lower = Tar::new()
        .file("gone", "")
        .file("dir/hidden", "")
        .file("dir/kept-by-both", "lower")
        .file("replaced/inside", "")
        .file("stays", "lower")
        .finish();
    let upper = Tar::new()
        .file(".wh.gone", "")
        .file(".wh.never", "")
        .file("dir/own", "upper")
        .file("dir/.wh..wh..opq", "")
        .file("dir/kept-by-both", "upper")
        .file(".wh.replaced", "")
        .file("replaced", "now a file")
        .finish();
    let (dir, _) = bundle(&config(), &[lower, upper]).unwrap();
    let rootfs = dir.path().join("bundle/rootfs");
    let read = |name: &str| fs::read_to_string(rootfs.join(name)).ok();
    assert_eq!(read("stays").as_deref(), Some("lower"));
    assert_eq!(read("dir/own").as_deref(), Some("upper"));
    assert_eq!(read("dir/kept-by-both").as_deref(), Some("upper"));
    assert_eq!(read("replaced").as_deref(), Some("now a file"));
    for name in ["gone", "dir/hidden", ".wh.gone", "dir/.wh..wh..opq"] {
        assert!(!rootfs.join(name).exists(), "{name}");
    }
}

#[test]
fn a_link_leads_no_whiteout_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "").unwrap();
    let target = outside.path().to_str().unwrap();
    let lower = Tar::new().symlink("out", target).finish();
    let upper = Tar::new().file("out/.wh.victim", "").file("out/.wh..wh..opq", "").finish();
    bundle(&config(), &[lower, upper]).unwrap();
    assert!(outside.path().join("victim").exists());
}

#[test]
fn what_cannot_be_run() {
    let nothing = ImageConfig::default();
    assert!(matches!(bundle(&nothing, &[]), Err(BundleError::NoCommand)));
    let nobody = ImageConfig { user: "nobody-here".into(), ..config() };
    assert!(matches!(bundle(&nobody, &[]), Err(BundleError::User(_))));
}
