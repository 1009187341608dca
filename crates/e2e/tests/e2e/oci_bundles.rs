//! What a bundle asks for is what its program finds: a table of configurations, each run by `sampan oci` and by Debian's
//! runc, with the same expectation of both. What runc 1.1 does not know yet is asked of `sampan oci` alone.

use std::fs;

use sampan_e2e::bundles::{Bundle, Runtime};
use serde_json::{Value, json};

/// Whom a case is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    /// It is newer than runc 1.1.
    Sampan,
}

/// One case: what is changed of the configuration, what the program does, and what it says.
struct Case {
    name: &'static str,
    whom: For,
    change: fn(&mut Bundle),
    script: &'static str,
    says: Says,
}

enum Says {
    /// Exactly this, and it ends with 0.
    Text(&'static str),
    /// It ends with this code.
    Code(i32),
    /// It is not run.
    Nothing,
}

use Says::{Code, Nothing, Text};

fn process(bundle: &mut Bundle) -> &mut Value {
    &mut bundle.config["process"]
}

fn linux(bundle: &mut Bundle) -> &mut Value {
    &mut bundle.config["linux"]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let both = |name, change, script, says| Case { name, whom: For::Both, change, script, says };
    let ours = |name, change, script, says| Case { name, whom: For::Sampan, change, script, says };
    vec![
        // the process
        both("its code", |_| (), "exit 7", Code(7)),
        both("its arguments", |b| process(b)["args"] = json!(["echo", "a b", "$c"]), "", Text("a b $c\n")),
        both("a command that is not there", |b| process(b)["args"] = json!(["nowhere"]), "", Nothing),
        both("no command", |b| process(b)["args"] = json!([]), "", Nothing),
        both("a file that may not be executed", |b| process(b)["args"] = json!(["/etc/passwd"]), "", Nothing),
        both(
            "its environment",
            |b| process(b)["env"] = json!(["PATH=/bin", "A=1", "B=x=y"]),
            "echo $A $B $HOME",
            Text("1 x=y /root\n"),
        ),
        both(
            "its home, by its user",
            |b| process(b)["user"] = json!({"uid": 1000, "gid": 1000}),
            "echo $HOME",
            Text("/home/user\n"),
        ),
        both("its directory, which is made", |b| process(b)["cwd"] = json!("/made/up"), "pwd", Text("/made/up\n")),
        both("a relative directory", |b| process(b)["cwd"] = json!("made"), "pwd", Nothing),
        both(
            "its user and groups",
            |b| process(b)["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7]}),
            "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '",
            Text("Uid: 1000 1000 1000 1000\nGid: 1001 1001 1001 1001\nGroups: 5 7 \n"),
        ),
        both("its mask", |b| process(b)["user"]["umask"] = json!(0o027), "umask", Text("0027\n")),
        both("the usual mask", |_| (), "umask", Text("0022\n")),
        both(
            "its five sets of capabilities",
            |b| {
                let three = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"];
                process(b)["capabilities"] = json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
                    "permitted": three, "inheritable": three, "effective": ["CAP_CHOWN", "CAP_KILL"],
                    "ambient": ["CAP_KILL"],
                });
                process(b)["user"]["uid"] = json!(1000);
                process(b)["args"] = json!(["grep", "Cap", "/proc/self/status"]);
            },
            "",
            // what is executed by who is not root has the ambient ones alone
            Text(
                "CapInh:\t0000000000002021\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
                 CapBnd:\t00000000000020a1\nCapAmb:\t0000000000000020\n",
            ),
        ),
        both(
            "ambient capabilities that are not inheritable, as `runc spec` writes them",
            |b| {
                let one = ["CAP_KILL"];
                process(b)["capabilities"] =
                    json!({ "bounding": one, "permitted": one, "effective": one, "ambient": one });
            },
            "grep -E 'Cap(Eff|Amb)' /proc/self/status",
            Text("CapEff:\t0000000000000020\nCapAmb:\t0000000000000000\n"),
        ),
        both(
            "no capabilities",
            |b| process(b)["capabilities"] = json!({}),
            "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status",
            Text("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"),
        ),
        both(
            "a capability that nobody knows",
            |b| process(b)["capabilities"]["bounding"] = json!(["CAP_CHOWN", "CAP_OF_TOMORROW"]),
            "grep CapBnd /proc/self/status",
            Text("CapBnd:\t0000000000000001\n"),
        ),
        both("no new privileges", |_| (), "grep NoNewPrivs /proc/self/status", Text("NoNewPrivs:\t1\n")),
        both(
            "new privileges",
            |b| process(b)["noNewPrivileges"] = json!(false),
            "grep NoNewPrivs /proc/self/status",
            Text("NoNewPrivs:\t0\n"),
        ),
        both(
            "its limits",
            |b| {
                process(b)["rlimits"] = json!([
                    {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                ]);
            },
            "ulimit -n; ulimit -Hn; ulimit -c",
            Text("100\n200\n0\n"),
        ),
        both(
            "a limit that nobody knows",
            |b| process(b)["rlimits"] = json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
            "true",
            Nothing,
        ),
        both(
            "how soon it is killed",
            |b| process(b)["oomScoreAdj"] = json!(432),
            "cat /proc/self/oom_score_adj",
            Text("432\n"),
        ),
        ours(
            "its scheduler",
            |b| process(b)["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5}),
            "cut -d ' ' -f 19,41 /proc/self/stat",
            Text("5 3\n"),
        ),
        ours(
            "a scheduler that nobody knows",
            |b| process(b)["scheduler"] = json!({"policy": "SCHED_X"}),
            "true",
            Nothing,
        ),
        ours(
            "its place at the disks",
            |b| process(b)["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
            "busybox ionice -p 1",
            Text("best-effort: prio 6\n"),
        ),
        ours(
            "its turn at the disks",
            |b| process(b)["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
            "true",
            Nothing,
        ),
        ours(
            "what it is told it is on",
            |b| linux(b)["personality"] = json!({"domain": "LINUX32"}),
            "uname -m | sed 's/i686/32/;s/armv8l/32/'",
            Text("32\n"),
        ),
        // names
        both("its host name", |b| b.config["hostname"] = json!("a-name"), "hostname", Text("a-name\n")),
        ours(
            "its domain name",
            |b| b.config["domainname"] = json!("a.domain"),
            "cat /proc/sys/kernel/domainname",
            Text("a.domain\n"),
        ),
        both(
            "a host name of the host's",
            |b| {
                b.config["hostname"] = json!("a-name");
                linux(b)["namespaces"].as_array_mut().expect("a list").retain(|one| one["type"] != "uts");
            },
            "true",
            Nothing,
        ),
        // files
        both(
            "a root file system that cannot be written to",
            |b| b.config["root"]["readonly"] = json!(true),
            "touch /x 2> /dev/null; echo $?; touch /dev/x; echo $?",
            Text("1\n0\n"),
        ),
        both(
            "what is hidden",
            |b| linux(b)["maskedPaths"] = json!(["/etc/passwd", "/masked", "/not/there"]),
            "cat /etc/passwd; ls /masked; touch /masked/x 2> /dev/null; echo $?",
            Text("1\n"),
        ),
        both(
            "what cannot be written to",
            |b| linux(b)["readonlyPaths"] = json!(["/data", "/etc/passwd", "/not/there"]),
            "touch /data/x 2> /dev/null; echo $?; echo x 2> /dev/null >> /etc/passwd; echo $?; cat /data/file",
            Text("1\n1\ndata\n"),
        ),
        both(
            "a setting of its network's",
            |b| linux(b)["sysctl"] = json!({"net.ipv4.ip_local_port_range": "2000 3000"}),
            "cat /proc/sys/net/ipv4/ip_local_port_range",
            Text("2000\t3000\n"),
        ),
        both("a setting of the machine's", |b| linux(b)["sysctl"] = json!({"vm.swappiness": "10"}), "true", Nothing),
        // devices
        both(
            "the devices that every container has",
            |_| (),
            "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' $d; done; for l in fd ptmx stdin; do readlink $l; done",
            Text(
                "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n\
                 /proc/self/fd\npts/ptmx\n/proc/self/fd/0\n",
            ),
        ),
        both(
            "devices of its own",
            |b| {
                linux(b)["devices"] = json!([
                    {"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 416, "uid": 5, "gid": 6},
                    {"path": "/dev/dir/pipe", "type": "p", "fileMode": 384},
                ]);
            },
            "stat -c '%t:%T %a %u %g' /dev/own; stat -c '%F %a' /dev/dir/pipe",
            Text("1:3 640 5 6\nfifo 600\n"),
        ),
        both(
            "a device that it may not open",
            |_| (),
            "mknod /tmp/loop b 7 99 && dd if=/tmp/loop of=/dev/null count=1 2>&1 | grep -c 'not permitted'",
            Text("1\n"),
        ),
        both(
            "a device that it may open",
            |b| {
                let rules = json!([{"allow": false, "access": "rwm"},
                                   {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"}]);
                linux(b)["resources"]["devices"] = rules;
            },
            "mknod /tmp/tun c 10 200 && (: < /tmp/tun) 2>&1 | grep -c 'not permitted'; true",
            Text("0\n"),
        ),
        // mounts
        both(
            "a tmpfs",
            |b| {
                b.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                               "options": ["nosuid", "noexec", "size=64k"]}));
            },
            "grep ' /tmp ' /proc/self/mountinfo | grep -c 'nosuid,noexec.*size=64k'",
            Text("1\n"),
        ),
        // runc 1.1 gives it the mode of what it covers
        ours(
            "a tmpfs with a mode",
            |b| {
                b.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1700"]}));
                b.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}));
            },
            "stat -c %a /tmp /data",
            Text("1700\n755\n"),
        ),
        both(
            "a tmpfs that cannot be written to, and what is mounted in it",
            |b| {
                b.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}));
                let source = b.file("data").display().to_string();
                b.mount(json!({"destination": "/tmp/in/it", "type": "bind", "source": source, "options": ["bind"]}));
            },
            "touch /tmp/x 2> /dev/null; echo $?; cat /tmp/in/it/file",
            Text("1\ndata\n"),
        ),
        both(
            "a tmpfs that begins with what it covers",
            |b| {
                b.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
            },
            "cat /data/file; echo more > /data/file",
            Text("data\n"),
        ),
        both(
            "a file of the host's",
            |b| {
                let source = b.file("data/file").display().to_string();
                b.mount(json!({"destination": "/etc/made/file", "type": "bind", "source": source,
                               "options": ["rbind", "ro"]}));
            },
            "cat /etc/made/file; echo x 2> /dev/null > /etc/made/file; echo $?",
            Text("data\n1\n"),
        ),
        both(
            "a source that is not there",
            |b| {
                b.mount(json!({"destination": "/x", "type": "bind", "source": "/not/there", "options": ["bind"]}));
            },
            "true",
            Nothing,
        ),
        both(
            "a file on a directory",
            |b| {
                let source = b.file("data/file").display().to_string();
                b.mount(json!({"destination": "/masked", "type": "bind", "source": source, "options": ["bind"]}));
            },
            "true",
            Nothing,
        ),
        both(
            "a place behind links",
            |b| {
                std::os::unix::fs::symlink("/etc/../data", b.file("link")).expect("a link");
                std::os::unix::fs::symlink("../made/later", b.file("etc/dangling")).expect("a link");
                let source = b.file("masked").display().to_string();
                for place in ["/link/in", "/etc/dangling/in"] {
                    b.mount(json!({"destination": place, "type": "bind", "source": source, "options": ["bind"]}));
                }
            },
            "cat /data/in/file /made/later/in/file",
            Text("secret\nsecret\n"),
        ),
        both(
            "a place that would be the host's",
            |b| {
                std::os::unix::fs::symlink("/../../../../../../../../../tmp", b.file("escape")).expect("a link");
                let source = b.file("data").display().to_string();
                b.mount(json!({"destination": "/escape/sampan-oci-test", "type": "bind", "source": source,
                               "options": ["bind"]}));
            },
            "cat /tmp/sampan-oci-test/file",
            Text("data\n"),
        ),
        both(
            "a place in /proc",
            |b| {
                let source = b.file("data").display().to_string();
                b.mount(json!({"destination": "/proc/sys", "type": "bind", "source": source, "options": ["bind"]}));
            },
            "true",
            Nothing,
        ),
        both(
            "a view of the machine in /proc",
            |b| {
                let source = b.file("data/file").display().to_string();
                b.mount(json!({"destination": "/proc/uptime", "type": "bind", "source": source, "options": ["bind"]}));
            },
            "cat /proc/uptime",
            Text("data\n"),
        ),
        both(
            "a /proc that is a link",
            |b| {
                fs::remove_dir(b.file("proc")).expect("a directory");
                std::os::unix::fs::symlink("data", b.file("proc")).expect("a link");
            },
            "true",
            Nothing,
        ),
        both(
            "what is mounted below, write-protected with it",
            |b| {
                let source = b.file("data").display().to_string();
                b.mount(json!({"destination": "/tmp", "type": "bind", "source": source, "options": ["rbind", "rro"]}));
                b.mount(json!({"destination": "/etc/again", "type": "bind", "source": source,
                               "options": ["rbind", "rnosuid", "rnoexec", "rnoatime"]}));
            },
            "touch /tmp/x 2> /dev/null; echo $?; grep ' /etc/again ' /proc/self/mountinfo | cut -d ' ' -f 6",
            Text("1\nrw,nosuid,noexec,noatime\n"),
        ),
        both(
            "how mounts propagate",
            |b| {
                let source = b.file("data").display().to_string();
                for (place, word) in [("/tmp/p", "rprivate"), ("/tmp/s", "rshared"), ("/tmp/u", "unbindable")] {
                    b.mount(json!({"destination": place, "type": "bind", "source": source, "options": ["bind", word]}));
                }
            },
            "for p in p s u; do grep \" /tmp/$p \" /proc/self/mountinfo | grep -oE '(shared|master|unbindable)|- ' | \
             head -1 | cut -c 1-6; done",
            Text("- \nshared\nunbind\n"),
        ),
        ours(
            "a root file system that is shared",
            |b| linux(b)["rootfsPropagation"] = json!("shared"),
            "grep -c ' / / .*shared:\\|rootfs / .*shared:' /proc/self/mountinfo",
            Text("1\n"),
        ),
        ours(
            "owners shown through a map",
            |b| {
                let source = b.file("data").display().to_string();
                let map = json!([{"containerID": 0, "hostID": 100_050, "size": 10}]);
                b.with_users().mount(json!({"destination": "/tmp", "type": "bind", "source": source,
                    "options": ["bind", "idmap"], "uidMappings": map, "gidMappings": map}));
            },
            "stat -c '%u %g' /tmp/file",
            Text("50 50\n"),
        ),
        both(
            "its cgroups",
            |b| {
                b.mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                               "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
                linux(b)["resources"]["pids"] = json!({"limit": 77});
                linux(b)["resources"]["memory"] = json!({"limit": 64 << 20});
                linux(b)["resources"]["cpu"] = json!({"shares": 512, "quota": 50_000, "period": 100_000});
                if is_unified() {
                    // without, runc mounts the host's
                    b.namespace("cgroup", None);
                }
            },
            if is_unified() {
                "cd /sys/fs/cgroup; cat pids.max memory.max cpu.max; mkdir x 2> /dev/null; echo $?"
            } else {
                "cd /sys/fs/cgroup; cat pids/pids.max memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us; \
                 mkdir pids/x 2> /dev/null; echo $?"
            },
            Text(if is_unified() { "77\n67108864\n50000 100000\n1\n" } else { "77\n67108864\n512\n50000\n1\n" }),
        ),
        both(
            "a cgroup namespace",
            |b| {
                b.namespace("cgroup", None);
            },
            if is_unified() { "grep -c ^0::/$ /proc/self/cgroup" } else { "grep -c pids:/$ /proc/self/cgroup" },
            Text("1\n"),
        ),
        // namespaces
        both("a process of its own", |_| (), "echo $$", Text("1\n")),
        both(
            "a user namespace",
            |b| {
                b.with_users();
            },
            "tr -s ' ' < /proc/self/uid_map; id -u; echo > /dev/null && stat -c %t:%T /dev/null",
            Text(" 0 100000 1000\n0\n1:3\n"),
        ),
        both(
            "a user namespace without maps",
            |b| {
                b.namespace("user", None);
            },
            "true",
            Nothing,
        ),
        both(
            "a namespace of a kind that nobody knows",
            |b| {
                b.namespace("magic", None);
            },
            "true",
            Nothing,
        ),
        both(
            "a namespace of another kind",
            |b| {
                b.namespace("network", Some("/proc/self/ns/uts"));
            },
            "true",
            Nothing,
        ),
        ours(
            "what its clocks are ahead",
            |b| {
                b.namespace("time", None);
                linux(b)["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
            },
            "cut -c 1 /proc/uptime; tr -s ' ' < /proc/self/timens_offsets | grep boottime",
            Text("1\nboottime 1000000000 0\n"),
        ),
        // system calls
        both(
            "a call that fails",
            |b| {
                linux(b)["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [],
                    "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO",
                                  "errnoRet": 28}]});
            },
            "mkdir /x 2>&1 | grep -c 'No space left'",
            Text("1\n"),
        ),
        both(
            "a call that fails by its arguments",
            |b| {
                linux(b)["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                    "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
                    "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]});
            },
            "trap 'echo ten' USR1; trap 'echo twelve' USR2; kill -USR1 $$ 2> /dev/null; kill -USR2 $$",
            Text("twelve\n"),
        ),
        both(
            "a filter with new privileges and no capability",
            |b| {
                process(b)["noNewPrivileges"] = json!(false);
                process(b)["capabilities"] = json!({});
                process(b)["user"]["uid"] = json!(1000);
                linux(b)["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
            },
            "grep -E '^(CapEff|Seccomp:)' /proc/self/status",
            Text("CapEff:\t0000000000000000\nSeccomp:\t2\n"),
        ),
        both(
            "a filter that is none",
            |b| linux(b)["seccomp"] = json!({"defaultAction": "SCMP_ACT_MAYBE"}),
            "true",
            Nothing,
        ),
        // what is refused
        ours("no version", |b| b.config["ociVersion"] = json!("7.0"), "true", Nothing),
        both(
            "a label where there is no SELinux",
            |b| process(b)["selinuxLabel"] = json!("system_u:system_r:x_t:s0"),
            "true",
            Nothing,
        ),
    ]
}

/// Whether control groups are of version 2 alone.
fn is_unified() -> bool {
    fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("/sys/fs/cgroup")
}

#[test]
fn configurations_are_what_programs_find() {
    let runtimes = Runtime::both();
    let mut wrong = Vec::new();
    for case in cases() {
        for runtime in &runtimes {
            if case.whom == For::Sampan && runtime.name == "runc" {
                continue;
            }
            let mut bundle = Bundle::of(case.script);
            (case.change)(&mut bundle);
            let told = bundle.run(runtime);
            let right = match case.says {
                Text(text) => told.stdout == text && told.code() == 0,
                Code(code) => told.code() == code,
                Nothing => told.code() != 0 && told.stdout.is_empty() && !told.stderr.is_empty(),
            };
            if !right {
                wrong.push(format!("{} ({}): {told}", case.name, runtime.name));
            }
            let left = runtime.say(&["list", "-q"]).stdout;
            if !left.is_empty() {
                wrong.push(format!("{} ({}) leaves {left}", case.name, runtime.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are not as expected:\n{}", wrong.len(), wrong.join("\n"));
}
