//! Against this machine's kernel, in groups of our own.

use std::io::BufRead as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::*;
use crate::cgroup::group::hand_down;
use crate::cgroup::{Access, Cgroups, DOCKER_DEVICES, DeviceKind, DeviceRule, EVERY_DEVICE, Group, Kind, Mode, remove};

const LIMITS: Limits = Limits { cpu_milli: 500, memory_bytes: 64 << 20, pids: 64 };

/// A group that goes with everything in it when the test ends, however it ends.
struct TestGroup(Group, String);

impl TestGroup {
    fn of(cgroups: &Cgroups) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sampan-test-{}-{number}", std::process::id());
        Self(cgroups.instance(&name).unwrap(), name)
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        for server in self.0.servers().unwrap() {
            self.0.server(&server).unwrap().kill().unwrap();
        }
        self.0.remove().unwrap();
    }
}

/// A server and a container on it.
fn make(group: &TestGroup, limits: &Limits) -> (ServerGroup, ContainerGroup) {
    let server = group.0.create_server("s", limits).unwrap();
    let container = server.create_container("c", limits).unwrap();
    (server, container)
}

/// A shell that joins by writing into the files and then runs the script.
fn shell(files: &[PathBuf], script: &str) -> Child {
    let join: String = files.iter().map(|file| format!("echo 0 > '{}' || exit 99; ", file.display())).collect();
    Command::new("/bin/sh")
        .args(["-c", &format!("{join}{script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_server_from_making_to_removing() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, container) = make(&group, &LIMITS);
    assert_eq!((group.0.servers().unwrap(), server.containers().unwrap()), (vec!["s".into()], vec!["c".into()]));

    let mut child = shell(&container.files(), "echo in; read x");
    assert_eq!(line(&mut child), "in");
    assert_eq!((server.pids().unwrap(), container.pids().unwrap()), (vec![child.id()], vec![child.id()]));
    assert!(matches!(server.create_container("c", &LIMITS), Err(CgroupError::InUse { .. })));
    assert_eq!(container.pids().unwrap(), [child.id()], "one in use is left as it is");
    let usage = server.usage().unwrap();
    assert!(usage.memory_bytes > 0 && usage.cpu_us > 0 && usage.pids == 1, "{usage:?}");
    assert_eq!(server.oom_kills().unwrap(), 0);
    assert!(matches!(
        group.0.create_server("s", &LIMITS),
        Err(CgroupError::InUse { pids, .. }) if pids == [child.id()]
    ));

    server.kill().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    server.remove().unwrap();
    assert!(group.0.servers().unwrap().is_empty());
    server.remove().unwrap();
    assert_eq!(server.pids().unwrap(), []);
}

#[test]
fn nothing_is_left_of_a_failure() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    // pids.max takes no more than the kernel has pids
    let error = group.0.create_server("s", &Limits { pids: u32::MAX, ..LIMITS }).unwrap_err();
    assert!(matches!(&error, CgroupError::Write { path, .. } if path.ends_with("pids.max")), "{error}");
    assert!(group.0.servers().unwrap().is_empty());
    // what an earlier one left is replaced
    make(&group, &LIMITS);
    let server = group.0.create_server("s", &LIMITS).unwrap();
    assert!(server.containers().unwrap().is_empty());
    assert!(server.create_container("c", &Limits { pids: u32::MAX, ..LIMITS }).is_err());
    assert!(server.containers().unwrap().is_empty());
}

#[test]
fn limits_are_on_all_and_change_both_ways() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, first) = make(&group, &LIMITS);
    let second = server.create_container("d", &LIMITS).unwrap();
    for (cpu_milli, memory_bytes, pids) in [(500, 64 << 20, 64), (2000, 1 << 30, 9), (10, 8 << 20, 4096)] {
        server.update(&Limits { cpu_milli, memory_bytes, pids }).unwrap();
        for place in server.places.iter().chain(&first.places).chain(&second.places) {
            let expect = |name: &str, value: u64| {
                if let Some(text) = file::read_if_there(&place.directory.join(name)).unwrap() {
                    assert_eq!(text, value.to_string(), "{name}");
                }
            };
            expect("cpu.cfs_period_us", 100_000);
            expect("cpu.cfs_quota_us", u64::from(cpu_milli) * 100);
            expect("memory.limit_in_bytes", memory_bytes);
            expect("memory.memsw.limit_in_bytes", memory_bytes);
            expect("memory.max", memory_bytes);
            expect("pids.max", u64::from(pids));
        }
    }
}

