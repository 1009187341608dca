//! Who outlives whom.

use std::os::fd::AsFd as _;

use sampan_runtime::rootfs::{Layers, mount_overlay};
use sampan_runtime::supervisor;
use sampan_runtime::wire::{Event, Phase, Request};

use super::{Layer, Machine, Test};

pub(super) const TESTS: &[Test] = &[
    ("a_second_supervisor_is_refused", a_second_supervisor_is_refused),
    ("the_next_daemon_is_told_all", the_next_daemon_is_told_all),
    ("only_the_last_daemon_is_heard", only_the_last_daemon_is_heard),
    ("no_signal_ends_it", no_signal_ends_it),
    ("a_waiting_child_can_be_given_up", a_waiting_child_can_be_given_up),
    ("ids_come_back", ids_come_back),
    ("a_logger_that_dies_loses_nothing", a_logger_that_dies_loses_nothing),
    ("an_edge_that_dies_is_handed_all_again", an_edge_that_dies_is_handed_all_again),
    ("containers_outlive_their_supervisor", containers_outlive_their_supervisor),
    ("many_are_started_at_once", many_are_started_at_once),
    ("it_stays_small", it_stays_small),
];

fn a_second_supervisor_is_refused(layer: &Layer) {
    let machine = Machine::start(layer);
    let error = supervisor::start(&machine.config).expect_err("one is there").to_string();
    assert!(error.contains("another supervisor"), "{error}");
}

fn the_next_daemon_is_told_all(layer: &Layer) {
    let mut machine = Machine::start(layer);
    let [ended, running, waiting] = [machine.spec(&["exit=7"]), machine.spec(&["wait"]), machine.spec(&["exit=0"])];
    machine.start_container(&ended).expect("a start");
    machine.exited(&ended.id);
    let pid = machine.start_container(&running).expect("a start");
    machine.create(&waiting).expect("a child");
    machine.reconnect();
    let phases: Vec<_> = machine.welcome.containers.iter().map(|held| &held.phase).collect();
    let [Phase::Exited(how), Phase::Running { .. }, Phase::Waiting] = phases[..] else { panic!("{phases:?}") };
    assert_eq!(how.exit_code, Some(7));
    assert_eq!(machine.welcome.containers[1].pid, pid);
    let refused = machine.call(Request::Shutdown, &[]).expect_err("two live");
    assert!(refused.message.contains("2 containers"), "{refused}");

    machine.call(Request::Forget { id: ended.id.clone() }, &[]).expect("forget");
    machine.call(Request::Forget { id: ended.id }, &[]).expect("twice is as well");
    machine.reconnect();
    assert_eq!(machine.welcome.containers.len(), 2);
}

fn only_the_last_daemon_is_heard(layer: &Layer) {
    let machine = Machine::start(layer);
    let (sender, closed) = std::sync::mpsc::channel();
    machine.link.on_closed(move || sender.send(()).expect("somebody waits"));
    let (_link, ..) = crate::harness::connect(&machine.config.run_dir);
    closed.recv_timeout(crate::harness::PATIENCE).expect("the first one is let go");
    assert!(machine.link.call(Request::Shutdown, &[]).is_err());
}

fn no_signal_ends_it(layer: &Layer) {
    use rustix::process::Signal;
    let mut machine = Machine::start(layer);
    let pidfd = sampan_sys::pidfd::open(machine.welcome.pid).expect("it runs");
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT, Signal::TSTP, Signal::TTIN, Signal::USR1, Signal::ALARM] {
        sampan_sys::pidfd::signal(pidfd.as_fd(), signal.as_raw()).expect("a signal");
        machine.reconnect();
    }
}

fn a_waiting_child_can_be_given_up(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["exit=0"]);
    let (_, fds) = machine.create(&spec).expect("a child");
    let again = machine.create(&spec).expect_err("it is there");
    assert!(again.message.contains("has not ended"), "{again}");
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(137));
    let failure = machine.go(&spec, &fds).expect_err("it is gone");
    assert!(failure.message.contains("killed"), "{failure}");
}

