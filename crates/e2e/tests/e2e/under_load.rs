//! Nothing is dropped while things are replaced.

use std::fs;

use sampan_e2e::load::Load;
use sampan_e2e::{Sampan, sources};

/// Connections that ask without a pause.
const CONNECTIONS: usize = 8;
/// Requests before, and after.
const REQUESTS: usize = 1_000;

/// Does it under load; returns the different bodies that were answered.
#[track_caller]
fn check(url: &str, what: &str, work: impl FnOnce()) -> Vec<String> {
    let load = Load::start(url, CONNECTIONS);
    load.more(REQUESTS);
    work();
    load.more(REQUESTS);
    let seen = load.stop();
    println!("{what}: {} requests, {} failed", seen.requests, seen.failures.len());
    assert!(seen.failures.is_empty(), "{what}: of {} requests:\n{}", seen.requests, seen.failures.join("\n"));
    seen.bodies.into_iter().collect()
}

#[test]
fn load_while_the_daemon_restarts() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let before = sampan.inspect("probe")["replicas"][0]["id"].clone();
    check(&url, "daemon restart", || drop(sampan.ok(&["daemon", "restart"])));
    check(&url, "daemon killed and started", || {
        sampan.kill("daemon");
        sampan.ok(&["ps"]);
    });
    assert_eq!(sampan.inspect("probe")["replicas"][0]["id"], before);
}

#[test]
fn load_while_a_new_version_comes_up() {
    let sampan = Sampan::new();
    let source = sources::private_fixture("probe", &sampan.dir());
    let url = sampan.up(&source, &[]);
    let bodies = check(&url, "up of a new version", || {
        fs::write(source.join("src/version.txt"), "two\n").expect("the new version's source");
        assert_eq!(sampan.up(&source, &[]), url);
    });
    assert_eq!(bodies, ["probe one", "probe two"]);
    assert_eq!(sampan.inspect("probe")["version"], 2);
    let bodies = check(&url, "up with another size", || drop(sampan.up(&source, &["--memory", "300MiB"])));
    assert_eq!(bodies, ["probe two"]);
    let bodies = check(&url, "up with three replicas", || drop(sampan.up(&source, &["--replicas", "3"])));
    assert_eq!(bodies, ["probe two"]);
}

#[test]
fn load_of_slow_answers_while_a_new_version_comes_up() {
    let sampan = Sampan::new();
    let probe = sources::fixture("probe");
    let url = sampan.up(&probe, &[]);
    // requests under way at the old replica are answered by it
    let load = Load::start(&format!("{url}slow/300"), CONNECTIONS);
    load.more(CONNECTIONS);
    sampan.up(&probe, &["-e", "NEW=yes"]);
    load.more(2 * CONNECTIONS);
    let seen = load.stop();
    assert!(seen.failures.is_empty(), "{}", seen.failures.join("\n"));
}
