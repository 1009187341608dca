//! A bound on what a container writes.

use std::fs;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_testkit::wait_until;

/// Loop devices that have a file of this instance.
fn loops(sampan: &Sampan) -> Vec<String> {
    let root = sampan.root().display().to_string();
    let devices = fs::read_dir("/sys/block").expect("the devices").flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| file.starts_with(&root)).collect()
}

#[test]
fn what_is_over_the_size_is_refused_inside_alone() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.run(&["run", "--rm", "--disk", "64MiB", "bb", "true"]).assert_fails(125, &["no quota", "--disk-loop"]);
    sampan.run(&["run", "--rm", "--disk", "1MiB", "--disk-loop", "bb", "true"]).assert_fails(125, &["16"]);

    let words = ["run", "--name", "full", "--disk", "64MiB", "--disk-loop", "bb", "sh", "-c"];
    let script =
        "echo kept > /file; dd if=/dev/zero of=/big bs=1M count=100 || rm /big; echo after >> /file; cat /file";
    let ran = sampan.run(&[&words[..], &[script]].concat());
    assert!(ran.status.success() && ran.stdout == "kept\nafter\n" && ran.stderr.contains("No space left"), "{ran}");
    wait_until("its device to be given back", SOON, || loops(&sampan).is_empty());

    // it is there at the next start, and to be copied from
    let copy = sampan.dir().join("file");
    sampan.ok(&["cp", "full:/file", copy.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(copy).expect("the file"), "kept\nafter\n");
    sampan.ok(&["start", "full"]);
    wait_until("its end", SOON, || sampan.inspect("full")["state"]["status"] == "exited");
    assert!(sampan.ok(&["logs", "full"]).ends_with("kept\nafter"));
    sampan.ok(&["rm", "full"]);
    wait_until("nothing of it to be left", SOON, || loops(&sampan).is_empty());
    assert_eq!(fs::read_dir(sampan.root().join("containers")).expect("the containers").count(), 0);
}

#[test]
fn it_survives_the_daemon_and_is_one_disk() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let words = ["run", "-d", "--name", "box", "--disk", "64MiB", "--disk-loop", "bb", "sh", "-c"];
    sampan.ok(&[&words[..], &["echo kept > /file; exec sleep 1000"]].concat());
    assert_eq!(loops(&sampan).len(), 1);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the host's mounts");
    assert!(!mounts.contains("disk.ext4"), "{mounts}");
    sampan.kill("daemon");
    assert_eq!(sampan.ok(&["exec", "box", "cat", "/file"]), "kept");
    sampan.ok(&["restart", "--timeout", "0s", "box"]);
    assert_eq!(loops(&sampan).len(), 1);
    sampan.ok(&["daemon", "stop"]);
    wait_until("its device to be given back", SOON, || loops(&sampan).is_empty());
}
