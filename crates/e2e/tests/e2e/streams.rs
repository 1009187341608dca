//! Attach, exec, standard input and terminals, over the API's frames.

use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};
use sampan_e2e::Sampan;
use sampan_e2e::native::Native;
use sampan_e2e::sampan::{SOON, is_gone};
use sampan_e2e::stream::{Stream, Told, open};
use sampan_model::stream::Control;
use sampan_testkit::wait_until;
use serde_json::{Value, json};

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

/// Runs it attached, with what else is asked for.
#[track_caller]
fn run(sampan: &Sampan, command: &[&str], more: &Value) -> Stream {
    let mut body = json!({ "image": "bb", "command": command });
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let mut stream = open(sampan, "/v1/containers/attached", &body).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(matches!(stream.control(), Control::Created(_)), "its view comes first");
    stream
}

fn shell(sampan: &Sampan, script: &str, more: &Value) -> Stream {
    run(sampan, &["sh", "-c", script], more)
}

/// Asks for no stream: the status, and the JSON of the answer.
fn ask(sampan: &Sampan, path: &str, body: Option<&Value>) -> (u16, Value) {
    let answer = Native::of(sampan.root()).ask("POST", path, body).expect("an answer");
    (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
}

/// A container that does nothing.
fn idle(sampan: &Sampan) -> Pid {
    sampan.ok(&["run", "-d", "--name", "idle", "bb", "sleep", "1000"]);
    pid_of(sampan, "idle")
}

fn pid_of(sampan: &Sampan, name: &str) -> Pid {
    let pid = sampan.inspect(name)["state"]["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32));
    pid.unwrap_or_else(|| panic!("{name} does not run"))
}

fn exec(sampan: &Sampan, command: &[&str], more: &Value) -> Result<Stream, (u16, Value)> {
    let mut body = json!({ "command": command });
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let mut stream = open(sampan, "/v1/containers/idle/exec", &body)?;
    let started = stream.control();
    assert!(matches!(started, Control::Started { .. }), "{started:?}");
    Ok(stream)
}

#[track_caller]
fn exec_shell(sampan: &Sampan, script: &str, more: &Value) -> Told {
    exec(sampan, &["sh", "-c", script], more).unwrap_or_else(|error| panic!("{error:?}")).rest()
}

/// Every byte there is, in no order that repeats soon.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Sends all of it through, and compares what comes back.
fn there_and_back(stream: Stream) -> Told {
    let sent = bytes(10 << 20);
    let mut writer = stream.writer();
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write(&sent);
            writer.end();
        }
    });
    let told = stream.rest();
    writing.join().expect("all is sent");
    assert!(told.out == sent, "{} bytes came back, of {}", told.out.len(), sent.len());
    told
}

#[test]
fn ten_mebibytes_there_and_back() {
    let sampan = with_busybox();
    let told = there_and_back(run(&sampan, &["cat"], &json!({ "stdin": true, "remove_at_exit": true })));
    assert_eq!((told.exit_code(), told.error.len()), (Some(0), 0));
    idle(&sampan);
    let told = there_and_back(exec(&sampan, &["cat"], &json!({ "stdin": true })).expect("cat"));
    assert_eq!((told.exit_code(), told.error.len()), (Some(0), 0));
    assert_eq!(sampan.containers().len(), 1, "what is removed at its end is, before that is told");
}

#[test]
fn slow_reader_loses_nothing_and_slows_it_down() {
    let sampan = with_busybox();
    let script = "i=0; while [ $i -lt 20 ]; do head -c 100000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo; echo end";
    let mut stream = shell(&sampan, script, &json!({ "name": "slow" }));
    // 1 KiB each 10 ms for half a second, of 2 MB
    let mut count = 0;
    stream.control();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(10));
        let (_, payload) = stream.frame().expect("a frame").expect("it goes on");
        count += payload.len();
        if count > 300_000 {
            break;
        }
    }
    assert_eq!(sampan.inspect("slow")["state"]["status"], "running", "it waits for its reader");
    let others = shell(&sampan, "echo others do not wait", &json!({ "remove_at_exit": true })).rest();
    assert_eq!(others.text(), "others do not wait\n");
    let told = stream.rest();
    assert_eq!(count + told.out.len(), 20 * 100_000 + 5);
    assert!(told.out.ends_with(b"x\nend\n"));
    assert_eq!(told.exit_code(), Some(0));
}

