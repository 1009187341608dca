//! What a container is, sees and may.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use sampan_runtime::defaults::DEFAULT_CAPABILITIES;
use sampan_runtime::rootfs::{Layers, MOST_LAYERS, RootfsError, mount_overlay};
use sampan_runtime::wire::{CgroupMounts, JOIN, Reply, Request};

use super::{Layer, Machine, Test, check, check_spec};
use crate::harness::Spec;

pub(super) const TESTS: &[Test] = &[
    ("exit_codes_are_the_programs", exit_codes_are_the_programs),
    ("it_is_alone", it_is_alone),
    ("its_devices_are_its_own", its_devices_are_its_own),
    ("the_kernel_is_out_of_reach", the_kernel_is_out_of_reach),
    ("it_is_sealed", it_is_sealed),
    ("users_are_users", users_are_users),
    ("what_it_writes_is_its_own", what_it_writes_is_its_own),
    ("its_cgroups_are_what_it_sees", its_cgroups_are_what_it_sees),
    ("its_cgroups_may_come_after_it", its_cgroups_may_come_after_it),
    ("what_cannot_be_executed_says_why", what_cannot_be_executed_says_why),
    ("what_cannot_be_sealed_says_why", what_cannot_be_sealed_says_why),
    ("an_image_cannot_lead_a_mount_astray", an_image_cannot_lead_a_mount_astray),
    ("layers_lie_on_one_another", layers_lie_on_one_another),
    ("what_cannot_be_a_root_is_refused", what_cannot_be_a_root_is_refused),
];

fn exit_codes_are_the_programs(layer: &Layer) {
    let machine = Machine::start(layer);
    for (word, code) in [("exit=0", 0), ("exit=3", 3), ("exit=255", 255)] {
        assert_eq!(machine.run(&machine.spec(&[word])).0, Some(code), "{word}");
    }
    let spec = machine.spec(&["wait"]);
    machine.start_container(&spec).expect("a start");
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(137));
}

fn it_is_alone(layer: &Layer) {
    let machine = Machine::start(layer);
    check(
        &machine,
        &[
            ("pid", "1"),
            ("processes", "1"),
            ("session", "1"),
            ("read=/proc/sys/kernel/hostname", "courses-1"),
            ("cwd", "/work/here"),
            ("env", "PATH=/usr/bin:/bin GREETING=hello"),
            // 3 is the listing's own
            ("fds", "0 1 2 3"),
            ("list=/", "bin dev etc lib lib64 probe proc sys usr work"),
            ("list=/sys/class/net", "lo"),
            // the root file system, and nothing of the host's below
            ("owner=/work/main", "entity not found"),
            // left behind, and gone with the first process
            ("fork", "ok"),
            ("processes", "2"),
        ],
    );
}

fn its_devices_are_its_own(layer: &Layer) {
    let machine = Machine::start(layer);
    let before = host_null();
    check(
        &machine,
        &[
            ("list=/dev", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
            ("zero", "[0, 0, 0, 0]"),
            ("write=/dev/null", "ok"),
            ("chown=/dev/null", "permission denied"),
            ("write=/dev/shm/x", "ok"),
            ("open=/dev/stdout", "ok"),
            ("read=/dev/stdin", ""),
        ],
    );
    assert_eq!(host_null(), before);
}

fn host_null() -> (u32, u32, u32) {
    let meta = std::fs::metadata("/dev/null").expect("/dev/null");
    (meta.uid(), meta.gid(), meta.permissions().mode())
}

fn the_kernel_is_out_of_reach(layer: &Layer) {
    let machine = Machine::start(layer);
    check(
        &machine,
        &[
            ("length=/proc/keys", "0"),
            ("list=/sys/firmware", ""),
            ("write=/sys/firmware/x", "read-only filesystem or storage medium"),
            ("write=/proc/sys/kernel/hostname", "read-only filesystem or storage medium"),
            ("write=/sys/kernel/profiling", "read-only filesystem or storage medium"),
            ("mount", "permission denied"),
        ],
    );
}

fn it_is_sealed(layer: &Layer) {
    let machine = Machine::start(layer);
    let capabilities = format!("{DEFAULT_CAPABILITIES:016x}");
    check(
        &machine,
        &[
            ("status=Seccomp", "2"),
            ("status=NoNewPrivs", "1"),
            ("status=CapBnd", &capabilities),
            ("status=CapPrm", &capabilities),
            ("status=CapEff", &capabilities),
            ("status=CapInh", "0000000000000000"),
            ("status=CapAmb", "0000000000000000"),
            // none blocked, and SIGPIPE ignored: by the standard library inside
            ("signals", "0000000000000000 0000000000001000"),
            ("port=80", "ok"),
            ("read=/proc/self/oom_score_adj", "0"),
        ],
    );
}

fn users_are_users(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&[
        "ids",
        "status=CapEff",
        "status=CapPrm",
        "read=/etc/secret",
        "port=80",
        "write=/etc/x",
        "open=/dev/stderr",
    ]);
    (spec.process.uid, spec.process.gid, spec.process.groups) = (1000, 1001, vec![1002]);
    check_spec(
        &machine,
        &spec,
        &[
            ("ids", "1000 1001 [1002]"),
            ("status=CapEff", "0000000000000000"),
            ("status=CapPrm", "0000000000000000"),
            ("read=/etc/secret", "permission denied"),
            ("port=80", "ok"),
            ("write=/etc/x", "permission denied"),
            ("open=/dev/stderr", "ok"),
        ],
    );
}

