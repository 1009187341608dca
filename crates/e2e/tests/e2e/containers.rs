//! Containers from the shell: `run` as a program of this machine, terminals, signals, lists, restart policies.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::sampan::{SOON, body_of, outcome};
use sampan_e2e::terminal::Terminal;
use sampan_e2e::{Sampan, sources};
use sampan_testkit::{wait_for, wait_until};

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// Every byte there is, in no order that repeats soon.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Waits until a container's state is so, as `ps` has it.
#[track_caller]
fn until_state(sampan: &Sampan, name: &str, state: &str) {
    let words = ["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.State}}"];
    wait_until(&format!("{name} to be {state}"), SOON, || sampan.ok(&words) == state);
}

fn restarts(sampan: &Sampan, name: &str) -> u64 {
    sampan.inspect(name)["state"]["restarts"].as_u64().expect("a number")
}

#[test]
fn run_passes_words_on() {
    let sampan = with_busybox();
    fs::write(sampan.dir().join("vars"), "# of the test\nFROM_FILE=a b\nBOTH=file\n").expect("a file");
    let check = |words: &[&str], script: &str, expected: &str| {
        let told = sampan.ok(&[&["run", "--rm"], words, &["bb", "sh", "-c", script]].concat());
        assert_eq!(told, expected, "{words:?}");
    };
    check(&["-e", "BOTH=word", "--env-file", "vars"], "echo $FROM_FILE $BOTH", "a b word");
    check(&["-w", "/tmp", "-u", "7:8"], "pwd; id -u; id -g", "/tmp\n7\n8");
    check(&["-h", "box"], "hostname", "box");
    check(
        &["--tmpfs", "/t:size=1m,mode=700"],
        "stat -c %a /t; dd if=/dev/zero of=/t/x bs=1M count=2 2>/dev/null; echo $?",
        "700\n1",
    );
    check(&["--read-only", "--tmpfs", "/t"], "touch /x 2>/dev/null || touch /t/x && echo so", "so");
    check(&["-v", ".:/here:ro"], "ls /here/vars; touch /here/x 2>/dev/null || echo read-only", "/here/vars\nread-only");
    check(&["--init"], "true; tr '\\0' ' ' < /proc/1/cmdline | head -c 0; echo $$", "2");
    assert_eq!(sampan.ok(&["run", "--rm", "--entrypoint", "echo", "bb", "one", "two"]), "one two");
    sampan.run(&["run", "--rm", "--restart", "always", "bb", "true"]).assert_fails(125, &["--rm", "--restart"]);
    sampan.run(&["run", "--rm", "-it", "bb", "true"]).assert_fails(125, &["not a terminal", "-i"]);
    sampan.run(&["run", "--pull", "always", "bb"]).assert_fails(125, &["sampan image load"]);
}

#[test]
fn run_is_a_program_of_this_machine() {
    let sampan = with_busybox();
    let mut command = sampan.command(&["run", "--rm", "-i", "bb", "sh", "-c", "cat; echo so >&2; exit 9"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let sent = bytes(3 << 20);
    let mut stdin = child.stdin.take().expect("its input");
    let written = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&written).expect("it reads all"));
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("the writer");
    assert!(output.stdout == sent, "{} bytes came back of {}", output.stdout.len(), sent.len());
    assert_eq!((output.stderr.as_slice(), output.status.code()), (&b"so\n"[..], Some(9)));
    for (program, code) in [("/none", 127), ("/etc/passwd", 126), ("false", 1)] {
        assert_eq!(sampan.run(&["run", "--rm", "bb", program]).code(), code, "{program}");
    }
    assert_eq!(sampan.containers().len(), 0, "--rm has removed them");
}

