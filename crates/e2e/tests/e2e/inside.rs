//! What a container sees, and what it is shut in by.

use std::fs;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_model::instance::Instance;
use sampan_testkit::outside::NEAR;
use sampan_testkit::{Outside, wait_for, wait_until};

/// An instance with the image `bb`.
fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// A field of `/proc/PID/status`.
fn status_of(pid: u64, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process's status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field} of {text}")).trim().to_owned()
}

#[test]
fn processes_names_and_addresses_of_its_own() {
    let sampan = with_busybox();
    let check = |script: &str, expected: &str| assert_eq!(sampan.shell(script), expected, "{script}");
    check("echo $$", "1");
    // the shell, and the ls that looks: one after the other, as a pipe's second end may come later
    check("ls /proc > /dev/shm/seen; grep -c '^[0-9]' /dev/shm/seen", "2");
    check("cat /proc/1/comm; true", "sh");
    check("ls /sys/class/net | sort | tr '\\n' ' '", "eth0 lo");
    check("grep nameserver /etc/resolv.conf", "nameserver 127.0.0.11");
    check("id -u", "0");
    // answered by the edge, without asking anybody
    assert!(sampan.run(&["run", "--rm", "bb", "nslookup", "x.internal"]).stdout.contains("NXDOMAIN"));
    assert_eq!(sampan.ok(&["run", "--rm", "--name", "Some_Name", "bb", "hostname"]), "some-name");

    let id = sampan.ok(&["run", "-d", "--name", "sleeper", "bb", "sleep", "1000"]);
    let address = sampan.inspect("sleeper")["server"]["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with("10."), "{address}");
    assert!(sampan.ok(&["ps", "--quiet"]).lines().any(|line| id.starts_with(line)));
    let hosts = sampan.shell("ip -4 addr show eth0");
    assert!(hosts.contains("/32") && !hosts.contains(&format!("{address}/")), "an address of its own: {hosts}");
    sampan.ok(&["rm", "-f", "sleeper"]);
}

#[test]
fn output_and_exit_codes_are_the_program_s() {
    let sampan = with_busybox();
    let check = |script: &str, code: i32, stdout: &str, stderr: &str| {
        let outcome = sampan.run(&["run", "--rm", "bb", "sh", "-c", script]);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (code, stdout), "{outcome}");
        assert!(outcome.stderr.contains(stderr), "{outcome}");
    };
    check("echo out; echo err >&2", 0, "out\n", "err");
    check("exit 7", 7, "", "");
    // the first process itself takes no signals from inside
    check("kill -9 $$; sh -c 'kill -9 $$'; exit $?", 137, "", "");
    check("printf 'no end of line'", 0, "no end of line", "");
    check("head -c 3000000 /dev/zero | tr '\\0' x", 0, &"x".repeat(3_000_000), "");
    assert_eq!(sampan.run(&["run", "--rm", "bb", "/none"]).code(), 127);
    assert_eq!(sampan.run(&["run", "--rm", "bb", "/etc/passwd"]).code(), 126);
    assert_eq!(sampan.run(&["run", "--rm", "no-such-image", "true"]).code(), 125);
    assert_eq!(sampan.json(&["ps", "-a", "--json"]), serde_json::json!([]));
}

#[test]
fn the_host_s_files_are_out_of_reach() {
    let sampan = with_busybox();
    let secret = sampan.dir().join("secret");
    fs::write(&secret, "of the host").expect("a file of the host");
    let script = format!("cat {0} /proc/1/root{0} /proc/self/cwd{0}; ls -a /", secret.display());
    let outcome = sampan.run(&["run", "--rm", "bb", "sh", "-c", &script]);
    assert!(!outcome.stdout.contains("of the host"), "{outcome}");
    assert!(!outcome.stdout.lines().any(|name| ["root", "home", "var", "lost+found"].contains(&name)), "{outcome}");
    // no mount of the host's is in its list, and none can be made or entered
    let mounts = sampan.shell("cat /proc/self/mountinfo");
    assert!(!mounts.contains(sampan.root().to_str().expect("a path in UTF-8")), "{mounts}");
    for script in [
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /sys",
        "mount --bind / /tmp",
        "umount /proc",
        "unshare -m true",
        "unshare -n true",
        "chroot /proc/1/root/.. true && mount -t proc x /tmp",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/uevent_helper",
        "test -n \"$(head -c 1 /proc/kcore)\"",
        "hostname other",
        "date -s 2000-01-01; test $(date +%Y) = 2000",
        "insmod /none.ko || test $? = 38",
    ] {
        let outcome = sampan.run(&["run", "--rm", "bb", "sh", "-c", script]);
        if !script.starts_with("insmod") {
            assert!(!outcome.status.success(), "this must not work: {outcome}");
        }
    }
}

