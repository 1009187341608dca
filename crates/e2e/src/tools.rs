//! Where the binary under test and the tools are. `cargo xtask test` says it by variables; without them they are
//! looked for where it puts them, so that a plain `cargo test` works too once it has run.

use std::path::{Path, PathBuf};

/// The `sampan` binary.
pub fn sampan() -> PathBuf {
    existing(from_variable("SAMPAN_BIN").unwrap_or_else(|| target().join("debug/sampan")), "cargo build")
}

/// A static busybox.
pub fn busybox() -> PathBuf {
    let default = || tool("busybox").join("bin/busybox");
    existing(from_variable("SAMPAN_TEST_BUSYBOX").unwrap_or_else(default), "cargo xtask tools")
}

/// The directory that holds `go`.
pub fn go_dir() -> PathBuf {
    let go = from_variable("SAMPAN_TEST_GO").unwrap_or_else(|| tool("go").join("usr/bin/go"));
    let go = existing(go, "cargo xtask tools");
    go.parent().expect("a program lies in a directory").to_owned()
}

/// The directory of libraries to link with.
pub fn libraries() -> PathBuf {
    let dir = tool("libraries").join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    existing(dir, "cargo xtask tools")
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in crates/")
}

/// The directory for files of tests: on a disk, as a user's would be.
pub fn scratch() -> PathBuf {
    let dir = target().join("tmp");
    std::fs::create_dir_all(&dir).expect("a directory for the tests' files");
    dir
}

fn target() -> PathBuf {
    from_variable("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), |dir| repository().join(dir))
}

fn tool(name: &str) -> PathBuf {
    from_variable("SAMPAN_TEST_TOOLS").unwrap_or_else(|| target().join("debian")).join(name)
}

fn from_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn existing(path: PathBuf, made_by: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `{made_by}`", path.display());
    path
}
