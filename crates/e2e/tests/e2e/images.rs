//! Images out and in: what `build` and `save` write is what others read and run, what they write is loaded and run, and
//! nothing that is broken or killed on the way leaves anything but a clear word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sampan_e2e::native::Native;
use sampan_e2e::sampan::{SOON, outcome};
use sampan_e2e::{Sampan, peers, sources, tools};
use sampan_testkit::wait_until;
use serde_json::Value;

/// The first words of a busybox that is asked for nothing.
const BUSYBOX: &str = "BusyBox v1";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Builds busybox, a binary that is ready, to outputs `TYPE → NAME`; returns their paths.
#[track_caller]
fn build<const N: usize>(sampan: &Sampan, outputs: [(&str, &str); N]) -> [PathBuf; N] {
    let words = outputs.map(|(kind, name)| format!("type={kind},dest={name}"));
    let flags: Vec<&str> = words.iter().flat_map(|word| ["-o", word.as_str()]).collect();
    sampan.ok(&[&["build", text(&tools::busybox()), "-t", "box:1"], flags.as_slice()].concat());
    outputs.map(|(_, name)| sampan.dir().join(name))
}

#[track_caller]
fn digest(sampan: &Sampan, name: &str) -> String {
    let found = sampan.json(&["image", "inspect", name]);
    found[0]["digest"].as_str().expect("a digest").to_owned()
}

/// Asserts that every image is whole.
#[track_caller]
fn assert_sound(sampan: &Sampan) {
    let found = sampan.run(&["image", "fsck", "--json"]).assert_ok();
    let view: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(view["problems"], serde_json::json!([]));
}

#[test]
fn archives_are_read_by_others_and_come_back() {
    let sampan = Sampan::new();
    let [oci, docker] = build(&sampan, [("oci", "box.oci.tar"), ("docker", "box.docker.tar")]);
    let built = digest(&sampan, "box:1");
    let dir = sampan.dir();

    let seen = peers::skopeo(&dir, &["inspect", "oci-archive:box.oci.tar"]).assert_ok();
    let seen: Value = serde_json::from_str(&seen.stdout).expect("JSON");
    assert_eq!(seen["Digest"], built.as_str());
    peers::skopeo(&dir, &["inspect", "docker-archive:box.docker.tar:box:1"]).assert_ok();

    // as they are, and with what skopeo makes of them: Docker's archive, layers in gzip and in zstd
    let copies = [
        (&["docker-archive:box.docker.tar", "docker-archive:a.tar:x/a:1"][..], "a.tar"),
        (&["docker-archive:box.docker.tar", "oci-archive:gzip.tar:gzip:1"], "gzip.tar"),
        (&["--dest-compress-format", "zstd", "oci-archive:box.oci.tar", "oci-archive:zstd.tar:zstd:1"], "zstd.tar"),
    ];
    for (words, _) in copies {
        peers::skopeo(&dir, &[&["copy"], words].concat()).assert_ok();
    }
    sampan.ok(&["image", "rm", "box:1"]);
    for archive in [oci.as_path(), docker.as_path()].into_iter().chain(copies.iter().map(|(_, name)| Path::new(*name)))
    {
        let loaded = sampan.ok(&["image", "load", "-i", text(archive)]);
        assert_eq!(loaded.lines().count(), 1, "{loaded}");
        assert_eq!(sampan.ok(&["run", "--rm", &loaded, "echo", "there"]), "there");
        if loaded == "box:1" {
            assert_eq!(digest(&sampan, &loaded), built, "{}", archive.display());
        }
        sampan.ok(&["image", "rm", "--force", &loaded]);
    }
    assert_sound(&sampan);
}

