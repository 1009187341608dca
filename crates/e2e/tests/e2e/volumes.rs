//! Volumes, directories of the host, memory: what is mounted in containers, and whose its files are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use sampan_e2e::sampan::{Outcome, SOON, outcome};
use sampan_e2e::{Sampan, sources};
use sampan_testkit::wait_until;

/// An ordinary user, who need not be in `/etc/passwd`.
const USER: u32 = 54_321;

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// An instance whose daemon was started for the ordinary user, and a directory of that user's.
fn for_user() -> (Sampan, PathBuf) {
    let sampan = Sampan::new().with("SUDO_UID", USER.to_string()).with("SUDO_GID", USER.to_string());
    fs::set_permissions(sampan.dir(), fs::Permissions::from_mode(0o755)).expect("a way to its root");
    sampan.ok(&["daemon", "start"]);
    let tar = sources::busybox_tar();
    as_user(&sampan, &["image", "import", text(&tar), "bb"]).assert_ok();
    let home = sampan.dir().join("home");
    fs::create_dir(&home).expect("a home");
    chown(&home, Some(USER), Some(USER)).expect("its owner");
    (sampan, home)
}

/// Runs a command as the ordinary user.
fn as_user(sampan: &Sampan, words: &[&str]) -> Outcome {
    outcome(sampan.command(words).uid(USER).gid(USER))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_volume_is_shared_and_outlives_its_containers() {
    let sampan = with_busybox();
    sampan.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "data:/data",
        "bb",
        "sh",
        "-c",
        "echo kept > /data/file; sleep 1000",
    ]);
    let written = || sampan.run(&["run", "--rm", "-v", "data:/srv:ro", "bb", "cat", "/srv/file"]).stdout == "kept\n";
    wait_until("the other to read it", SOON, written);
    let refused = sampan.run(&["run", "--rm", "-v", "data:/srv:ro", "bb", "sh", "-c", "echo x > /srv/file"]);
    assert!(!refused.status.success() && refused.stderr.contains("Read-only"), "{refused}");
    let volume = &sampan.json(&["volume", "inspect", "data"])[0];
    assert_eq!((&volume["kind"], &volume["used_by"]), (&"volume".into(), &serde_json::json!(["one"])));
    sampan.run(&["volume", "rm", "data"]).assert_fails(1, &["in use by one", "sampan rm"]);

    sampan.kill("daemon");
    // a request that may be made twice: the socket of one that was just killed may take a connection and reset it
    sampan.ok(&["ps"]);
    assert_eq!(sampan.ok(&["run", "--rm", "-v", "data:/x", "bb", "cat", "/x/file"]), "kept");
    sampan.ok(&["rm", "-f", "one"]);
    sampan.ok(&["daemon", "stop"]);
    assert_eq!(sampan.ok(&["run", "--rm", "-v", "data:/x", "bb", "cat", "/x/file"]), "kept");
    // owners on the disk are the container's own numbers
    let file = fs::metadata(sampan.root().join("volumes/data/data/file")).expect("the volume's file");
    assert_eq!((file.uid(), file.gid()), (0, 0));
    let mode = fs::metadata(sampan.root().join("volumes")).expect("the volumes").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    wait_until("nothing to use it", SOON, || {
        sampan.json(&["volume", "ls", "--json"])[0]["used_by"] == serde_json::json!([])
    });
    sampan.ok(&["volume", "rm", "data"]);
    assert_eq!(sampan.json(&["volume", "ls", "--json"]), serde_json::json!([]));
    assert!(!sampan.root().join("volumes/data").exists());
    sampan.run(&["volume", "rm", "data"]).assert_fails(1, &["no volume \"data\""]);
    sampan.ok(&["volume", "rm", "-f", "data"]);
}

