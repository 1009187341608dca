//! Every way to be wrong has its kind of answer, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sampan_e2e::sampan::{body_of, listener};
use sampan_e2e::{Outcome, Sampan, sources, tools};

/// `up` of it must fail with this code and these words, and leave nothing that runs.
#[track_caller]
fn check(sampan: &Sampan, source: &Path, words: &[&str], code: i32, says: &[&str]) -> Outcome {
    let source = source.to_str().expect("a path in UTF-8");
    let outcome = sampan.run(&[&["up", source], words].concat()).assert_fails(code, says);
    assert_eq!(outcome.stdout, "", "only a URL goes to stdout: {outcome}");
    sampan.assert_nothing_runs();
    outcome
}

/// A directory of the test's with these files.
fn directory(sampan: &Sampan, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = sampan.dir().join(name);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

const CRATE: &str = "[package]\nname = \"broken\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";

#[test]
fn sources_that_are_none() {
    let sampan = Sampan::new();
    check(&sampan, Path::new("/no/such/directory"), &[], 1, &["/no/such/directory"]);
    let empty = directory(&sampan, "empty", &[]);
    check(&sampan, &empty, &[], 1, &["empty", "Cargo.toml", "go.mod"]);
    let text = directory(&sampan, "text", &[("notes.txt", "not a program\n")]);
    check(&sampan, &text, &[], 1, &["text"]);
    check(&sampan, &text.join("notes.txt"), &[], 1, &["notes.txt"]);
    let library = directory(&sampan, "library", &[("Cargo.toml", CRATE), ("src/lib.rs", "")]);
    check(&sampan, &library, &[], 1, &["no program"]);
    let several = [("Cargo.toml", CRATE), ("src/bin/one.rs", "fn main() {}"), ("src/bin/two.rs", "fn main() {}")];
    check(&sampan, &directory(&sampan, "several", &several), &[], 1, &["--bin", "one", "two"]);
    let several = [
        ("go.mod", "module several\n\ngo 1.19\n"),
        ("cmd/one/main.go", "package main\n\nfunc main() {}\n"),
        ("cmd/two/main.go", "package main\n\nfunc main() {}\n"),
    ];
    check(&sampan, &directory(&sampan, "several-go", &several), &[], 1, &["--bin", "one", "two"]);
}

#[test]
fn sources_that_do_not_compile() {
    let sampan = Sampan::new();
    let rust = [("Cargo.toml", CRATE), ("src/main.rs", "fn main() { let x: u8 = \"text\"; }")];
    let outcome = check(&sampan, &directory(&sampan, "rust", &rust), &[], 1, &["mismatched types", "src/main.rs:1"]);
    let (compiler, ours) = outcome.stderr.split_once("mismatched types").expect("the compiler's words");
    assert!(
        !compiler.contains("sampan:") && ours.contains("cargo"),
        "the compiler's words first, then ours: {outcome}"
    );
    let go = [("main.go", "package main\n\nfunc main() { undefined() }\n")];
    check(&sampan, &directory(&sampan, "go", &go), &[], 1, &["undefined", "main.go:3", "go build"]);
}

#[test]
fn toolchains_that_are_missing() {
    let sampan = Sampan::new();
    for (name, how) in [("hello-rust", "rustup"), ("hello-go", "golang")] {
        let source = sources::example(name);
        let mut command = sampan.command(&["up", source.to_str().expect("a path in UTF-8")]);
        command.env("PATH", "/nonexistent");
        sampan_e2e::sampan::outcome(&mut command).assert_fails(1, &[how]);
        sampan.assert_nothing_runs();
    }
}

#[test]
fn settings_that_are_wrong() {
    let sampan = Sampan::new();
    let source = sources::private_fixture("probe", &sampan.dir());
    for (toml, line, says) in [
        ("name = \"probe\"\nport = \"eighty\"\n", "sampan.toml:2:8", "port"),
        ("nam = \"probe\"\n", "sampan.toml:1:1", "name"),
        ("[size]\nmemory = \"lots\"\n", "sampan.toml:2:10", "512MiB"),
        ("name = \"Not A Label\"\n", "sampan.toml:1:8", "lower-case"),
        ("[size\n", "sampan.toml:1:", "]"),
    ] {
        fs::write(source.join("sampan.toml"), toml).expect("a sampan.toml");
        check(&sampan, &source, &[], 1, &[line, says]);
    }
    fs::remove_file(source.join("sampan.toml")).expect("the sampan.toml");
    check(&sampan, &source, &["--name", "Not_A_Label"], 2, &["Not_A_Label", "lower-case"]);
    check(&sampan, &source, &["--port", "0"], 2, &["--port"]);
    check(&sampan, &source, &["--memory", "much"], 2, &["512MiB"]);
    check(&sampan, &source, &["--memory", "900TiB"], 1, &["900TiB", "GiB"]);
    check(&sampan, &source, &["--cpus", "90000"], 1, &["90000", "CPU"]);
    check(&sampan, &source, &["--no-such-flag"], 2, &["--no-such-flag"]);
    sampan.run(&["upp"]).assert_fails(2, &["up"]);
}

#[test]
fn a_name_that_another_source_owns() {
    let sampan = Sampan::new();
    let first = sources::fixture("probe");
    let url = sampan.up(&first, &["--name", "taken"]);
    let second = sources::private_fixture("probe", &sampan.dir());
    let outcome = sampan.run(&["up", second.to_str().expect("a path in UTF-8"), "--name", "taken"]);
    outcome.assert_fails(1, &["taken", first.to_str().expect("a path in UTF-8"), "--name"]);
    assert_eq!(body_of(&url), "probe one");
}

#[test]
fn a_port_that_somebody_has() {
    let (_listener, port) = listener();
    let sampan = Sampan::new().with("SAMPAN_HTTP", port.to_string());
    let (port, owner) = (port.to_string(), std::process::id().to_string());
    let source = sources::fixture("probe");
    let up = sampan.run(&["up", source.to_str().expect("a path in UTF-8")]);
    up.assert_fails(1, &[&port, &owner, "--http"]);
    let left = sampan_testkit::leftovers(sampan.root());
    assert!(left.iter().all(|line| line.starts_with("file ")), "{left:#?}");
    // with another port all is well, and the same root is good for it
    assert_eq!(body_of(&sampan.with("SAMPAN_HTTP", "0").up(&source, &[])), "probe one");
}

#[test]
fn apps_that_do_not_come_up() {
    let sampan = Sampan::new();
    let probe = sources::fixture("probe");
    check(&sampan, &probe, &["-e", "PROBE_MODE=exit"], 1, &["first words", "last words", "3"]);
    let silent = ["-e", "PROBE_MODE=silent", "--timeout", "2s"];
    check(&sampan, &probe, &silent, 1, &["up, but listening nowhere", "2s"]);
    let wrong_port = ["--port", "81", "-e", "PORT=8080", "--timeout", "2s"];
    check(&sampan, &probe, &wrong_port, 1, &["81"]);
    let unhealthy = ["--health", "/exit/4", "--timeout", "5s"];
    check(&sampan, &probe, &unhealthy, 1, &["listening on"]);
}

#[test]
fn a_bad_version_leaves_the_good_one_serving() {
    let sampan = Sampan::new();
    let probe = sources::fixture("probe");
    let url = sampan.up(&probe, &[]);
    let path = probe.to_str().expect("a path in UTF-8");
    sampan.run(&["up", path, "-e", "PROBE_MODE=exit"]).assert_fails(1, &["last words"]);
    assert_eq!(body_of(&url), "probe one");
    assert_eq!(sampan.inspect("probe")["health"], "ready");
    assert_eq!(sampan.containers().len(), 1);
}

#[test]
fn a_binary_of_another_architecture() {
    let sampan = Sampan::new();
    let mut binary = fs::read(tools::busybox()).expect("busybox");
    // e_machine, at 18: 8 is MIPS
    binary[18..20].copy_from_slice(&8_u16.to_le_bytes());
    let path = sampan.dir().join("foreign");
    fs::write(&path, binary).expect("a file");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    check(&sampan, &path, &[], 1, &["foreign", "mips"]);
}

/// A file system of 16 MiB that is unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(tools::scratch()).expect("a directory");
        mount("small", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=16m")).expect("a small file system");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::empty()).expect("nothing uses the small file system");
    }
}

