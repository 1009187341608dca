//! Servers that wait ready: taken, filled up again, ended when nobody needs them, and holding on to nothing of the host's.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::Sampan;
use sampan_e2e::agreement::assert_agreement;
use sampan_e2e::sampan::SOON;
use sampan_model::Instance;
use sampan_testkit::{wait_for, wait_until};

/// As many as there are where nobody says another number.
const POOL: usize = 4;

fn parked(sampan: &Sampan) -> BTreeSet<String> {
    let status = sampan.json(&["daemon", "status", "--json"]);
    let ids = status["parked"].as_array().expect("the servers that wait");
    ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// The whole pool.
fn filled(sampan: &Sampan) -> BTreeSet<String> {
    wait_for("the pool to be filled", SOON, || Some(parked(sampan)).filter(|ids| ids.len() == POOL))
}

/// The process that waits on a server.
fn waiting(sampan: &Sampan, id: &str) -> Pid {
    let name = Instance::of_root(sampan.root()).cgroup_name();
    let short = &id[..12];
    let of =
        |hierarchy: &str| PathBuf::from("/sys/fs/cgroup").join(hierarchy).join(&name).join(format!("server-{short}"));
    // it is listed when it was cloned, and joins its cgroup itself, a moment later
    wait_for("one process in its cgroup", SOON, || {
        let procs = ["pids", ""].map(|hierarchy| fs::read_to_string(of(hierarchy).join("cgroup.procs")));
        let pid = procs.into_iter().find_map(Result::ok).expect("its cgroup");
        pid.trim().parse().ok().and_then(Pid::from_raw)
    })
}

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

#[test]
fn a_container_is_one_that_waited_and_another_comes() {
    let sampan = with_busybox();
    let before = filled(&sampan);
    let id = sampan.ok(&["run", "-d", "bb", "sleep", "1000"]);
    assert!(before.contains(&id), "{id} is none of {before:?}");
    let after = filled(&sampan);
    assert!(!after.contains(&id) && after.is_superset(&(&before - &BTreeSet::from([id]))), "{before:?} {after:?}");
    // more than wait, at once
    for number in 0..2 * POOL {
        sampan.ok(&["run", "-d", "--name", &format!("many{number}"), "bb", "sleep", "1000"]);
    }
    filled(&sampan);
    assert_agreement(&sampan, "after a burst");
}

#[test]
fn one_that_waited_gets_the_size_that_is_asked_for() {
    let sampan = with_busybox();
    let before = filled(&sampan);
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                  cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; hostname; sleep 1000";
    let words =
        ["run", "-d", "--name", "small", "-h", "box", "--memory", "64MiB", "--cpus", "0.5", "bb", "sh", "-c", script];
    let id = sampan.ok(&words);
    assert!(before.contains(&id), "{id} is none of {before:?}");
    wait_until("it to have said its size", SOON, || sampan.ok(&["logs", "small"]).contains("box"));
    let told = sampan.ok(&["logs", "small"]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0] == "67108864" && lines[1].starts_with("50000") && lines[2] == "box", "{told}");
}

#[test]
fn one_that_ends_is_replaced_and_nothing_of_it_stays() {
    let sampan = with_busybox();
    let before = filled(&sampan);
    let killed = before.first().expect("one that waits");
    kill_process(waiting(&sampan, killed), Signal::KILL).expect("it runs");
    wait_until("it to be replaced", SOON, || !parked(&sampan).contains(killed));
    let after = filled(&sampan);
    assert!(!after.contains(killed), "{after:?}");
    assert_agreement(&sampan, "after one that waited was killed");
    sampan.shell("true");
}

#[test]
fn the_next_daemon_makes_its_own() {
    let sampan = with_busybox();
    let before = filled(&sampan);
    sampan.kill("daemon");
    // any command starts the next
    sampan.ok(&["ps"]);
    let after = filled(&sampan);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    assert_agreement(&sampan, "after the daemon was killed");
    // and with the supervisor they end too
    sampan.kill("supervisor");
    wait_until("another supervisor", SOON, || sampan.run(&["daemon", "status"]).status.success());
    let last = filled(&sampan);
    assert!(after.is_disjoint(&last), "{after:?} {last:?}");
    assert_agreement(&sampan, "after the supervisor was killed");
}

#[test]
fn nothing_of_the_host_is_held_on_to() {
    let sampan = with_busybox();
    for id in filled(&sampan) {
        let pid = waiting(&sampan, &id);
        // after the dash: the kind of the file system
        let kind = |line: &str| line.split_once(" - ").and_then(|(_, rest)| Some(rest.split(' ').next()?.to_owned()));
        let own =
            BTreeSet::from(["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "cgroup2"].map(str::to_owned));
        // it is listed when it was cloned, and lets go of them a moment later
        wait_until("it to have let go of the host's mounts", SOON, || {
            let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pid.as_raw_nonzero())).expect("its mounts");
            mounts.lines().filter_map(kind).collect::<BTreeSet<String>>().is_subset(&own)
        });
    }
}

#[test]
fn none_wait_where_none_are_wanted() {
    let sampan = Sampan::new().with("SAMPAN_POOL", "0");
    sampan.import_busybox();
    sampan.shell("true");
    assert!(parked(&sampan).is_empty());
}
