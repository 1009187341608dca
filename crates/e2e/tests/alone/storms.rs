//! What comes once a year: a reboot, a full disk, no descriptors left, a clock that steps back, a broken database page, a
//! log flood, five hundred ends at once.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::agreement::assert_agreement;
use sampan_e2e::sampan::{SOON, body_of, is_gone, outcome};
use sampan_e2e::{Outcome, Sampan, sources};
use sampan_model::Instance;
use sampan_testkit::wait_until;

use crate::alone;

/// A command of the instance under another program: `prlimit`, `unshare`.
fn under(sampan: &Sampan, wrapper: &[&str], words: &[&str]) -> Outcome {
    let inner = sampan.command(words);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).current_dir(sampan.dir());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outcome(&mut command)
}

/// Every process in the instance's cgroups.
fn processes_of(sampan: &Sampan) -> Vec<Pid> {
    let group = Instance::of_root(sampan.root()).cgroup_name();
    let entries = fs::read_dir("/proc").expect("the list of processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_it = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&group));
    pids.filter(of_it).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_reboot() {
    let _alone = alone();
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "ran", "-v", "data:/d", "bb", "sh", "-c", "date >> /d/starts; sleep 1000"]);
    sampan.ok(&["run", "-d", "--name", "stopped", "bb", "sleep", "1000"]);
    sampan.ok(&["stop", "-t", "0", "stopped"]);
    sampan.ok(&["run", "--name", "ended", "bb", "true"]);

    // the power goes: everything at once
    let daemon = sampan.pid_of("daemon");
    let all = processes_of(&sampan);
    for pid in [daemon].into_iter().chain(all.iter().copied()) {
        let _ = kill_process(pid, Signal::KILL);
    }
    wait_until("everything to be dead", SOON, || all.iter().all(|pid| is_gone(*pid)) && is_gone(daemon));
    fs::remove_dir_all(sampan.root().join("run")).expect("the runtime directory goes with the power");
    let boot = sampan.dir().join("boot_id");
    fs::write(&boot, "11111111-2222-3333-4444-555555555555\n").expect("another boot's id");
    // one whole /proc stays in sight: the kernel lets nobody mount another where it sees parts of it hidden
    let proc = sampan.dir().join("proc");
    fs::create_dir(&proc).expect("a directory");
    let script = format!(
        "mount -t proc proc {} && mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"",
        proc.display(),
        boot.display()
    );
    under(&sampan, &["unshare", "--mount", "sh", "-c", &script], &["daemon", "start"]).assert_ok();

    wait_until("what ran to run again", SOON, || sampan.inspect("ran")["state"]["status"] == "running");
    assert_eq!(body_of(&url), "probe one", "at the same port");
    for name in ["stopped", "ended"] {
        assert_eq!(sampan.inspect(name)["state"]["status"], "exited", "{name}");
    }
    assert_eq!(sampan.ok(&["exec", "ran", "cat", "/d/starts"]).lines().count(), 2, "the volume is as it was");
    assert_agreement(&sampan, "after the reboot");
}

#[test]
fn a_full_disk() {
    let _alone = alone();
    let place = tempfile::tempdir().expect("a directory");
    mount("small", place.path(), "tmpfs", MountFlags::empty(), Some(c"size=48m")).expect("a small file system");
    {
        let sampan = Sampan::within(|_| place.path().join("root"));
        sampan.import_busybox();
        sampan.ok(&["run", "-d", "--name", "beside", "bb", "sleep", "1000"]);
        let full = sampan.run(&["run", "--name", "hog", "bb", "dd", "if=/dev/zero", "of=/hog", "bs=64k"]);
        assert_eq!(full.code(), 1, "{full}");
        assert!(full.stderr.contains("No space left"), "{full}");
        // there is nothing left: what needs room says so, what does not goes on
        let more = sampan.run(&["run", "-d", "--name", "more", "bb", "sleep", "1000"]);
        if !more.status.success() {
            assert!(more.stderr.contains("room") || more.stderr.contains("space"), "{more}");
        }
        assert_eq!(sampan.inspect("beside")["state"]["status"], "running");
        sampan.ok(&["exec", "beside", "true"]);
        sampan.kill("daemon");
        sampan.ok(&["ps"]);
        // and it can be helped with our own means
        sampan.ok(&["rm", "-f", "hog"]);
        sampan.run(&["rm", "-f", "more"]);
        sampan.ok(&["run", "--rm", "bb", "true"]);
        assert_agreement(&sampan, "with room again");
    }
    unmount(place.path(), UnmountFlags::empty()).expect("nothing holds the file system");
}

