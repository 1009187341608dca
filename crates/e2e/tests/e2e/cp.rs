//! `sampan cp`: Docker's rules, and everything a container might do to lead it astray.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_testkit::wait_until;

fn with_container(script: &str) -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "box", "bb", "sh", "-c", &format!("{script}; touch /ready; exec sleep 1000")]);
    wait_until("its files to be there", SOON, || sampan.run(&["cp", "box:/ready", "."]).status.success());
    sampan
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A directory with files of several kinds.
fn tree(sampan: &Sampan) -> std::path::PathBuf {
    let site = sampan.dir().join("site");
    fs::create_dir_all(site.join("sub/empty")).expect("directories");
    fs::write(site.join("index.html"), "<p>hello").expect("a file");
    fs::write(site.join("sub/run.sh"), "#!/bin/sh\n").expect("a file");
    fs::set_permissions(site.join("sub/run.sh"), fs::Permissions::from_mode(0o750)).expect("a mode");
    fs::hard_link(site.join("index.html"), site.join("sub/again.html")).expect("a second name");
    symlink("../index.html", site.join("sub/link")).expect("a link");
    symlink("/etc/passwd", site.join("sub/out")).expect("a link");
    site
}

#[test]
fn there_and_back_running_and_stopped() {
    let sampan = with_container("mkdir /srv");
    let site = tree(&sampan);
    for running in [true, false] {
        if !running {
            sampan.ok(&["stop", "--timeout", "0s", "box"]);
        }
        // a directory that is there: into it; one that is not: as it; with /. its content alone
        let name = if running { "running" } else { "stopped" };
        sampan.ok(&["cp", text(&site), "box:/srv"]);
        sampan.ok(&["cp", text(&site), &format!("box:/srv/{name}")]);
        sampan.ok(&["cp", &format!("{}/.", text(&site)), &format!("box:/srv/{name}/sub")]);
        let back = sampan.dir().join(name);
        sampan.ok(&["cp", &format!("box:/srv/{name}"), text(&back)]);
        for (path, content) in [
            ("index.html", "<p>hello"),
            ("sub/run.sh", "#!/bin/sh\n"),
            ("sub/again.html", "<p>hello"),
            ("sub/index.html", "<p>hello"),
            ("sub/sub/run.sh", "#!/bin/sh\n"),
        ] {
            assert_eq!(fs::read_to_string(back.join(path)).expect(path), content);
        }
        assert_eq!(fs::metadata(back.join("sub/run.sh")).expect("a file").permissions().mode() & 0o7777, 0o750);
        assert_eq!(fs::read_link(back.join("sub/out")).expect("a link"), Path::new("/etc/passwd"));
        let inodes = ["index.html", "sub/again.html"].map(|name| fs::metadata(back.join(name)).expect(name).ino());
        assert_eq!(inodes[0], inodes[1], "one file with two names");
        assert!(back.join("sub/empty").is_dir());
        // one file, to a name and into a directory; through a link only with -L
        let one = sampan.dir().join("one.html");
        sampan.ok(&["cp", "box:/srv/site/index.html", text(&one)]);
        sampan.ok(&["cp", "box:/srv/site/index.html", text(&back.join("sub/empty"))]);
        assert_eq!(fs::read_to_string(&one).expect("a file"), "<p>hello");
        assert!(back.join("sub/empty/index.html").is_file());
        let link = sampan.dir().join(format!("{name}-link"));
        sampan.ok(&["cp", "box:/srv/site/sub/link", text(&link)]);
        assert!(link.is_symlink());
        fs::remove_file(&link).expect("remove");
        sampan.ok(&["cp", "-L", "box:/srv/site/sub/link", text(&link)]);
        assert!(!link.is_symlink() && fs::read_to_string(&link).expect("a file") == "<p>hello");
    }
    sampan.run(&["cp", "box:/none", "."]).assert_fails(1, &["/none"]);
    sampan.run(&["cp", "none:/x", "."]).assert_fails(1, &["none"]);
    sampan.run(&["cp", "/none", "box:/"]).assert_fails(1, &["/none"]);
    sampan.run(&["cp", text(&site), "box:/srv/site/index.html"]).assert_fails(1, &["cannot be copied"]);
    sampan.run(&["cp", text(&site), "box:/none/deeper/x"]).assert_fails(1, &["/none/deeper"]);
    sampan.run(&["cp", "box:/a", "box:/b"]).assert_fails(2, &["sampan cp"]);
    sampan.run(&["cp", "/a", "/b"]).assert_fails(2, &["NAME:/path"]);
    // it is root's inside, unless owners are kept
    sampan.ok(&["start", "box"]);
    std::os::unix::fs::chown(site.join("index.html"), Some(1000), Some(5)).expect("an owner");
    sampan.ok(&["cp", text(&site.join("index.html")), "box:/plain"]);
    sampan.ok(&["cp", "-a", text(&site.join("index.html")), "box:/kept"]);
    let listed = sampan.run(&["cp", "box:/kept", "-"]);
    assert!(listed.status.success());
    let owners = sampan.ok(&["exec", "box", "stat", "-c", "%u:%g", "/plain", "/kept"]);
    assert_eq!(owners, "0:0\n1000:5");
}

