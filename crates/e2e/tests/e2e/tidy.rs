//! Nothing stays. (That `purge` leaves nothing is asserted at the end of every test, by the harness.)

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixListener;

use sampan_e2e::sampan::SOON;
use sampan_e2e::{Sampan, sources};
use sampan_model::instance::Instance;
use sampan_testkit::leftovers::claimed_blocks;
use sampan_testkit::{leftovers, wait_until};

/// What there is of containers: outside the root all of it, inside their directories.
fn of_containers(sampan: &Sampan) -> Vec<String> {
    let wires = Instance::of_root(sampan.root()).server_interface_prefix();
    let found = leftovers(sampan.root());
    let mut found: Vec<String> =
        found.into_iter().filter(|line| line.starts_with("mount ") || line.contains(&wires)).collect();
    for dir in ["containers", "logs"] {
        let entries = fs::read_dir(sampan.root().join(dir)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    found
}

#[test]
fn down_leaves_nothing_of_the_app() {
    let sampan = Sampan::new().with("SAMPAN_POOL", "0");
    sampan.up(&sources::fixture("probe"), &["--replicas", "2"]);
    assert!(!of_containers(&sampan).is_empty());
    sampan.ok(&["down", "probe"]);
    assert_eq!(of_containers(&sampan), Vec::<String>::new());
    sampan.assert_nothing_runs();
}

#[test]
fn run_rm_leaves_nothing_of_the_container() {
    let sampan = Sampan::new().with("SAMPAN_POOL", "0");
    sampan.import_busybox();
    for _ in 0..5 {
        sampan.shell("echo > /file");
    }
    wait_until("nothing of the containers to be left", SOON, || of_containers(&sampan).is_empty());
    sampan.ok(&["run", "--name", "kept", "bb", "true"]);
    assert!(!of_containers(&sampan).is_empty(), "what was not asked to be removed stays");
    sampan.ok(&["rm", "kept"]);
    assert_eq!(of_containers(&sampan), Vec::<String>::new());
}

#[test]
fn purge_gives_back_the_claim_on_addresses() {
    let sampan = Sampan::new();
    let before = claimed_blocks();
    sampan.import_busybox();
    sampan.shell("true");
    let own: Vec<_> = claimed_blocks().into_iter().filter(|block| !before.contains(block)).collect();
    assert!(!own.is_empty());
    sampan.assert_purged();
    // other tests' instances come and go meanwhile; ours is among those that are new, and must be gone
    wait_until("the claim to be given back", SOON, || {
        let now = claimed_blocks();
        own.iter().any(|block| !now.contains(block))
    });
}

#[test]
fn purge_while_the_daemon_is_dead() {
    let sampan = Sampan::new();
    sampan.up(&sources::fixture("probe"), &[]);
    sampan.kill("daemon");
    sampan.assert_purged();
}

/// A killed daemon's socket is there until the last of its threads has ended: whoever connects then is reset.
#[test]
fn purge_while_the_daemon_dies() {
    let sampan = Sampan::new();
    sampan.up(&sources::fixture("probe"), &[]);
    sampan.kill("daemon");
    let socket = sampan.root().join("run/sampan.sock");
    fs::remove_file(&socket).expect("the dead daemon's socket is there");
    let dying = UnixListener::bind(&socket).expect("a socket in its place");
    let reset = std::thread::spawn(move || {
        let (mut looked, _) = dying.accept().expect("purge looks whether there is a daemon");
        drop(looked);
        (looked, _) = dying.accept().expect("and asks it");
        looked.read_exact(&mut [0]).expect("a request");
        drop(dying);
        // bytes of it are unread: that is a reset (unix(7))
    });
    sampan.assert_purged();
    reset.join().expect("purge met the dying one");
}

#[test]
fn purge_of_a_root_that_never_was() {
    let sampan = Sampan::new();
    sampan.ok(&["purge", "--yes"]);
    assert!(leftovers(sampan.root()).is_empty());
}

#[test]
fn purge_asks_first() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let outcome = sampan.run(&["purge"]);
    assert!(!outcome.status.success(), "without a terminal there is nobody to ask: {outcome}");
    assert!(outcome.stderr.contains("--yes"), "{outcome}");
    assert_eq!(sampan.shell("echo there"), "there");
}

#[test]
fn images_are_removed() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    assert!(sampan.ok(&["image", "ls"]).contains("bb:latest"));
    sampan.ok(&["image", "rm", "bb"]);
    assert_eq!(sampan.json(&["image", "ls", "--json"]), serde_json::json!([]));
    sampan.run(&["run", "--rm", "bb", "true"]).assert_fails(125, &["bb"]);
}
