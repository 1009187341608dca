//! Root file systems that serve again, and what is never in one: anything of the container before.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_testkit::wait_until;

/// What is in "/", its mode, and how many lines `/etc/hosts` has.
const LOOK: &str = "ls -A / | tr '\\n' ' '; stat -c '%a %u:%g' /; wc -l < /etc/hosts; cat /etc/hostname";

#[test]
fn what_nobody_wrote_to_serves_again_and_nothing_else() {
    let sampan = Sampan::new().with("SAMPAN_POOL", "0");
    sampan.import_busybox();
    let run = |script: &str| sampan.ok(&["run", "--rm", "--hostname", "h", "bb", "sh", "-c", script]);
    let fresh = run(LOOK);
    // by the number of its own directory
    let mut roots = BTreeSet::new();
    wait_until("a root file system to serve again", SOON, || !roots.insert(run("stat -c %i /")));

    for writes in [
        "echo x > /left",
        "mkdir -p /left/below && chmod 700 /left",
        "touch /x && rm /x",
        "chmod 1777 /",
        "chown 5:5 /",
        "echo 10.0.0.1 left >> /etc/hosts; echo left > /etc/hostname",
        "rm /bin/busybox",
        "mv /bin /left",
    ] {
        run(writes);
        for _ in 0..3 {
            assert_eq!(run(LOOK), fresh, "after {writes:?}");
        }
    }
    // of one that is removed by hand too, also where `cp` wrote to it when it had ended
    sampan.ok(&["run", "-d", "--name", "ended", "bb", "true"]);
    sampan.ok(&["wait", "ended"]);
    sampan.ok(&["cp", sampan.root().join("records.db").to_str().expect("UTF-8"), "ended:/left"]);
    sampan.ok(&["rm", "ended"]);
    for _ in 0..3 {
        assert_eq!(run(LOOK), fresh, "after cp");
    }
    // nor is one of which somebody else may hold on to a part: a socket in what is mounted hands over descriptors
    let kept = |options: &[&str]| {
        let id = sampan.ok(&[&["run", "-d"], options, &["bb", "true"]].concat());
        sampan.ok(&["wait", &id]);
        sampan.ok(&["rm", &id]);
        sampan.root().join("roots/spare").join(&id).exists()
    };
    // on a place that is there: one that has to be made is written
    for options in [&[][..], &["--tmpfs", "/dev/shm"], &["--read-only"], &["--cap-add", "SYS_ADMIN"]] {
        assert!(kept(options), "{options:?}");
    }
    for options in [&["-v", "shared:/dev/shm"][..], &["--privileged"], &["--userns", "host"]] {
        assert!(!kept(options), "{options:?}");
    }
    // in the end none is kept
    let spare = sampan.root().join("roots/spare");
    wait_until("those that waited to be removed", Duration::from_secs(60), || {
        fs::read_dir(&spare).expect("their directory").next().is_none()
    });
}

#[test]
fn a_container_that_is_started_again_finds_what_it_wrote() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "twice", "bb", "sh", "-c", "echo once >> /written; exec cat /written"]);
    for lines in ["once", "once\nonce\nonce"] {
        sampan.ok(&["wait", "twice"]);
        assert_eq!(sampan.ok(&["logs", "twice"]), lines);
        sampan.ok(&["start", "twice"]);
    }
}
