//! The guest's disk: an ext4 file system with everything its tests need, written without mounting it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{sources, tools};

/// Its size in bytes. Only what is written takes place.
const SIZE: u64 = 3 << 30;

const DIRECTORIES: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "proc",
    "programs",
    "root",
    "run",
    "sys",
    "target/tmp",
    "tmp",
    "tools",
    "usr/lib",
    "usr/lib64",
    "var/lib",
];

pub(super) fn write(to: &Path, scratch: &Path) {
    let tree = tempfile::tempdir_in(scratch).expect("a directory for the guest's files");
    fill(tree.path());
    fs::File::create(to).and_then(|file| file.set_len(SIZE)).expect("a file for the guest's disk");
    // no journal: the disk is never used twice
    let mut command = Command::new(mke2fs());
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]);
    let output = command.arg(tree.path()).arg(to).output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Part of every Debian, in a directory that is not in everybody's `PATH`.
fn mke2fs() -> PathBuf {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join("mke2fs"))
        .find(|path| path.exists());
    found.expect("mke2fs is missing: install e2fsprogs")
}

fn fill(root: &Path) {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("a mode");
    for dir in DIRECTORIES {
        fs::create_dir_all(root.join(dir)).expect("a directory of the guest's");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a mode");
    // as in Debian: what a process has mapped is below /usr
    for dir in ["lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir)).expect("a link to a directory of libraries");
    }
    place(&tools::busybox(), &root.join("bin/busybox"));
    let list = Command::new(tools::busybox()).arg("--list").output().expect("busybox runs");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|&name| name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).expect("a link to busybox");
    }
    let mut programs = tools::test_programs();
    programs.push(("sampan".to_owned(), tools::sampan()));
    let mut libraries = BTreeSet::new();
    for (name, path) in &programs {
        place(path, &root.join("programs").join(name));
        libraries.extend(linked(path));
    }
    for library in &libraries {
        place(library, &root.join(library.strip_prefix("/").expect("an absolute path")));
    }
    // the measure of `sampan oci`; what it is linked with is where it finds that without being told
    let library = Path::new("usr/lib").join(tools::multiarch()).join("libseccomp.so.2");
    place(&tools::tool("runc").join("usr/sbin/runc"), &root.join("tools/runc/usr/sbin/runc"));
    place(&tools::tool("runc").join(&library), &root.join(&library));
    place(&sources::busybox_tar(), &root.join("target/tmp/busybox.tar"));
    for (name, text) in [
        ("etc/passwd", "root:x:0:0:root:/tmp:/bin/sh\nsomebody:x:1000:1000:somebody:/tmp:/bin/sh\n"),
        ("etc/group", "root:x:0:\nsomebody:x:1000:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
    ] {
        fs::write(root.join(name), text).expect("a file of the guest's");
    }
    fs::write(root.join("init"), include_str!("init.sh")).expect("the guest's init");
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// The loader and the libraries, by the paths under which the loader finds them.
fn linked(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd is part of every Debian");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "ldd {}: {text}", program.display());
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

/// The same file by another name where the disks are the same, or a copy.
fn place(from: &Path, to: &Path) {
    let from = from.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::create_dir_all(to.parent().expect("a parent")).expect("a directory of the guest's");
    if fs::hard_link(&from, to).is_err() {
        fs::copy(&from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
}