#[test]
fn exits_are_told_as_they_are() {
    let sampan = with_busybox();
    let removed = json!({ "remove_at_exit": true });
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("echo words >&2; exit 255", 255), ("kill -9 $$ ; exit 3", 3)]
    {
        let told = shell(&sampan, script, &removed).rest();
        assert_eq!(told.exit_code(), Some(code), "{script}");
    }
    idle(&sampan);
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)] {
        assert_eq!(exec_shell(&sampan, script, &Value::Null).exit_code(), Some(code), "{script}");
    }
    for (command, code) in [("nowhere", "not_found_executable"), ("/etc", "not_executable")] {
        // of a container after the upgrade, as a frame
        let told = run(&sampan, &[command], &json!({ "name": "never" })).rest();
        let Some(Control::Failed(error)) = told.controls.last() else { panic!("{told:?}") };
        assert_eq!(error.code, code);
        // of exec before it, as an answer
        let (status, answer) = exec(&sampan, &[command], &Value::Null).expect_err(command);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)));
    }
    assert_eq!(sampan.containers().len(), 1, "what never ran is not kept");
}

#[test]
fn what_is_wrong_is_said_before_the_upgrade() {
    let sampan = with_busybox();
    idle(&sampan);
    sampan.ok(&["run", "-d", "--name", "ended", "bb", "true"]);
    wait_until("its end", SOON, || sampan.inspect("ended")["state"]["status"] == "exited");
    let refused = |path: &str, body: &Value, expected: (u16, &str)| {
        let (status, answer) = open(&sampan, path, body).expect_err(path);
        assert_eq!((status, answer["error"]["code"].as_str().unwrap_or_default()), expected, "{path} {body}: {answer}");
    };
    let ls = json!({ "command": ["ls"] });
    refused("/v1/containers/attached", &json!({ "image": "nothing" }), (404, "not_found"));
    refused(
        "/v1/containers/attached",
        &json!({ "image": "bb", "name": "idle", "command": ["ls"] }),
        (409, "name_taken"),
    );
    refused("/v1/containers/nobody/attach", &Value::Null, (404, "not_found"));
    refused("/v1/containers/ended/attach", &Value::Null, (409, "not_running"));
    refused("/v1/containers/ended/exec", &ls, (409, "not_running"));
    refused("/v1/containers/idle/exec", &json!({ "command": [] }), (400, "bad_request"));
    refused("/v1/containers/idle/exec", &json!({ "command": ["ls"], "user": "nobody-here" }), (400, "bad_request"));
    refused(
        "/v1/containers/idle/exec",
        &json!({ "command": ["ls"], "working_dir": "/nowhere" }),
        (400, "start_failed"),
    );
    // without the word that asks for a stream
    let (status, answer) = ask(&sampan, "/v1/containers/idle/exec", Some(&ls));
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")));
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("Upgrade")), "{answer}");

    assert_eq!(ask(&sampan, "/v1/containers/idle/pause", None).0, 204);
    refused("/v1/containers/idle/exec", &ls, (409, "paused"));
    assert_eq!(ask(&sampan, "/v1/containers/idle/unpause", None).0, 204);
    assert_eq!(exec_shell(&sampan, "echo on", &Value::Null).text(), "on\n");
}