#[test]
fn what_is_packed_runs_and_keeps_its_digest() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let plain = digest(&sampan, "bb");
    let dir = sampan.dir();
    sampan.ok(&["image", "save", "-o", "bb.tar", "bb"]);
    for (format, media_type) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let target = format!("oci-archive:{format}.tar:{format}");
        let words = ["copy", "--dest-compress-format", format, "docker-archive:bb.tar", &target];
        peers::skopeo(&dir, &words).assert_ok();
        let name = sampan.ok(&["image", "load", "-i", &format!("{format}.tar")]);
        let image = sampan.json(&["image", "inspect", &name]);
        let layer = &image[0]["layers"][0];
        assert!(layer["media_type"].as_str().is_some_and(|text| text.ends_with(media_type)), "{layer}");
        assert_ne!(image[0]["digest"], plain.as_str(), "its manifest is as it came");
        assert_eq!(sampan.ok(&["run", "--rm", &name, "sh", "-c", "echo from $0", format]), format!("from {format}"));
    }
    assert_sound(&sampan);
}

#[test]
fn docker_loads_runs_and_saves() {
    let sampan = Sampan::new();
    let [archive] = build(&sampan, [("docker", "box.tar")]);
    let saved = sampan.dir().join("saved.tar");
    let cgroup = format!("sampan-docker-{}", std::process::id());
    let ran = peers::docker(&archive, &saved, &cgroup, &["box:1"]).assert_ok();
    assert!(ran.stdout.contains("Loaded image: box:1") && ran.stdout.contains(BUSYBOX), "{ran}");
    // what it has saved is what it was given, to the last bit of the manifest
    sampan.ok(&["build", text(&tools::busybox()), "-t", "box:0"]);
    assert_eq!(sampan.ok(&["image", "load", "-i", text(&saved)]), "box:1");
    assert_eq!(digest(&sampan, "box:1"), digest(&sampan, "box:0"));
}

#[test]
fn podman_loads_and_runs() {
    let sampan = Sampan::new();
    for archive in build(&sampan, [("oci", "box.oci.tar"), ("docker", "box.docker.tar")]) {
        let ran = peers::podman(&archive, &["box:1"]).assert_ok();
        assert!(ran.stdout.contains(BUSYBOX), "{}: {ran}", archive.display());
    }
}

#[test]
fn a_bundle_is_run_by_runc() {
    let sampan = Sampan::new();
    let [bundle] = build(&sampan, [("dir", "bundle")]);
    let name = format!("sampan-bundle-{}", std::process::id());
    let ran = peers::runc(&bundle, &name).assert_ok();
    assert!(ran.stdout.starts_with(BUSYBOX), "{ran}");
    // again, in its place
    build(&sampan, [("dir", "bundle")]);
    peers::runc(&bundle, &name).assert_ok();
    fs::write(sampan.dir().join("taken"), "somebody's").expect("a file");
    let source = tools::busybox();
    let refused = sampan.run(&["build", text(&source), "-o", "type=dir,dest=taken"]);
    refused.assert_fails(1, &["taken is there, and no directory", "hint: "]);
    fs::create_dir_all(sampan.dir().join("full/of")).expect("a directory");
    let refused = sampan.run(&["build", text(&source), "-o", "type=dir,dest=full"]);
    refused.assert_fails(1, &["neither empty nor a bundle"]);
}

#[test]
fn an_ordinary_user_builds_the_same_and_runs_it_without_root() {
    let sampan = Sampan::new();
    let [archive] = build(&sampan, [("oci", "box.tar")]);
    // where that user may go, with programs that they may read
    let dir = tempfile::Builder::new().prefix("sampan-user-").tempdir().expect("a directory");
    for (from, name) in [(tools::sampan(), "sampan"), (tools::busybox(), "busybox")] {
        fs::copy(from, dir.path().join(name)).expect("a copy");
    }
    std::os::unix::fs::chown(dir.path(), Some(1000), Some(1000)).expect("a directory of the user's");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "./sampan", "build", "./busybox"]);
    command.args(["-o", "type=oci,dest=box.tar,name=box:1", "-o", "type=dir,dest=bundle"]).current_dir(dir.path());
    outcome(command.env("SAMPAN_ROOT", dir.path().join("root")).env("TMPDIR", dir.path())).assert_ok();
    let of_user = dir.path().join("box.tar");
    assert!(fs::read(archive).expect("an archive") == fs::read(of_user).expect("an archive"), "the same bytes");
    let ran =
        peers::runc_of_user(dir.path(), &dir.path().join("bundle"), &format!("sampan-user-{}", std::process::id()));
    assert!(ran.assert_ok().stdout.starts_with(BUSYBOX));
}

