use sampan_store::Blobs;

use super::*;
use crate::ImageConfig;
use crate::testing::{Tar, image};

fn difference(one: (&ImageConfig, &[Vec<u8>]), other: (&ImageConfig, &[Vec<u8>])) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let [one, other] = [one, other].map(|(config, tars)| {
        let manifest = image(&blobs, config, tars);
        Image::read(&blobs, &manifest).unwrap()
    });
    let [one, other] = [&one, &other].map(|image| Side { image, blobs: &blobs });
    first_difference(one, other).unwrap().map(|difference| difference.to_string())
}

#[test]
fn the_first_difference_is_named() {
    let config = ImageConfig { cmd: vec!["/a".into()], ..ImageConfig::default() };
    let base = Tar::new().file("a", "one").file("c", &"x".repeat(100_000)).finish();
    let check = |tar: Tar, words: &str| {
        let found = difference((&config, std::slice::from_ref(&base)), (&config, &[tar.finish()]));
        assert_eq!(found.as_deref(), Some(words));
    };
    let c = "x".repeat(100_000);
    check(Tar::new().file("a", "two").file("c", &c), "layer 1: a: its content, from byte 0 on");
    check(
        Tar::new().file("a", "one").file("c", &format!("{}y", &c[1..])),
        "layer 1: c: its content, from byte 99999 on",
    );
    check(Tar::new().file("a", "one!").file("c", &c), "layer 1: a: its size, 3 and 4 bytes");
    check(Tar::new().symlink("a", "c").file("c", &c), "layer 1: a: its kind, or where it links to");
    check(Tar::new().owned_file("a", 7), "layer 1: a: its size, 3 and 0 bytes");
    check(Tar::new().file("a", "one").file("b", ""), "layer 1: b: only in the second");
    check(Tar::new().file("a", "one"), "layer 1: c: only in the first");

    let same = (&config, std::slice::from_ref(&base));
    assert_eq!(difference(same, same), None);
    let more = [base.clone(), Tar::new().file("d", "").finish()];
    assert_eq!(difference(same, (&config, &more)).as_deref(), Some("one has 1 layers and the other 2"));
    let other = ImageConfig { env: vec!["A=b".into()], ..config.clone() };
    assert_eq!(difference(same, (&other, same.1)).as_deref(), Some("config: the field config.Env"));
    let mut padded = base.clone();
    padded.extend_from_slice(&[0; 512]);
    let found = difference(same, (&config, &[padded]));
    assert_eq!(found.as_deref(), Some("layer 1: the same files, packed in another way"));
}