#[test]
fn processes_beyond_the_limit_are_refused() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, container) = make(&group, &Limits { pids: 3, ..LIMITS });
    // the shell itself, two sleeps, and no more: a fork that fails is the end of dash
    let mut child =
        shell(&container.files(), "exec 2>/dev/null; sleep 60 & sleep 60 & echo two; sleep 60 & echo three; read x");
    assert_eq!(line(&mut child), "two");
    assert!(!child.wait().unwrap().success());
    assert_eq!(server.pids().unwrap().len(), 2);
    server.kill().unwrap();
    server.remove().unwrap();
}

#[test]
fn memory_beyond_the_limit_kills_and_counts() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, container) = make(&group, &Limits { memory_bytes: 16 << 20, ..LIMITS });
    let mut child = shell(&container.files(), "x=0123456789abcdef; while :; do x=$x$x; done");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    assert_eq!(server.oom_kills().unwrap(), 1);
    server.remove().unwrap();
}

#[test]
fn a_fork_bomb_is_killed_whole() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, container) = make(&group, &LIMITS);
    let mut child = shell(&container.files(), "bomb() { bomb | bomb & }; echo go; bomb 2>/dev/null; exec sleep 60");
    assert_eq!(line(&mut child), "go");
    server.kill().unwrap();
    child.wait().unwrap();
    server.remove().unwrap();
}

#[test]
fn killing_without_cgroup_kill() {
    let mut cgroups = Cgroups::detect().unwrap();
    if cgroups.mode() != Mode::Hybrid {
        return;
    }
    cgroups.hierarchies.retain(|hierarchy| !hierarchy.is_unified());
    for freezer in [true, false] {
        if !freezer {
            cgroups.hierarchies.retain(|hierarchy| hierarchy.controllers != ["freezer"]);
        }
        let group = TestGroup::of(&cgroups);
        let (server, container) = make(&group, &LIMITS);
        assert_eq!(container.unified(), None);
        let script = "i=0; while [ $i -lt 20 ]; do (while :; do sleep 0.01; done) & i=$((i+1)); done; echo go; wait";
        let mut child = shell(&container.files(), script);
        assert_eq!(line(&mut child), "go");
        server.kill().unwrap();
        child.wait().unwrap();
        server.remove().unwrap();
    }
}

/// The unified hierarchy alone, as on version 2. On a hybrid it has no controllers, but directories, joining, killing and
/// removing are the same.
#[test]
fn the_unified_hierarchy_alone() {
    let mut cgroups = Cgroups::detect().unwrap();
    if cgroups.unified().is_none() {
        return;
    }
    cgroups.hierarchies.retain(|hierarchy| hierarchy.is_unified());
    cgroups.mode = Mode::V2;
    assert_eq!(cgroups.mounts(), Mounts::V2);
    let mount = cgroups.hierarchies[0].mount.join(format!("sampan-test-v2-{}", std::process::id()));
    file::make(&mount).unwrap();
    for directory in [&cgroups.hierarchies[0].mount, &mount] {
        hand_down(&cgroups.hierarchies[0], directory).unwrap();
    }
    let place = Place { hierarchy: cgroups.hierarchies[0].clone(), directory: mount.join("server-s") };
    let devices = DefaultDevices::load(&cgroups).unwrap();
    let server = ServerGroup::new(Mounts::V2.into(), vec![place], devices);
    server.draft(&LIMITS, true).begin().unwrap().finish().unwrap();
    let container = server.create_container("c", &LIMITS).unwrap();
    let mut child = shell(&container.files(), "echo in; (sleep 60 & sleep 60); read x");
    assert_eq!(line(&mut child), "in");
    assert!(server.pids().unwrap().contains(&child.id()));
    assert!(server.usage().unwrap().cpu_us > 0);
    server.kill().unwrap();
    child.wait().unwrap();
    server.remove().unwrap();
    std::fs::remove_dir(mount).unwrap();
}

