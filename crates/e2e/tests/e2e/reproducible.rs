//! The same source is the same image, whatever `up` it came from. (That it is so for another user, too, is shown by
//! `pack`'s own tests, which need no daemon.)

use std::fs;
use std::path::Path;
use std::process::Command;

use sampan_e2e::{Sampan, sources};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    // without what was built in it, and with times of its own
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success());
    if let Err(error) = fs::remove_dir_all(to.join("target")) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}

#[track_caller]
fn check(source: &Path) {
    let sampan = Sampan::new();
    let digest = |path: &Path, name: &str| {
        sampan.up(path, &["--name", name]);
        sampan.inspect(name)["image"].as_str().expect("a digest").to_owned()
    };
    let (here, there) = (sampan.dir().join("here/app"), sampan.dir().join("somewhere/else/under-another-name"));
    copy(source, &here);
    copy(source, &there);
    let first = digest(&here, "first");
    assert_eq!(digest(&there, "second"), first, "{}", source.display());
}

#[test]
fn rust() {
    check(&sources::fixture("probe"));
}

#[test]
fn go() {
    check(&sources::example("hello-go"));
}

#[test]
fn a_site() {
    check(&sources::example("static-site"));
}
