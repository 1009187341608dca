//! What a process is told to be: capabilities, privileges, limits, modes of new files.

use sampan_model::{Resource, ResourceLimit};
use sampan_runtime::wire::Capabilities;

use super::{Layer, Machine, Test, check_spec};

pub(super) const TESTS: &[Test] = &[
    ("capabilities_are_those_asked_for", capabilities_are_those_asked_for),
    ("new_privileges_are_given_up_unless_asked_for", new_privileges_are_given_up_unless_asked_for),
    ("limits_are_those_asked_for", limits_are_those_asked_for),
];

const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

fn capabilities_are_those_asked_for(layer: &Layer) {
    let machine = Machine::start(layer);
    let words = ["status=CapBnd", "status=CapPrm", "status=CapEff", "status=CapInh", "status=CapAmb"];
    let check = |uid: u32, capabilities: Capabilities, expected: [u64; 5]| {
        let mut spec = machine.spec(&words);
        spec.process.uid = uid;
        spec.process.capabilities = capabilities;
        let expected = expected.map(|set| format!("{set:016x}"));
        let cases: Vec<_> = words.iter().copied().zip(expected.iter().map(String::as_str)).collect();
        check_spec(&machine, &spec, &cases);
    };
    check(0, Capabilities::of_user(0, CHOWN), [CHOWN, CHOWN, CHOWN, 0, 0]);
    check(0, Capabilities::default(), [0; 5]);
    check(1000, Capabilities::of_user(1000, CHOWN), [CHOWN, 0, 0, 0, 0]);
    // a program that knows nothing of capabilities keeps the ambient ones, whoever it is
    let both = NET_BIND_SERVICE | NET_RAW;
    let ambient = Capabilities {
        bounding: both | CHOWN,
        effective: both,
        permitted: both,
        inheritable: both,
        ambient: NET_BIND_SERVICE,
    };
    check(1000, ambient, [both | CHOWN, NET_BIND_SERVICE, NET_BIND_SERVICE, both, NET_BIND_SERVICE]);
}

fn new_privileges_are_given_up_unless_asked_for(layer: &Layer) {
    let machine = Machine::start(layer);
    for (uid, init) in [(0, false), (1000, false), (0, true), (1000, true)] {
        for (given_up, expected) in [(true, "1"), (false, "0")] {
            let mut spec = machine.spec(&["status=NoNewPrivs", "status=Seccomp", "status=CapPrm"]);
            (spec.process.uid, spec.init) = (uid, init);
            spec.process.no_new_privileges = given_up;
            spec.process.capabilities = Capabilities::of_user(uid, CHOWN);
            let permitted = format!("{:016x}", if uid == 0 { CHOWN } else { 0 });
            // without SYS_ADMIN in the end, which putting a filter over itself takes
            assert_eq!(spec.process.capabilities.permitted & SYS_ADMIN, 0);
            let cases =
                [("status=NoNewPrivs", expected), ("status=Seccomp", "2"), ("status=CapPrm", permitted.as_str())];
            check_spec(&machine, &spec, &cases);
        }
    }
    let mut spec = machine.spec(&["status=Seccomp", "mount"]);
    (spec.process.seccomp, spec.process.no_new_privileges) = (None, false);
    check_spec(&machine, &spec, &[("status=Seccomp", "0"), ("mount", "permission denied")]);
}

fn limits_are_those_asked_for(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["limit=Max open files", "limit=Max core file size", "read=/proc/self/oom_score_adj"]);
    let limit = |resource, soft, hard| ResourceLimit { resource, soft: Some(soft), hard: Some(hard) };
    spec.process.limits = vec![limit(Resource::Nofile, 100, 200), limit(Resource::Core, 0, 4096)];
    spec.process.oom_score_adj = Some(500);
    let expected = [
        ("limit=Max open files", "100 200 files"),
        ("limit=Max core file size", "0 4096 bytes"),
        ("read=/proc/self/oom_score_adj", "500"),
    ];
    check_spec(&machine, &spec, &expected);

    // a mode is what the umask leaves of it
    let mut spec = machine.spec(&["write=/made", "owner=/made"]);
    spec.process.umask = 0o077;
    check_spec(&machine, &spec, &[("write=/made", "ok"), ("owner=/made", "0:0 100600")]);

    let mut spec = machine.spec(&[]);
    spec.process.limits = vec![limit(Resource::Nofile, 300, 200)];
    let failure = machine.start_container(&spec).expect_err("a soft limit above the hard one");
    assert_eq!(failure.to_string(), "set the limit nofile to 300:200: Invalid argument");
}
