//! Where the binary under test and the tools are. `cargo xtask test` says it by variables; without them they are
//! looked for where it puts them, so that a plain `cargo test` works too once it has run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The `sampan` binary.
pub fn sampan() -> PathBuf {
    existing(from_variable("SAMPAN_BIN").unwrap_or_else(|| target().join("debug/sampan")), "cargo build")
}

/// The project's own chores.
pub fn xtask() -> PathBuf {
    existing(target().join("debug/xtask"), "cargo build --package xtask")
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
    let dir = tool("libraries").join("usr/lib").join(multiarch());
    existing(dir, "cargo xtask tools")
}

/// systemd, unpacked and not installed.
pub fn systemd() -> PathBuf {
    let dir = tool("systemd");
    existing(dir.join("usr/bin/systemd-analyze"), "cargo xtask tools");
    dir
}

/// The emulator.
pub fn qemu() -> PathBuf {
    existing(tool("qemu").join("usr/bin/qemu-system-x86_64"), "cargo xtask tools")
}

/// The guest's kernel. Its modules lie below the same tool's directory.
pub fn kernel() -> PathBuf {
    let boot = existing(tool("kernel").join("boot"), "cargo xtask tools");
    let kernel = std::fs::read_dir(&boot).expect("the kernel's directory").flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    kernel.into_iter().find(is_kernel).unwrap_or_else(|| panic!("no vmlinuz in {}", boot.display()))
}

/// The test programs that run in the guest, by name: only cargo knows where they are.
pub fn test_programs() -> Vec<(String, PathBuf)> {
    let told = std::env::var("SAMPAN_TEST_PROGRAMS").expect(
        "SAMPAN_TEST_PROGRAMS says which test programs run in the guest: run `cargo xtask test -- --test guest`",
    );
    let pairs = told.split(':').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, path)| (name.to_owned(), existing(path.into(), "cargo xtask test"))).collect()
}

/// Debian's directory for this machine's libraries.
pub fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// What reads Prometheus's pages and judges them.
pub fn promtool() -> PathBuf {
    existing(tool("prometheus").join("usr/bin/promtool"), "cargo xtask tools")
}

/// groff with its own macros and fonts, to be given words.
pub fn groff() -> Command {
    let usr = existing(tool("groff").join("usr/bin/groff"), "cargo xtask tools");
    let usr = usr.ancestors().nth(2).expect("a program lies in usr/bin").to_owned();
    let shared = std::fs::read_dir(usr.join("share/groff")).expect("groff's files").flatten().map(|entry| entry.path());
    let versions: Vec<_> = shared.filter(|path| path.join("tmac").is_dir()).collect();
    let dirs = |name: &str| std::env::join_paths(versions.iter().map(|dir| dir.join(name))).expect("no colon in paths");
    let mut command = Command::new(usr.join("bin/groff"));
    command.env("GROFF_TMAC_PATH", dirs("tmac")).env("GROFF_FONT_PATH", dirs("font"));
    command.env("GROFF_BIN_PATH", usr.join("bin"));
    command
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

/// Where cargo puts what it builds.
pub fn built() -> PathBuf {
    target()
}

fn target() -> PathBuf {
    from_variable("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), |dir| repository().join(dir))
}

/// A tool's directory, as its Debian packages were unpacked.
pub fn tool(name: &str) -> PathBuf {
    from_variable("SAMPAN_TEST_TOOLS").unwrap_or_else(|| target().join("debian")).join(name)
}

fn from_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn existing(path: PathBuf, made_by: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `{made_by}`", path.display());
    path
}