#[test]
fn devices_are_a_handful_of_harmless_ones() {
    let sampan = with_busybox();
    let listed = sampan.shell("find /dev -type b -o -type c | sed 's,^/dev/,,'");
    for name in listed.lines() {
        assert!(
            ["null", "zero", "full", "random", "urandom", "tty", "pts/ptmx"].contains(&name),
            "/dev holds {listed}"
        );
    }
    assert!(sampan.shell("echo x > /dev/null; head -c 4 /dev/urandom | wc -c").contains('4'));
    for node in ["b 8 0", "b 254 0", "c 1 1"] {
        let script = format!("mknod /tmp/node {node} && head -c 1 /tmp/node");
        let outcome = sampan.run(&["run", "--rm", "bb", "sh", "-c", &script]);
        assert!(!outcome.status.success(), "{outcome}");
    }
}

#[test]
fn root_is_not_root_outside() {
    let sampan = with_busybox();
    sampan.ok(&["run", "-d", "--name", "sleeper", "bb", "sh", "-c", "touch /mine; chmod 4755 /mine; exec sleep 1000"]);
    let container = sampan.inspect("sleeper");
    let pid = container["state"]["pid"].as_u64().expect("a pid");
    let uids = status_of(pid, "Uid");
    for uid in uids.split_whitespace() {
        assert!(uid.parse::<u32>().expect("a number") >= 1_000_000_000, "{uids}");
    }
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    assert_eq!(status_of(pid, "Seccomp"), "2");
    // Docker's fourteen
    assert_eq!(status_of(pid, "CapEff"), "00000000a80425fb");
    assert_eq!(status_of(pid, "CapBnd"), "00000000a80425fb");
    // what it wrote is setuid root on the disk, and nobody else may come near it
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(sampan.root().join("containers")).expect("the containers' directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // nor do two containers share ids
    sampan.ok(&["run", "-d", "--name", "other", "bb", "sleep", "1000"]);
    let other = sampan.inspect("other")["state"]["pid"].as_u64().expect("a pid");
    assert_ne!(uids, status_of(other, "Uid"));
}

#[test]
fn an_app_is_not_even_root_inside() {
    let sampan = Sampan::new();
    sampan.up(&sampan_e2e::sources::fixture("probe"), &[]);
    let pid = sampan.inspect("probe")["replicas"][0]["state"]["pid"].as_u64().expect("a pid");
    assert_eq!(status_of(pid, "CapEff"), "0000000000000000");
}

#[test]
fn over_the_memory_limit_only_its_own_processes_die() {
    let sampan = with_busybox();
    let id = sampan.ok(&["run", "-d", "--name", "neighbour", "bb", "sleep", "1000"]);
    let script = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo code $?";
    let outcome = sampan.run(&["run", "--name", "hungry", "--memory", "32MiB", "bb", "sh", "-c", script]);
    assert!(outcome.stdout.contains("code 137"), "{outcome}");
    let state = &sampan.inspect("hungry")["state"];
    assert_eq!((&state["oom_killed"], &state["status"]), (&true.into(), &"exited".into()));
    let neighbour = &sampan.inspect("neighbour");
    assert_eq!((&neighbour["state"]["status"], &neighbour["id"]), (&"running".into(), &id.into()));
    assert_eq!(neighbour["state"]["oom_killed"], false);
}

#[test]
fn a_fork_bomb_stays_inside() {
    let sampan = with_busybox();
    let bomb = "bomb() { bomb | bomb & }; (bomb) & exec tail -f /dev/null";
    sampan.ok(&["run", "-d", "--name", "bomb", "--cpus", "0.5", "--memory", "128MiB", "bb", "sh", "-c", bomb]);
    let pid = sampan.inspect("bomb")["state"]["pid"].as_u64().expect("a pid");
    let pids = fs::read_link(format!("/proc/{pid}/ns/pid")).expect("its pid namespace");
    let count = || {
        let entries = fs::read_dir("/proc").expect("the list of processes").flatten();
        entries.filter(|entry| fs::read_link(entry.path().join("ns/pid")).is_ok_and(|other| other == pids)).count()
    };
    wait_until("the bomb to go off", SOON, || count() > 50);
    // others start beside it
    assert_eq!(sampan.shell("echo fine"), "fine");
    assert!(count() <= 4096);
    sampan.ok(&["rm", "-f", "bomb"]);
    wait_until("nothing of the bomb to be left", SOON, || count() == 0);
}

#[test]
fn a_server_has_no_more_processor_than_it_was_given() {
    let sampan = with_busybox();
    sampan.ok(&["run", "-d", "--name", "spinner", "--cpus", "0.1", "bb", "sh", "-c", "while :; do :; done"]);
    let pid = sampan.inspect("spinner")["state"]["pid"].as_u64().expect("a pid");
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its statistics");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    // 100 ticks are a second of a processor, which a tenth of one needs ten for
    let (before, start) = (ticks(), std::time::Instant::now());
    wait_for("a fifth of a second of work", SOON, || (ticks() >= before + 20).then_some(()));
    let took = start.elapsed();
    assert!(took.as_millis() >= 1_200, "0.2 s of work in {took:?}");
}

#[test]
fn servers_cannot_reach_one_another() {
    let sampan = with_busybox();
    let serve = "echo HTTP/1.0 200 OK > /tmp/answer; exec nc -ll -p 8000 -e cat /tmp/answer";
    sampan.ok(&["run", "-d", "--name", "server", "bb", "sh", "-c", serve]);
    let address = sampan.inspect("server")["server"]["address"].as_str().expect("an address").to_owned();
    let reached = || std::net::TcpStream::connect((address.as_str(), 8000)).is_ok();
    wait_until("the host to reach it", SOON, reached);
    let script = format!("nc -w 2 {address} 8000 < /dev/null");
    let outcome = sampan.run(&["run", "--rm", "bb", "sh", "-c", &script]);
    assert!(!outcome.status.success() && outcome.stdout.is_empty(), "{outcome}");
}

#[test]
fn the_way_out_is_under_the_host_s_address() {
    let sampan = with_busybox();
    let outside = Outside::new();
    let (listener, address) = outside.listen();
    let answer = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("somebody comes");
        std::io::Write::write_all(&mut stream, b"hello from out there").expect("it is still there");
        from
    });
    let script = format!("nc -w 10 {} {} < /dev/null", address.ip(), address.port());
    assert_eq!(sampan.shell(&script), "hello from out there");
    assert_eq!(answer.join().expect("a caller").ip(), NEAR);
}

#[test]
fn cgroups_are_this_instance_s() {
    let sampan = with_busybox();
    sampan.ok(&["run", "-d", "--name", "sleeper", "bb", "sleep", "1000"]);
    let pid = sampan.inspect("sleeper")["state"]["pid"].as_u64().expect("a pid");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let own = Instance::of_root(sampan.root()).cgroup_name();
    for controller in ["memory", "pids", "cpu"] {
        let line = groups.lines().find(|line| line.contains(controller) || line.starts_with("0::"));
        assert!(line.is_some_and(|line| line.contains(&own)), "{controller} in {groups}");
    }
    // from inside, its own group is the root of all
    let inside = sampan.shell("cat /proc/self/cgroup");
    assert!(!inside.contains(&own), "{inside}");
}