#[test]
fn archives_are_the_same_bytes_each_time() {
    let sampan = Sampan::new();
    for kind in ["oci", "docker"] {
        let [one, other] = build(&sampan, [(kind, "one.tar"), (kind, "other.tar")]);
        assert!(fs::read(one).expect("an archive") == fs::read(&other).expect("an archive"), "{kind}");
        let mut piped =
            sampan.command(&["build", text(&tools::busybox()), "-t", "box:1", "-o", &format!("type={kind},dest=-")]);
        let piped = piped.stdout(Stdio::piped()).output().expect("it runs").stdout;
        assert!(piped == fs::read(other).expect("an archive"), "{kind} on standard output");
    }
    let mut saving = sampan.command(&["image", "save", "box:1"]);
    let [one, other] = [(); 2].map(|()| saving.stdout(Stdio::piped()).output().expect("it runs").stdout);
    assert!(!one.is_empty() && one == other);
}

#[test]
fn writing_out_alone_needs_no_daemon() {
    let sampan = Sampan::new();
    let source = tools::busybox();
    sampan.ok(&["build", text(&source), "-o", "type=oci,dest=x.tar"]);
    assert!(!sampan.root().exists(), "nothing was started");
    let mut names: Vec<_> =
        fs::read_dir(sampan.dir()).expect("the directory").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["x.tar"]);
    // a full disk leaves what was there
    let refused = sampan.run(&["build", text(&source), "-o", "type=oci,dest=/dev/full"]);
    refused.assert_fails(1, &["No space left"]);
    let refused = sampan.run(&["build", text(&source), "-o", "type=zip,dest=x"]);
    refused.assert_fails(2, &["there is no type \"zip\"", "type=oci"]);
}

#[test]
fn a_build_is_verified() {
    let sampan = Sampan::new();
    let source = sources::private_fixture("probe", &sampan.dir());
    assert_eq!(sampan.ok(&["build", text(&source), "-t", "probe:1"]), "probe:1");
    let verdict = sampan.json(&["build", text(&source), "--verify", "probe:1", "--json"]);
    assert_eq!((&verdict["same"], &verdict["difference"]), (&Value::Bool(true), &Value::Null), "{verdict}");
    let main = source.join("src/main.rs");
    let changed = fs::read_to_string(&main).expect("the source") + "\n#[used]\nstatic MORE: [u8; 3] = *b\"abc\";\n";
    fs::write(&main, changed).expect("the source");
    let verdict = sampan.run(&["build", text(&source), "--verify", "probe:1"]);
    assert_eq!(verdict.code(), 1, "{verdict}");
    assert!(verdict.stdout.contains("is not what this source makes"), "{verdict}");
    assert!(verdict.stdout.contains("layer 2: app/probe: "), "{verdict}");
}

#[test]
fn names_and_what_is_behind_them() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let image = &sampan.json(&["image", "inspect", "bb"])[0];
    assert_eq!((&image["kind"], &image["name"]), (&Value::from("image"), &Value::from("bb:latest")));
    assert_eq!(sampan.inspect("bb:latest"), *image, "`inspect` knows images too");
    assert!(sampan.ok(&["image", "history", "bb"]).contains("sampan"));
    sampan.ok(&["image", "tag", "bb", "a/b:2"]);
    assert_eq!(digest(&sampan, "a/b:2"), digest(&sampan, "bb"));

    sampan.ok(&["run", "-d", "--name", "job", "bb", "sleep", "1000"]);
    sampan.ok(&["image", "rm", "a/b:2"]); // it has another name
    sampan.run(&["image", "rm", "bb"]).assert_fails(1, &["in use by container \"job\"", "sampan rm"]);
    assert_eq!(sampan.json(&["image", "prune", "--all", "--json"])["removed"], serde_json::json!([]));
    sampan.ok(&["image", "rm", "--force", "bb"]);
    assert_eq!(sampan.json(&["image", "ls", "--json"]), serde_json::json!([]));
    sampan.ok(&["rm", "-f", "job"]);
    assert_eq!(sampan.json(&["image", "prune", "--json"])["freed_bytes"], 0, "its bytes went with the container");

    sampan.import_busybox();
    let pruned = sampan.json(&["image", "prune", "--all", "--json"]);
    assert_eq!(pruned["removed"], serde_json::json!(["bb:latest"]));
    assert!(pruned["freed_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{pruned}");
    sampan.run(&["image", "inspect", "bb"]).assert_fails(1, &["there is no image \"bb:latest\"", "image ls"]);
    sampan.run(&["image", "save", "bb"]).assert_fails(1, &["there is no image"]);
}

