//! Several containers on one server.

use std::os::fd::OwnedFd;

use sampan_model::ContainerId;
use sampan_runtime::wire::{Phase, Reply, Request, ServerSpec};

use super::lifecycle::{kill_supervisor, reap_orphan};
use super::{Layer, Machine, Test};

pub(super) const TESTS: &[Test] = &[
    ("containers_share_what_is_their_servers", containers_share_what_is_their_servers),
    ("a_server_outlives_its_containers", a_server_outlives_its_containers),
    ("a_server_outlives_its_supervisor_with_a_container", a_server_outlives_its_supervisor_with_a_container),
    ("no_server_no_container", no_server_no_container),
    ("joining_is_quick", joining_is_quick),
];

/// Makes a server with these ids: its user and network namespace.
fn make(machine: &Machine<'_>, like: &crate::harness::Spec) -> (ContainerId, Vec<OwnedFd>) {
    let id = ContainerId::from_bytes([0xee; 32]);
    let spec = ServerSpec { id: id.clone(), ids: like.ids };
    match machine.call(Request::MakeServer(spec), &[]).expect("a server") {
        (Reply::ServerMade, fds) => (id, fds),
        other => panic!("{other:?}"),
    }
}

/// A container on it.
fn on(
    machine: &Machine<'_>,
    server: &ContainerId,
    like: &crate::harness::Spec,
    words: &[&str],
) -> crate::harness::Spec {
    crate::harness::Spec { server: Some(server.clone()), ids: like.ids, ..machine.spec(words) }
}

fn namespace(pid: u32, name: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace");
    link.to_string_lossy().into_owned()
}

fn containers_share_what_is_their_servers(layer: &Layer) {
    let machine = Machine::start(layer);
    let like = machine.spec(&[]);
    let (server, fds) = make(&machine, &like);
    assert_eq!(fds.len(), 2);
    let [first, second] = [on(&machine, &server, &like, &["wait"]), on(&machine, &server, &like, &["wait"])];
    let pids = [&first, &second].map(|spec| machine.start_container(spec).expect("a start"));
    for name in ["user", "net", "ipc", "uts"] {
        assert_eq!(namespace(pids[0], name), namespace(pids[1], name), "{name}");
        assert_ne!(namespace(pids[0], name), namespace(std::process::id(), name), "{name}");
    }
    for name in ["pid", "mnt", "cgroup"] {
        assert_ne!(namespace(pids[0], name), namespace(pids[1], name), "{name}");
    }
    let inode = rustix::fs::fstat(&fds[1]).expect("the network namespace").st_ino;
    assert_eq!(namespace(pids[0], "net"), format!("net:[{inode}]"));
    // as sealed as one on a server of its own
    let words = ["pid", "ids", "fds", "processes", "status=CapEff", "status=NoNewPrivs", "status=Seccomp", "exit=0"];
    let mut alone = machine.run(&machine.spec(&words));
    let mut joined = machine.run(&on(&machine, &server, &like, &words));
    for (_, lines) in [&mut alone, &mut joined] {
        assert_eq!(lines.len(), words.len() - 1, "{lines:?}");
    }
    assert_eq!(alone, joined);
}

fn a_server_outlives_its_containers(layer: &Layer) {
    let mut machine = Machine::start(layer);
    let like = machine.spec(&[]);
    let (server, fds) = make(&machine, &like);
    let mut spec = on(&machine, &server, &like, &["write=/made", "exit=4"]);
    machine.join(&mut spec);
    for _ in 0..3 {
        assert_eq!(machine.run(&spec).0, Some(4));
    }
    // the same again, and for the next daemon too
    machine.reconnect();
    assert_eq!(machine.welcome.servers, std::slice::from_ref(&server));
    let (_, again) = make(&machine, &like);
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).expect("a namespace").st_ino;
    assert_eq!((inode(&fds[0]), inode(&fds[1])), (inode(&again[0]), inode(&again[1])));
    drop((fds, again));
    for _ in 0..2 {
        machine.call(Request::ForgetServer { id: server.clone() }, &[]).expect("forget");
    }
    machine.reconnect();
    assert!(machine.welcome.servers.is_empty());
}

fn a_server_outlives_its_supervisor_with_a_container(layer: &Layer) {
    let mut machine = Machine::start(layer);
    let like = machine.spec(&[]);
    let (server, _) = make(&machine, &like);
    let spec = on(&machine, &server, &like, &["wait"]);
    let pid = machine.start_container(&spec).expect("a start");
    let before = namespace(pid, "net");

    kill_supervisor(&machine);
    sampan_runtime::supervisor::start(&machine.config).expect("another one");
    machine.reconnect();
    assert_eq!(machine.welcome.servers, std::slice::from_ref(&server));
    let Phase::Running { .. } = machine.welcome.containers[0].phase else { panic!("it is gone") };
    let beside = on(&machine, &server, &like, &["wait"]);
    let pid_beside = machine.start_container(&beside).expect("a start beside it");
    assert_eq!(namespace(pid_beside, "net"), before);

    // with nobody on it, it has gone with its supervisor
    for id in [&spec.id, &beside.id] {
        machine.call(Request::Signal { id: id.clone(), signal: 9 }, &[]).expect("a signal");
        if *id == spec.id {
            reap_orphan(pid);
        }
        machine.exited(id);
    }
    kill_supervisor(&machine);
    sampan_runtime::supervisor::start(&machine.config).expect("another one");
    machine.reconnect();
    assert!(machine.welcome.servers.is_empty());
}

fn no_server_no_container(layer: &Layer) {
    let machine = Machine::start(layer);
    let like = machine.spec(&[]);
    let spec = on(&machine, &ContainerId::from_bytes([1; 32]), &like, &["exit=0"]);
    let failure = machine.create(&spec).expect_err("there is none");
    assert!(failure.to_string().contains("find server"), "{failure}");
    // what a container cannot do fails as on a server of its own
    let (server, _) = make(&machine, &like);
    let mut spec = on(&machine, &server, &like, &[]);
    spec.process.args = vec!["/nowhere".into()];
    let (_, fds) = machine.create(&spec).expect("a child");
    let failure = machine.go(&spec, &fds).expect_err("there is no such program");
    assert_eq!((failure.step.as_str(), failure.errno), ("execute /nowhere", 2));
    machine.exited(&spec.id);
    spec.cgroup_files = vec!["/sys/fs/cgroup/nowhere/cgroup.procs".into()];
    let failure = machine.create(&spec).expect_err("there is no such cgroup");
    assert!(failure.step.contains("join cgroup"), "{failure}");
}

fn joining_is_quick(layer: &Layer) {
    let machine = Machine::start(layer);
    let like = machine.spec(&[]);
    let (server, _) = make(&machine, &like);
    let mut creates = Vec::new();
    for _ in 0..50 {
        let spec = on(&machine, &server, &like, &["exit=0"]);
        let since = std::time::Instant::now();
        let (_, fds) = machine.create(&spec).expect("a child");
        creates.push(since.elapsed());
        machine.go(&spec, &fds).expect("a start");
        machine.exited(&spec.id);
        machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
    }
    creates.sort();
    println!("  created on a shared server: p50 {:?}, p90 {:?} (debug build)", creates[25], creates[45]);
    let fds = std::fs::read_dir(format!("/proc/{}/fd", machine.welcome.pid)).expect("fds").count();
    assert!(fds <= 28, "{fds} descriptors with one server left");
}
