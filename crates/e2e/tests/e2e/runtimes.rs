//! Containers that another OCI runtime executes: runc and crun, of Debian's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use sampan_e2e::sampan::SOON;
use sampan_e2e::terminal::Terminal;
use sampan_e2e::{Sampan, tools};
use sampan_testkit::wait_until;

const RUNTIMES: [(&str, &str); 2] = [("runc", "usr/sbin/runc"), ("crun", "usr/bin/crun")];

/// An instance whose daemon knows both, each by its name.
fn with_runtimes() -> Sampan {
    let sampan = Sampan::new();
    let setting = RUNTIMES.map(|(name, file)| {
        // unpacked, not installed: it finds its libraries by this
        let script = sampan.dir().join(name);
        let tool = tools::tool(name);
        let libraries = ["usr/lib", "lib"].map(|dir| tool.join(dir).join(tools::multiarch()).display().to_string());
        let program: PathBuf = tool.join(file);
        assert!(program.exists(), "{} is missing: run `cargo xtask tools`", program.display());
        let text = format!("#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n", libraries.join(":"), program.display());
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
        format!("{name}={}", script.display())
    });
    let sampan = sampan.with("SAMPAN_RUNTIMES", setting.join(":"));
    sampan.import_busybox();
    sampan
}

#[test]
fn what_they_run_is_a_container_as_any_other() {
    let sampan = with_runtimes();
    for (name, _) in RUNTIMES {
        let run = |words: &[&str]| sampan.run(&[&["run", "--rm", "--runtime", name], words].concat());
        let told = run(&["bb", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((told.stdout.as_str(), told.stderr.as_str(), told.code()), ("out\n", "err\n", 7), "{name}: {told}");
        assert_eq!(run(&["bb", "nothing"]).code(), 127, "{name}");
        assert_eq!(run(&["bb", "/etc/passwd"]).code(), 126, "{name}");
        // shut in as ours are: ids of its own, the same capabilities, a filter, a root file system that keeps its owners
        let look = "id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; head -n 1 /proc/self/uid_map; \
                    stat -c %u /etc/passwd; hostname; touch /written; ls -d /written; cat /proc/self/cgroup | head -n 1";
        let own = sampan.run(&["run", "--rm", "-h", "inside", "bb", "sh", "-c", look]).assert_ok().stdout;
        let theirs = run(&["-h", "inside", "bb", "sh", "-c", look]).assert_ok().stdout;
        let without_range = |text: &str| {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("0 ")).map(str::to_owned);
            lines.collect::<Vec<_>>()
        };
        assert_eq!(without_range(&theirs), without_range(&own), "{name}");
        assert!(run(&["bb", "mount", "-t", "tmpfs", "none", "/tmp"]).code() != 0, "{name} lets it mount");
        let user = run(&["--user", "1000:1000", "bb", "sh", "-c", "id -u; id -g; grep CapEff /proc/self/status"]);
        assert_eq!(user.assert_ok().stdout, "1000\n1000\nCapEff:\t0000000000000000\n", "{name}");
    }
}

#[test]
fn it_is_held_as_any_other() {
    let sampan = with_runtimes();
    for (name, _) in RUNTIMES {
        sampan.ok(&["volume", "create", "data"]);
        let work = "trap 'echo bye; exit 3' TERM; echo up; echo kept >> /data/kept; while :; do sleep 0.05; done";
        sampan.ok(&[
            "run",
            "-d",
            "--runtime",
            name,
            "--name",
            "job",
            "-v",
            "data:/data",
            "--tmpfs",
            "/memory",
            "bb",
            "sh",
            "-c",
            work,
        ]);
        let job = sampan.inspect("job");
        assert_eq!((job["runtime"].as_str(), job["state"]["status"].as_str()), (Some(name), Some("running")));
        wait_until("its output to be logged", SOON, || sampan.ok(&["logs", "job"]) == "up");
        let inside = sampan.ok(&[
            "exec",
            "job",
            "sh",
            "-c",
            "cat /data/kept; mount | grep -c ' /memory '; ps | grep -c '[t]rap .echo'",
        ]);
        assert_eq!(inside, "kept\n1\n1", "{name}");
        let usage = &sampan.json(&["stats", "--no-stream", "--json", "job"])[0];
        assert!(usage["pids"].as_u64() >= Some(1) && usage["cpu_us"].as_u64() > Some(0), "{name}: {usage}");

        sampan.ok(&["pause", "job"]);
        let pid = job["state"]["pid"].as_u64().expect("a pid");
        let state = || fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        assert!(state().contains(&job["id"].as_str().expect("an id")[..12]), "{name}: {}", state());
        sampan.run(&["exec", "job", "true"]).assert_fails(125, &["paused"]);
        sampan.ok(&["unpause", "job"]);

        // whoever goes away, it goes on, and its end is known
        sampan.kill("daemon");
        assert_eq!(sampan.ok(&["exec", "job", "cat", "/data/kept"]), "kept", "{name}");
        sampan.ok(&["stop", "job"]);
        assert_eq!(sampan.inspect("job")["state"]["exit_code"], 3, "{name}");
        assert_eq!(sampan.ok(&["logs", "job"]), "up\nbye", "{name}");
        sampan.ok(&["start", "job"]);
        assert_eq!(sampan.inspect("job")["state"]["status"], "running", "{name}");
        sampan.ok(&["rm", "-f", "job"]);
        sampan.ok(&["volume", "rm", "data"]);
    }
}

#[test]
fn it_has_a_terminal_input_and_a_server_of_several() {
    let sampan = with_runtimes();
    sampan.ok(&["server", "create", "lab"]);
    for (name, _) in RUNTIMES {
        let mut terminal =
            Terminal::of(&sampan.command(&["run", "--rm", "-it", "--runtime", name, "--name", name, "bb", "sh"]));
        terminal.until("# ");
        terminal.type_in("stty size; tty\n");
        terminal.until("30 99");
        terminal.until("/dev/pts/0");
        terminal.resize(40, 120);
        terminal.type_in("stty size\n");
        terminal.until("40 120");
        // Ctrl-C is the container's terminal's
        terminal.type_in("sleep 1000\n");
        wait_until("it to sleep in the foreground", SOON, || sampan.ok(&["top", name]).contains("sleep 1000"));
        terminal.type_in("\x03");
        terminal.until("^C");
        terminal.type_in("exit 4\n");
        assert_eq!(terminal.code(), 4, "{name}");
        let mut cat = sampan.command(&["run", "--rm", "-i", "--runtime", name, "bb", "cat"]);
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut writer, b"there and back").expect("room in a pipe");
        drop(writer);
        let told = sampan_e2e::sampan::outcome(cat.stdin(std::os::fd::OwnedFd::from(reader))).assert_ok();
        assert_eq!(told.stdout, "there and back", "{name}");

        sampan.ok(&["run", "-d", "--server", "lab", "--name", "neighbour", "bb", "sleep", "1000"]);
        let words = [
            "run",
            "--rm",
            "--server",
            "lab",
            "--runtime",
            name,
            "bb",
            "sh",
            "-c",
            "hostname; readlink /proc/self/ns/net",
        ];
        let (on_lab, neighbour) =
            (sampan.ok(&words), sampan.ok(&["exec", "neighbour", "readlink", "/proc/self/ns/net"]));
        assert_eq!(on_lab, format!("lab\n{neighbour}"), "{name}");
        sampan.ok(&["rm", "-f", "neighbour"]);
    }
}

#[test]
fn one_that_cannot_be_had_is_named() {
    let sampan = with_runtimes();
    sampan
        .run(&["run", "--runtime", "runx", "bb", "true"])
        .assert_fails(125, &["runx", "crun, runc", "SAMPAN_RUNTIMES"]);
    sampan.run(&["run", "--runtime", "/no/such", "bb", "true"]).assert_fails(125, &["/no/such", "cannot be run"]);
    sampan.run(&["run", "--init", "--runtime", "crun", "bb", "true"]).assert_fails(125, &["--init"]);
    // by its path, which is root's to say
    let path = sampan.dir().join("crun");
    assert_eq!(sampan.ok(&["run", "--rm", "--runtime", path.to_str().expect("UTF-8"), "bb", "echo", "so"]), "so");
    // one that fails says why, and nothing stays
    let broken = sampan.dir().join("broken");
    fs::write(&broken, "#!/bin/sh\necho \"it is broken\" >&2; exit 1\n").expect("a script");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("a mode");
    let broken = broken.to_str().expect("UTF-8");
    sampan.run(&["run", "--rm", "-d", "--runtime", broken, "bb", "true"]).assert_fails(125, &["broken create"]);
    assert_eq!(sampan.ok(&["ps", "-aq"]), "");
}
