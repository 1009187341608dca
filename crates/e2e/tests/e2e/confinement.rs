//! What a container may beside the defaults, by Docker's words for it: asked for, carried out, shown, and refused to those
//! who may not ask.

use std::fs;
use std::path::Path;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::outcome;
use serde_json::json;

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// Runs a script in a container with these options: what it prints.
#[track_caller]
fn run(sampan: &Sampan, options: &[&str], script: &str) -> String {
    let words = [&["run", "--rm"], options, &["bb", "sh", "-c", script]].concat();
    sampan.ok(&words)
}

/// Whether a script succeeds in a container with these options.
fn succeeds(sampan: &Sampan, options: &[&str], script: &str) -> bool {
    let words = [&["run", "--rm"], options, &["bb", "sh", "-c", script]].concat();
    sampan.run(&words).status.success()
}

const DEFAULT: u64 = 0xa804_25fb;

/// What this machine lets root have.
fn held() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("its bounding set");
    u64::from_str_radix(line.trim(), 16).expect("a number")
}

#[test]
fn processes_are_limited_by_default() {
    let sampan = with_busybox();
    let most = "cat /sys/fs/cgroup/pids/pids.max 2> /dev/null || cat /sys/fs/cgroup/pids.max";
    assert_eq!(run(&sampan, &[], most), "4096");
    assert_eq!(run(&sampan, &["--pids-limit", "77"], most), "77");
}

#[test]
fn capabilities_and_system_calls() {
    let sampan = with_busybox();
    let set = "sed -n 's/^CapBnd:.//p' /proc/self/status";
    let hex = |bits: u64| format!("{bits:016x}");
    for (options, expected) in [
        (&["--cap-add", "NET_ADMIN"][..], DEFAULT | 1 << 12),
        (&["--cap-add", "cap_net_admin", "--cap-drop", "CHOWN"], (DEFAULT | 1 << 12) & !1),
        (&["--cap-drop", "ALL"], 0),
        (&["--cap-drop", "all", "--cap-add", "KILL"], 1 << 5),
        (&["--cap-add", "ALL"], (1 << 41) - 1),
    ] {
        assert_eq!(run(&sampan, options, set), hex(expected), "{options:?}");
    }
    // the filter opens with the capability, and what it opens is the container's own
    let mount = "mount -t tmpfs x /tmp && unshare -m true";
    assert!(!succeeds(&sampan, &[], mount));
    assert!(succeeds(&sampan, &["--cap-add", "SYS_ADMIN"], mount));
    assert!(!succeeds(&sampan, &["--cap-add", "ALL"], "echo 1 > /proc/sys/kernel/panic"));
    assert!(!succeeds(&sampan, &["--cap-add", "ALL"], "mknod /tmp/null c 1 3"));
    assert!(!succeeds(&sampan, &["--cap-drop", "CHOWN"], "touch /x && chown 1 /x"));

    let status = |field: &str| format!("sed -n 's/^{field}:.//p' /proc/self/status");
    let unconfined = &["--security-opt", "seccomp=unconfined"][..];
    for (options, field, expected) in [
        (&[][..], "Seccomp", "2"),
        (unconfined, "Seccomp", "0"),
        (&[], "NoNewPrivs", "1"),
        (&["--security-opt", "no-new-privileges=false"], "NoNewPrivs", "0"),
        (&["--security-opt", "no-new-privileges"], "NoNewPrivs", "1"),
    ] {
        assert_eq!(run(&sampan, options, &status(field)), expected, "{options:?} {field}");
    }
    // a profile in Docker's words: a rule for those without a capability
    let profile = sampan.dir().join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[]}],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28,
                     "excludes":{"caps":["CAP_SYS_TIME"]}}]}"#;
    fs::write(&profile, text).expect("a profile");
    let option = format!("seccomp={}", profile.display());
    let said = run(&sampan, &["--security-opt", &option], "mkdir /x 2>&1; true");
    assert!(said.contains("No space left"), "{said}");
    assert!(succeeds(&sampan, &["--security-opt", &option, "--cap-add", "SYS_TIME"], "mkdir /x"));

    sampan.ok(&[
        "run",
        "-d",
        "--name",
        "shown",
        "--cap-add",
        "net_admin",
        "--security-opt",
        &option,
        "bb",
        "sleep",
        "1000",
    ]);
    let shown = &sampan.inspect("shown")["confinement"];
    assert_eq!(
        (&shown["cap_add"], &shown["seccomp"]),
        (&json!(["NET_ADMIN"]), &json!({"kind": "profile", "json": ""}))
    );
    // one more process is as its container, and with every capability there where that is asked for
    let inside = |options: &[&str], field: &str| {
        sampan.ok(&[&["exec"], options, &["shown", "sh", "-c", &status(field)]].concat())
    };
    assert_eq!(inside(&[], "CapEff"), hex(DEFAULT | 1 << 12));
    assert_eq!(inside(&["--privileged"], "CapEff"), hex((1 << 41) - 1));
    assert_eq!(inside(&["--privileged", "--user", "1000"], "NoNewPrivs"), "1");
}