#[test]
fn a_bad_archive_is_answered_and_leaves_nothing() {
    let sampan = Sampan::new();
    let dir = sampan.dir();
    sampan.import_busybox();
    sampan.ok(&["image", "save", "-o", "good.tar", "bb"]);
    sampan.ok(&["image", "rm", "bb"]);
    let good = fs::read(dir.join("good.tar")).expect("an archive");
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a file");
    write("cut.tar", &good[..good.len() / 2]);
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    write("changed.tar", &changed);
    write("xz.tar", b"\xfd7zXZ\0");
    write("none.tar", b"");
    fs::copy(sources::busybox_tar(), dir.join("rootfs.tar")).expect("a copy");
    for (name, words) in [
        ("cut.tar", &["load cut.tar", "cut off", "hint: "][..]),
        ("changed.tar", &["has the digest", "hint: "]),
        ("xz.tar", &["compressed with xz"]),
        ("none.tar", &["holds no images"]),
        ("rootfs.tar", &["holds no images", "sampan image import"]),
        ("absent.tar", &["open absent.tar: No such file"]),
    ] {
        sampan.run(&["image", "load", "-i", name]).assert_fails(1, words);
        sampan.assert_nothing_runs();
    }
    let no_name = sampan.run(&["image", "load", "-i", "good.tar", "-t", "Bad"]);
    no_name.assert_fails(2, &["image name"]);
    let mut piped = sampan.command(&["image", "load", "-t", "mine"]);
    piped.stdin(fs::File::open(dir.join("good.tar")).expect("an archive"));
    assert_eq!(outcome(&mut piped).assert_ok().stdout, "mine:latest\n");
}

#[test]
fn what_is_damaged_is_found_and_mended() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.shell("true");
    assert_sound(&sampan);
    let image = sampan.json(&["image", "inspect", "bb"])[0].clone();
    let hex = |value: &Value| value.as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let layer = hex(&image["layers"][0]["digest"]);
    let fsck = |words: &[&str]| sampan.run(&[&["image", "fsck"], words].concat());

    // the tree
    let tree = sampan.root().join("layers").join(&layer).join("fs");
    fs::write(tree.join("etc/passwd"), "root:x:0:0:hacked:/:/bin/sh\n").expect("a file of the layer");
    let found = fsck(&[]);
    assert_eq!(found.code(), 1, "{found}");
    assert!(found.stdout.contains("etc/passwd: it has another size"), "{found}");
    sampan.ok(&["run", "-d", "--name", "job", "bb", "sleep", "1000"]);
    let busy = fsck(&["--repair"]);
    assert!(busy.code() == 1 && busy.stdout.contains("hint: stop the containers"), "{busy}");
    sampan.ok(&["rm", "-f", "job"]);
    fsck(&["--repair"]).assert_ok();
    assert_eq!(sampan.shell("cat /etc/passwd").lines().count(), 2, "it was unpacked anew");
    assert_sound(&sampan);

    // a stray
    fs::write(sampan.root().join("blobs/sha256/left-here"), "").expect("a file");
    assert!(fsck(&[]).stdout.contains("left-here"));
    fsck(&["--repair"]).assert_ok();
    assert_sound(&sampan);

    // each of the blobs
    for blob in [layer, hex(&image["config_digest"]), hex(&image["digest"])] {
        let path = sampan.root().join("blobs/sha256").join(&blob);
        let mut bytes = fs::read(&path).expect("a blob");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).expect("a blob");
        let found = fsck(&[]);
        assert_eq!(found.code(), 1, "{found}");
        assert!(found.stdout.contains(&blob) && found.stdout.contains("is not whole"), "{found}");
        fsck(&["--repair"]).assert_ok();
        assert!(sampan.root().join("blobs/broken").join(&blob).exists(), "it is kept");
        assert_eq!(sampan.json(&["image", "ls", "--json"]), serde_json::json!([]));
        assert_sound(&sampan);
        sampan.import_busybox();
        assert_sound(&sampan);
        assert_eq!(sampan.shell("echo back"), "back");
    }
}

