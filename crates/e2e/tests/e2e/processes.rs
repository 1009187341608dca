//! The processes may die; apps go on.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::sampan::{SOON, body_of, is_gone};
use sampan_e2e::{Sampan, http, sources};
use sampan_testkit::{wait_for, wait_until};

#[test]
fn daemon_killed_and_apps_go_on() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    sampan.import_busybox();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    sampan.ok(&["run", "-d", "--name", "short", "bb", "sh", "-c", script]);
    wait_until("the trap to be set", SOON, || sampan.ok(&["logs", "short"]) == "ready");
    let short = sampan.inspect("short")["state"]["pid"].as_u64().expect("a pid");
    let before = sampan.inspect("probe");

    sampan.kill("daemon");
    // reached, and logged, by nobody's leave
    for _ in 0..20 {
        assert_eq!(http::get(&url).expect("an answer").body, "probe one");
    }
    body_of(&format!("{url}say/while-there-was-no-daemon"));
    // an exit that no daemon sees
    let short = Pid::from_raw(short as i32).expect("a pid");
    kill_process(short, Signal::TERM).expect("it can be signalled");
    wait_until("the container to end", SOON, || is_gone(short));

    // the next command starts the next daemon, which finds everything
    let state = &sampan.inspect("short")["state"];
    assert_eq!((&state["status"], &state["exit_code"]), (&"exited".into(), &9.into()));
    let after = sampan.inspect("probe");
    assert_eq!(after["replicas"][0]["id"], before["replicas"][0]["id"]);
    assert_eq!(after["replicas"][0]["state"]["pid"], before["replicas"][0]["state"]["pid"]);
    assert_eq!(after["health"], "ready");
    assert!(sampan.ok(&["logs", "probe"]).contains("while-there-was-no-daemon"));
    assert_eq!(sampan.up(&sources::fixture("probe"), &[]), url, "the same port");
}

#[test]
fn edge_killed_and_back_within_a_second() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let old = sampan.pid_of("edge");
    kill_process(old, Signal::KILL).expect("it can be killed");
    let start = Instant::now();
    wait_for("an answer of the next edge", SOON, || {
        (is_gone(old) && http::get(&url).is_ok_and(|response| response.status == 200)).then_some(())
    });
    let took = start.elapsed();
    println!("edge killed: back after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_ne!(sampan.pid_of("edge"), old);
}

#[test]
fn logger_killed_and_nothing_lost() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    body_of(&format!("{url}say/before"));
    sampan.kill("logger");
    body_of(&format!("{url}say/after"));
    wait_until("both words in the log", SOON, || {
        let logs = sampan.ok(&["logs", "probe"]);
        logs.contains("before") && logs.contains("after")
    });
}

#[test]
fn supervisor_killed_and_containers_live() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let before = sampan.inspect("probe");
    sampan.kill("supervisor");
    // the container, which nobody parents now, is found by the next supervisor
    wait_until("the app to answer again", SOON, || {
        sampan.run(&["ps"]).status.success() && http::get(&url).is_ok_and(|response| response.status == 200)
    });
    let after = sampan.inspect("probe");
    assert_eq!(after["replicas"][0]["state"]["pid"], before["replicas"][0]["state"]["pid"]);
}

#[test]
fn app_that_dies_is_started_again() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let pid = || sampan.inspect("probe")["replicas"][0]["state"]["pid"].as_u64();
    let before = pid();
    let _ = http::get(&format!("{url}exit/1"));
    wait_until("another process to serve", SOON, || {
        pid().is_some_and(|pid| Some(pid) != before) && http::get(&url).is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn daemon_stopped_and_apps_come_back() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let pids = ["daemon", "supervisor", "logger", "edge"].map(|role| sampan.pid_of(role));
    sampan.ok(&["daemon", "stop"]);
    for pid in pids {
        wait_until("all processes to be gone", SOON, || is_gone(pid));
    }
    assert!(http::get(&url).is_err(), "nobody listens");
    // what stays is what is intended: files of the root, and nothing else
    let left = sampan_testkit::leftovers(sampan.root());
    assert!(left.iter().all(|line| line.starts_with("file ")), "{left:#?}");
    let url = wait_for("the service to be back", SOON, || {
        let service = sampan.run(&["inspect", "probe"]);
        let service: serde_json::Value = serde_json::from_str(&service.stdout).ok()?;
        (service[0]["health"] == "ready").then(|| service[0]["url"].as_str().expect("a URL").to_owned())
    });
    assert_eq!(body_of(&url), "probe one");
}

#[test]
fn roles_that_read_strangers_bytes_are_confined() {
    let sampan = Sampan::new();
    sampan.up(&sources::fixture("probe"), &[]);
    for role in ["logger", "edge"] {
        let pid = sampan.pid_of(role).as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.lines().any(|found| found == line), "{role}: no {line:?} in\n{status}");
        }
        // nor may others of its user look into it: what it has in /proc is root's
        let owner = std::fs::metadata(format!("/proc/{pid}/environ")).expect("an owner").uid();
        assert_eq!(owner, 0, "{role} can be looked into");
    }
}

#[test]
fn two_daemons_of_one_root_are_one() {
    let sampan = Sampan::new();
    let starts: Vec<_> = (0..4)
        .map(|_| sampan.command(&["daemon", "start"]).stderr(Stdio::piped()).spawn().expect("sampan daemon start"))
        .collect();
    for start in starts {
        let output = start.wait_with_output().expect("its end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let daemon = sampan.pid_of("daemon");
    // one more, by hand, is refused and changes nothing
    let root = sampan.root().to_str().expect("a path in UTF-8").to_owned();
    let outcome = sampan.run(&["daemon", "--root", &root]);
    assert!(!outcome.status.success() && !outcome.stderr.is_empty(), "{outcome}");
    assert_eq!(sampan.pid_of("daemon"), daemon);
}

#[test]
fn two_instances_do_not_know_of_each_other() {
    let (one, two) = (Sampan::new(), Sampan::new());
    let probe = sources::fixture("probe");
    let url = one.up(&probe, &["-e", "OWNER=one"]);
    let other = two.up(&probe, &["-e", "OWNER=two"]);
    assert_eq!(body_of(&format!("{url}env/OWNER")), "one");
    assert_eq!(body_of(&format!("{other}env/OWNER")), "two");
    two.assert_purged();
    assert_eq!(body_of(&format!("{url}env/OWNER")), "one");
}