fn ids_come_back(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["write=/made", "exit=0"]);
    for _ in 0..20 {
        assert_eq!(machine.run(&spec).0, Some(0));
    }
    assert_eq!(machine.output(&spec.id).len(), 20);
    // an end says whose it was: the next life may have begun when it is heard
    let mut lives = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (pid, fds) = machine.create(&spec).expect("a child");
        machine.go(&spec, &fds).expect("started");
        assert_eq!(machine.life_ended(&spec.id, pid).exit_code, Some(0));
        machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
        lives.insert(pid);
    }
    assert_eq!(lives.len(), 3);
    let unknown = machine.call(Request::Signal { id: spec.id, signal: 15 }, &[]).expect_err("forgotten");
    assert!(unknown.message.contains("none"), "{unknown}");
}

fn a_logger_that_dies_loses_nothing(layer: &Layer) {
    let machine = Machine::start(layer);
    kill(machine.welcome.logger);
    let spec = machine.spec(&["pid", "flood=500", "stderr=words", "exit=5"]);
    // more than its pipes hold: what is written without a logger waits, and the container with it
    let (code, mut lines) = machine.run(&spec);
    // two pipes have no order between them
    lines.sort();
    lines.dedup();
    assert_eq!(code, Some(5));
    assert_eq!(lines, ["flood: flooded", "pid: 1", "stderr: ok", "words", &"x".repeat(999)]);
}

fn an_edge_that_dies_is_handed_all_again(layer: &Layer) {
    let machine = Machine::start(layer);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let keys = vec!["http/a".to_owned(), "http/b".to_owned()];
    machine
        .call(Request::HoldSockets { keys: keys.clone() }, &[listener.as_fd(), listener.as_fd()])
        .expect("two sockets");
    let mut table = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut table, b"TABLE").expect("a table");
    machine.call(Request::SetTable { revision: 3, keep: keys[1..].to_vec() }, &[table.as_fd()]).expect("a table");
    let applied = |machine: &Machine<'_>| {
        machine.wait_for(|event| match event {
            Event::Edge { status } if status.starts_with("3 ") => Some(status.clone()),
            _ => None,
        })
    };
    let first = applied(&machine);
    assert!(first.starts_with("3 TABLE [\"http/b\"] 999999002 "), "{first}");
    kill(machine.welcome.edge);
    let second = applied(&machine);
    assert!(second.starts_with("3 TABLE [\"http/b\"] 999999002 "), "{second}");
    assert_ne!(first, second);
    let few = machine.call(Request::HoldSockets { keys }, &[]).expect_err("no sockets");
    assert!(few.message.contains("2 keys"), "{few}");
}

fn containers_outlive_their_supervisor(layer: &Layer) {
    let mut machine = Machine::start(layer);
    let [lives, dies, was_dead] = [machine.spec(&["wait"]), machine.spec(&["wait"]), machine.spec(&["exit=9"])];
    machine.start_container(&was_dead).expect("a start");
    machine.exited(&was_dead.id);
    machine.start_container(&lives).expect("a start");
    let pid = machine.start_container(&dies).expect("a start");
    let (waiting, _) = machine.create(&machine.spec(&["exit=0"])).expect("a child");
    kill_supervisor(&machine);
    let pidfd = sampan_sys::pidfd::open(pid).expect("it lives");
    sampan_sys::pidfd::signal(pidfd.as_fd(), 9).expect("a signal");
    reap_orphan(pid);
    // nobody is left to tell it to go on: it ends by itself
    reap_orphan(waiting);

    supervisor::start(&machine.config).expect("another supervisor");
    machine.reconnect();
    let of = |id| {
        let held = machine.welcome.containers.iter().find(|held| &held.id == id);
        held.map(|held| held.phase.clone()).expect("it is held")
    };
    assert!(matches!(of(&lives.id), Phase::Running { .. }));
    assert!(matches!(of(&dies.id), Phase::Exited(ended) if ended.exit_code.is_none()));
    assert!(matches!(of(&was_dead.id), Phase::Exited(ended) if ended.exit_code == Some(9)));

    let pid = machine.welcome.containers.iter().find(|held| held.id == lives.id).expect("it is held").pid;
    machine.call(Request::Signal { id: lives.id.clone(), signal: 9 }, &[]).expect("a signal");
    reap_orphan(pid);
    let code = machine.exited(&lives.id).exit_code;
    // kept by the kernel from 6.15 on
    assert!(code == Some(137) || code.is_none(), "{code:?}");
    println!("  exit code of an orphan: {code:?}");
    machine.logged(&lives.id);
}

