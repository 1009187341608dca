//! What `cargo xtask dist` makes, of the binary under test: read by tar and dpkg, installed into a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sampan_e2e::sampan::outcome;
use sampan_e2e::{Outcome, tools};

/// The archives, made in a directory of their own.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let made = Self { dir: tempfile::tempdir_in(tools::scratch()).expect("a directory") };
        // without what debuggers read: most of a debug build, and most of the time it takes to compress it
        let mut strip = Command::new("strip");
        run(strip.arg("--strip-debug").arg("-o").arg(made.path("sampan")).arg(tools::sampan()));
        made.dist("one");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn dist(&self, out: &str) -> PathBuf {
        let mut xtask = Command::new(tools::xtask());
        run(xtask.args(["dist", "--binary"]).arg(self.path("sampan")).arg("--out").arg(self.path(out)));
        self.path(out)
    }

    /// The one file of the first making that ends so.
    fn file(&self, ending: &str) -> PathBuf {
        let entries = fs::read_dir(self.path("one")).expect("what was made").flatten().map(|entry| entry.path());
        let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

#[track_caller]
fn run(command: &mut Command) -> Outcome {
    outcome(command).assert_ok()
}

#[test]
fn archives_are_the_same_bytes_each_time() {
    let made = Made::new();
    let (one, two) = (made.path("one"), made.dist("two"));
    let sums = |dir: &Path| fs::read_to_string(dir.join("SHA256SUMS")).expect("the sums");
    assert_eq!(sums(&one), sums(&two));
    assert_eq!(sums(&one).lines().count(), 2);
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&one));

    let into = made.path("unpacked");
    fs::create_dir(&into).expect("a directory");
    run(Command::new("tar").arg("-xzf").arg(made.file(".tar.gz")).arg("-C").arg(&into));
    let top = fs::read_dir(&into).expect("what was unpacked").flatten().next().expect("one directory").path();
    for file in [
        "LICENSE",
        "THIRD-PARTY.txt",
        "README.md",
        "CHANGELOG.md",
        "completions/sampan.bash",
        "completions/_sampan",
        "completions/sampan.fish",
        "man/man1/sampan.1",
        "man/man1/sampan-run.1",
        "systemd/system/sampan.service",
        "systemd/system/sampan.socket",
        "systemd/sysusers.d/sampan.conf",
    ] {
        assert!(top.join(file).metadata().is_ok_and(|meta| meta.len() > 0), "no {file}");
    }
    let licences = fs::read_to_string(top.join("THIRD-PARTY.txt")).expect("the licences");
    for part in ["\nserde ", "\ntokio ", "Permission is hereby granted", "Apache License"] {
        assert!(licences.contains(part), "no {part:?} among the licences");
    }
    assert!(run(Command::new(top.join("sampan")).arg("version")).stdout.starts_with("sampan "));
}

/// dpkg on a directory, with systemd's programs for the package's scripts.
fn dpkg(root: &Path, words: &[&str]) -> Outcome {
    let systemd = tools::systemd();
    let libraries =
        ["lib", "usr/lib"].map(|dir| systemd.join(dir).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    let libraries = libraries.iter().flat_map(|dir| [dir.clone(), dir.join("systemd")]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [systemd.join("usr/bin"), systemd.join("bin")].into_iter().chain(std::env::split_paths(&path));
    let mut command = Command::new("dpkg");
    command
        .arg(format!("--root={}", root.display()))
        .args(["--force-script-chrootless", "--force-depends"])
        .args(words);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths without a colon"));
    command.env("PATH", std::env::join_paths(path).expect("paths without a colon"));
    command.env("DEBIAN_FRONTEND", "noninteractive");
    outcome(&mut command)
}

#[test]
fn a_package_that_dpkg_installs_upgrades_and_removes() {
    let made = Made::new();
    let deb = made.file(".deb");
    let deb = deb.to_str().expect("a path in UTF-8");
    let field = |name: &str| run(Command::new("dpkg-deb").args(["--field", deb, name])).stdout.trim().to_owned();
    assert_eq!(field("Package"), "sampan");
    assert!(["amd64", "arm64"].contains(&field("Architecture").as_str()));
    assert!(!field("Version").is_empty() && !field("Description").is_empty());

    let root = made.path("root");
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    for file in ["var/lib/dpkg/status", "etc/passwd", "etc/group"] {
        fs::write(root.join(file), "").expect("a file");
    }
    let has = |path: &str| root.join(path).symlink_metadata().is_ok();
    dpkg(&root, &["--install", deb]).assert_ok();
    let wants = ["sockets.target.wants/sampan.socket", "multi-user.target.wants/sampan.service"];
    let wants = wants.map(|link| format!("etc/systemd/system/{link}"));
    for path in ["usr/bin/sampan", "usr/share/man/man1/sampan.1.gz", "usr/share/doc/sampan/copyright"] {
        assert!(has(path), "no {path}");
    }
    assert!(wants.iter().all(|link| has(link)), "the units are not enabled");
    let group = fs::read_to_string(root.join("etc/group")).expect("the groups");
    assert!(group.lines().any(|line| line.starts_with("sampan:")), "{group:?}");
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/sampan.service")).expect("the unit");
    assert!(unit.starts_with("[Unit]") && unit.contains("ExecStart=/usr/bin/sampan daemon"), "{unit}");

    // what the administrator changed outlives an upgrade and a removal, and goes with all else
    let defaults = root.join("etc/default/sampan");
    fs::write(&defaults, "SAMPAN_HTTP=80\n").expect("the administrator's change");
    dpkg(&root, &["--install", deb]).assert_ok();
    assert_eq!(fs::read_to_string(&defaults).expect("the change"), "SAMPAN_HTTP=80\n");
    dpkg(&root, &["--remove", "sampan"]).assert_ok();
    assert!(!has("usr/bin/sampan") && defaults.exists());
    assert!(!wants.iter().any(|link| has(link)), "the units are enabled still");
    dpkg(&root, &["--purge", "sampan"]).assert_ok();
    assert!(!defaults.exists());
}
