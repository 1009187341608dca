//! Against this machine's kernel, below paths of our own.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::cgroup::{Cpu, DOCKER_DEVICES, DeviceRule, EVERY_DEVICE, HugePages, Memory, Mode as Version};

/// A path that no other test has, and that is gone with all below it when the test ends, however it ends.
struct TestPath(Cgroups, String);

impl TestPath {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(Cgroups::detect().unwrap(), format!("/sampan-test-path-{}-{number}", std::process::id()))
    }

    fn group(&self) -> PathGroup {
        self.0.at(Path::new(&format!("{}/inner", self.1))).unwrap()
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        let group = self.0.at(Path::new(&self.1)).unwrap();
        group.kill().unwrap();
        group.remove().unwrap();
    }
}

fn shell(group: &PathGroup, script: &str) -> Child {
    let files = group.files();
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
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    line.trim_end().to_owned()
}

fn limits(memory: i64, pids: i64) -> Resources {
    Resources {
        memory: Memory { limit: Some(memory), swap: Some(memory), ..Memory::default() },
        cpu: Cpu { quota: Some(50_000), period: Some(100_000), shares: Some(512), ..Cpu::default() },
        pids: Some(pids),
        devices: Some(DOCKER_DEVICES.to_vec()),
        ..Resources::default()
    }
}

#[test]
fn paths_are_read_as_runc_reads_them() {
    let hierarchy = |mount: &str, kind, own: &str| Hierarchy {
        mount: mount.into(),
        kind,
        controllers: vec!["cpu".into()],
        own: own.into(),
    };
    let v1 =
        Cgroups { mode: Version::V1, hierarchies: vec![hierarchy("/c/cpu", Kind::V1 { name: None }, "a/b").into()] };
    let v2 = Cgroups { mode: Version::V2, hierarchies: vec![hierarchy("/c", Kind::Unified, "a/b").into()] };
    let check = |path: &str, one: &str, two: &str| {
        let directory = |cgroups: &Cgroups| cgroups.at(Path::new(path)).unwrap().directories().next().unwrap();
        assert_eq!((directory(&v1), directory(&v2)), (one.into(), two.into()), "{path}");
    };
    check("/x/y", "/c/cpu/x/y", "/c/x/y");
    check("x", "/c/cpu/a/b/x", "/c/a/x");
    check("/../../x", "/c/cpu/x", "/c/x");
    check("../../../../x", "/c/cpu/a/b/x", "/c/a/x");
    check("./x/../y/", "/c/cpu/a/b/y", "/c/a/y");
    for bad in ["", "/", "..", "/x/.."] {
        assert!(matches!(v1.at(Path::new(bad)), Err(CgroupError::Path(_))), "{bad}");
    }
    let group = v1.at(Path::new("x")).unwrap();
    assert_eq!(group.paths(), BTreeMap::from([("cpu".to_owned(), "/c/cpu/a/b/x".into())]));
    let again: Vec<PathBuf> = v1.of_paths(&group.paths()).directories().collect();
    assert_eq!(again, group.directories().collect::<Vec<_>>());
}

#[test]
fn from_making_to_removing() {
    let path = TestPath::new();
    let group = path.group();
    assert!(!group.exists());
    assert_eq!(group.create(&limits(64 << 20, 50)).unwrap(), [""; 0]);
    assert!(group.exists());
    // empty, it is used again
    group.create(&limits(64 << 20, 50)).unwrap();
    let mut child = shell(&group, "echo in; read x");
    assert_eq!(line(&mut child), "in");
    assert_eq!(group.pids().unwrap(), [child.id()]);
    assert!(matches!(group.create(&limits(1 << 20, 1)), Err(CgroupError::InUse { pids, .. }) if pids == [child.id()]));

    let stats = group.stats().unwrap();
    assert!(stats.cpu.total > 0 && stats.pids == 1 && stats.pids_limit == Some(50), "{stats:?}");
    assert_eq!(stats.memory.memory.limit, 64 << 20);
    assert!(stats.memory.memory.used > 0 && !stats.memory.details.is_empty());

    // up and down, in either order of memory and swap
    for (memory, pids) in [(256 << 20, 5), (32 << 20, 60), (-1, -1), (32 << 20, 7)] {
        group.update(&Resources { devices: None, ..limits(memory, pids) }).unwrap();
        let stats = group.stats().unwrap();
        assert_eq!(stats.pids_limit, u64::try_from(pids).ok());
        match u64::try_from(memory) {
            Ok(memory) => assert_eq!(stats.memory.memory.limit, memory),
            Err(_) => assert!(stats.memory.memory.limit > 1 << 60),
        }
    }
    let again = path.0.of_paths(&group.paths());
    again.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    again.remove().unwrap();
    assert!(!group.exists());
}

