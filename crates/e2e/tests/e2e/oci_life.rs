//! A container's life under the OCI runtime, command by command: the same of `sampan oci` and of Debian's runc.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sampan_e2e::bundles::{Bundle, Runtime};
use sampan_testkit::wait_for;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn check(test: impl Fn(&Runtime)) {
    for runtime in Runtime::both() {
        eprintln!("with {}", runtime.name);
        test(&runtime);
    }
}

fn state(runtime: &Runtime, id: &str) -> Value {
    let told = runtime.say(&["state", id]).assert_ok();
    serde_json::from_str(&told.stdout).expect("a state")
}

fn status(runtime: &Runtime, id: &str) -> String {
    state(runtime, id)["status"].as_str().expect("a status").to_owned()
}

fn wait_for_status(runtime: &Runtime, id: &str, wanted: &str) {
    wait_for(&format!("{id} to be {wanted}"), SOON, || (status(runtime, id) == wanted).then_some(()));
}

/// Created, with what it writes going to a file.
fn create(runtime: &Runtime, bundle: &Bundle, more: &[&str]) -> std::path::PathBuf {
    let said = bundle.dir().join("said");
    let file = fs::File::create(&said).expect("a file");
    let mut words = vec!["create", "--bundle", bundle.write()];
    words.extend(more);
    words.push(bundle.id());
    let mut command = runtime.command(&words);
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    let status = command.status().expect("a runtime");
    assert!(status.success(), "{}", fs::read_to_string(&said).unwrap_or_default());
    said
}

#[test]
fn created_started_halted_killed_deleted() {
    check(|runtime| {
        let mut bundle = Bundle::of("trap 'exit 3' TERM; echo started; while :; do sleep 0.05; done");
        bundle.config["annotations"] = json!({"a.key": "a value"});
        let id = bundle.id().to_owned();
        let pid_file = bundle.dir().join("pid");
        let said = create(runtime, &bundle, &["--pid-file", pid_file.to_str().expect("a path")]);
        let told = state(runtime, &id);
        let pid = told["pid"].as_u64().expect("a pid");
        assert_eq!(told["status"], "created");
        assert_eq!((&told["id"], &told["annotations"]["a.key"]), (&json!(id), &json!("a value")));
        assert_eq!(told["bundle"].as_str(), bundle.dir().to_str());
        assert_eq!(told["rootfs"].as_str(), bundle.dir().join("rootfs").to_str());
        assert_eq!(fs::read_to_string(&pid_file).expect("a pid file"), pid.to_string());
        assert_eq!(fs::read_to_string(&said).expect("what it says"), "", "it does not run yet");
        assert!(!runtime.say(&["create", "--bundle", bundle.write(), &id]).status.success(), "twice");

        runtime.say(&["start", &id]).assert_ok();
        wait_for("its word", SOON, || (fs::read_to_string(&said).ok()? == "started\n").then_some(()));
        assert_eq!(status(runtime, &id), "running");
        assert!(!runtime.say(&["start", &id]).status.success(), "it is started already");
        assert!(!runtime.say(&["delete", &id]).status.success(), "it runs");
        let listed: Value =
            serde_json::from_str(&runtime.say(&["list", "--format", "json"]).assert_ok().stdout).expect("a list");
        assert_eq!((&listed[0]["id"], &listed[0]["pid"]), (&json!(id), &json!(pid)));
        let told = runtime.say(&["ps", "--format", "json", &id]).assert_ok().stdout;
        assert!(serde_json::from_str::<Vec<u64>>(&told).expect("pids").contains(&pid), "{told}");

        runtime.say(&["pause", &id]).assert_ok();
        assert_eq!(status(runtime, &id), "paused");
        assert!(!runtime.say(&["exec", &id, "true"]).status.success(), "it is halted");
        runtime.say(&["resume", &id]).assert_ok();
        assert_eq!(status(runtime, &id), "running");
        assert!(!runtime.say(&["resume", &id]).status.success(), "it is not halted");

        runtime.say(&["kill", &id, "SIGTERM"]).assert_ok();
        wait_for_status(runtime, &id, "stopped");
        let told = runtime.say(&["kill", &id, "KILL"]);
        assert!(!told.status.success() && told.stderr.contains("container not running"), "{told}");
        runtime.say(&["delete", &id]).assert_ok();
        let told = runtime.say(&["state", &id]);
        assert!(!told.status.success() && told.stderr.contains("does not exist"), "{told}");
        assert!(!runtime.say(&["delete", &id]).status.success());
        runtime.say(&["delete", "--force", &id]).assert_ok();
        assert!(!Path::new(&format!("/sys/fs/cgroup/pids/{id}")).exists(), "its cgroup is gone");
    });
}