#[test]
fn a_new_volume_begins_with_what_the_image_has() {
    let sampan = with_busybox();
    let passwd = sampan.ok(&["run", "--rm", "-v", "seeded:/etc", "bb", "cat", "/etc/passwd"]);
    assert!(passwd.contains("app:x:1000"), "{passwd}");
    sampan.ok(&["run", "--rm", "-v", "seeded:/x", "bb", "rm", "/x/passwd"]);
    // once: what was removed stays removed
    sampan.run(&["run", "--rm", "-v", "seeded:/etc", "bb", "cat", "/etc/passwd"]).assert_fails(1, &["No such file"]);
    // where the image has nothing, it is the container's user's
    let made = sampan.ok(&[
        "run",
        "--rm",
        "-u",
        "1000:1000",
        "-v",
        "new:/new/place",
        "bb",
        "sh",
        "-c",
        "touch /new/place/x && ls -ln /new/place",
    ]);
    assert!(made.contains("1000     1000"), "{made}");
    sampan.ok(&["volume", "create", "spare", "--label", "tier=gold"]);
    assert_eq!(sampan.json(&["volume", "inspect", "spare"])[0]["labels"]["tier"], "gold");
    wait_until("nothing to use them", SOON, || {
        let volumes = sampan.json(&["volume", "ls", "--json"]);
        volumes
            .as_array()
            .is_some_and(|volumes| volumes.iter().all(|volume| volume["used_by"] == serde_json::json!([])))
    });
    sampan.run(&["volume", "prune"]).assert_fails(1, &["--yes"]);
    assert_eq!(sampan.ok(&["volume", "prune", "--yes"]), "new\nseeded\nspare");
    assert_eq!(fs::read_dir(sampan.root().join("volumes")).expect("the volumes").count(), 0);
}

#[test]
fn a_volume_that_was_half_made_or_half_removed_is_no_volume() {
    for (point, words) in [
        ("volume_new", &["run", "--rm", "-v", "data:/etc", "bb", "cat", "/etc/passwd"][..]),
        ("volume_set_aside", &["volume", "rm", "data"]),
    ] {
        let order = tempfile::NamedTempFile::new().expect("a file");
        let variable = format!("{point}:{}", text(order.path()));
        let sampan = Sampan::new();
        sampan.import_busybox();
        sampan.ok(&["volume", "create", "data"]);
        if point == "volume_set_aside" {
            sampan.ok(&["run", "--rm", "-v", "data:/etc", "bb", "true"]);
            wait_until("nothing to use it", SOON, || {
                sampan.json(&["volume", "ls", "--json"])[0]["used_by"] == serde_json::json!([])
            });
        }
        sampan.ok(&["daemon", "stop"]);
        let sampan = sampan.with("SAMPAN_FAILPOINT", variable);
        let order = order.into_temp_path();
        sampan.run(words);
        assert!(!order.exists(), "the daemon has come to {point}");
        // the next one finds the half, and starts from nothing
        let passwd = sampan.ok(&["run", "--rm", "-v", "data:/etc", "bb", "cat", "/etc/passwd"]);
        assert!(passwd.contains("app:x:1000"), "{passwd}");
        let names: Vec<_> = fs::read_dir(sampan.root().join("volumes")).expect("the volumes").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert!(!sampan.root().join("volumes/data/.new").exists());
    }
}

