//! `up` that is interrupted: by Ctrl-C at any moment, or by the daemon's death at each of its steps.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::sampan::{SOON, body_of};
use sampan_e2e::{Sampan, sources};
use sampan_testkit::{wait_for, wait_until};

fn start(sampan: &Sampan, source: &Path, words: &[&str]) -> Child {
    let source = source.to_str().expect("a path in UTF-8");
    let mut command = sampan.command(&[&["up", source], words].concat());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("sampan up")
}

/// Ctrl-C; returns the exit code.
#[track_caller]
fn interrupt(up: &mut Child) -> i32 {
    kill_process(Pid::from_child(up), Signal::INT).expect("it can be signalled");
    let status = wait_for("up to end", SOON, || up.try_wait().expect("its status"));
    status.code().unwrap_or(-1)
}

/// Reads what it says until a line holds the word.
#[track_caller]
fn hear(up: &mut Child, word: &str) {
    let reader = BufReader::new(up.stderr.take().expect("its words"));
    let mut lines = reader.lines().map(|line| line.expect("a line"));
    let heard = lines.by_ref().find(|line| line.contains(word));
    assert!(heard.is_some(), "it never said {word:?}");
    // goes on reading, or it would stand still
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn by_ctrl_c_while_it_compiles() {
    let sampan = Sampan::new();
    let source = sources::private_fixture("probe", &sampan.dir());
    let mut up = start(&sampan, &source, &[]);
    hear(&mut up, "Compiling");
    assert_eq!(interrupt(&mut up), 130);
    let in_source = || {
        let processes = std::fs::read_dir("/proc").expect("the list of processes").flatten();
        let mut dirs = processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
        dirs.any(|dir| dir.starts_with(&source))
    };
    wait_until("no compiler to be left", SOON, || !in_source());
    sampan.assert_nothing_runs();
}

#[test]
fn by_ctrl_c_while_it_waits_for_the_app() {
    let sampan = Sampan::new();
    let mut up = start(&sampan, &sources::fixture("probe"), &["-e", "PROBE_MODE=silent"]);
    wait_until("the app to run", SOON, || {
        let logs = sampan.run(&["logs", "probe"]);
        logs.stdout.contains("up, but listening nowhere")
    });
    assert_eq!(interrupt(&mut up), 130);
    sampan.assert_nothing_runs();
}

#[test]
fn by_ctrl_c_while_it_replaces_a_version() {
    let sampan = Sampan::new();
    let probe = sources::fixture("probe");
    let url = sampan.up(&probe, &[]);
    let mut up = start(&sampan, &probe, &["-e", "PROBE_MODE=silent"]);
    wait_until("the new version to run", SOON, || sampan.containers().len() == 2);
    assert_eq!(interrupt(&mut up), 130);
    assert_eq!(sampan.containers().len(), 1, "the new version is gone");
    assert_eq!(body_of(&url), "probe one");
}

#[test]
fn by_ctrl_c_at_any_moment() {
    let probe = sources::fixture("probe");
    let sampan = Sampan::new();
    // compiled, so that the moments are those of all the steps after
    sampan.up(&probe, &["--name", "warm"]);
    sampan.ok(&["down", "warm"]);
    for delay_ms in [0, 2, 5, 10, 20, 40, 60, 80, 100, 130, 160, 200, 250, 300, 400] {
        let mut up = start(&sampan, &probe, &[]);
        // the moment is the case, and nothing is waited for
        std::thread::sleep(Duration::from_millis(delay_ms));
        let code = interrupt(&mut up);
        match code {
            130 => sampan.assert_nothing_runs(),
            0 => {
                let url = sampan.inspect("probe")["url"].as_str().expect("a URL").to_owned();
                assert_eq!(body_of(&url), "probe one");
                sampan.ok(&["down", "probe"]);
            }
            // before main: the signal's own way
            -1 if delay_ms < 10 => sampan.assert_nothing_runs(),
            _ => panic!("code {code} after {delay_ms} ms"),
        }
    }
}

#[test]
fn by_the_daemon_s_death_at_each_step() {
    for step in [
        "blob_committed",
        "image_named",
        "service_recorded",
        "container_recorded",
        "container_created",
        "container_wired",
        "container_started",
        "routes_set",
        "deploy_ready",
    ] {
        let once = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let sampan = Sampan::new().with("SAMPAN_FAILPOINT", format!("{step}:{}", once.display()));
        let source = sources::fixture("probe");
        let up = sampan.run(&["up", source.to_str().expect("a path in UTF-8")]);
        assert!(up.status.success(), "killed at {step}: {up}");
        let url = up.stdout.trim_end();
        assert!(!once.exists(), "the daemon never came to {step}");
        assert_eq!(body_of(url), "probe one", "killed at {step}");
        wait_until("one replica alone", SOON, || sampan.containers().len() == 1);
        sampan.ok(&["down", "probe"]);
        sampan.assert_nothing_runs();
        // it removed the file itself
        once.keep().expect("the path is let go");
    }
}