#[test]
fn what_was_never_started_or_still_runs_is_deleted_by_force() {
    check(|runtime| {
        let bundle = Bundle::of("sleep 1000");
        create(runtime, &bundle, &[]);
        let pid = state(runtime, bundle.id())["pid"].as_i64().expect("a pid");
        runtime.say(&["delete", "--force", bundle.id()]).assert_ok();
        wait_for("its end", SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));

        let bundle = Bundle::of("sleep 1000 & sleep 1000");
        create(runtime, &bundle, &[]);
        runtime.say(&["start", bundle.id()]).assert_ok();
        runtime.say(&["delete", "--force", bundle.id()]).assert_ok();
        assert_eq!(runtime.say(&["list", "-q"]).stdout, "");
    });
}

#[test]
fn processes_are_executed_in_it() {
    check(|runtime| {
        let mut bundle = Bundle::of("sleep 1000");
        bundle.config["process"]["env"] = json!(["PATH=/bin", "OWN=1"]);
        bundle.with_users();
        let id = bundle.id().to_owned();
        create(runtime, &bundle, &[]);
        runtime.say(&["start", &id]).assert_ok();
        let exec = |flags: &[&str], words: &[&str]| runtime.say(&[&["exec"], flags, &[id.as_str()], words].concat());
        assert_eq!(exec(&[], &["sh", "-c", "exit 5"]).code(), 5);
        assert_eq!(exec(&[], &["sh", "-c", "kill -9 $$"]).code(), 137);
        assert_eq!(exec(&[], &["nowhere"]).code(), 255);
        assert_eq!(exec(&[], &["sh", "-c", "echo $OWN; pwd"]).assert_ok().stdout, "1\n/\n");
        let told = exec(
            &["--user", "5:6", "--cwd", "/data", "--env", "B=2", "--cap", "CAP_SYS_PTRACE", "--additional-gids", "9"],
            &["sh", "-c", "id -u; id -g; pwd; echo $B; grep -E '^(CapBnd|Groups|NoNew)' /proc/self/status"],
        );
        let lines: Vec<_> = told.assert_ok().stdout.lines().map(str::to_owned).collect();
        assert_eq!(lines[..4], ["5", "6", "/data", "2"]);
        assert!(lines[4].contains('9') && lines[5].ends_with("00000000a80c25fb"), "{lines:?}");
        // the same pid namespace, cgroup, root
        let first = state(runtime, &id)["pid"].to_string();
        assert_eq!(
            exec(&[], &["readlink", "/proc/1/ns/pid"]).stdout,
            exec(&[], &["readlink", "/proc/self/ns/pid"]).stdout
        );
        let of = |path: &str| fs::read_to_string(path).expect("its cgroups");
        assert_eq!(exec(&[], &["cat", "/proc/self/cgroup"]).stdout, of(&format!("/proc/{first}/cgroup")));
        // nothing of the host's is left open
        let told = exec(&[], &["sh", "-c", "ls /proc/self/fd"]).assert_ok().stdout;
        assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is the directory itself");

        let file = bundle.dir().join("process.json");
        let process = json!({"args": ["sh", "-c", "echo $X; id -u"], "cwd": "/", "env": ["PATH=/bin", "X=y"],
                             "user": {"uid": 7, "gid": 7}});
        fs::write(&file, process.to_string()).expect("a file");
        let file = file.to_str().expect("a path");
        assert_eq!(exec(&["--process", file], &[]).assert_ok().stdout, "y\n7\n");
        let pid_file = bundle.dir().join("exec.pid");
        let process =
            json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
        fs::write(file, process.to_string()).expect("a file");
        let mut detached = runtime.command(&[
            "exec",
            "--detach",
            "--pid-file",
            pid_file.to_str().expect("a path"),
            "--process",
            file,
            &id,
        ]);
        let null = std::process::Stdio::null;
        assert!(detached.stdin(null()).stdout(null()).stderr(null()).status().expect("a runtime").success());
        let pid: u64 = fs::read_to_string(&pid_file).expect("a pid file").parse().expect("a pid");
        let told = runtime.say(&["ps", "--format", "json", &id]).assert_ok().stdout;
        assert!(serde_json::from_str::<Vec<u64>>(&told).expect("pids").contains(&pid), "{told}");
        runtime.say(&["delete", "--force", &id]).assert_ok();
        wait_for("its end", SOON, || (!Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(()));
    });
}

#[test]
fn what_it_may_use_is_changed() {
    check(|runtime| {
        let bundle = Bundle::of("sleep 1000");
        let id = bundle.id();
        create(runtime, &bundle, &[]);
        runtime.say(&["update", "--memory", "67108864", "--pids-limit", "50", id]).assert_ok();
        let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).unwrap_or_default();
        assert_eq!(read(&format!("memory/{id}/memory.limit_in_bytes")), "67108864\n");
        assert_eq!(read(&format!("pids/{id}/pids.max")), "50\n");
        let mut command = runtime.command(&["update", "--resources", "-", id]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("a runtime");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(br#"{"cpu": {"shares": 100}, "pids": {"limit": 60}}"#).expect("a write");
        drop(stdin);
        assert!(child.wait().expect("its end").success());
        assert_eq!(read(&format!("cpu/{id}/cpu.shares")), "100\n");
        assert_eq!(read(&format!("pids/{id}/pids.max")), "60\n");
        runtime.say(&["start", id]).assert_ok();
        let told: Value =
            serde_json::from_str(&runtime.say(&["events", "--stats", id]).assert_ok().stdout).expect("JSON");
        assert_eq!((&told["type"], &told["data"]["pids"]["limit"]), (&json!("stats"), &json!(60)));
        assert!(told["data"]["memory"]["usage"]["limit"] == 67_108_864, "{told}");
        runtime.say(&["delete", "--force", id]).assert_ok();
    });
}

/// A shell's hook: its name and its state go to a file.
fn hook(to: &Path, name: &str) -> Value {
    let script = format!("echo {name} $(cat | tr -d ' \\n') >> {}", to.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

#[test]
fn hooks_are_run_in_their_order_and_told_the_state() {
    check(|runtime| {
        let mut bundle = Bundle::of("echo program >> /data/told");
        let told = bundle.file("data/told");
        // in the container, the same file by another name
        let inside = hook(Path::new("/data/told"), "startContainer");
        bundle.config["hooks"] = json!({
            "prestart": hook(&told, "prestart"), "createRuntime": hook(&told, "createRuntime"),
            "createContainer": hook(&told, "createContainer"), "startContainer": inside,
            "poststart": hook(&told, "poststart"), "poststop": hook(&told, "poststop"),
        });
        bundle.config["annotations"] = json!({"k": "v"});
        create(runtime, &bundle, &[]);
        let lines = || fs::read_to_string(&told).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        let names = |lines: &[String]| {
            lines.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let mut before = names(&lines());
        before.retain(|name| name != "poststart"); // runc 1.1 runs those too early
        assert_eq!(before, ["prestart", "createRuntime", "createContainer"]);
        runtime.say(&["start", bundle.id()]).assert_ok();
        wait_for_status(runtime, bundle.id(), "stopped");
        runtime.say(&["delete", bundle.id()]).assert_ok();
        let lines = lines();
        let mut all = names(&lines);
        // beside the program
        let poststart = all.iter().position(|name| name == "poststart").expect("the hook poststart");
        all.remove(poststart);
        assert!(poststart > 3 || runtime.name == "runc", "{all:?}");
        let expected = ["prestart", "createRuntime", "createContainer", "startContainer", "program", "poststop"];
        assert_eq!(all, expected);
        for line in lines.iter().filter(|line| *line != "program") {
            let state: Value = serde_json::from_str(line.split_once(' ').expect("a state").1).expect("a state");
            assert_eq!((&state["id"], &state["annotations"]["k"]), (&json!(bundle.id()), &json!("v")), "{line}");
            assert_eq!(state["bundle"].as_str(), bundle.dir().to_str(), "{line}");
        }
    });
}

#[test]
fn a_hook_that_fails_or_hangs_ends_it() {
    check(|runtime| {
        for (hook, timeout) in [("exit 1", None), ("exec sleep 100", Some(1))] {
            let mut bundle = Bundle::of("echo ran");
            let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/usr/bin:/bin"]});
            if let Some(timeout) = timeout {
                hook["timeout"] = json!(timeout);
            }
            bundle.config["hooks"] = json!({"createRuntime": [hook]});
            let told = bundle.run(runtime);
            assert!(!told.status.success() && !told.stdout.contains("ran"), "{told}");
            assert_eq!(runtime.say(&["list", "-q"]).stdout, "");
        }
    });
}

/// The descriptor that comes beside the next message on a connection.
fn receive(socket: &impl std::os::fd::AsFd) -> (Vec<u8>, OwnedFd) {
    let mut bytes = vec![0; 8192];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let count = recvmsg(socket, &mut buffers, &mut beside, RecvFlags::CMSG_CLOEXEC).expect("a message").bytes;
    let mut fds = beside.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fd = fds.next().expect("a descriptor");
    bytes.truncate(count);
    (bytes, fd)
}

#[test]
fn terminals_are_handed_to_who_asks_for_them() {
    check(|runtime| {
        let script = "stty size; tty=$(readlink /proc/self/fd/0); echo $tty; stat -c %t:%T /dev/console; read line; \
                      echo got $line; exit 4";
        let mut bundle = Bundle::of(script);
        bundle.config["process"]["terminal"] = json!(true);
        bundle.config["process"]["consoleSize"] = json!({"height": 30, "width": 99});
        let path = bundle.dir().join("c.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let words =
            ["create", "--bundle", bundle.write(), "--console-socket", path.to_str().expect("a path"), bundle.id()];
        let null = std::process::Stdio::null;
        let mut command = runtime.command(&words);
        let mut child = command.stdin(null()).stdout(null()).spawn().expect("a runtime");
        let (connection, _) = listener.accept().expect("a connection");
        let (_, master) = receive(&connection);
        assert!(child.wait().expect("its end").success());
        runtime.say(&["start", bundle.id()]).assert_ok();
        let mut terminal = fs::File::from(master);
        terminal.write_all(b"hello\n").expect("a write");
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
        }
        let seen = String::from_utf8_lossy(&seen).replace('\r', "");
        for wanted in ["30 99\n", "/dev/pts/0\n", "88:0\n", "got hello\n"] {
            assert!(seen.contains(wanted), "no {wanted:?} in {seen:?}");
        }
        wait_for_status(runtime, bundle.id(), "stopped");
        runtime.say(&["delete", bundle.id()]).assert_ok();
        // a terminal that nobody is in front of
        assert!(!runtime.say(&["create", "--bundle", bundle.write(), bundle.id()]).status.success());
    });
}

#[test]
fn descriptors_are_handed_on_and_others_are_not() {
    check(|runtime| {
        let bundle = Bundle::of("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
        let script =
            format!("echo handed > {0}/in; exec 3< {0}/in 4< /etc/passwd 5< /etc; exec \"$@\"", bundle.dir().display());
        let inner = runtime.command(&["run", "--preserve-fds", "1", "--bundle", bundle.write(), bundle.id()]);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.expect("a value"));
        }
        let told = command.output().expect("a shell");
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(text, "handed\n0 1 2 3 4 ", "4 is the directory itself: {}", String::from_utf8_lossy(&told.stderr));
    });
}

#[test]
fn namespaces_of_others_are_joined() {
    check(|runtime| {
        let mut first = Bundle::of("sleep 1000");
        first.namespace("cgroup", None);
        create(runtime, &first, &[]);
        let pid = state(runtime, first.id())["pid"].to_string();
        for kinds in [&["network"][..], &["ipc", "uts"], &["pid"], &["network", "ipc", "uts", "pid"]] {
            let mut second = Bundle::of("for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done");
            for kind in kinds {
                let file = if *kind == "network" { "net" } else { kind };
                second.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
            }
            let told = second.run(runtime).assert_ok().stdout;
            for (kind, found) in ["network", "ipc", "uts", "pid", "mount"].iter().zip(told.lines()) {
                let file = match *kind {
                    "network" => "net",
                    "mount" => "mnt",
                    same => same,
                };
                let theirs = fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace");
                assert_eq!(kinds.contains(kind), theirs.to_str() == Some(found), "{kinds:?} {kind}: {told}");
            }
        }
        runtime.say(&["delete", "--force", first.id()]).assert_ok();
    });
}

/// It is the container's from then on: its root is the bundle's, and nothing of what was there before is in reach.
#[test]
fn a_mount_namespace_is_joined() {
    check(|runtime| {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare of util-linux");
        // it says so when it is there
        holder.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("a line");
        let link = format!("/proc/{}/ns/mnt", holder.id());
        let theirs = fs::read_link(&link).expect("a namespace").display().to_string();
        let mut bundle = Bundle::of("readlink /proc/self/ns/mnt; sleep 1000");
        bundle.namespace("mount", Some(&link));
        create(runtime, &bundle, &[]);
        runtime.say(&["start", bundle.id()]).assert_ok();
        let inside = "readlink /proc/self/ns/mnt; cd ../../../../..; cat etc/passwd data/file";
        let told = runtime.say(&["exec", bundle.id(), "/bin/sh", "-c", inside]);
        runtime.say(&["delete", "--force", bundle.id()]).assert_ok();
        holder.kill().and_then(|()| holder.wait()).expect("it ends");
        let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        assert_eq!(told.assert_ok().stdout, format!("{theirs}\n{passwd}data\n"));
    });
}

#[test]
fn user_namespaces_of_others_are_joined() {
    check(|runtime| {
        let mut first = Bundle::of("sleep 1000");
        first.with_users();
        create(runtime, &first, &[]);
        let pid = state(runtime, first.id())["pid"].to_string();
        let mut second = Bundle::of("id -u; tr -s ' ' < /proc/self/uid_map; readlink /proc/self/ns/user");
        second.with_users().namespace("user", Some(&format!("/proc/{pid}/ns/user")));
        if runtime.name == "sampan" {
            // the maps are the namespace's own
            second.config["linux"]["uidMappings"] = json!([]);
            second.config["linux"]["gidMappings"] = json!([]);
        }
        let told = second.run(runtime).assert_ok().stdout;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
        assert_eq!(told, format!("0\n 0 100000 1000\n{}\n", theirs.display()));
        runtime.say(&["delete", "--force", first.id()]).assert_ok();
    });
}

#[test]
fn calls_are_asked_of_an_agent() {
    check(|runtime| {
        let mut bundle = Bundle::of("mkdir /asked 2>&1 | grep -c 'Text file busy'");
        let path = bundle.dir().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
            "listenerMetadata": "a note", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        let agent = std::thread::spawn(move || {
            let (connection, _) = listener.accept().expect("a connection");
            let (state, notified) = receive(&connection);
            answer_with_busy(&notified);
            serde_json::from_slice::<Value>(&state).expect("a state")
        });
        let told = bundle.run(runtime).assert_ok();
        assert_eq!(told.stdout, "1\n");
        let state = agent.join().expect("the agent");
        assert_eq!((&state["metadata"], &state["fds"]), (&json!("a note"), &json!(["seccompFd"])));
        assert_eq!(state["state"]["id"], bundle.id());
    });
}

/// Answers the next call with ETXTBSY (seccomp_unotify(2)), by way of a program: this crate has no unsafe code. Debian
/// and Ubuntu have a perl wherever they are installed.
fn answer_with_busy(notified: &OwnedFd) {
    let script = r#"
        my $call = "\0" x 80;
        ioctl(STDIN, 0xc0502100, $call) or die "receive: $!";
        my $answer = pack("Q q l L", unpack("Q", $call), 0, -26, 0);
        ioctl(STDIN, 0xc0182101, $answer) or die "send: $!";
    "#;
    let stdin = notified.as_fd().try_clone_to_owned().expect("a descriptor");
    let status = Command::new("perl").args(["-e", script]).stdin(stdin).status().expect("perl");
    assert!(status.success());
}

#[test]
fn failures_are_logged_for_callers() {
    check(|runtime| {
        let mut bundle = Bundle::of("");
        bundle.config["process"]["args"] = json!(["nowhere"]);
        let log = bundle.dir().join("log");
        let words = [
            "--log",
            log.to_str().expect("a path"),
            "--log-format",
            "json",
            "create",
            "--bundle",
            bundle.write(),
            bundle.id(),
        ];
        let told = runtime.say(&words);
        assert_eq!(told.code(), 1, "{told}");
        let text = fs::read_to_string(&log).expect("a log");
        let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        let message = last["msg"].as_str().expect("a message");
        assert_eq!(last["level"], "error");
        assert!(message.contains("nowhere") && message.contains("executable file not found in $PATH"), "{message}");
    });
}