#[test]
fn a_bind_is_the_caller_s_and_no_more() {
    let (sampan, home) = for_user();
    let bind = format!("{}:/home", text(&home));
    let ran = as_user(
        &sampan,
        &["run", "--rm", "-v", &bind, "bb", "sh", "-c", "id -u; echo mine > /home/file; ls -ln /home"],
    );
    assert!(ran.status.success() && ran.stdout.starts_with("0\n") && ran.stdout.contains(" 0        0 "), "{ran}");
    let file = fs::metadata(home.join("file")).expect("what the container wrote");
    assert_eq!((file.uid(), file.gid()), (USER, USER), "container root is the caller outside");

    let etc = as_user(
        &sampan,
        &["run", "--rm", "-v", "/etc:/x", "bb", "sh", "-c", "cat /x/hostname >/dev/null; cat /x/passwd; cat /x/shadow"],
    );
    assert!(etc.stdout.contains("root:x:0:0") && etc.stderr.contains("Permission denied"), "{etc}");
    assert!(
        !etc.stdout.contains("root:*") && !etc.stdout.contains("root:!") && !etc.stdout.contains("root:$"),
        "{etc}"
    );
    let no = |script: &str| {
        let ran = as_user(&sampan, &["run", "--rm", "-v", "/etc:/x", "bb", "sh", "-c", script]);
        assert!(!ran.status.success(), "this must not work: {ran}");
    };
    no("echo x >> /x/passwd");
    no("touch /x/sampan-was-here");
    no("chmod 644 /x/shadow");
    no("chown 0 /x/shadow && cat /x/shadow");
    no("ln /x/shadow /x/other");
    assert!(!Path::new("/etc/sampan-was-here").exists());

    // a directory of root's that the caller may not pass through, and one that is not there
    let closed = sampan.dir().join("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::create_dir(closed.join("inner")).expect("a directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("a mode");
    let inner = format!("{}/inner:/x", text(&closed));
    as_user(&sampan, &["run", "--rm", "-v", &inner, "bb", "true"])
        .assert_fails(125, &["Permission denied", &USER.to_string()]);
    as_user(&sampan, &["run", "--rm", "-v", "/proc/self/fd/0:/x", "bb", "true"]).assert_fails(125, &[]);
    as_user(&sampan, &["run", "--rm", "-v", "/no/such/place:/x", "bb", "true"])
        .assert_fails(125, &["No such file", "mkdir -p /no/such/place"]);
    let link = home.join("link");
    symlink(&closed, &link).expect("a link");
    let through = format!("{}/inner:/x", text(&link));
    as_user(&sampan, &["run", "--rm", "-v", &through, "bb", "true"]).assert_fails(125, &["Permission denied"]);
    // nor by copying, which the daemon does
    as_user(&sampan, &["run", "-d", "--name", "spy", "-v", "/etc:/x", "bb", "sleep", "1000"]).assert_ok();
    as_user(&sampan, &["cp", "spy:/x/shadow", "-"]).assert_fails(1, &["ermission denied"]);
    as_user(&sampan, &["cp", "spy:/x/passwd", text(&home)]).assert_ok();
    as_user(&sampan, &["rm", "-f", "spy"]).assert_ok();
}

#[test]
fn root_s_bind_is_as_docker_s() {
    let sampan = with_busybox();
    let directory = sampan.dir().join("srv");
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join("config"), "outside").expect("a file");
    let bind = format!("{}:/srv", text(&directory));
    sampan.ok(&["run", "--rm", "-v", &bind, "bb", "sh", "-c", "echo x > /srv/new && chown 1000:5 /srv/new"]);
    let new = fs::metadata(directory.join("new")).expect("what the container wrote");
    assert_eq!((new.uid(), new.gid()), (1000, 5));
    // one file; and what is mounted in a mount does not appear outside
    let file = format!("{}/config:/etc/app/config:ro", text(&directory));
    let words = ["run", "--rm", "-v", &bind, "-v", "inner:/srv/inner", "-v", &file, "bb", "sh", "-c"];
    let out = sampan.ok(&[&words[..], &["cat /etc/app/config; touch /srv/inner/x; ls /srv/inner"]].concat());
    assert_eq!(out, "outsidex");
    assert_eq!(fs::read_dir(directory.join("inner")).expect("the place").count(), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the host's mounts");
    assert!(!mounts.contains(text(&directory)), "nothing is mounted here");
}

#[test]
fn places_that_nothing_is_mounted_on() {
    let sampan = with_busybox();
    for (mount, words) in [
        ("x:/", &["root file system"][..]),
        ("x:/proc", &["/proc", "kernel"]),
        ("x:/sys/fs/cgroup", &["kernel"]),
        ("x:/dev", &["Sampan makes it"]),
        ("x:/a/../etc", &["'..'"]),
        ("/etc/passwd:/etc", &["a file cannot be mounted on a directory"]),
        ("/dev/null:/x", &["is a device"]),
        ("/proc:/x", &["other ids", "sampan cp"]),
    ] {
        sampan.run(&["run", "--rm", "-v", mount, "bb", "true"]).assert_fails(125, words);
    }
    sampan.run(&["run", "--rm", "-v", "x:/a", "-v", "y:/a/", "bb", "true"]).assert_fails(125, &["two mounts"]);
    // links in the image lead nowhere but into the container, and not into its kernel's files
    sampan.ok(&["run", "--name", "tricky", "bb", "sh", "-c", "ln -s /proc /link; ln -s /../../../../etc /out"]);
    let image = sampan.dir().join("tricky.tar");
    let tar = sampan.command(&["cp", "tricky:/", "-"]).output().expect("the container's files");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    fs::write(&image, tar.stdout).expect("an archive");
    sampan.ok(&["image", "import", text(&image), "tricky"]);
    sampan.run(&["run", "--rm", "-v", "x:/link/self/attr", "tricky", "true"]).assert_fails(125, &["/proc or /sys"]);
    assert_eq!(
        sampan
            .ok(&["run", "--rm", "--tmpfs", "/out/sub", "tricky", "ls", "/etc"])
            .lines()
            .filter(|name| *name == "sub")
            .count(),
        1
    );
    assert!(!Path::new("/etc/sub").exists());
    sampan.ok(&["rm", "tricky"]);
}

#[test]
fn a_read_only_root_and_memory() {
    let sampan = with_busybox();
    let run = |script: &str| {
        sampan.run(&[
            "run",
            "--rm",
            "--read-only",
            "--tmpfs",
            "/tmp:size=64k",
            "-v",
            "data:/data",
            "bb",
            "sh",
            "-c",
            script,
        ])
    };
    assert!(run("touch /x").stderr.contains("Read-only"));
    assert!(run("touch /etc/hosts").stderr.contains("Read-only"));
    run("touch /tmp/x /data/x /dev/shm/x; cd /; mkdir -p /tmp/a/b").assert_ok();
    let full = run("dd if=/dev/zero of=/tmp/big bs=1024 count=100");
    assert!(!full.status.success() && full.stderr.contains("No space left"), "{full}");
}

#[test]
fn a_first_process_of_ours() {
    let sampan = with_busybox();
    let ran = sampan.run(&["run", "--rm", "--init", "bb", "sh", "-c", "cat /proc/1/comm; echo $$; exit 7"]);
    assert_eq!((ran.code(), ran.stdout.as_str()), (7, "sampan-init\n2\n"), "{ran}");
    sampan.run(&["run", "--rm", "--init", "bb", "/none"]).assert_fails(127, &[]);
    // a program without a handler ends at once, where as first process it would ignore the signal
    sampan.ok(&["run", "-d", "--init", "--name", "polite", "bb", "sleep", "1000"]);
    let start = std::time::Instant::now();
    sampan.ok(&["stop", "--timeout", "20s", "polite"]);
    assert!(start.elapsed().as_secs() < 10, "it was asked, not killed");
    assert_eq!(sampan.inspect("polite")["state"]["exit_code"], 143);
    // nobody's children are reaped
    let script = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 0.5; ps -o stat,comm | grep -c '^Z'; true";
    assert_eq!(sampan.ok(&["run", "--rm", "--init", "bb", "sh", "-c", script]), "0");
}

#[test]
fn volumes_of_a_service_stay_unless_they_are_to_go() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let manifest = fs::read_to_string(source.join("sampan.toml")).unwrap_or_default();
    let copy = sampan.dir().join("probe");
    let copied = std::process::Command::new("cp").arg("-r").arg(&source).arg(&copy).status().expect("cp");
    assert!(copied.success());
    fs::write(copy.join("sampan.toml"), format!("volumes = [\"keep:/data\"]\n{manifest}")).expect("a manifest");
    sampan.up(&copy, &["--name", "probe"]);
    assert_eq!(sampan.json(&["volume", "inspect", "keep"])[0]["used_by"], serde_json::json!(["probe"]));
    sampan.run(&["volume", "rm", "keep"]).assert_fails(1, &["probe"]);
    sampan.ok(&["down", "probe"]);
    assert_eq!(sampan.json(&["volume", "inspect", "keep"])[0]["used_by"], serde_json::json!([]));
    sampan.up(&copy, &["--name", "probe"]);
    sampan.ok(&["down", "--volumes", "probe"]);
    assert_eq!(sampan.json(&["volume", "ls", "--json"]), serde_json::json!([]));
}