#[test]
fn exec_is_in_the_container_as_whom_and_where_it_is_told() {
    let sampan = with_busybox();
    idle(&sampan);
    let script = "echo 'late:x:1234:1235::/home/late:/bin/sh' >> /etc/passwd; mkdir -p /work";
    exec_shell(&sampan, script, &Value::Null);
    let more =
        json!({ "user": "late", "working_dir": "/work", "env": [["GREETING", "hello there"], ["HOSTNAME", "other"]] });
    let told = exec_shell(&sampan, "id -u; id -g; pwd; echo $GREETING $HOME $HOSTNAME; cat", &more);
    assert_eq!(told.text(), "1234\n1235\n/work\nhello there /home/late other\n", "{told:?}");
    // its streams are its own to open again
    let told = exec_shell(&sampan, "echo out > /dev/stdout; echo error > /dev/stderr", &json!({ "user": "1000:7" }));
    assert_eq!((told.text().as_str(), &*told.error), ("out\n", &b"error\n"[..]));
    // nothing of the host is left open in it
    assert_eq!(exec_shell(&sampan, "ls /proc/self/fd | tr '\\n' ' '", &Value::Null).text(), "0 1 2 3 ");
    let told = exec_shell(&sampan, "cat /proc/1/comm; grep -c . /proc/net/dev", &Value::Null);
    assert_eq!(told.text().lines().next(), Some("sleep"), "among the container's processes");

    let (status, view) =
        ask(&sampan, "/v1/containers/idle/exec", Some(&json!({ "command": ["sleep", "1000"], "detach": true })));
    assert_eq!(status, 200);
    let pid = Pid::from_raw(view["pid"].as_i64().expect("a pid") as i32).expect("a pid");
    assert!(test_kill_process(pid).is_ok());
    // what is left behind is not waited for, and ends with its container
    assert_eq!(exec_shell(&sampan, "sleep 1000 & echo left", &Value::Null).text(), "left\n");
    sampan.ok(&["rm", "-f", "idle"]);
    wait_until("it to go with its container", SOON, || is_gone(pid));
}

#[test]
fn twenty_at_once() {
    let sampan = with_busybox();
    idle(&sampan);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let sampan = &sampan;
            scope.spawn(move || {
                let script = format!("head -c {number}00000 /dev/zero | wc -c; exit {number}");
                let told = exec_shell(sampan, &script, &Value::Null);
                assert_eq!(
                    (told.exit_code(), told.text().trim()),
                    (Some(number), &*format!("{}", u32::from(number) * 100_000))
                );
            });
        }
    });
}

#[test]
fn terminal_with_its_size_keys_and_jobs() {
    let sampan = with_busybox();
    let at = json!({ "stdin": true, "terminal": true, "terminal_size": { "rows": 33, "columns": 99 } });
    let mut stream = run(&sampan, &["sh"], &at);
    stream.write(b"stty size; tty; ls /dev/console; echo ready $((41 + 1))\n");
    let said = stream.until("ready 42");
    assert!(said.contains("33 99") && said.contains("/dev/pts/0"), "{said}");
    stream.resize(11, 22);
    stream.write(b"stty size; echo $TERM\n");
    stream.until("11 22\r\nxterm\r\n");
    // Ctrl-C ends what is in front, and not the shell
    stream.write(b"sleep 11011; echo code $?\n");
    stream.until("code $?\r\n");
    wait_until("sleep to be in front", SOON, || has_process("sleep 11011"));
    stream.write(b"\x03");
    // its prompt is back: the rest of the line went with it
    stream.write(b"echo still $((40 + 2))\n");
    stream.until("still 42");
    // Ctrl-Z halts it, and the shell's job control has it
    stream.write(b"set -m; sleep 22022\n");
    wait_until("sleep to be in front", SOON, || has_process("sleep 22022"));
    stream.write(b"\x1a");
    stream.until("Stopped");
    // it has to be told twice, as long as there are jobs
    stream.write(b"jobs; kill -KILL %1; exit 5\nexit 5\n");
    let told = stream.rest();
    assert!(told.text().contains("sleep 22022"), "{}", told.text());
    assert_eq!(told.exit_code(), Some(5));

    idle(&sampan);
    let mut stream = exec(&sampan, &["sh"], &at).expect("a shell");
    stream.write(b"stty size; tty; echo ready $((41 + 1))\n");
    let said = stream.until("ready 42");
    assert!(said.contains("33 99") && said.contains("/dev/pts/"), "{said}");
    stream.resize(44, 55);
    stream.write(b"stty size\n");
    // keys that come while it sets the terminal for its prompt are lost; the prompt may have come with the line before
    if !stream.until("44 55").rsplit("44 55").next().is_some_and(|rest| rest.contains("# ")) {
        stream.until("# ");
    }
    stream.write(b"\x04");
    assert_eq!(stream.rest().exit_code(), Some(0), "Ctrl-D ends the shell");
}

/// Whether any process of this machine has this command line.
fn has_process(command: &str) -> bool {
    let wanted: Vec<u8> = command.bytes().map(|byte| if byte == b' ' { 0 } else { byte }).chain([0]).collect();
    let entries = std::fs::read_dir("/proc").expect("the list of processes").flatten();
    entries.into_iter().any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted))
}