#[test]
fn limits_groups_memory_and_parameters() {
    let sampan = with_busybox();
    for (options, script, expected) in [
        (&["--ulimit", "nofile=100:200"][..], "ulimit -n; ulimit -Hn", "100\n200"),
        (&["--ulimit", "core=0", "--ulimit", "cpu=5:9"], "ulimit -c; ulimit -t", "0\n5"),
        (&["--oom-score-adj", "300"], "cat /proc/self/oom_score_adj", "300"),
        (&["--group-add", "44", "--group-add", "5", "-u", "7:8"], "id -G", "8 5 44"),
        (&["--shm-size", "2m"], "df -k /dev/shm | awk 'END { print $2 }'", "2048"),
        (&[], "df -k /dev/shm | awk 'END { print $2 }'", "65536"),
        (&["--sysctl", "net.ipv4.ip_default_ttl=9"], "cat /proc/sys/net/ipv4/ip_default_ttl", "9"),
        (
            &["--tmpfs", "/t:size=1m,mode=700,uid=3,gid=4"],
            "stat -c '%a %u %g' /t; df -k /t | awk 'END { print $2 }'",
            "700 3 4\n1024",
        ),
        (&["--tmpfs", "/t:exec"], "cp /bin/busybox /t/echo && /t/echo ran", "ran"),
        (&["--tmpfs", "/t"], "cp /bin/busybox /t/echo && /t/echo ran || echo refused", "refused"),
        (&["--read-only"], "touch /x 2>/dev/null || echo refused", "refused"),
        (&["--security-opt", "systempaths=unconfined"], "head -c 1 /proc/interrupts | wc -c", "1"),
        (&[], "head -c 1 /proc/interrupts | wc -c", "0"),
    ] {
        assert_eq!(run(&sampan, options, script), expected, "{options:?} {script}");
    }
    // one more process has the container's limits and groups
    sampan.ok(&["run", "-d", "--name", "limited", "--ulimit", "nofile=99", "--group-add", "44", "bb", "sleep", "1000"]);
    assert_eq!(sampan.ok(&["exec", "limited", "sh", "-c", "ulimit -n; id -G"]), "99\n0 44");
}

#[test]
fn privileged_and_the_host_s_users_are_what_the_daemon_is_and_no_more() {
    let sampan = with_busybox();
    let users = "cat /proc/self/uid_map; sed -n 's/^CapEff:.//p; s/^Seccomp:.//p' /proc/self/status";
    let said = run(&sampan, &["--userns", "host"], users);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert!(lines[0].ends_with("4294967295"), "{said}");
    assert_eq!(lines[1..], [format!("{:016x}", DEFAULT & held()), "2".to_owned()], "{said}");
    // a node can be made of any device, and not be opened: kmsg's
    assert!(succeeds(&sampan, &["--userns", "host"], "mknod /dev/x c 1 11"));
    assert!(!succeeds(&sampan, &["--userns", "host"], "mknod /dev/x c 1 11; exec 3</dev/x"));
    assert!(succeeds(&sampan, &["--privileged"], "exec 3</dev/kmsg"));
    assert!(!succeeds(&sampan, &["--userns", "host"], "mount -t tmpfs x /tmp"));
    assert!(!succeeds(&sampan, &["--userns", "host"], "echo 1 > /proc/sys/kernel/panic"));

    let said = run(&sampan, &["--privileged"], users);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines[1..], [format!("{:016x}", held()), "0".to_owned()], "{said}");
    let script = "mount -t tmpfs x /tmp && grep -q '^[^ ]* /sys sysfs rw,' /proc/mounts && test -n \"$(head -c 1 /proc/interrupts)\" && echo all";
    assert_eq!(run(&sampan, &["--privileged"], script), "all");
    // the host's devices, each a node of its own; its processes and network stay its own
    for name in ["null", "kmsg", "loop-control"] {
        if Path::new("/dev").join(name).exists() {
            let same = format!("stat -c '%t:%T %u:%g' /dev/{name}");
            let mut host = std::process::Command::new("stat");
            let host = outcome(host.args(["-c", "%t:%T %u:%g"]).arg(format!("/dev/{name}"))).assert_ok().stdout;
            assert_eq!(run(&sampan, &["--privileged"], &same), host.trim(), "{name}");
        }
    }
    let before = fs::metadata("/dev/null").expect("/dev/null").permissions();
    run(&sampan, &["--privileged"], "chmod 600 /dev/null; chown 5:6 /dev/null");
    assert_eq!(fs::metadata("/dev/null").expect("/dev/null").permissions(), before);
    assert_eq!(
        run(&sampan, &["--privileged"], "echo $$; ls /sys/class/net | sort | tr '\\n' ' '").lines().next(),
        Some("1")
    );

    // what it wrote is as any other's, and a volume goes between the two kinds
    sampan.ok(&["volume", "create", "between"]);
    run(&sampan, &["--userns", "host", "-v", "between:/v"], "touch /v/a; chown 5:6 /v/a");
    assert_eq!(run(&sampan, &["-v", "between:/v"], "stat -c %u:%g /v/a; chown 7:8 /v/a"), "5:6");
    assert_eq!(run(&sampan, &["--userns", "host", "-v", "between:/v"], "stat -c %u:%g /v/a"), "7:8");

    // everything that is done with a container works with one of these
    sampan.ok(&["run", "-d", "--name", "host", "--userns", "host", "bb", "sh", "-c", "echo mine > /mine; sleep 1000"]);
    assert_eq!(sampan.ok(&["exec", "host", "cat", "/mine"]), "mine");
    assert_eq!(
        sampan.ok(&["exec", "host", "sh", "-c", "wc -l < /proc/self/uid_map; ls /proc/self/fd | wc -l"]),
        "1\n4"
    );
    let eff = sampan.ok(&["exec", "--privileged", "host", "sed", "-n", "s/^CapEff:.//p", "/proc/self/status"]);
    assert_eq!(eff, format!("{:016x}", held()));
    let copied = sampan.dir().join("copied");
    sampan.ok(&["cp", "host:/mine", copied.to_str().expect("a path in UTF-8")]);
    assert_eq!(fs::read_to_string(&copied).expect("what was copied"), "mine\n");
    let top = sampan.json(&["top", "host", "--json"]);
    assert_eq!(top[0]["uid"], 0, "{top}");
    sampan.ok(&["restart", "-t", "1s", "host"]);
    assert_eq!(sampan.ok(&["exec", "host", "cat", "/mine"]), "mine");
    sampan.ok(&["stop", "-t", "0s", "host"]);
    sampan.ok(&["cp", "host:/mine", copied.to_str().expect("a path in UTF-8")]);
}