/// An instance whose daemon dies once at a point, and the file that goes then.
fn dying_at(point: &str) -> (Sampan, tempfile::TempPath) {
    let once = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    let sampan = Sampan::new().with("SAMPAN_FAILPOINT", format!("{point}:{}", once.display()));
    (sampan, once)
}

#[test]
fn a_daemon_killed_while_it_loads_loses_nothing() {
    let archive = {
        let sampan = Sampan::new();
        let archive = tools::scratch().join(format!("load-{}.tar", std::process::id()));
        sampan.import_busybox();
        sampan.ok(&["image", "save", "-o", text(&archive), "bb"]);
        tempfile::TempPath::try_from_path(archive).expect("an absolute path")
    };
    for point in ["blob_committed", "image_named"] {
        let (sampan, once) = dying_at(point);
        assert_eq!(sampan.ok(&["image", "load", "-i", text(&archive)]), "bb:latest", "killed at {point}");
        assert!(!once.exists(), "the daemon never came to {point}");
        assert_sound(&sampan);
        assert_eq!(sampan.shell("echo hi"), "hi");
        // it removed the file itself
        once.keep().expect("the path is let go");
    }
}

#[test]
fn what_an_uploader_left_goes_with_the_next_daemon() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let daemon = Native::of(sampan.root());
    // sent, and never named: whoever sent it may still come back, so it stays while this daemon runs
    let sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let put = daemon.ask_with_bytes("PUT", &format!("/v1/blobs/sha256:{sum}"), b"hello").expect("an answer");
    assert_eq!(put.status, 201);
    let path = sampan.root().join("blobs/sha256").join(sum);
    sampan.ok(&["image", "prune", "--all"]);
    assert!(path.exists(), "it is leased");
    assert_eq!(
        daemon.ask_with_bytes("GET", &format!("/v1/blobs/sha256:{sum}"), b"").expect("an answer").body,
        b"hello"
    );
    sampan.kill("daemon");
    sampan.import_busybox();
    wait_until("it to be collected", SOON, || !path.exists());
    assert_sound(&sampan);
    assert_eq!(sampan.shell("echo whole"), "whole");
}

#[test]
fn a_daemon_killed_while_it_cleans_up_leaves_whole_images() {
    for point in ["prune_name_removed", "garbage_blob_removed", "garbage_layer_set_aside", "prune_collected"] {
        let (sampan, once) = dying_at(point);
        // two that share nothing: one in use, one not
        let dir = sampan.dir();
        fs::create_dir(dir.join("rootfs")).expect("a directory");
        fs::write(dir.join("rootfs/file"), "other").expect("a file");
        let tar = std::process::Command::new("tar")
            .args(["-cf", "other.tar", "-C", "rootfs", "."])
            .current_dir(&dir)
            .status();
        assert!(tar.expect("tar runs").success());
        sampan.import_busybox();
        sampan.ok(&["image", "import", "other.tar", "other"]);
        sampan.ok(&["run", "-d", "--name", "job", "bb", "sleep", "1000"]);
        // a tree of the other as well; that there is nothing to execute in it comes after
        sampan.run(&["run", "--rm", "other", "/file"]);
        sampan.ok(&["image", "prune", "--all"]);
        assert!(!once.exists(), "the daemon never came to {point}");
        assert_sound(&sampan);
        let names = sampan.ok(&["image", "ls", "--quiet"]);
        assert_eq!(names.lines().count(), 1, "killed at {point}: {names}");
        assert_eq!(sampan.shell("echo whole"), "whole");
        sampan.ok(&["image", "prune"]);
        let layers = fs::read_dir(sampan.root().join("layers")).expect("the layers").count();
        assert_eq!(layers, 1, "killed at {point}");
        once.keep().expect("the path is let go");
    }
}