#[test]
fn attached_twice_and_gone_again() {
    let sampan = with_busybox();
    let script = "echo begun; while read line; do echo got $line; done; echo over; exit 4";
    let mut first = shell(&sampan, script, &json!({ "name": "echo", "stdin": true }));
    first.until("begun");
    let mut second = open(&sampan, "/v1/containers/echo/attach", &Value::Null).expect("one more");
    let mut deaf = open(&sampan, "/v1/containers/echo/attach?stdin=false", &Value::Null).expect("and another");
    second.write(b"one\n");
    deaf.write(b"never\n");
    for stream in [&mut first, &mut second, &mut deaf] {
        stream.until("got one\n");
    }
    // going away leaves everything as it is
    drop(first);
    second.writer().hang_up();
    drop(second);
    let mut third = open(&sampan, "/v1/containers/echo/attach", &Value::Null).expect("once more");
    third.write(b"two\n");
    third.until("got two\n");
    deaf.until("got two\n");
    third.end_input();
    let told = third.rest();
    assert_eq!((told.text().as_str(), told.exit_code()), ("over\n", Some(4)));
    assert_eq!(deaf.rest().exit_code(), Some(4));
    assert_eq!(sampan.ok(&["logs", "echo"]), "begun\ngot one\ngot two\nover", "and the log has all of it");
}

#[test]
fn signals_are_heard_while_nobody_reads() {
    let sampan = with_busybox();
    let script = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    let mut stream = shell(&sampan, script, &json!({ "stdin": true, "remove_at_exit": true }));
    stream.until("ready");
    stream.write(&vec![b'x'; 512 * 1024]);
    stream.signal("USR1");
    let told = stream.rest();
    assert_eq!((told.text().as_str(), told.exit_code()), ("caught\n", Some(9)));
    idle(&sampan);
    let mut stream = exec(&sampan, &["sh", "-c", script], &Value::Null).expect("a shell");
    stream.until("ready");
    stream.signal("SIGUSR1");
    assert_eq!(stream.rest().exit_code(), Some(9));
}

#[test]
fn who_hangs_up_takes_an_exec_s_terminal_along() {
    let sampan = with_busybox();
    idle(&sampan);
    let mut stream = exec(&sampan, &["sh"], &json!({ "stdin": true, "terminal": true })).expect("a shell");
    stream.write(b"echo pid is $((1)); sleep 33033\n");
    stream.until("pid is 1");
    wait_until("sleep to be in front", SOON, || has_process("sleep 33033"));
    stream.writer().hang_up();
    drop(stream);
    wait_until("the shell and its sleep to be gone", SOON, || !has_process("sleep 33033"));
    assert_eq!(sampan.inspect("idle")["state"]["status"], "running");
}

#[test]
fn daemon_killed_under_an_attached_container() {
    let sampan = with_busybox();
    let script = "echo begun; while read line; do echo got $line; done; exit 6";
    let mut stream = shell(&sampan, script, &json!({ "name": "echo", "stdin": true }));
    stream.until("begun");
    let pid = pid_of(&sampan, "echo");
    sampan.kill("daemon");
    while let Ok(Some(_)) = stream.frame() {}
    assert!(test_kill_process(pid).is_ok(), "the app goes on");
    assert_eq!(pid_of(&sampan, "echo"), pid, "and the next daemon has it");
    let mut stream = open(&sampan, "/v1/containers/echo/attach", &Value::Null).expect("its input is still there");
    stream.write(b"again\n");
    stream.until("got again");
    // the logger's death is nobody's end either
    sampan.kill("logger");
    stream.write(b"and again\n");
    wait_until("it in the log", SOON, || sampan.ok(&["logs", "echo"]).contains("got and again"));
    stream.write(b"last\n");
    stream.until("got last");
    stream.end_input();
    assert_eq!(stream.rest().exit_code(), Some(6));
}

#[test]
fn exec_is_fast() {
    let sampan = with_busybox();
    idle(&sampan);
    let mut took: Vec<Duration> = (0..40)
        .map(|_| {
            let since = Instant::now();
            assert_eq!(exec(&sampan, &["true"], &Value::Null).expect("true").rest().exit_code(), Some(0));
            since.elapsed()
        })
        .collect();
    took.sort();
    println!("exec: p50 {:?}, p90 {:?} (debug build)", took[20], took[36]);
    assert!(took[20] < Duration::from_millis(100), "{:?}", took[20]);
}