#[test]
fn devices_are_handed_over_one_by_one() {
    let sampan = with_busybox();
    // one that anybody may open who has the node
    const DEVICE: &str = "/dev/loop-control";
    assert!(!succeeds(&sampan, &[], &format!("test -e {DEVICE}")));
    for users in [&[][..], &["--userns", "host"]] {
        let options = [users, &["--device", DEVICE, "--device", "/dev/zero:/dev/nought"]].concat();
        let script =
            format!("head -c 3 /dev/nought | wc -c; stat -c '%t:%T %u' {DEVICE}; exec 3<>{DEVICE} && echo open");
        assert_eq!(run(&sampan, &options, &script), "3\na:ed 0\nopen");
        let opened = |access: &str, how: &str| {
            let device = format!("{DEVICE}:{access}");
            succeeds(&sampan, &[users, &["--device", &device]].concat(), &format!("exec 3{how}{DEVICE}"))
        };
        assert!(opened("rw", "<>") && opened("r", "<"), "{users:?}");
        assert!(!opened("r", ">") && !opened("w", "<") && !opened("m", "<"), "{users:?}");
    }
    sampan
        .run(&["run", "--rm", "--device", "/dev/no-such", "bb", "true"])
        .assert_fails(125, &["/dev/no-such", "No such file"]);
    sampan
        .run(&["run", "--rm", "--device", "/etc/passwd:/dev/x", "bb", "true"])
        .assert_fails(125, &["/etc/passwd is no device"]);
}

#[test]
fn what_cannot_be_is_said() {
    let sampan = with_busybox();
    sampan.ok(&["server", "create", "shared"]);
    for (options, says) in [
        (&["--sysctl", "kernel.panic=1"][..], &["kernel.panic", "whole machine", "sysctl -w"][..]),
        (&["--sysctl", "net.core.no_such=1"], &["net/core/no_such", "No such file"]),
        (&["--server", "shared", "--sysctl", "net.ipv4.ip_forward=1"], &["net.ipv4.ip_forward", "\"shared\""]),
        (&["--server", "shared", "--privileged"], &["--privileged", "--server", "\"shared\""]),
        (&["--server", "shared", "--userns", "host"], &["--userns host", "\"shared\""]),
        (&["--oom-score-adj", "1001"], &["1001", "-1000 to 1000"]),
        (&["--group-add", "nobodies"], &["nobodies", "/etc/group"]),
        (&["--security-opt", "seccomp=/no/such.json"], &["/no/such.json", "seccomp=unconfined"]),
        (&["--security-opt", "seccomp=/etc/passwd"], &["seccomp profile", "expected"]),
        (&["--cap-add", "NET-ADMIN"], &["NET-ADMIN", "capabilities(7)"]),
        (&["--security-opt", "apparmor=docker-default"], &["AppArmor"]),
        (&["--cgroupns", "host"], &["--cgroupns private"]),
        (&["--ulimit", "files=3"], &["files", "nofile"]),
        (&["--device", "fuse"], &["/dev/NAME"]),
        (&["--pid", "host"], &["its own processes"]),
        (&["--ipc", "host"], &["--server NAME"]),
    ] {
        let words = [&["run", "--rm"], options, &["bb", "true"]].concat();
        sampan.run(&words).assert_fails(125, says);
    }
    assert_eq!(sampan.json(&["ps", "-a", "--json"]), json!([]));
}