/// Kills it; its children are this process's then.
pub(super) fn kill_supervisor(machine: &Machine<'_>) {
    let (closed, when_closed) = std::sync::mpsc::channel::<()>();
    machine.link.on_closed(move || drop(closed));
    kill(Some(machine.welcome.pid));
    let _ = when_closed.recv_timeout(crate::harness::PATIENCE);
    reap_orphan(machine.welcome.pid);
}

/// As init does for the orphans of a supervisor that was killed.
pub(super) fn reap_orphan(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed());
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
}

pub(super) fn kill(pid: Option<u32>) {
    let pidfd = sampan_sys::pidfd::open(pid.expect("it runs")).expect("it runs");
    sampan_sys::pidfd::signal(pidfd.as_fd(), 9).expect("a signal");
}

fn many_are_started_at_once(layer: &Layer) {
    let machine = Machine::start(layer);
    let specs: Vec<_> = (0..32).map(|_| machine.spec(&["pid", "exit=6"])).collect();
    let link = &machine.link;
    std::thread::scope(|scope| {
        for some in specs.chunks(4) {
            let uppers: Vec<_> = some.iter().map(|spec| machine.upper(&spec.id)).collect();
            scope.spawn(move || {
                for (spec, upper) in some.iter().zip(uppers) {
                    let (_, fds) = link.call(spec.create(), &[]).expect("a child");
                    let root = mount_overlay(
                        Layers { places: None, image: &[layer.path()] },
                        &upper,
                        fds[1].as_fd(),
                        spec.ids,
                    )
                    .expect("a root");
                    link.call(spec.go(), &[root.as_fd()]).expect("a start");
                }
            });
        }
    });
    let mut logged = 0;
    while logged < specs.len() {
        logged += machine.wait_for(|event| match event {
            Event::Exited { ended, .. } => (ended.exit_code != Some(6)).then(|| panic!("{ended:?}")),
            Event::Logged { .. } => Some(1),
            _ => None,
        });
    }
    for spec in &specs {
        assert_eq!(machine.output(&spec.id), ["pid: 1"]);
    }
}

fn it_stays_small(layer: &Layer) {
    let machine = Machine::start(layer);
    let (mut creates, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut spec = machine.spec(&["exit=0"]);
        let group = machine.join(&mut spec);
        let since = std::time::Instant::now();
        let (_, fds) = machine.create(&spec).expect("a child");
        creates.push(since.elapsed());
        machine.go(&spec, &fds).expect("a start");
        starts.push(since.elapsed());
        machine.exited(&spec.id);
        machine.logged(&spec.id);
        machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
        group.remove().expect("nobody is left in it");
    }
    creates.sort();
    starts.sort();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", machine.welcome.pid)).expect("smaps");
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default().trim().to_owned();
    println!("  created: p50 {:?}, p90 {:?}, p99 {:?} (debug build)", creates[50], creates[90], creates[99]);
    println!("  started: p50 {:?}, p90 {:?}, p99 {:?}", starts[50], starts[90], starts[99]);
    println!("  supervisor: {pss} PSS");
    let kib: u64 = pss.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    assert!(kib <= 4096, "{pss}");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", machine.welcome.pid)).expect("fds").count();
    assert!(fds <= 24, "{fds} descriptors with no container left");
}