#[test]
fn a_reader_that_waits_loses_nothing() {
    let sampan = with_busybox();
    let mut command = sampan.command(&["run", "--rm", "bb", "seq", "1", "200000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("run");
    let mut stdout = child.stdout.take().expect("its output");
    let mut told = vec![0; 4096];
    stdout.read_exact(&mut told).expect("the beginning");
    // the pipes between are full by then; that it takes its time is the case
    std::thread::sleep(Duration::from_millis(500));
    stdout.read_to_end(&mut told).expect("the rest");
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(told == expected.as_bytes(), "{} of {} bytes", told.len(), expected.len());
    assert!(child.wait().expect("its end").success());
}

#[test]
fn nobody_to_read_ends_it() {
    let sampan = with_busybox();
    let mut command = sampan.command(&["run", "--name", "endless", "bb", "yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("run");
    child.stdout.take().expect("its output").read_exact(&mut [0; 100]).expect("the beginning");
    wait_for("run to end", SOON, || child.try_wait().expect("its status"));
    until_state(&sampan, "endless", "exited");
}

/// Runs a script in the foreground until it has said `ready`.
fn foreground(sampan: &Sampan, words: &[&str], script: &str) -> Child {
    let script = format!("{script}; echo ready; while :; do sleep 0.1; done");
    let mut command = sampan.command(&[words, &["bb", "sh", "-c", &script]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let mut word = [0; 6];
    child.stdout.as_mut().expect("its output").read_exact(&mut word).expect("its word");
    assert_eq!(&word, b"ready\n");
    child
}

#[track_caller]
fn code_after(child: &mut Child, signals: &[Signal]) -> i32 {
    for &signal in signals {
        kill_process(Pid::from_child(child), signal).expect("it can be signalled");
    }
    wait_for("run to end", SOON, || child.try_wait().expect("its status")).code().unwrap_or(-1)
}

#[test]
fn signals_are_handed_on() {
    let sampan = with_busybox();
    for (name, signal) in [("INT", Signal::INT), ("TERM", Signal::TERM), ("HUP", Signal::HUP), ("USR1", Signal::USR1)] {
        let mut child = foreground(&sampan, &["run", "--rm"], &format!("trap 'exit 5' {name}"));
        assert_eq!(code_after(&mut child, &[signal]), 5, "{name}");
    }
    // one that heeds nothing: who insists kills it
    let mut child = foreground(&sampan, &["run", "--rm"], "trap 'echo heard' INT");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it can be signalled");
    let mut word = [0; 6];
    child.stdout.as_mut().expect("its output").read_exact(&mut word).expect("its word");
    assert_eq!(&word, b"heard\n");
    assert_eq!(code_after(&mut child, &[Signal::INT]), 137);
}

#[test]
fn the_connection_is_lost_and_the_container_is_not() {
    let sampan = with_busybox();
    let mut child = foreground(&sampan, &["run", "--name", "kept"], "true");
    sampan.kill("daemon");
    assert_eq!(code_after(&mut child, &[]), 125);
    let mut said = String::new();
    child.stderr.take().expect("its words").read_to_string(&mut said).expect("its words");
    assert!(said.contains("`sampan attach kept`"), "{said}");
    until_state(&sampan, "kept", "running");
    sampan.ok(&["rm", "-f", "kept"]);
}

#[test]
fn a_terminal() {
    let sampan = with_busybox();
    let mut terminal = Terminal::of(&sampan.command(&["run", "-it", "--name", "tty", "bb", "sh"]));
    terminal.until("# ");
    assert!(!terminal.is_cooked());
    terminal.type_in("stty size\n");
    terminal.until("30 99");
    terminal.resize(40, 120);
    terminal.type_in("stty size\n");
    terminal.until("40 120");
    // Ctrl-C is the container's terminal's
    terminal.type_in("sleep 1000\n");
    wait_until("it to sleep in the foreground", SOON, || sampan.ok(&["top", "tty"]).contains("sleep 1000"));
    terminal.type_in("\x03");
    terminal.until("^C");
    terminal.until("# ");
    terminal.type_in("\x10\x11");
    terminal.until("`sampan attach tty` attaches to it again");
    assert_eq!(terminal.code(), 0);
    assert!(terminal.is_cooked());
    until_state(&sampan, "tty", "running");

    let mut terminal = Terminal::of(&sampan.command(&["attach", "--detach-keys", "ctrl-a,x", "tty"]));
    terminal.type_in("echo again\n");
    terminal.until("again\r\nagain");
    terminal.type_in("exit 6\n");
    assert_eq!(terminal.code(), 6);
    assert!(terminal.is_cooked());
}

#[test]
fn a_terminal_is_restored_on_every_way_out() {
    let sampan = with_busybox();
    let mut terminal = Terminal::of(&sampan.command(&[
        "run",
        "--rm",
        "-it",
        "bb",
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done",
    ]));
    terminal.until("up");
    assert!(!terminal.is_cooked());
    kill_process(Pid::from_child(terminal.program()), Signal::TERM).expect("it can be signalled");
    assert_eq!(terminal.code(), 3);
    assert!(terminal.is_cooked());

    let mut terminal = Terminal::of(&sampan.command(&["run", "-it", "--name", "lost", "bb", "sh"]));
    terminal.until("# ");
    sampan.kill("daemon");
    terminal.until("`sampan attach lost`");
    assert_eq!(terminal.code(), 125);
    assert!(terminal.is_cooked());
    sampan.ok(&["rm", "-f", "lost"]);
}

#[test]
fn exec_and_ssh() {
    let sampan = with_busybox();
    sampan.ok(&["run", "-d", "--name", "job", "-e", "OWN=1", "bb", "sleep", "1000"]);
    let script = "echo $OWN $MORE; pwd; id -u";
    assert_eq!(
        sampan.ok(&["exec", "-e", "MORE=2", "-w", "/tmp", "-u", "9", "job", "sh", "-c", script]),
        "1 2\n/tmp\n9"
    );
    for (program, code) in [("/none", 127), ("/etc/passwd", 126), ("false", 1)] {
        assert_eq!(sampan.run(&["exec", "job", program]).code(), code, "{program}");
    }
    assert_eq!(sampan.run(&["exec", "nobody", "true"]).code(), 125);
    let mut command = sampan.command(&["exec", "-i", "job", "cat"]);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"\0in\n").expect("room in a pipe");
    drop(writer);
    assert_eq!(outcome(command.stdin(OwnedFd::from(reader))).assert_ok().stdout, "\0in\n");
    sampan.ok(&["exec", "-d", "job", "sh", "-c", "echo done > /done"]);
    wait_until("the detached one to be done", SOON, || sampan.run(&["exec", "job", "cat", "/done"]).stdout == "done\n");

    let mut terminal = Terminal::of(&sampan.command(&["ssh", "job"]));
    terminal.until("# ");
    terminal.type_in("tty; exit 4\n");
    terminal.until("/dev/pts/");
    assert_eq!(terminal.code(), 4);
    sampan.run(&["ssh", "nobody"]).assert_fails(125, &["nobody"]);
    let probe = sources::fixture("probe");
    sampan.up(&probe, &[]);
    sampan.run(&["ssh", "probe"]).assert_fails(125, &["no shell", "sampan logs probe"]);
}

#[test]
fn several_names_go_on_past_failures() {
    let sampan = with_busybox();
    for name in ["one", "two"] {
        sampan.ok(&["create", "--name", name, "-l", "app=test", "bb", "sleep", "1000"]);
    }
    assert_eq!(sampan.ok(&["start", "one", "two"]), "one\ntwo");
    sampan.run(&["start", "-a", "one"]).assert_fails(125, &["running"]);
    sampan.ok(&["create", "--name", "said", "bb", "sh", "-c", "echo words; exit 7"]);
    for _ in 0..2 {
        let said = sampan.run(&["start", "-a", "said"]);
        assert_eq!((said.stdout.as_str(), said.code()), ("words\n", 7), "{said}");
    }
    sampan.ok(&["rm", "said"]);
    let stopped = sampan.run(&["stop", "one", "nobody", "two"]).assert_fails(1, &["nobody"]);
    assert_eq!(stopped.stdout, "one\ntwo\n");
    assert_eq!(sampan.ok(&["ps", "-q"]), "");
    let names = |words: &[&str]| sampan.ok(&[&["ps", "--format", "{{.Names}}"], words].concat());
    assert_eq!(names(&["--filter", "status=exited", "--filter", "label=app=test"]), "one\ntwo");
    assert_eq!(names(&["-l"]), "two");
    assert_eq!(names(&["-a", "--filter", "name=on"]), "one");
    assert_eq!(sampan.ok(&["wait", "one"]), "137");
    assert_eq!(sampan.ok(&["rename", "one", "three"]), "three");
    sampan.run(&["rm", "one", "two", "three"]).assert_fails(1, &["one"]);
    assert_eq!(sampan.containers().len(), 0);
}

#[test]
fn restart_policies() {
    let sampan = with_busybox();
    let run = |name: &str, policy: &str, script: &str| {
        sampan.ok(&["run", "-d", "--name", name, "--restart", policy, "bb", "sh", "-c", script]);
    };
    run("thrice", "on-failure:2", "echo began; exit 3");
    run("well", "on-failure", "exit 0");
    run("ever", "always", "sleep 0.2");
    run("long", "unless-stopped", "sleep 1000");
    run("hand", "unless-stopped", "sleep 1000");
    wait_until("it to be given up", SOON, || restarts(&sampan, "thrice") == 2);
    wait_until("it to be restarted", SOON, || restarts(&sampan, "ever") >= 2);
    until_state(&sampan, "thrice", "exited");
    assert_eq!(sampan.ok(&["logs", "thrice"]), "began\nbegan\nbegan");
    assert_eq!(restarts(&sampan, "well"), 0);
    // started by hand, it has as many tries again
    sampan.ok(&["start", "thrice"]);
    wait_until("it to be given up again", SOON, || sampan.ok(&["logs", "thrice"]).lines().count() == 6);
    until_state(&sampan, "thrice", "exited");

    // what its user stops stays so; what dies does not
    sampan.ok(&["stop", "-t", "0", "hand", "ever"]);
    let pid = sampan.inspect("long")["state"]["pid"].as_i64().expect("its pid");
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("it can be killed");
    wait_until("it to be started again", SOON, || restarts(&sampan, "long") == 1);
    let stopped = restarts(&sampan, "ever");
    sampan.ok(&["daemon", "restart"]);
    wait_until("always to mean after the daemon's start", SOON, || restarts(&sampan, "ever") > stopped);
    until_state(&sampan, "hand", "exited");
    sampan.ok(&["daemon", "stop"]);
    until_state(&sampan, "long", "running");
    until_state(&sampan, "hand", "exited");
    sampan.ok(&["rm", "-f", "ever"]);
    let left = sampan.run(&["inspect", "ever"]);
    assert_eq!(left.code(), 1, "{left}");
}

#[test]
fn the_name_of_one_that_goes_at_its_end_is_free_then() {
    let sampan = with_busybox();
    for _ in 0..3 {
        sampan.ok(&["run", "-d", "--rm", "--name", "job", "bb", "true"]);
        let gone_or_ended = || sampan.containers().iter().all(|one| one["state"]["status"] == "exited");
        wait_until("its end", SOON, gone_or_ended);
    }
    sampan.ok(&["run", "-d", "--name", "job", "bb", "true"]);
    until_state(&sampan, "job", "exited");
    sampan.run(&["run", "-d", "--name", "job", "bb", "true"]).assert_fails(125, &["in use"]);
}

#[test]
fn a_policy_waits_for_the_server() {
    let sampan = with_busybox();
    sampan.ok(&["server", "create", "lab"]);
    let run = ["run", "-d", "--name", "crash", "--server", "lab", "--restart", "always", "bb", "sh", "-c", "exit 1"];
    sampan.ok(&run);
    // one that nothing keeps from its tries tells when they are due
    sampan.ok(&["run", "-d", "--name", "witness", "--restart", "always", "bb", "sh", "-c", "exit 1"]);
    wait_until("its pause to be long enough to be in", SOON, || restarts(&sampan, "crash") >= 4);
    sampan.ok(&["server", "stop", "lab"]);
    // no try comes of it, nor is one counted
    let before = restarts(&sampan, "crash");
    wait_until("two more tries to be due", SOON, || restarts(&sampan, "witness") > before + 1);
    assert_eq!(restarts(&sampan, "crash"), before);
    sampan.ok(&["server", "start", "lab"]);
    wait_until("it to be started with its server", SOON, || restarts(&sampan, "crash") > before);
}

#[test]
fn restarts_are_no_storm() {
    let sampan = with_busybox();
    for number in 0..20 {
        let name = format!("crash-{number}");
        sampan.ok(&["run", "-d", "--name", &name, "--restart", "always", "bb", "false"]);
    }
    wait_until("each to have come back a few times", SOON, || {
        let all = sampan.containers();
        all.iter().all(|one| one["state"]["restarts"].as_u64() >= Some(3))
    });
    // the pauses double: within two seconds nobody has come back more often than that
    let start = Instant::now();
    sampan.ok(&["ps"]);
    assert!(start.elapsed() < Duration::from_secs(5), "the daemon answers meanwhile");
    let most = sampan.containers().iter().filter_map(|one| one["state"]["restarts"].as_u64()).max();
    assert!(most <= Some(12), "{most:?}");
}

#[test]
fn servers_from_the_shell() {
    let sampan = with_busybox();
    assert_eq!(sampan.ok(&["server", "create", "box", "--cpus", "0.5", "--memory", "64MiB"]), "box");
    sampan.ok(&["server", "run", "box", "-d", "--name", "job", "bb", "sleep", "1000"]);
    assert_eq!(sampan.ok(&["server", "run", "box", "--rm", "bb", "hostname"]), "box");
    assert_eq!(sampan.ok(&["run", "--server", "box", "--rm", "bb", "echo", "so"]), "so");
    sampan.run(&["run", "--server", "nobody", "bb", "true"]).assert_fails(125, &["nobody"]);
    sampan.run(&["run", "--server", "box", "-h", "other", "bb", "true"]).assert_fails(125, &["--server"]);
    sampan.ok(&["server", "resize", "box", "--memory", "96MiB"]);
    let listed = sampan.json(&["server", "ls", "--json"]);
    assert_eq!((listed[0]["name"].as_str(), listed[0]["memory_bytes"].as_u64()), (Some("box"), Some(96 << 20)));
    let mut shell = sampan.command(&["ssh", "box"]);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"hostname; exit 3\n").expect("room in a pipe");
    drop(writer);
    let told = outcome(shell.stdin(OwnedFd::from(reader)));
    assert_eq!((told.stdout.as_str(), told.code()), ("box\n", 3), "{told}");

    let url = sampan.ok(&["server", "deploy", "box", sources::fixture("probe").to_str().expect("a path in UTF-8")]);
    assert_eq!(body_of(&url), "probe one");
    sampan.ok(&["server", "stop", "-t", "0", "box"]);
    until_state(&sampan, "job", "exited");
    sampan.run(&["ssh", "box"]).assert_fails(125, &["no container runs", "sampan server run box"]);
    sampan.ok(&["server", "start", "box"]);
    until_state(&sampan, "job", "running");
    assert_eq!(body_of(&url), "probe one");
    assert_eq!(sampan.ok(&["server", "close", "box"]), "box");
    assert_eq!(sampan.ok(&["server", "ls", "-q"]), "");
    assert_eq!(sampan.containers().len(), 0);
}