fn what_it_writes_is_its_own(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["owner=/probe", "write=/made", "chown=/made", "owner=/made", "setuid=/trap"]);
    check_spec(
        &machine,
        &spec,
        &[
            ("owner=/probe", "0:0 100755"),
            ("write=/made", "ok"),
            ("chown=/made", "ok"),
            ("owner=/made", "5:6 100644"),
            ("setuid=/trap", "ok"),
        ],
    );
    let upper = machine.upper(&spec.id);
    let on_disk = |name: &str| {
        let meta = std::fs::metadata(upper.join("u").join(name)).expect("a file");
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
    };
    assert_eq!(on_disk("made"), (5, 6, 0o644));
    // a setuid-root program on the host's disk: nobody may come near it
    assert_eq!(on_disk("trap"), (0, 0, 0o4755));
    assert_eq!(std::fs::metadata(&upper).expect("a directory").permissions().mode() & 0o7777, 0o700);
    assert!(!layer.path().join("made").exists());

    // what it wrote is there at its next start, under other ids
    spec.ids.start += 655_360;
    spec.process.args.truncate(3);
    machine.run(&spec);
    spec.process.args[2] = "owner=/made".into();
    assert_eq!(machine.run(&spec).1.last().map(String::as_str), Some("owner: 5:6 100644"));
}

fn its_cgroups_are_what_it_sees(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["read=/proc/self/cgroup", "list=/sys/fs/cgroup", "write=/sys/fs/cgroup/x"]);
    let group = machine.join(&mut spec);
    if let CgroupMounts::V1 { .. } = spec.cgroup_mounts {
        // a hierarchy is a mount of its own
        spec.process.args.push("write=/sys/fs/cgroup/memory/x".into());
    }
    let (code, lines) = machine.run(&spec);
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(lines[0].split(' ').skip(1).all(|line| line.ends_with(":/")), "{lines:?}");
    assert!(lines[1].contains("memory"), "{lines:?}");
    assert!(lines[2..].iter().all(|line| line == "write: read-only filesystem or storage medium"), "{lines:?}");
    group.remove().expect("nobody is left in it");
}

fn its_cgroups_may_come_after_it(layer: &Layer) {
    let machine = Machine::start(layer);
    // as far as it gets without them: where it is born is there
    let make = |spec: &mut Spec| {
        let group = machine.join(spec);
        let (gate, opened) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (reply, fds) = machine.call(spec.create(), &[gate.as_fd()]).expect("created");
        let Reply::Created { pid } = reply else { panic!("{reply:?}") };
        (group, opened, pid, fds)
    };
    let mut spec = machine.spec(&["wait"]);
    let (group, opened, pid, fds) = make(&mut spec);
    let joined = |hierarchy: &str| {
        let of = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it waits");
        of.lines().any(|line| line.contains(hierarchy) && line.contains(spec.id.short()))
    };
    if let CgroupMounts::V1 { .. } = spec.cgroup_mounts {
        assert!(!joined(":memory:"), "it joins what is not there");
    }
    rustix::io::write(&opened, JOIN).expect("it hears");
    machine.go(&spec, &fds).expect("started");
    assert_eq!(group.pids().expect("there"), [pid]);
    if let CgroupMounts::V1 { .. } = spec.cgroup_mounts {
        assert!(joined(":memory:"));
    }
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(137));
    group.remove().expect("nobody is left in it");

    let mut spec = machine.spec(&["exit=0"]);
    let (group, opened, _, fds) = make(&mut spec);
    drop(opened);
    assert_eq!(machine.exited(&spec.id).exit_code, Some(125), "nobody makes them");
    machine.go(&spec, &fds).expect_err("it has ended");
    group.remove().expect("nobody is left in it");
}