/// What the kernel has after all of it: this machine's version here, the other one in the guest (`e2e::guest`).
#[test]
fn the_kernel_has_what_was_asked_for() {
    let path = TestPath::new();
    let group = path.group();
    let cpus = |name: &str| {
        let place = group.home("cpuset").expect("cpuset");
        file::read(&place.hierarchy.mount.join(if place.hierarchy.is_unified() {
            "cpuset.cpus.effective"
        } else {
            name
        }))
        .unwrap()
    };
    let first = cpus("cpuset.cpus").split([',', '-']).next().unwrap().to_owned();
    let two = path.0.mode() == Version::V2;
    let resources = Resources {
        memory: Memory {
            limit: Some(64 << 20),
            swap: Some(96 << 20),
            reservation: Some(32 << 20),
            swappiness: Some(10),
            disable_oom_killer: Some(true),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(2048),
            quota: Some(30_000),
            period: Some(50_000),
            burst: Some(10_000),
            cpus: Some(first.clone()),
            mems: Some("0".into()),
            ..Cpu::default()
        },
        pids: Some(17),
        unified: if two { vec![("memory.high".into(), "50331648".into())] } else { Vec::new() },
        ..Resources::default()
    };
    let ignored = group.create(&resources).unwrap();
    let v1: &[(&str, &str, &str)] = &[
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "100663296"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "2048"),
        ("cpu", "cpu.cfs_quota_us", "30000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_burst_us", "10000"),
        ("cpuset", "cpuset.cpus", &first),
        ("pids", "pids.max", "17"),
    ];
    let v2: &[(&str, &str, &str)] = &[
        ("memory", "memory.max", "67108864"),
        ("memory", "memory.swap.max", "33554432"),
        ("memory", "memory.low", "33554432"),
        ("memory", "memory.high", "50331648"),
        ("cpu", "cpu.weight", "174"),
        ("cpu", "cpu.max", "30000 50000"),
        ("cpu", "cpu.max.burst", "10000"),
        ("cpuset", "cpuset.cpus", &first),
        ("pids", "pids.max", "17"),
    ];
    for (controller, name, value) in if two { v2 } else { v1 } {
        let directory = &group.home(controller).expect(controller).directory;
        assert_eq!(file::read(&directory.join(name)).unwrap(), *value, "{name}");
    }
    if two {
        assert_eq!(ignored, ["memory.disableOOMKiller", "memory.swappiness"]);
        // what stays: a period without a quota, swap without memory
        let cpu = Cpu { period: Some(20_000), ..Cpu::default() };
        let memory = Memory { swap: Some(80 << 20), ..Memory::default() };
        group.update(&Resources { cpu, memory, ..Resources::default() }).unwrap();
        let directory = &group.unified().unwrap();
        assert_eq!(file::read(&directory.join("cpu.max")).unwrap(), "30000 20000");
        assert_eq!(file::read(&directory.join("memory.swap.max")).unwrap(), "16777216");
    } else {
        let control = file::read(&group.home("memory").unwrap().directory.join("memory.oom_control")).unwrap();
        assert!(control.contains("oom_kill_disable 1"), "{control}");
    }
}

#[test]
fn a_refusal_leaves_nothing() {
    let path = TestPath::new();
    let group = path.group();
    let error = group.create(&limits(64 << 20, i64::MAX)).unwrap_err();
    assert!(matches!(&error, CgroupError::Write { path, .. } if path.ends_with("pids.max")), "{error}");
    assert!(!group.exists() && !path.0.at(Path::new(&path.1)).unwrap().exists());
}

