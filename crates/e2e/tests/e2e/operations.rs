//! What is done to containers that are there: created, started, signalled, paused, restarted, renamed, changed, watched.

use std::fs;

use sampan_e2e::Sampan;
use sampan_e2e::native::Native;
use sampan_e2e::sampan::SOON;
use sampan_testkit::{wait_for, wait_until};
use serde_json::{Value, json};

use crate::servers::Api;

fn instance() -> (Sampan, Api) {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let api = Api::of(&sampan);
    (sampan, api)
}

#[track_caller]
fn run(api: &Api, name: &str, script: &str, more: Value) -> Value {
    let mut create = json!({"name": name, "image": "bb", "command": ["sh", "-c", script]});
    create.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    api.ok("POST", "/v1/containers", Some(&create))
}

fn state(api: &Api, name: &str) -> Value {
    api.ok("GET", &format!("/v1/containers/{name}"), None)["state"].clone()
}

/// The last number that it has counted to.
fn count(sampan: &Sampan, name: &str) -> u64 {
    let log = sampan.ok(&["logs", "--tail", "1", name]);
    log.trim().parse().unwrap_or(0)
}

const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

#[test]
fn paused_it_stands_still() {
    let (sampan, api) = instance();
    run(&api, "counter", COUNTER, json!({}));
    wait_until("it to count", SOON, || count(&sampan, "counter") > 2);
    api.ok("POST", "/v1/containers/counter/pause", None);
    assert_eq!(state(&api, "counter")["paused"], true);
    api.refused("POST", "/v1/containers/counter/pause", None, "paused");
    // another one, not paused, tells how long is long enough
    run(&api, "witness", COUNTER, json!({}));
    let settled = wait_for("what it wrote before to be logged", SOON, || {
        let (before, seen) = (count(&sampan, "counter"), count(&sampan, "witness"));
        wait_until("the witness to count on", SOON, || count(&sampan, "witness") > seen + 15);
        (count(&sampan, "counter") == before).then_some(before)
    });
    api.ok("DELETE", "/v1/containers/witness?force=true", None);
    // the next daemon knows, whatever was recorded
    sampan.kill("daemon");
    sampan.ok(&["ps"]);
    assert_eq!(state(&api, "counter")["paused"], true);
    assert_eq!(count(&sampan, "counter"), settled);
    api.ok("POST", "/v1/containers/counter/unpause", None);
    assert_eq!(state(&api, "counter")["paused"], false);
    api.refused("POST", "/v1/containers/counter/unpause", None, "not_paused");
    wait_until("it to go on", SOON, || count(&sampan, "counter") > settled);

    // what is paused can be ended all the same
    for (method, path) in [
        ("POST", "/v1/containers/counter/stop?timeout_ms=5000"),
        ("POST", "/v1/containers/counter/kill"),
        ("DELETE", "/v1/containers/counter?force=true"),
    ] {
        api.ok("POST", "/v1/containers/counter/pause", None);
        api.ok(method, path, None);
        if method == "DELETE" {
            break;
        }
        wait_until("its end", SOON, || state(&api, "counter")["status"] == "exited");
        assert_eq!(state(&api, "counter")["paused"], false);
        api.refused("POST", "/v1/containers/counter/pause", None, "not_running");
        api.ok("POST", "/v1/containers/counter/start", None);
    }
    assert_eq!(api.ok("GET", "/v1/containers", None), json!([]));
}

#[test]
fn signals_by_name_and_number() {
    let (sampan, api) = instance();
    let script = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo quit; exit 4' QUIT; echo up; \
                  while :; do sleep 0.02; done";
    run(&api, "heeds", script, json!({"stop_signal": "SIGQUIT"}));
    let says = |word: &str| wait_until(word, SOON, || sampan.ok(&["logs", "heeds"]).contains(word));
    says("up");
    api.ok("POST", "/v1/containers/heeds/kill?signal=SIGUSR1", None);
    says("usr1");
    api.ok("POST", "/v1/containers/heeds/kill?signal=1", None);
    says("hup");
    for bad in ["SIGNONE", "0", "65"] {
        let message = api.refused("POST", &format!("/v1/containers/heeds/kill?signal={bad}"), None, "bad_request");
        assert!(message.contains("not a signal"), "{message}");
    }
    // asked to end by the signal that was asked for
    api.ok("POST", "/v1/containers/heeds/stop?timeout_ms=20000", None);
    assert_eq!(state(&api, "heeds")["exit_code"], 4);
    api.refused("POST", "/v1/containers/heeds/kill", None, "not_running");
    run(&api, "killed", "exec sleep 1000", json!({}));
    api.ok("POST", "/v1/containers/killed/kill", None);
    wait_until("its end", SOON, || state(&api, "killed")["exit_code"] == 137);
}

