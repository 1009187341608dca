//! One instance from its first container to its purge, in as few commands as there can be. What runs in the guest as
//! well, where each of them takes a second.

use std::fs;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_testkit::wait_until;

#[test]
fn from_the_first_container_to_purge() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    // what it may use is what it finds, on either version of control groups
    let memory = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes";
    assert_eq!(sampan.ok(&["run", "--rm", "--memory", "64MiB", "bb", "sh", "-c", memory]), (64 << 20).to_string());
    assert_eq!(sampan.run(&["run", "--rm", "bb", "sh", "-c", "exit 7"]).code(), 7);
    assert_eq!(sampan.run(&["run", "--rm", "bb", "nothing"]).code(), 127);

    sampan.ok(&["server", "create", "lab", "--memory", "64MiB"]);
    let spin = "trap 'exit 3' TERM; while :; do :; done";
    sampan.ok(&["run", "-d", "--server", "lab", "--name", "busy", "bb", "sh", "-c", spin]);
    assert_eq!(sampan.ok(&["exec", "busy", "hostname"]), "lab");
    let used = || sampan.json(&["stats", "--no-stream", "--json", "busy"])[0]["cpu_us"].as_u64();
    let first = used();
    wait_until("it to use its processor", SOON, || used() > first);

    sampan.ok(&["pause", "busy"]);
    let pid = sampan.inspect("busy")["state"]["pid"].as_u64().expect("a pid");
    let ticks = || fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("its statistics");
    let (before, answered) = (ticks(), sampan.ok(&["ps", "-q"]));
    assert_eq!(answered.lines().count(), 1);
    assert_eq!(ticks(), before, "it runs while it is paused");
    sampan.ok(&["unpause", "busy"]);
    sampan.ok(&["stop", "busy"]);
    assert_eq!(sampan.inspect("busy")["state"]["exit_code"], 3);
    sampan.ok(&["server", "close", "lab"]);

    let findings = sampan.run(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&findings.stdout).expect("JSON");
    for what in ["kernel", "user namespaces", "cgroups", "/proc", "file system", "overlay", "seccomp"] {
        let finding = findings.as_array().into_iter().flatten().find(|finding| finding["what"] == what);
        assert_eq!(finding.map(|finding| &finding["level"]), Some(&"ok".into()), "{what} of {findings:#}");
    }
}