#[test]
fn removal_waits_for_the_end_and_names_who_stays() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (server, container) = make(&group, &LIMITS);
    let mut child = shell(&container.files(), "echo in; sleep 0.2");
    assert_eq!(line(&mut child), "in");

    let error = remove::trees(server.directories(), Instant::now()).unwrap_err();
    assert!(error.failures.iter().any(|failure| matches!(
        failure,
        CgroupError::Busy { pids, path, .. } if pids.contains(&child.id()) && path.ends_with("container-c")
    )));
    assert!(error.to_string().contains(&child.id().to_string()), "{error}");

    server.remove().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn devices_are_denied_but_for_the_list() {
    let cgroups = Cgroups::detect().unwrap();
    let Some(devices) = cgroups.home("devices").cloned() else { return };
    let group = TestGroup::of(&cgroups);
    // a second time, as after the daemon's restart, with children
    let (_server, container) = make(&group, &LIMITS);
    let again = cgroups.instance(&group.1).unwrap();
    assert_eq!(again.servers().unwrap(), ["s"]);
    let place = container.places.iter().find(|place| place.hierarchy == devices).unwrap();
    let list = file::read(&place.directory.join("devices.list")).unwrap();
    assert!(!list.contains("a *:*") && list.contains("c 1:3 rwm") && list.contains("c 136:* rwm"), "{list}");
    let mut child = shell(&container.files(), ": > /dev/null && echo null; exec 2>/dev/null; : < /dev/kmsg || exit 3");
    assert_eq!(line(&mut child), "null");
    assert!(!child.wait().unwrap().success());
}

#[test]
fn roles_are_leaves_beside_the_servers() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let files = group.0.role("supervisor").unwrap();
    assert_eq!(files, group.0.role("supervisor").unwrap());
    assert_eq!(files.len(), cgroups.hierarchies.len());
    for (file, hierarchy) in files.iter().zip(&cgroups.hierarchies) {
        let name = if matches!(hierarchy.kind, Kind::Unified) { "cgroup.procs" } else { "tasks" };
        assert!(file.exists() && file.ends_with(format!("role-supervisor/{name}")), "{file:?}");
    }
    let mut child = shell(&files, "echo in; sleep 0.05");
    assert_eq!(line(&mut child), "in");
    assert!(group.0.servers().unwrap().is_empty());
    group.0.remove().unwrap();
    child.wait().unwrap();
}

#[test]
fn names_are_checked() {
    let cgroups = Cgroups::detect().unwrap();
    for bad in ["", ".", "..", "a/b", "/", "a\nb", "a\0b", &"x".repeat(241)] {
        assert!(matches!(cgroups.instance(bad), Err(CgroupError::Name(_))), "{bad:?}");
    }
    let group = TestGroup::of(&cgroups);
    let server = group.0.create_server("s", &LIMITS).unwrap();
    for bad in ["..", "../c", "s/x"] {
        assert!(matches!(group.0.create_server(bad, &LIMITS), Err(CgroupError::Name(_))));
        assert!(matches!(server.create_container(bad, &LIMITS), Err(CgroupError::Name(_))));
    }
    assert!(group.0.role("../x").is_err());
}

/// A counter stops when it is frozen and goes on when it is thawed, by whichever freezer there is.
#[test]
fn what_is_frozen_stands_still() {
    let cgroups = Cgroups::detect().unwrap();
    let mut without_unified = cgroups.clone();
    without_unified.hierarchies.retain(|hierarchy| !hierarchy.is_unified());
    for cgroups in [cgroups, without_unified] {
        if cgroups.home("freezer").is_none() && cgroups.unified().is_none() {
            continue;
        }
        let group = TestGroup::of(&cgroups);
        let (server, container) = make(&group, &LIMITS);
        let mut child = shell(&container.files(), "echo in; while :; do :; done");
        assert_eq!(line(&mut child), "in");
        assert!(!container.is_frozen().unwrap());
        container.freeze().unwrap();
        assert!(container.is_frozen().unwrap());
        let used = || container.usage().unwrap().cpu_us;
        let before = used();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(used(), before);
        container.freeze().unwrap();
        container.thaw().unwrap();
        assert!(!container.is_frozen().unwrap());
        let deadline = Instant::now() + std::time::Duration::from_secs(5);
        while used() == before {
            assert!(Instant::now() < deadline, "it does not go on");
        }
        container.freeze().unwrap();
        server.kill().unwrap();
        container.thaw().unwrap();
        child.wait().unwrap();
        server.remove().unwrap();
    }
}