#[test]
fn device_rules_are_set_and_changed() {
    let path = TestPath::new();
    let group = path.group();
    group.create(&limits(64 << 20, 50)).unwrap();
    let opens = || {
        let script = "(: </dev/null) && echo null; (: </dev/kmsg) 2>/dev/null && echo kmsg; exit 0";
        let output = shell(&group, script).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(opens(), "null\n");
    let devices = |rules: &[DeviceRule]| Resources { devices: Some(rules.to_vec()), ..Resources::default() };
    group.update(&devices(EVERY_DEVICE)).unwrap();
    assert_eq!(opens(), "null\nkmsg\n");
    group.update(&devices(&[DeviceRule::all(true)])).unwrap();
    assert_eq!(opens(), "null\nkmsg\n");
    group.update(&devices(DOCKER_DEVICES)).unwrap();
    assert_eq!(opens(), "null\n");
}

#[test]
fn it_is_frozen_and_killed_so() {
    let path = TestPath::new();
    let group = path.group();
    group.create(&limits(64 << 20, 50)).unwrap();
    let mut child = shell(&group, "echo in; while :; do :; done");
    assert_eq!(line(&mut child), "in");
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let before = group.stats().unwrap().cpu.total;
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(group.stats().unwrap().cpu.total, before);
    group.kill().unwrap();
    group.thaw().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    group.freeze().unwrap();
    assert!(matches!(group.create(&limits(64 << 20, 50)), Err(CgroupError::Frozen(_))));
    group.thaw().unwrap();
    group.create(&limits(64 << 20, 50)).unwrap();
}

/// What the root of a hybrid's unified hierarchy hands down, which is to be as before when the test ends. (Where there is
/// nothing else, all tests have their controllers from it.)
struct HandedDown(Option<(PathBuf, String)>);

impl HandedDown {
    fn of(cgroups: &Cgroups) -> Self {
        let unified = cgroups.unified().filter(|_| cgroups.mode() == Version::Hybrid);
        let control = unified.map(|unified| unified.mount.join("cgroup.subtree_control"));
        Self(control.map(|control| (control.clone(), file::read(&control).unwrap())))
    }
}

impl Drop for HandedDown {
    fn drop(&mut self) {
        let Some((control, before)) = &self.0 else { return };
        for new in file::read(control).unwrap().split_whitespace() {
            if !before.split_whitespace().any(|old| old == new) {
                // refused where somebody else uses it by now
                let _ = file::write(control, &format!("-{new}"));
            }
        }
    }
}

/// Version 2 alone, with whatever controllers it has here: below a cgroup of processes, and of threads.
#[test]
fn below_processes_and_threads() {
    let mut path = TestPath::new();
    let _root = HandedDown::of(&path.0);
    path.0.hierarchies.retain(|hierarchy| hierarchy.is_unified());
    path.0.mode = Version::V2;
    let outer = path.0.at(Path::new(&path.1)).unwrap();
    outer.create(&Resources::default()).unwrap();
    let mut child = shell(&outer, "echo in; read x");
    assert_eq!(line(&mut child), "in");
    let (pages, memory) = (HugePages { page_size: "2MB".into(), limit: 0 }, 64 << 20);
    let limits = match outer.home("memory") {
        Some(_) => Resources { memory: Memory { limit: Some(memory), ..Memory::default() }, ..Resources::default() },
        None => Resources { huge_pages: vec![pages], ..Resources::default() },
    };
    // who has processes hands down no such controller; where there are others, it becomes one of threads by them
    let error = path.group().create(&limits).unwrap_err();
    let named = error.to_string().contains("do not hand its controller down");
    assert!(named || matches!(error, CgroupError::Threads { .. }), "{error}");
    assert!(!path.group().exists());
    path.group().create(&Resources::default()).unwrap();
    path.group().remove().unwrap();

    let threads = outer.unified().unwrap().join("threads");
    file::make(&threads).unwrap();
    file::write(&threads.join("cgroup.type"), "threaded").unwrap();
    let error = path.group().create(&limits).unwrap_err();
    assert!(matches!(error, CgroupError::Threads { .. }), "{error}");
    path.group().create(&Resources::default()).unwrap();
    let kind = file::read(&path.group().unified().unwrap().join("cgroup.type")).unwrap();
    assert_eq!(kind, "threaded");
    let moved = path.group().files();
    file::write(&moved[0].with_file_name("cgroup.threads"), &child.id().to_string()).unwrap();
    assert_eq!(path.group().pids().unwrap(), [child.id()]);
    path.group().kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn memory_beyond_the_limit_is_counted() {
    let path = TestPath::new();
    let group = path.group();
    group.create(&limits(16 << 20, 50)).unwrap();
    let mut child = shell(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(group.stats().unwrap().memory.oom_kills, 1);
}