#[test]
fn created_started_restarted_and_renamed() {
    let (sampan, api) = instance();
    let script = "echo $$ $(id -u):$(id -g) $PWD $(hostname); sleep 1000";
    let spec = json!({"name": "first", "image": "bb", "entrypoint": ["sh", "-c"], "command": [script],
                      "user": "12:34", "working_dir": "/somewhere", "host_name": "elsewhere",
                      "labels": {"colour": "blue"}});
    let created = api.ok("POST", "/v1/containers?start=false", Some(&spec));
    assert_eq!((&created["state"]["status"], &created["labels"]["colour"]), (&json!("created"), &json!("blue")));
    let started = api.ok("POST", "/v1/containers/first/start", None);
    assert_eq!(started["state"]["status"], "running");
    api.refused("POST", "/v1/containers/first/start", None, "running");
    wait_until("it to speak", SOON, || sampan.ok(&["logs", "first"]) == "1 12:34 /somewhere elsewhere");

    let restarted = api.ok("POST", "/v1/containers/first/restart?timeout_ms=0", None);
    assert_ne!(restarted["state"]["pid"], started["state"]["pid"]);
    assert_eq!(restarted["id"], started["id"]);
    run(&api, "other", "exec sleep 1000", json!({}));
    api.refused("POST", "/v1/containers/first/rename?name=other", None, "name_taken");
    api.refused("POST", "/v1/containers/first/rename?name=..", None, "bad_request");
    let renamed = api.ok("POST", "/v1/containers/first/rename?name=second", None);
    assert_eq!((&renamed["name"], &renamed["id"]), (&json!("second"), &started["id"]));
    assert_eq!(api.ask("GET", "/v1/containers/first", None).0, 404);
    wait_until("both lives in one log", SOON, || sampan.ok(&["logs", "second"]).lines().count() == 2);
    // the name is free again, and the new one is kept
    run(&api, "first", "exec sleep 1000", json!({}));
    sampan.kill("daemon");
    sampan.ok(&["ps"]);
    assert_eq!(api.ok("GET", "/v1/containers/second", None)["id"], started["id"]);

    // one that is to go at its end does not go at a restart
    run(&api, "brief", "exec sleep 1000", json!({"remove_at_exit": true}));
    let again = api.ok("POST", "/v1/containers/brief/restart?timeout_ms=0", None);
    assert_eq!(again["state"]["status"], "running");
    api.ok("POST", "/v1/containers/brief/kill", None);
    api.ok("POST", "/v1/containers/brief/wait", None);
    wait_until("it to be gone", SOON, || api.ask("GET", "/v1/containers/brief", None).0 == 404);
}

/// Also of one that goes at its end.
#[test]
fn every_step_of_a_life_is_told_to_who_follows() {
    let (sampan, api) = instance();
    let from = api.ok("GET", "/v1/daemon", None)["revision"].as_u64().expect("a revision");
    let id = run(&api, "brief", "exit 3", json!({"remove_at_exit": true}))["id"].clone();
    let told = Native::of(sampan.root()).lines(&format!("/v1/events?from={from}"), 4).expect("events");
    let text = String::from_utf8(told.body).expect("text");
    let changes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(changes.iter().all(|change| change["key"].as_str().expect("a key").ends_with(id.as_str().expect("an id"))));
    let state =
        |change: &Value| (change["value"]["state"]["status"].clone(), change["value"]["state"]["exit_code"].clone());
    let steps: Vec<_> = changes.iter().map(state).collect();
    let expected = [json!("created"), json!("running"), json!("exited"), Value::Null];
    assert_eq!(steps.iter().map(|(status, _)| status.clone()).collect::<Vec<_>>(), expected, "{text}");
    assert_eq!(steps[2].1, 3);
}

#[test]
fn what_was_only_created_is_there_for_the_next_daemon() {
    let (sampan, api) = instance();
    for (name, remove_at_exit) in [("kept", false), ("brief", true)] {
        let spec = json!({"name": name, "image": "bb", "command": ["true"], "remove_at_exit": remove_at_exit});
        api.ok("POST", "/v1/containers?start=false", Some(&spec));
    }
    sampan.kill("daemon");
    sampan.ok(&["ps"]);
    for name in ["kept", "brief"] {
        assert_eq!((&state(&api, name)["status"], &state(&api, name)["error"]), (&json!("created"), &Value::Null));
        // the client's own, with a daemon that has just been killed: a request that nobody has heard is made again
        sampan.kill("daemon");
        sampan.ok(&["start", name]);
    }
}

#[test]
fn a_stop_goes_on_without_whoever_asked() {
    let (sampan, api) = instance();
    run(&api, "slow", "trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done", json!({}));
    wait_until("it to heed", SOON, || sampan.ok(&["logs", "slow"]).contains("up"));
    let mut stop = sampan.command(&["stop", "-t", "1", "slow"]).spawn().expect("sampan stop");
    wait_until("it to be asked", SOON, || sampan.ok(&["logs", "slow"]).contains("asked"));
    stop.kill().expect("it can be killed");
    stop.wait().expect("its end");
    wait_until("its end", SOON, || state(&api, "slow")["exit_code"] == 137);
}