/// More for one container, on either version: its server comes to allow it, its neighbours do not, before and after.
#[test]
fn devices_are_lifted_for_one() {
    let cgroups = Cgroups::detect().unwrap();
    let mut unified = cgroups.clone();
    unified.hierarchies.retain(|hierarchy| !hierarchy.controllers.iter().any(|controller| controller == "devices"));
    for cgroups in [cgroups, unified] {
        if cgroups.home("devices").is_none() && cgroups.unified().is_none() {
            continue;
        }
        let group = TestGroup::of(&cgroups);
        let (server, first) = make(&group, &LIMITS);
        let second = server.create_container("d", &LIMITS).unwrap();
        let opens = |container: &ContainerGroup| {
            let script = "for n in null full kmsg; do (: </dev/$n) 2>/dev/null && echo $n; done; exit 0";
            let output = shell(&container.files(), script).wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().replace('\n', " ")
        };
        assert_eq!((opens(&first), opens(&second)), ("null full ".into(), "null full ".into()));
        let kmsg = DeviceRule::allow(DeviceKind::Character, Some(1), Some(11), Access::ALL);
        second.set_devices(&[DOCKER_DEVICES, &[kmsg]].concat()).unwrap();
        assert_eq!((opens(&first), opens(&second)), ("null full ".into(), "null full kmsg ".into()));
        let third = server.create_container("e", &LIMITS).unwrap();
        assert_eq!(opens(&third), "null full ", "one made later does not begin with more");
        third.set_devices(EVERY_DEVICE).unwrap();
        let fourth = server.create_container("f", &LIMITS).unwrap();
        assert_eq!((opens(&third), opens(&fourth)), ("null full kmsg ".into(), "null full ".into()));
        second.set_devices(DOCKER_DEVICES).unwrap();
        assert_eq!((opens(&first), opens(&second)), ("null full ".into(), "null full ".into()));
        let next = group.0.create_server("t", &LIMITS).unwrap().create_container("c", &LIMITS).unwrap();
        assert_eq!(opens(&next), "null full ");
    }
}

#[test]
fn a_container_alone_on_its_server() {
    let cgroups = Cgroups::detect().unwrap();
    let group = TestGroup::of(&cgroups);
    let (container, making) = group.0.begin_alone("s", &LIMITS).unwrap();
    let server = group.0.server("s").unwrap();
    for place in &server.places {
        let is_there = place.directory.exists();
        assert_eq!(is_there, place.hierarchy.is_unified(), "{}: where it may be born", place.directory.display());
    }
    making.finish().unwrap();
    assert_eq!(server.containers().unwrap(), Vec::<String>::new());

    let mut child = shell(&server.alone().files(), "echo in; read x");
    assert_eq!(line(&mut child), "in");
    assert_eq!((server.pids().unwrap(), container.pids().unwrap()), (vec![child.id()], vec![child.id()]));
    container.set_devices(EVERY_DEVICE).unwrap();
    server.update(&Limits { pids: 32, ..LIMITS }).unwrap();
    assert!(!server.remove_empty(), "one with a process in it");
    server.kill().unwrap();
    child.wait().unwrap();
    server.remove().unwrap();
    assert!(server.remove_empty(), "one that is gone");

    drop(group.0.begin_alone("s", &LIMITS).unwrap());
    assert_eq!(group.0.servers().unwrap(), Vec::<String>::new(), "one that was only begun");
    group.0.begin_alone("s", &LIMITS).unwrap().1.finish().unwrap();
    assert!(server.remove_empty());
    assert_eq!(group.0.servers().unwrap(), Vec::<String>::new());
}