#[test]
fn archives_on_standard_input_and_output() {
    let sampan = with_container("mkdir /srv");
    let site = tree(&sampan);
    let packed = std::process::Command::new("tar").args(["-cC", text(&site), "."]).output().expect("tar");
    let mut child = sampan.command(&["cp", "-", "box:/srv"]).stdin(Stdio::piped()).spawn().expect("sampan cp");
    child.stdin.take().expect("its input").write_all(&packed.stdout).expect("it reads");
    assert!(child.wait().expect("its end").success());
    let out = sampan.command(&["cp", "box:/srv", "-"]).output().expect("sampan cp");
    let listed = {
        let mut tar = std::process::Command::new("tar");
        let mut tar = tar.arg("t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tar");
        tar.stdin.take().expect("its input").write_all(&out.stdout).expect("it reads");
        String::from_utf8(tar.wait_with_output().expect("its end").stdout).expect("names")
    };
    for name in ["srv/", "srv/index.html", "srv/sub/link", "srv/sub/empty/"] {
        assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
    }
    // what is no archive is said to be none
    let mut child =
        sampan.command(&["cp", "-", "box:/srv"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cp");
    let _ = child.stdin.take().expect("its input").write_all(&[b'x'; 4096]);
    let ended = child.wait_with_output().expect("its end");
    assert!(!ended.status.success() && String::from_utf8_lossy(&ended.stderr).contains("tar archive"));
}

#[test]
fn a_container_cannot_lead_it_astray() {
    let sampan = with_container(
        "ln -s /etc /evil; ln -s ../../../../../etc /up; ln -s / /root-link; echo secret > /own; ln -s /own /link",
    );
    let file = sampan.dir().join("sampan-was-here");
    fs::write(&file, "x").expect("a file");
    for (target, inside) in [("/evil", "/etc"), ("/up", "/etc"), ("/root-link/tmp", "/tmp")] {
        sampan.ok(&["cp", text(&file), &format!("box:{target}")]);
        assert_eq!(sampan.ok(&["exec", "box", "cat", &format!("{inside}/sampan-was-here")]), "x");
    }
    assert!(!Path::new("/etc/sampan-was-here").exists() && !Path::new("/tmp/sampan-was-here").exists());
    for path in ["/evil/shadow", "/up/shadow", "/root-link/etc/shadow", "/../../etc/shadow"] {
        sampan.run(&["cp", &format!("box:{path}"), "-"]).assert_fails(1, &["shadow"]);
    }
    // what the kernel says is not copied by root for a container
    for path in ["/proc/self/environ", "/proc/kallsyms", "/proc", "/sys/kernel", "/proc/1/root/etc"] {
        sampan.run(&["cp", &format!("box:{path}"), "-"]).assert_fails(1, &[]);
    }
    sampan.run(&["cp", text(&file), "box:/proc/sys/kernel"]).assert_fails(1, &[]);

    // a container's archive that leads out of where it is unpacked
    let bad = sampan.dir().join("bad.tar");
    let make = "mkdir -p /t/a && cd /t && ln -s /etc a/link && tar cf /bad.tar a";
    sampan.ok(&["exec", "box", "sh", "-c", make]);
    sampan.ok(&["cp", "box:/bad.tar", text(&bad)]);
    let into = sampan.dir().join("into");
    fs::create_dir(&into).expect("a directory");
    sampan.ok(&["cp", "box:/t/a", text(&into)]);
    assert!(into.join("a/link").is_symlink());
    // a second copy goes through no link of the first
    sampan.ok(&["exec", "box", "sh", "-c", "rm /t/a/link && mkdir /t/a/link && echo evil > /t/a/link/sampan-was-here"]);
    sampan.run(&["cp", "box:/t/a", text(&into)]).assert_fails(1, &["cannot take the place"]);
    assert!(!Path::new("/etc/sampan-was-here").exists());
}

#[test]
fn large_files_stay_small_on_the_way() {
    let sampan =
        with_container("dd if=/dev/zero of=/sparse bs=1 count=1 seek=1073741823; mkfifo /fifo; echo end >> /sparse");
    let back = sampan.dir().join("sparse");
    sampan.ok(&["cp", "box:/sparse", text(&back)]);
    let copied = fs::metadata(&back).expect("the copy");
    assert_eq!(copied.len(), (1 << 30) + 4);
    assert!(copied.blocks() * 512 < 1 << 20, "holes stay holes: {} blocks", copied.blocks());
    let memory = sampan_e2e::sampan::pss_kib(sampan.pid_of("daemon"));
    assert!(memory < 64 << 10, "the daemon has {memory} KiB");
    sampan.ok(&["cp", text(&back), "box:/again"]);
    assert_eq!(sampan.ok(&["exec", "box", "sh", "-c", "cmp /sparse /again && echo same"]), "same");
}

#[test]
fn volumes_of_a_container_that_does_not_run() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&[
        "run",
        "--name",
        "box",
        "-v",
        "data:/data",
        "bb",
        "sh",
        "-c",
        "mkdir /data/sub; echo kept > /data/sub/file",
    ]);
    let file = sampan.dir().join("file");
    sampan.ok(&["cp", "box:/data/sub/file", text(&file)]);
    assert_eq!(fs::read_to_string(&file).expect("a file"), "kept\n");
    sampan.ok(&["cp", text(&file), "box:/data/new"]);
    assert_eq!(sampan.ok(&["run", "--rm", "-v", "data:/x", "bb", "cat", "/x/new"]), "kept");
}
