//! What is opened to a container beside the defaults: the host's user namespace, devices, parameters, memory.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use sampan_model::IdRange;
use sampan_runtime::defaults::{DEFAULT_CAPABILITIES, held};
use sampan_runtime::wire::{Capabilities, Node, Request};

use super::streams::{exec_spec, run_exec};
use super::{Layer, Machine, Test, check_spec};

pub(super) const TESTS: &[Test] = &[
    ("the_host_s_users_are_its_own_where_it_is_asked_for", the_host_s_users_are_its_own_where_it_is_asked_for),
    ("devices_are_those_it_was_given", devices_are_those_it_was_given),
    ("parameters_and_memory_are_those_asked_for", parameters_and_memory_are_those_asked_for),
    ("what_is_hidden_is_hidden_by_us", what_is_hidden_is_hidden_by_us),
    ("its_keyring_is_its_own", its_keyring_is_its_own),
];

fn the_host_s_users_are_its_own_where_it_is_asked_for(layer: &Layer) {
    let machine = Machine::start(layer);
    let host_null = || {
        let meta = std::fs::metadata("/dev/null").expect("/dev/null");
        (meta.uid(), meta.gid(), meta.permissions().mode())
    };
    let before = host_null();
    let capabilities = format!("{:016x}", DEFAULT_CAPABILITIES & held());
    let cases = [
        ("read=/proc/self/uid_map", "0          0 4294967295"),
        ("pid", "1"),
        ("status=CapEff", capabilities.as_str()),
        ("status=NoNewPrivs", "1"),
        ("status=Seccomp", "2"),
        ("fds", "0 1 2 3"),
        ("list=/dev", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
        ("owner=/probe", "0:0 100755"),
        ("write=/made", "ok"),
        ("chown=/made", "ok"),
        // of a node of its own: neither the host's nor another container's is changed (runc 3674)
        ("chown=/dev/null", "ok"),
        ("owner=/dev/null", "5:6 20666"),
        ("write=/proc/sys/kernel/hostname", "read-only filesystem or storage medium"),
        ("write=/sys/kernel/profiling", "read-only filesystem or storage medium"),
        ("mount", "permission denied"),
    ];
    let mut spec = machine.spec(&cases.map(|(word, _)| word));
    let mapped = spec.ids;
    spec.ids = IdRange::HOST;
    spec.process.capabilities = Capabilities::of_user(0, DEFAULT_CAPABILITIES & held());
    check_spec(&machine, &spec, &cases);
    assert_eq!(host_null(), before);
    // (a user namespace would show any owner as nobody)
    let mut other = machine.spec(&["owner=/dev/null"]);
    other.ids = IdRange::HOST;
    check_spec(&machine, &other, &[("owner=/dev/null", "0:0 20666")]);

    // its files are as any other's, on the disk and at a later start in a user namespace of its own
    let made = std::fs::metadata(machine.upper(&spec.id).join("u/made")).expect("what it made");
    assert_eq!((made.uid(), made.gid()), (5, 6));
    spec.ids = mapped;
    let cases =
        [("owner=/made", "5:6 100644"), ("owner=/probe", "0:0 100755"), ("chown=/dev/null", "permission denied")];
    spec.process.args.truncate(2);
    spec.process.args.extend(cases.map(|(word, _)| word.to_owned()));
    let (code, lines) = machine.run(&spec);
    let expected = cases.map(|(word, found)| format!("{}: {found}", word.split('=').next().unwrap_or_default()));
    assert_eq!((code, &lines[lines.len() - cases.len()..]), (Some(0), &expected[..]));

    // one more process of it
    let mut spec = machine.spec(&["wait"]);
    spec.ids = IdRange::HOST;
    spec.process.capabilities = Capabilities::of_user(0, DEFAULT_CAPABILITIES & held());
    machine.start_container(&spec).expect("a start");
    let mut more = exec_spec(&spec, &["read=/proc/self/uid_map", "processes", "fds", "status=CapEff"]);
    more.process.capabilities = spec.process.capabilities;
    let (code, said) = run_exec(&machine, &more);
    let expected = format!("read: 0          0 4294967295\nprocesses: 2\nfds: 0 1 2 3\nstatus: {capabilities}\n");
    assert_eq!((code, said), (Some(0), expected));
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    machine.exited(&spec.id);
}

fn devices_are_those_it_was_given(layer: &Layer) {
    let machine = Machine::start(layer);
    let node = |path: &str, (major, minor): (u32, u32), mode: u32, gid: u32| Node {
        path: path.into(),
        block: false,
        major,
        minor,
        mode,
        uid: 0,
        gid,
    };
    let nodes = vec![
        node("/dev/mine", (1, 3), 0o660, 5),
        node("/dev/deep/er", (1, 5), 0o600, 0),
        node("/dev/full", (1, 3), 0o666, 0),
    ];
    let before = std::fs::read_dir("/dev").expect("/dev").count();
    let check = |ids: Option<IdRange>, more: &[(&str, &str)]| {
        let cases = [
            ("owner=/dev/mine", "0:5 20660"),
            ("write=/dev/mine", "ok"),
            ("owner=/dev/deep/er", "0:0 20600"),
            ("write=/dev/deep/er", "ok"),
            // another one in the usual one's place: what is written to it is not refused
            ("write=/dev/full", "ok"),
        ];
        let all: Vec<_> = cases.iter().chain(more).copied().collect();
        let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
        let mut spec = machine.spec(&words);
        spec.nodes.clone_from(&nodes);
        if let Some(ids) = ids {
            spec.ids = ids;
            spec.process.capabilities = Capabilities::of_user(0, DEFAULT_CAPABILITIES & held());
        }
        check_spec(&machine, &spec, &all);
    };
    check(None, &[("mknod=/dev/another", "permission denied"), ("mknod=/another", "permission denied")]);
    check(Some(IdRange::HOST), &[]);
    assert_eq!(std::fs::read_dir("/dev").expect("/dev").count(), before);

    for bad in ["/etc/x", "/dev/../etc/x", "/dev/"] {
        let mut spec = machine.spec(&[]);
        spec.nodes = vec![node(bad, (1, 3), 0o666, 0)];
        let failure = machine.start_container(&spec).expect_err("no place for a device");
        assert_eq!((failure.errno, failure.message.as_str()), (0, "it must be below /dev"), "{failure}");
    }
}

fn parameters_and_memory_are_those_asked_for(layer: &Layer) {
    let machine = Machine::start(layer);
    let cases = [
        ("read=/proc/sys/net/ipv4/ip_default_ttl", "33"),
        ("read=/proc/sys/kernel/shmmni", "77"),
        ("read=/proc/sys/fs/mqueue/msg_max", "7"),
        ("space=/dev/shm", "1048576"),
    ];
    let host = || std::fs::read_to_string("/proc/sys/kernel/shmmni").expect("a parameter of the host");
    let before = host();
    let mut spec = machine.spec(&cases.map(|(word, _)| word));
    let parameters = [("net/ipv4/ip_default_ttl", "33"), ("kernel/shmmni", "77"), ("fs/mqueue/msg_max", "7")];
    spec.sysctls = parameters.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
    spec.shm_bytes = 1 << 20;
    check_spec(&machine, &spec, &cases);
    assert_eq!(host(), before);

    for (path, value, errno) in [
        ("net/core/no_such", "1", 2),
        ("net/ipv4/ip_default_ttl", "x", 22),
        ("kernel/panic", "1", 13),
        ("../cgroups", "1", 0),
    ] {
        let mut spec = machine.spec(&[]);
        spec.sysctls = vec![(path.into(), value.into())];
        let failure = machine.start_container(&spec).expect_err(path);
        assert_eq!(failure.errno, errno, "{failure}");
        assert!(failure.step.contains(path), "{failure}");
    }
}

const NET_ADMIN: u64 = 1 << 12;

fn what_is_hidden_is_hidden_by_us(layer: &Layer) {
    let machine = Machine::start(layer);
    // without the masks there is something to see, or the test of them would say nothing
    let mut spec =
        machine.spec(&["length=/proc/interrupts", "owner=/proc/interrupts", "open=/proc/sys/net/ipv4/ip_default_ttl"]);
    // with what the kernel wants of whoever changes a parameter
    spec.process.capabilities = Capabilities::of_user(0, DEFAULT_CAPABILITIES | NET_ADMIN);
    let (_, hidden) = machine.run(&spec);
    assert_eq!(hidden[0], "length: 0");
    assert!(hidden[1].ends_with("20666"), "{hidden:?}");
    assert_eq!(hidden[2], "open: read-only filesystem or storage medium");
    (spec.masked_paths, spec.readonly_paths) = (vec![], vec![]);
    let (_, lines) = machine.run(&spec);
    let open = &lines[3..];
    assert!(open[1].ends_with("100444") && open[0] != "length: 0", "{open:?}");
    // its network is its own
    assert_eq!(open[2], "open: ok");
}

fn its_keyring_is_its_own(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["read=/proc/keys"]);
    spec.masked_paths.retain(|path| path != "/proc/keys");
    // a keyring of the host's is not shown in another user namespace: what is there is what it was given
    let (_, lines) = machine.run(&spec);
    assert!(lines[0].contains("keyring   _ses"), "{lines:?}");
}