#[test]
fn no_descriptors_left() {
    let _alone = alone();
    let sampan = Sampan::new();
    under(&sampan, &["prlimit", "--nofile=128:128"], &["daemon", "start"]).assert_ok();
    sampan.import_busybox();
    let mut refused = None;
    for number in 0..60 {
        let name = format!("many{number}");
        let outcome = sampan.run(&["run", "-d", "--name", &name, "bb", "sleep", "1000"]);
        if !outcome.status.success() {
            refused = Some(outcome);
            break;
        }
    }
    let refused = refused.expect("128 descriptors are not enough for 60 containers");
    assert!(refused.stderr.contains("open files") && !refused.stderr.contains("panicked"), "{refused}");
    let names: Vec<String> =
        sampan.containers().iter().filter_map(|container| container["name"].as_str().map(str::to_owned)).collect();
    assert!(!names.is_empty());
    for name in &names {
        sampan.ok(&["rm", "-f", name]);
    }
    assert_eq!(sampan.ok(&["run", "--rm", "bb", "echo", "there"]), "there");
    assert_agreement(&sampan, "with descriptors again");
}

/// A library that moves the clock of whoever loads it by as many seconds as a file says.
fn moved_clock(dir: &Path) -> (PathBuf, PathBuf) {
    let (source, library, seconds) = (dir.join("clock.c"), dir.join("clock.so"), dir.join("seconds"));
    let text = format!(
        r#"#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {{
    int result = syscall(SYS_clock_gettime, id, now);
    if (result == 0 && id == CLOCK_REALTIME) {{
        char text[32] = {{0}};
        int file = open("{}", O_RDONLY | O_CLOEXEC);
        if (file >= 0) {{
            if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
            close(file);
        }}
    }}
    return result;
}}
"#,
        seconds.display()
    );
    fs::write(&source, text).expect("write the library");
    let words = ["-shared", "-fPIC", "-O1", "-o"];
    let status = Command::new("cc").args(words).arg(&library).arg(&source).status().expect("a C compiler");
    assert!(status.success(), "the library does not compile");
    (library, seconds)
}

#[test]
fn a_clock_that_steps_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let (library, seconds) = moved_clock(dir.path());
    fs::write(&seconds, "86400").expect("write the seconds");
    let sampan = Sampan::new().with("LD_PRELOAD", library.to_str().expect("a path in UTF-8"));
    sampan.import_busybox();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    sampan.ok(&["run", "-d", "--name", "before", "bb", "sh", "-c", "echo early; sleep 1000"]);
    wait_until("its word", SOON, || sampan.ok(&["logs", "before"]) == "early");
    // a day back, under a daemon that runs, and one that starts
    fs::write(&seconds, "0").expect("write the seconds");
    for _ in 0..2 {
        sampan.ok(&["run", "--rm", "bb", "true"]);
        let policy = ["run", "-d", "--name", "after", "--restart", "on-failure:2", "bb", "sh", "-c", "exit 3"];
        sampan.ok(&policy);
        wait_until("two restarts", SOON, || sampan.inspect("after")["state"]["restarts"] == 2);
        sampan.ok(&["rm", "-f", "after"]);
        sampan.ok(&["ps", "-a"]);
        assert_eq!(sampan.ok(&["logs", "before"]), "early");
        assert_eq!(body_of(&url), "probe one");
        sampan.ok(&["restart", "-t", "0", "before"]);
        wait_until("its second word", SOON, || sampan.ok(&["logs", "before"]).lines().count() > 1);
        sampan.ok(&["image", "prune"]);
        sampan.ok(&["run", "--rm", "bb", "true"]);
        assert_agreement(&sampan, "a day earlier");
        sampan.kill("daemon");
        sampan.ok(&["rm", "-f", "before"]);
        sampan.ok(&["run", "-d", "--name", "before", "bb", "sh", "-c", "echo early; sleep 1000"]);
        wait_until("its word", SOON, || sampan.ok(&["logs", "before"]) == "early");
    }
}