fn what_cannot_be_executed_says_why(layer: &Layer) {
    let machine = Machine::start(layer);
    for (args, cwd, errno, step) in [
        (vec!["/no/such"], "/", 2, "execute /no/such"),
        (vec!["no-such"], "/", 2, "execute no-such"),
        (vec!["/etc"], "/", 13, "execute /etc"),
        (vec!["not-executable"], "/", 13, "execute not-executable"),
        (vec!["no-program"], "/", 8, "execute no-program"),
        (vec!["other-machine"], "/", 8, "execute other-machine"),
        (vec!["script"], "/", 2, "execute script"),
        (vec![], "/", 0, "execute"),
        (vec!["/proc/self/exe"], "/", 0, "execute /proc/self/exe"),
        (vec!["/probe"], "/probe", 17, "make the working directory /probe"),
    ] {
        let mut spec = machine.spec(&[]);
        spec.process.args = args.into_iter().map(str::to_owned).collect();
        spec.process.cwd = cwd.into();
        let failure = machine.start_container(&spec).expect_err("no program");
        assert_eq!((failure.step.as_str(), failure.errno), (step, errno), "{failure}");
        if step == "execute script" {
            assert!(failure.message.contains("interpreter"), "{failure}");
        }
        machine.exited(&spec.id);
    }
}

fn what_cannot_be_sealed_says_why(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["exit=0"]);
    spec.cgroup_files = vec!["/sys/fs/cgroup/no-such/tasks".into()];
    let failure = machine.start_container(&spec).expect_err("no cgroup");
    assert_eq!((failure.step.as_str(), failure.errno), ("join cgroup /sys/fs/cgroup/no-such/tasks", 2));

    let mut spec = machine.spec(&["exit=0"]);
    spec.process.seccomp = Some("00".into());
    let failure = machine.start_container(&spec).expect_err("no filter");
    assert_eq!(failure.step, "read the seccomp filter");
}

fn an_image_cannot_lead_a_mount_astray(layer: &Layer) {
    let machine = Machine::start(layer);
    let host = tempfile::tempdir().expect("a directory");
    for name in ["proc", "sys", "dev"] {
        let spec = machine.spec(&["exit=0"]);
        let (_, fds) = machine.create(&spec).expect("a child");
        let upper = machine.upper(&spec.id);
        std::fs::create_dir_all(upper.join("u")).expect("a directory");
        std::os::unix::fs::symlink(host.path(), upper.join("u").join(name)).expect("a link");
        let failure = machine.go(&spec, &fds).expect_err("a link");
        assert!(failure.message.contains("symbolic link"), "{failure}");
        assert_eq!(std::fs::read_dir(host.path()).expect("a directory").count(), 0);
    }
}

fn layers_lie_on_one_another(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["read=/which", "list=/many"]);
    let (_, fds) = machine.create(&spec).expect("a child");
    let mut layers: Vec<PathBuf> = (0..MOST_LAYERS - 1)
        .map(|number| {
            // paths that mean something to the kernel's option parser, were they given to it
            let path = machine.root.path().join(format!("layer,lowerdir={number}:{}", "x".repeat(200)));
            std::fs::create_dir_all(path.join("many")).expect("a directory");
            std::fs::write(path.join("many").join(format!("{number:03}")), "").expect("a file");
            std::fs::write(path.join("which"), format!("layer {number}")).expect("a file");
            path
        })
        .collect();
    layers.push(layer.path().to_owned());
    let lowers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let root =
        mount_overlay(Layers { places: None, image: &lowers }, &machine.upper(&spec.id), fds[1].as_fd(), spec.ids)
            .expect("a root");
    machine.call(spec.go(), &[root.as_fd()]).expect("a start");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
    machine.logged(&spec.id);
    let all = (0..MOST_LAYERS - 1).map(|number| format!("{number:03}")).collect::<Vec<_>>().join(" ");
    assert_eq!(machine.output(&spec.id), ["read: layer 0".to_owned(), format!("list: {all}")]);
}

fn what_cannot_be_a_root_is_refused(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&[]);
    let (_, fds) = machine.create(&spec).expect("a child");
    let refused = |lowers: &[&Path]| {
        mount_overlay(Layers { places: None, image: lowers }, &machine.upper(&spec.id), fds[1].as_fd(), spec.ids)
            .expect_err("no root")
    };
    assert!(matches!(refused(&[]), RootfsError::Layers(0)));
    assert!(matches!(refused(&vec![layer.path(); MOST_LAYERS + 1]), RootfsError::Layers(_)));
    assert!(matches!(refused(&[layer.path(), "/no/such".as_ref()]), RootfsError::Clone { .. }));
    // never shared with the host's ids in silence
    let unmappable = refused(&[layer.path(), "/proc/fs".as_ref()]);
    assert!(matches!(unmappable, RootfsError::Idmap { .. }), "{unmappable}");
    assert!(unmappable.to_string().contains("--root"), "{unmappable}");
}
