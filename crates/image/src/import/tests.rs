use super::*;
use crate::testing::{Tar, digest, gzip};

fn import(bytes: &[u8]) -> Result<(Imported, Vec<u8>), ImportError> {
    let mut layer = Vec::new();
    let imported = import_rootfs(bytes, &mut layer, &ImageConfig::default())?;
    Ok((imported, layer))
}

#[test]
fn a_tar_becomes_an_image_of_one_layer() {
    let mut tar = Tar::new().dir("./").file("bin/sh", &"#".repeat(3000)).finish();
    tar.resize(20 << 10, 0); // padded to records, as tar(1) does
    for bytes in [tar.clone(), gzip(&tar)] {
        let (imported, layer) = import(&bytes).unwrap();
        assert_eq!((&imported.layer.digest, &imported.layer.diff_id), (&digest(&tar), &digest(&tar)));
        assert!(layer == tar);
        assert_eq!(imported.composed, compose(&ImageConfig::default(), std::slice::from_ref(&imported.layer)));
    }
}

#[test]
fn what_is_refused() {
    for (bytes, words) in [
        (b"\x28\xb5\x2f\xfd\0\0\0\0".to_vec(), "read the file as the tar"),
        (b"\xfd7zXZ\0".to_vec(), "xz"),
        (b"BZh9".to_vec(), "bzip2"),
        (Vec::new(), "is empty"),
        (vec![0; 1024], "is empty"),
        (b"not a tar".to_vec(), "read the file as the tar"),
        (gzip(b"not a tar"), "read the file as the tar"),
        (Tar::new().file("../x", "").finish(), "\"../x\" cannot be in an image"),
        (Tar::new().owned_file("x", 100_000).finish(), "belongs to user 100000"),
        (Tar::new().file("a", "x").finish()[..600].to_vec(), "read the file as the tar"),
    ] {
        let error = import(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_full_disk_is_told_as_one() {
    let mut room = [0; 100];
    let tar = Tar::new().file("a", "x").finish();
    let error = import_rootfs(tar.as_slice(), &mut room.as_mut_slice(), &ImageConfig::default()).unwrap_err();
    assert!(matches!(error, ImportError::Write(_)), "{error}");
}