#[test]
fn a_broken_page_of_the_records() {
    let _alone = alone();
    let sampan = Sampan::new();
    sampan.import_busybox();
    for number in 0..30 {
        sampan.ok(&["volume", "create", &format!("volume-{number}")]);
    }
    sampan.ok(&["daemon", "stop"]);
    let path = sampan.root().join("records.db");
    let whole = fs::read(&path).expect("the records");
    assert!(whole.len() > 3 * 4096, "{} bytes", whole.len());
    let mut broken = whole.clone();
    broken[4096..8192].fill(0xa5);
    for beside in ["records.db-wal", "records.db-shm"] {
        let _ = fs::remove_file(sampan.root().join(beside));
    }
    fs::write(&path, &broken).expect("break a page");
    for _ in 0..2 {
        let outcome = sampan.run(&["ps"]);
        assert!(!outcome.status.success(), "{outcome}");
        assert!(outcome.stderr.contains("records.db"), "{outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        assert!(fs::read(&path).expect("the records") == broken, "what is broken was written to");
    }
    // whoever has a copy puts it back
    let mut file = fs::OpenOptions::new().write(true).open(&path).expect("the records");
    file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&whole)).expect("put it back");
    assert_eq!(sampan.json(&["volume", "ls", "--json"]).as_array().map(Vec::len), Some(30));
    sampan.ok(&["run", "--rm", "bb", "true"]);
}

#[test]
fn a_log_flood() {
    let _alone = alone();
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "flood", "bb", "yes", "a line of a flood that nobody reads"]);
    let id = sampan.inspect("flood")["id"].as_str().expect("an id").to_owned();
    let live = sampan.root().join("logs").join(format!("{id}.log"));
    let older = sampan.root().join("logs").join(format!("{id}.log.1"));
    wait_until("the log to be rotated", Duration::from_secs(60), || older.exists());
    // others start, speak and end beside it
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(sampan.ok(&["run", "--rm", "bb", "echo", "dry"]), "dry");
    }
    println!("five runs beside a flood took {:?}", start.elapsed());
    let bytes: u64 = [live, older].iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
    assert!(bytes <= 33 << 20, "{bytes} bytes of log");
    let tail = sampan.ok(&["logs", "--tail", "3", "flood"]);
    assert_eq!(tail.lines().count(), 3, "{tail}");
    sampan.ok(&["rm", "-f", "flood"]);
    assert_agreement(&sampan, "after the flood");
}

#[test]
fn five_hundred_ends_at_once() {
    const MANY: usize = 500;
    let _alone = alone();
    let sampan = Sampan::new();
    sampan.import_busybox();
    let start = Instant::now();
    for number in 0..MANY {
        sampan.ok(&["run", "-d", "--name", &format!("c{number}"), "--memory", "16MiB", "bb", "sleep", "1000"]);
    }
    println!("{MANY} containers started in {:?}", start.elapsed());
    let pids: Vec<Pid> = sampan
        .containers()
        .iter()
        .filter_map(|container| Pid::from_raw(i32::try_from(container["state"]["pid"].as_i64()?).ok()?))
        .collect();
    assert_eq!(pids.len(), MANY);
    for pid in &pids {
        kill_process(*pid, Signal::KILL).expect("it can be killed");
    }
    let start = Instant::now();
    wait_until("every end to be known", Duration::from_secs(60), || {
        let ended = |container: &serde_json::Value| {
            container["state"]["status"] == "exited" && container["state"]["exit_code"] == 137
        };
        sampan.containers().iter().all(ended)
    });
    println!("{MANY} ends were known after {:?}", start.elapsed());
    assert_agreement(&sampan, "after five hundred ends");
    let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    let words: Vec<&str> = ["rm"].into_iter().chain(names.iter().map(String::as_str)).collect();
    sampan.ok(&words);
    assert!(sampan.containers().is_empty());
}