#[test]
fn the_log_of_one_that_was_restarted_is_followed() {
    let (sampan, api) = instance();
    // much is on its way to its log at the end of each life
    run(&api, "loud", "exec yes", json!({}));
    for round in 0..20 {
        api.ok("POST", "/v1/containers/loud/restart?timeout_ms=0", None);
        let mut follow = sampan.command(&["logs", "-f", "--tail", "0", "loud"]);
        let mut follow = follow.stdout(std::process::Stdio::null()).spawn().expect("sampan logs");
        // the last words of the life before come within that
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(follow.try_wait().expect("its status").is_none(), "it ended in round {round}");
        follow.kill().expect("it can be killed");
        follow.wait().expect("its end");
    }
}

#[test]
fn changed_while_it_runs() {
    let (sampan, api) = instance();
    let held = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo held; exec sleep 1000";
    let first = run(&api, "holder", held, json!({"size": {"memory_bytes": 64 << 20}}));
    wait_until("memory to be held", SOON, || sampan.ok(&["logs", "holder"]).contains("held"));
    let update = json!({"memory_bytes": 96 << 20, "cpus": 0.5, "restart": {"policy": "always"}});
    let updated = api.ok("POST", "/v1/containers/holder/update", Some(&update));
    assert_eq!((&updated["server"]["memory_bytes"], &updated["server"]["cpus"]), (&json!(96 << 20), &json!(0.5)));
    assert_eq!(updated["restart"]["policy"], "always");
    let group = fs::read_to_string(format!("/proc/{}/cgroup", first["state"]["pid"])).expect("its cgroups");
    let memory = group.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path.to_owned());
    if let Some(path) = memory {
        let limit = fs::read_to_string(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
        assert_eq!(limit.expect("a limit").trim(), "100663296");
    }
    let below = json!({"memory_bytes": 10 << 20});
    let message = api.refused("POST", "/v1/containers/holder/update", Some(&below), "in_use");
    assert!(message.contains("10MiB"), "{message}");
    api.refused("POST", "/v1/containers/holder/update", Some(&json!({"memory_bytes": 1_u64 << 60})), "too_large");
    let view = api.ok("GET", "/v1/containers/holder", None);
    assert_eq!((&view["server"]["memory_bytes"], &view["state"]["status"]), (&json!(96 << 20), &json!("running")));
}

#[test]
fn watched_from_outside() {
    let (_sampan, api) = instance();
    let script = "head -c 1000000 /dev/zero > /dev/shm/x; sleep 1001 & sleep 1002 & while :; do :; done";
    let container = run(&api, "busy", script, json!({"user": "7", "size": {"cpus": 0.5}}));
    let processes = wait_for("its processes", SOON, || {
        let rows = api.ok("GET", "/v1/containers/busy/top", None);
        let rows = rows.as_array().expect("rows").clone();
        let is_sleep = |row: &&Value| row["command"].as_str().is_some_and(|words| words.starts_with("sleep "));
        // both have been forked, and have become what they are to be
        (rows.len() == 3 && rows.iter().filter(is_sleep).count() == 2).then_some(rows)
    });
    assert_eq!((&processes[0]["inner_pid"], &processes[0]["inner_ppid"]), (&json!(1), &json!(0)));
    assert_eq!(processes[0]["pid"], container["state"]["pid"]);
    for row in &processes {
        assert_eq!(row["uid"], 7, "{row}");
        assert!(row["resident_bytes"].as_u64() > Some(0), "{row}");
    }
    let mut commands: Vec<&str> = processes[1..].iter().filter_map(|row| row["command"].as_str()).collect();
    commands.sort_unstable();
    assert_eq!(commands, ["sleep 1001", "sleep 1002"]);
    assert!(processes[1..].iter().all(|row| row["inner_ppid"] == 1), "{processes:?}");

    let stats = || api.ok("GET", "/v1/containers/busy/stats", None);
    let first = stats();
    assert_eq!((&first["name"], &first["cpus"], &first["pids"]), (&json!("busy"), &json!(0.5), &json!(3)));
    let memory = first["memory_bytes"].as_u64().expect("memory");
    assert!((1_000_000..100_000_000).contains(&memory), "{first}");
    wait_until("it to use its processor", SOON, || stats()["cpu_us"].as_u64() > first["cpu_us"].as_u64());
    api.ok("POST", "/v1/containers/busy/kill", None);
    wait_until("its end", SOON, || state(&api, "busy")["status"] == "exited");
    for what in ["top", "stats"] {
        api.refused("GET", &format!("/v1/containers/busy/{what}"), None, "not_running");
    }
}
