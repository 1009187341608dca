//! The commonest mistakes, as `docs/mistakes.md` lists them: each is answered with what is wrong and what to do next.
//!
//! The numbers are the page's; a test sees to it that none is missing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sampan_e2e::sampan::{listener, outcome};
use sampan_e2e::{Outcome, Sampan, sources, tools};

/// A row: the page's number, what is typed, the exit code, and what standard error says.
type Row<'a> = (u32, &'a [&'a str], i32, &'a [&'a str]);

/// Types each line and looks at the answer.
#[track_caller]
fn check(sampan: &Sampan, rows: &[Row<'_>]) {
    for (number, words, code, says) in rows {
        let outcome = sampan.run(words);
        assert!(outcome.stderr.len() < 2000, "mistake {number}: an answer is short: {outcome}");
        outcome.assert_fails(*code, says);
    }
}

/// The numbers of the mistakes in the page.
fn listed() -> Vec<u32> {
    let page = fs::read_to_string(tools::repository().join("docs/mistakes.md")).expect("the page");
    page.lines().filter_map(|line| line.strip_prefix("## ")?.split_once(". ")?.0.parse().ok()).collect()
}

#[test]
fn every_mistake_of_the_page_is_tested() {
    let source = fs::read_to_string(tools::repository().join("crates/e2e/tests/e2e/mistakes.rs")).expect("this file");
    let listed = listed();
    assert!(listed.len() >= 20 && listed.iter().zip(1..).all(|(number, at)| *number == at), "{listed:?}");
    for number in listed {
        let (row, remark) = (format!("({number}, &["), format!("// mistake {number}:"));
        assert!(source.contains(&row) || source.contains(&remark), "mistake {number} has no test");
    }
}

/// A directory of the test's with one file.
fn directory(sampan: &Sampan, name: &str, file: &str, text: &str) -> PathBuf {
    let dir = sampan.dir().join(name);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(file), text).expect("a file");
    dir
}

/// A program of the test's, from these bytes.
fn program(sampan: &Sampan, name: &str, bytes: &[u8]) -> PathBuf {
    let path = sampan.dir().join(name);
    fs::write(&path, bytes).expect("a program");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
    path
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn words_and_options() {
    let sampan = Sampan::new();
    check(
        &sampan,
        &[
            (1, &["images"], 2, &["no command 'images'", "`sampan image ls`"]),
            (1, &["rmi", "bb"], 2, &["no command 'rmi'", "`sampan image rm NAME`"]),
            (1, &["compose", "up"], 2, &["no command 'compose'", "sampan.toml", "`sampan up DIR`"]),
            (1, &["get", "pods"], 2, &["no command 'get'", "`sampan ps`"]),
            (1, &["deploy"], 2, &["no command 'deploy'", "`sampan up DIR`"]),
            (1, &["image", "list"], 2, &["no command 'list'", "`sampan image ls`"]),
            (2, &["upp"], 2, &["'upp'", "'up'"]),
            (2, &["run", "--memmory", "1GiB", "bb"], 125, &["--memmory", "--memory"]),
            (2, &["up", "--memory", "lots"], 2, &["lots", "512MiB"]),
            (3, &["run", "--pid", "host", "bb"], 125, &["--pid", "its own processes"]),
            (3, &["run", "--network", "host", "bb"], 125, &["--network", "-p"]),
        ],
    );
    check(
        &sampan,
        &[
            (28, &["run", "--rm", "--cap-add", "NET-ADMIN", "bb", "true"], 125, &["NET-ADMIN", "capabilities(7)"]),
            (28, &["run", "--rm", "--ulimit", "files=9", "bb", "true"], 125, &["files", "nofile"]),
            (28, &["run", "--rm", "--device", "fuse", "bb", "true"], 125, &["/dev/NAME"]),
            (29, &["run", "--rm", "--security-opt", "apparmor=docker-default", "bb", "true"], 125, &["AppArmor"]),
        ],
    );
    // mistake 26: by those who are not root, of whom `ordinary_user` has some
    // mistake 2: no word at all is answered with all there are
    let nothing = sampan.run(&[]);
    nothing.assert_fails(2, &["Usage: sampan", "\n  up ", "Example:"]);
}

#[test]
fn a_daemon_that_is_not_there_or_not_for_everybody() {
    let sampan = Sampan::new();
    check(&sampan, &[(4, &["daemon", "status"], 1, &["no sampan daemon answers", "`sampan daemon start`"])]);
    sampan.ok(&["daemon", "start"]);
    // mistake 5: somebody who is not let in
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "4242", "--regid", "4242", "--clear-groups"]).arg(tools::sampan()).arg("ps");
    command.env("SAMPAN_ROOT", sampan.root()).current_dir("/");
    outcome(&mut command).assert_fails(1, &["sampan.sock", "not open to this user", "group 'sampan'"]);
}

#[test]
fn sources_and_apps() {
    let sampan = Sampan::new();
    let empty = directory(&sampan, "empty", "notes.txt", "");
    let docker = directory(&sampan, "docker", "Dockerfile", "FROM scratch\n");
    // e_machine, at 18: 8 is MIPS
    let mut foreign = fs::read(tools::busybox()).expect("busybox");
    foreign[18..20].copy_from_slice(&8_u16.to_le_bytes());
    let foreign = program(&sampan, "foreign", &foreign);
    let bare: Vec<u8> = fs::read("/bin/true").expect("a program that is linked dynamically");
    let library = program(&sampan, "bare", &replaced(&bare, b"libc.so.6", b"libq.so.6"));
    let probe = sources::fixture("probe");
    let probe = text(&probe);
    check(
        &sampan,
        &[
            (6, &["up", text(&empty)], 1, &["empty", "Cargo.toml", "go.mod", "Give the directory"]),
            (6, &["up", "/no/such/directory"], 1, &["/no/such/directory"]),
            (7, &["up", text(&docker)], 1, &["docker", "Dockerfile is not followed", "sampan image load"]),
            (8, &["up", text(&foreign)], 1, &["foreign", "mips"]),
            (9, &["up", text(&library)], 1, &["libq.so.6", "apt-file search"]),
            (10, &["up", probe, "-e", "PROBE_MODE=silent", "--timeout", "2s"], 1, &["up, but listening nowhere", "2s"]),
            (11, &["up", probe, "-e", "PROBE_MODE=exit"], 1, &["last words", "3"]),
            (12, &["up", probe, "--memory", "900TiB"], 1, &["900TiB", "more than this machine has", "GiB"]),
            (12, &["up", probe, "--cpus", "9000"], 1, &["9000", "more than this machine has", "--cpus"]),
        ],
    );
    sampan.up(&sources::fixture("probe"), &["--name", "taken"]);
    let other = sources::private_fixture("probe", &sampan.dir());
    check(&sampan, &[(13, &["up", text(&other), "--name", "taken"], 1, &["taken", probe, "--name"])]);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<_> =
        bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "it needs {}", String::from_utf8_lossy(from));
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[test]
fn ports_that_somebody_has() {
    let (_listener, port) = listener();
    let sampan = Sampan::new();
    sampan.import_busybox();
    let (publish, owner) = (format!("{port}:80"), std::process::id().to_string());
    let port = port.to_string();
    check(
        &sampan,
        &[
            (14, &["run", "-p", &publish, "bb", "true"], 125, &[&port, &owner, "-p"]),
            (15, &["run", "-p", "80:http", "bb", "true"], 125, &["\"http\"", "[HOST:]CONTAINER", "8080:80"]),
        ],
    );
    // services', at the daemon's start
    sampan.ok(&["daemon", "stop"]);
    let asked = Sampan::new().with("SAMPAN_HTTP", &port);
    check(&asked, &[(14, &["daemon", "start"], 1, &[&port, &owner, "--http"])]);
}

#[test]
fn containers_and_images() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "job", "bb", "sleep", "1000"]);
    let archive = sampan.dir().join("bb.tar");
    sampan.ok(&["image", "save", "-o", text(&archive), "bb"]);
    let rootfs = sources::busybox_tar();
    check(
        &sampan,
        &[
            (13, &["run", "--name", "job", "bb", "true"], 125, &["\"job\" is in use", "`sampan rm job`"]),
            (16, &["run", "busybocks"], 125, &["busybocks", "`sampan image ls`"]),
            (17, &["run", "bb", "--rm"], 127, &["--rm", "options go before the image"]),
            (17, &["run", "bb", "-p", "8080:80", "httpd"], 127, &["-p", "options go before the image"]),
            (18, &["run", "-v", "data:relative", "bb", "true"], 125, &["\"relative\"", "begins with /"]),
            (18, &["run", "-v", "./no-such:/data", "bb", "true"], 125, &["no-such", "mkdir -p"]),
            (19, &["image", "import", text(&archive), "bb2"], 1, &["archive of images", "`sampan image load -i FILE`"]),
            (19, &["image", "load", "-i", text(&rootfs)], 1, &["holds no images", "`sampan image import FILE NAME`"]),
            (20, &["logs", "gone"], 1, &["\"gone\"", "`sampan ps -a`"]),
            (20, &["down", "job"], 1, &["job is a container", "sampan rm -f job"]),
            (27, &["run", "--rm", "--sysctl", "vm.swappiness=1", "bb", "true"], 125, &["whole machine's", "sysctl -w"]),
            (21, &["rm", "job"], 1, &["\"job\" is running", "`sampan stop job`", "--force"]),
            (22, &["exec", "-it", "job", "sh"], 125, &["not a terminal", "-i"]),
        ],
    );
    sampan.ok(&["stop", "-t", "0", "job"]);
    check(&sampan, &[(23, &["exec", "job", "true"], 125, &["\"job\" is not running", "`sampan start job`"])]);
    // what is no mistake, though it was one once
    sampan.ok(&["run", "--rm", "-d", "bb", "true"]);
}

#[test]
fn memory_that_is_too_small() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    // mistake 24: a program that takes more than there is
    let words = ["run", "--rm", "--memory", "16MiB", "bb", "sh", "-c", "tail -c 100m /dev/zero"];
    sampan.run(&words).assert_fails(137, &["ran out of memory", "16MiB", "--memory"]);
}

#[test]
fn a_disk_that_is_too_small() {
    let dir = tempfile::tempdir_in(tools::scratch()).expect("a directory");
    mount("small", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=4m")).expect("a small file system");
    let root = dir.path().canonicalize().expect("its path").join("root");
    let outcome: Outcome = {
        let sampan = Sampan::within(|_| root);
        let mut large = fs::read(tools::busybox()).expect("busybox");
        large.resize(large.len() + (8 << 20), 0);
        let large = program(&sampan, "large", &large);
        // mistake 25: more than there is room for
        sampan.run(&["up", text(&large)])
    };
    unmount(dir.path(), UnmountFlags::empty()).expect("nothing uses the small file system");
    outcome.assert_fails(1, &["space"]);
}