#[test]
fn a_full_disk() {
    let disk = SmallDisk::new();
    let root = disk.0.path().canonicalize().expect("its path").join("root");
    let sampan = Sampan::within(|_| root);
    // a program with 30 MiB of ballast
    let mut binary = fs::read(tools::busybox()).expect("busybox");
    binary.resize(binary.len() + (30 << 20), 0);
    let large = sampan.dir().join("large");
    fs::write(&large, binary).expect("a file");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&large, fs::Permissions::from_mode(0o755)).expect("its mode");
    check(&sampan, &large, &[], 1, &["space"]);
    // what could not be stored takes no space: something small still finds its place
    assert_eq!(body_of(&sampan.up(&sources::fixture("probe"), &[])), "probe one");
}

#[test]
fn names_that_nobody_has() {
    let sampan = Sampan::new();
    sampan.ok(&["daemon", "start"]);
    for words in
        [&["down", "nobody"][..], &["logs", "nobody"], &["inspect", "nobody"], &["rm", "nobody"], &["stop", "nobody"]]
    {
        sampan.run(words).assert_fails(1, &["nobody"]);
    }
    sampan.run(&["image", "import", "/no/such.tar", "bb"]).assert_fails(1, &["/no/such.tar"]);
    let text = sampan.dir().join("text.tar");
    fs::write(&text, "no tar at all, though it is long enough to look like one\n".repeat(20)).expect("a file");
    sampan.run(&["image", "import", text.to_str().expect("a path in UTF-8"), "bb"]).assert_fails(1, &["tar"]);
}
