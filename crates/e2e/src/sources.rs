//! Sources to bring up: the examples, the fixtures of this crate, and copies of them to change.
//!
//! Copies lie below the target directory: examples stay clean, and what one run compiled the next need not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::tools;

/// Held while a shared copy or image is made.
static MAKING: Mutex<()> = Mutex::new(());

/// A shared copy of `examples/NAME`; not to be changed.
pub fn example(name: &str) -> PathBuf {
    shared(&tools::repository().join("examples").join(name), name)
}

/// A shared copy of this crate's `fixtures/NAME`; not to be changed.
pub fn fixture(name: &str) -> PathBuf {
    shared(&fixtures().join(name), name)
}

/// A copy of this crate's `fixtures/NAME` in `dir`, to be changed at will.
pub fn private_fixture(name: &str, dir: &Path) -> PathBuf {
    let copy = dir.join(name);
    copy_where_different(&fixtures().join(name), &copy);
    copy
}

/// A root file system of one static busybox under all its names, as a tar for `image import`.
pub fn busybox_tar() -> PathBuf {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let tar = tools::scratch().join("busybox.tar");
    if tar.exists() {
        return tar;
    }
    let dir = tempfile::tempdir_in(tools::scratch()).expect("a temporary directory");
    let rootfs = dir.path().join("rootfs");
    for sub in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(sub)).expect("a directory of the root file system");
    }
    let busybox = rootfs.join("bin/busybox");
    fs::copy(tools::busybox(), &busybox).expect("a copy of busybox");
    let list = Command::new(&busybox).arg("--list").output().expect("busybox runs");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|&name| name != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).expect("a link to busybox");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")
        .expect("passwd of the root file system");
    let partial = dir.path().join("busybox.tar");
    let status = Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "-cf"])
        .arg(&partial)
        .arg("-C")
        .arg(&rootfs)
        .arg(".")
        .status()
        .expect("tar runs");
    assert!(status.success(), "tar: {status}");
    fs::rename(&partial, &tar).expect("the tar is named");
    tar
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn shared(from: &Path, name: &str) -> PathBuf {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = tools::scratch().join("sources").join(name);
    copy_where_different(from, &copy);
    copy
}

/// Copies a tree; a file that is there with the same content keeps its time, and its compiler need not run again.
fn copy_where_different(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of the copy");
    for entry in fs::read_dir(from).expect("a directory of the source").flatten() {
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() != "target" {
                copy_where_different(&source, &copy);
            }
            continue;
        }
        let content = fs::read(&source).expect("a file of the source");
        if fs::read(&copy).ok().as_ref() != Some(&content) {
            fs::write(&copy, content).expect("a file of the copy");
        }
    }
}
