//! `logs`: which part, with what beside it, of whom.

use std::time::Duration;

use sampan_e2e::sampan::SOON;
use sampan_e2e::{Sampan, sources};
use sampan_testkit::wait_until;

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// The time at which a line was written.
fn time_of(sampan: &Sampan, name: &str, line: &str) -> String {
    let told = sampan.ok(&["logs", "-t", name]);
    let found = told.lines().find_map(|told| told.strip_suffix(&format!(" {line}")));
    found.unwrap_or_else(|| panic!("no {line:?} in {told}")).to_owned()
}

#[test]
fn parts_of_a_log() {
    let sampan = with_busybox();
    let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done; echo bad >&2";
    sampan.ok(&["run", "--name", "job", "bb", "sh", "-c", script]);
    let logs =
        |words: &[&str]| sampan.ok(&[&["logs"], words, &["job"]].concat()).replace("line ", "").replace('\n', "");
    assert_eq!(logs(&[]), "12345");
    assert_eq!(logs(&["--tail", "all"]), "12345");
    let (second, fourth) = (time_of(&sampan, "job", "line 2"), time_of(&sampan, "job", "line 4"));
    assert_eq!(logs(&["--since", &second]), "2345");
    assert_eq!(logs(&["--until", &fourth]), "123");
    assert_eq!(logs(&["--since", &second, "--until", &fourth]), "23");
    assert_eq!(logs(&["--until", &fourth, "-n", "2"]), "23");
    assert_eq!(logs(&["--until", &fourth, "-f"]), "123");
    assert_eq!(logs(&["--since", "1h"]), "12345");
    assert_eq!(logs(&["--until", "1h"]), "");
    assert_eq!(logs(&["--since", "4102444800"]), "");
    // standard error is another stream, and of the last two lines one is there
    let last = sampan.run(&["logs", "--tail", "2", "job"]).assert_ok();
    assert_eq!((last.stdout.as_str(), last.stderr.as_str()), ("line 5\n", "bad\n"));
    sampan.run(&["logs", "--since", "yesterday", "job"]).assert_fails(2, &["how long ago"]);
}

#[test]
fn a_log_is_followed_until_a_time() {
    let sampan = with_busybox();
    sampan.ok(&["run", "-d", "--name", "endless", "bb", "sh", "-c", "while :; do echo on; sleep 0.05; done"]);
    let until = std::time::SystemTime::now() + Duration::from_secs(1);
    let seconds = until.duration_since(std::time::UNIX_EPOCH).expect("a time of today").as_secs_f64();
    let told = sampan.ok(&["logs", "-f", "--until", &format!("{seconds:.3}"), "endless"]);
    assert!(told.lines().count() >= 5, "{told}");
    sampan.ok(&["rm", "-f", "endless"]);
}

#[test]
fn a_service_s_replicas_are_told_together() {
    let sampan = Sampan::new();
    let probe = sources::fixture("probe");
    sampan.up(&probe, &["--replicas", "2"]);
    let told = || {
        let logs = sampan.run(&["logs", "probe"]).assert_ok();
        format!("{}{}", logs.stdout, logs.stderr)
    };
    wait_until("both to have said something", SOON, || {
        let told = told();
        ["probe.1 | ", "probe.2 | "].iter().all(|name| told.lines().any(|line| line.starts_with(name)))
    });
}
