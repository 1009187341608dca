//! What goes in and out: followers, input, terminals, further processes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use sampan_model::ContainerId;
use sampan_model::view::{LogFrame, TerminalSize};
use sampan_runtime::defaults::DEFAULT_CAPABILITIES;
use sampan_runtime::supervisor;
use sampan_runtime::wire::{Event, ExecSpec, Failure, ProcessSpec, Reply, Request};

use super::lifecycle::{kill, reap_orphan};
use super::{Layer, Machine, Test};
use crate::harness::{PATIENCE, process};

pub(super) const TESTS: &[Test] = &[
    ("a_follower_gets_every_byte", a_follower_gets_every_byte),
    ("a_slow_follower_slows_its_container_alone", a_slow_follower_slows_its_container_alone),
    ("a_follower_may_go", a_follower_may_go),
    ("a_logger_s_death_ends_its_followers", a_logger_s_death_ends_its_followers),
    ("input_is_piped_to_its_end", input_is_piped_to_its_end),
    ("input_outlives_daemon_and_supervisor", input_outlives_daemon_and_supervisor),
    ("a_terminal_is_its_own", a_terminal_is_its_own),
    ("a_terminal_s_last_words_are_heard", a_terminal_s_last_words_are_heard),
    ("one_more_process_is_as_sealed", one_more_process_is_as_sealed),
    ("one_more_process_says_why_not", one_more_process_says_why_not),
    ("further_processes_end_with_their_container", further_processes_end_with_their_container),
    ("one_more_process_at_a_terminal", one_more_process_at_a_terminal),
    ("many_more_processes_at_once", many_more_processes_at_once),
    ("what_is_kept_from_its_program_is_given_up", what_is_kept_from_its_program_is_given_up),
];

/// Follows it from now on.
fn follow(machine: &Machine<'_>, id: &ContainerId) -> Result<File, Failure> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    machine.call(Request::Follow { id: id.clone() }, &[write.as_fd()])?;
    Ok(read.into())
}

/// Starts it, followed from its first byte on.
fn start_followed(machine: &Machine<'_>, spec: &crate::harness::Spec) -> File {
    let (_, fds) = machine.create(spec).expect("a child");
    let followed = follow(machine, &spec.id).expect("a follower");
    machine.go(spec, &fds).expect("a start");
    followed
}

/// The next frame; `None` at the end. Half a frame is no frame.
fn next_frame(pipe: &mut File) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; LogFrame::HEAD];
    pipe.read_exact(&mut head).ok()?;
    let frame = LogFrame::decode(head).expect("a frame");
    if frame == LogFrame::END {
        return None;
    }
    assert!(frame.at_ns > 1_000_000_000_000_000_000, "{frame:?}");
    let mut payload = vec![0; frame.length as usize];
    pipe.read_exact(&mut payload).ok()?;
    Some((frame.stream, payload))
}

/// All that comes, by stream.
fn rest(mut pipe: File) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut error) = (Vec::new(), Vec::new());
    while let Some((stream, payload)) = next_frame(&mut pipe) {
        if stream == 1 { &mut out } else { &mut error }.extend(payload);
    }
    (out, error)
}

/// What its standard output says until it has said that.
fn wait_for_words(pipe: &mut File, words: &str) -> String {
    let mut said = String::new();
    while !said.contains(words) {
        let (_, payload) = next_frame(pipe).unwrap_or_else(|| panic!("it ended before {words:?}: {said:?}"));
        said.push_str(&String::from_utf8_lossy(&payload));
    }
    said
}

fn input(machine: &Machine<'_>, id: &ContainerId) -> Option<File> {
    let (_, fds) = machine.call(Request::Input { id: id.clone() }, &[]).expect("an input");
    fds.into_iter().next().map(File::from)
}

/// To a descriptor that does not block.
fn write_all(mut to: &File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(to, PollFlags::OUT)], None).expect("room");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn flood(lines: usize) -> Vec<u8> {
    [vec![b'x'; 999], b"\n".into()].concat().repeat(lines)
}

fn a_follower_gets_every_byte(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["flood=300", "stderr=words", "exit=3"]);
    let (_, fds) = machine.create(&spec).expect("a child");
    let two = [0; 2].map(|_| follow(&machine, &spec.id).expect("a follower"));
    machine.go(&spec, &fds).expect("a start");
    let readers = two.map(|followed| std::thread::spawn(move || rest(followed)));
    assert_eq!(machine.exited(&spec.id).exit_code, Some(3));
    let expected = ([flood(300), b"flood: flooded\nstderr: ok\n".into()].concat(), b"words\n".to_vec());
    for reader in readers {
        assert!(reader.join().expect("what it wrote") == expected);
    }
    machine.logged(&spec.id);
    assert_eq!(machine.output(&spec.id).len(), 303, "and the log is as ever");
    let late = follow(&machine, &spec.id).expect_err("it has ended");
    assert!(late.message.contains("has ended"), "{late}");
}

fn a_slow_follower_slows_its_container_alone(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["flood=3000", "exit=0"]);
    let mut followed = start_followed(&machine, &spec);
    let mut read = vec![0; 40 * 1024];
    for piece in read.chunks_mut(1024) {
        followed.read_exact(piece).expect("it writes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    // others go on meanwhile, at their own pace
    assert_eq!(machine.run(&machine.spec(&["flood=1000", "exit=4"])).0, Some(4));
    assert_eq!(machine.events.try_recv().err(), Some(TryRecvError::Empty), "it has not ended: nobody reads it");
    let log = std::fs::metadata(machine.config.log_dir.join(format!("{}.log", spec.id))).expect("its log").len();
    assert!(log < 1_000_000, "what nobody has read is in its pipes, and not in the log: {log}");
    let mut all = read;
    followed.read_to_end(&mut all).expect("the rest");
    let mut out = Vec::new();
    let mut at = &all[..];
    while let Some((head, after)) = at.split_first_chunk::<{ LogFrame::HEAD }>() {
        let length = LogFrame::decode(*head).expect("a frame").length as usize;
        out.extend_from_slice(&after[..length]);
        at = &after[length..];
    }
    assert!(out == [flood(3000), b"flood: flooded\n".into()].concat(), "{} bytes", out.len());
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
}

fn a_follower_may_go(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["flood=1000", "exit=0"]);
    let (_, fds) = machine.create(&spec).expect("a child");
    let gone: Vec<File> = (0..3).map(|_| follow(&machine, &spec.id).expect("a follower")).collect();
    let mut stays = follow(&machine, &spec.id).expect("a follower");
    machine.go(&spec, &fds).expect("a start");
    next_frame(&mut stays).expect("a frame");
    // in the middle of what they were to be sent
    drop(gone);
    rest(stays);
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
    machine.logged(&spec.id);
}

fn a_logger_s_death_ends_its_followers(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["cat"]);
    spec.stdin = true;
    let mut followed = start_followed(&machine, &spec);
    let input = input(&machine, &spec.id).expect("an input");
    write_all(&input, b"one");
    wait_for_words(&mut followed, "one");
    kill(machine.welcome.logger);
    assert_eq!(rest(followed), (Vec::new(), Vec::new()), "its end is told");
    // asked for before there is another logger, or after: as well; of the one that is dying only the end is heard
    let mut followed = loop {
        let mut followed = follow(&machine, &spec.id).expect("a follower");
        write_all(&input, b"2");
        if next_frame(&mut followed).is_some() {
            break followed;
        }
    };
    write_all(&input, b"three");
    wait_for_words(&mut followed, "three");
    drop(input);
    machine.call(Request::CloseInput { id: spec.id.clone() }, &[]).expect("its end");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
    assert!(rest(followed).0.starts_with(b"cat: "));
}

fn input_is_piped_to_its_end(layer: &Layer) {
    const LENGTH: usize = 10 << 20;
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["cat", "exit=0"]);
    assert!(spec.terminal.is_none());
    spec.stdin = true;
    spec.process.uid = 1000;
    let followed = start_followed(&machine, &spec);
    let to = input(&machine, &spec.id).expect("an input");
    // every byte there is, in no order that repeats soon
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at * 31 + at / 251) as u8).collect();
    let read = std::thread::spawn(move || rest(followed).0);
    write_all(&to, &bytes);
    drop(to);
    machine.call(Request::CloseInput { id: spec.id.clone() }, &[]).expect("its end");
    assert!(input(&machine, &spec.id).is_none(), "that was all");
    let mut read = read.join().expect("what it wrote");
    let last = read.split_off(LENGTH.min(read.len()));
    assert_eq!(String::from_utf8_lossy(&last), format!("cat: {LENGTH}\n"));
    assert!(read == bytes);
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
    let none = machine.spec(&["cat", "wait"]);
    let mut followed = start_followed(&machine, &none);
    wait_for_words(&mut followed, "cat: 0\n");
    assert!(input(&machine, &none.id).is_none(), "it was to have none");
}

fn input_outlives_daemon_and_supervisor(layer: &Layer) {
    let mut machine = Machine::start(layer);
    let mut spec = machine.spec(&["cat"]);
    spec.stdin = true;
    machine.start_container(&spec).expect("a start");
    let kept = input(&machine, &spec.id).expect("an input");
    write_all(&kept, b"one ");
    machine.reconnect();
    write_all(&input(&machine, &spec.id).expect("an input"), b"two ");

    let pid = machine.welcome.containers[0].pid;
    kill(Some(machine.welcome.pid));
    reap_orphan(machine.welcome.pid);
    supervisor::start(&machine.config).expect("another supervisor");
    machine.reconnect();
    let again = input(&machine, &spec.id).expect("the same input");
    write_all(&again, b"three");
    drop((kept, again));
    let mut followed = follow(&machine, &spec.id).expect("a follower");
    machine.call(Request::CloseInput { id: spec.id.clone() }, &[]).expect("its end");
    wait_for_words(&mut followed, "cat: 13\n");
    reap_orphan(pid);
    machine.exited(&spec.id);
}

const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 77 };

fn a_terminal_is_its_own(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&[
        "tty",
        "owner=/dev/pts/0",
        "list=/dev/pts",
        "open=/dev/tty",
        "owner=/dev/console",
        "line",
        "tty",
        "fds",
    ]);
    spec.terminal = Some(SIZE);
    spec.process.uid = 1000;
    let mut followed = start_followed(&machine, &spec);
    let said = wait_for_words(&mut followed, "open: ok");
    for words in ["tty: 33 77\r\n", "owner: 1000:5 20620\r\n", "list: 0 ptmx\r\n", "open: ok\r\n"] {
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }
    let to = input(&machine, &spec.id).expect("a terminal");
    let size = rustix::termios::Winsize { ws_row: 11, ws_col: 22, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&to, size).expect("another size");
    write_all(&to, b"typed\n");
    let said = said + &String::from_utf8_lossy(&rest(followed).0);
    for words in ["line: typed\r\n", "tty: 11 22\r\n", "fds: 0 1 2 3\r\n"] {
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }
    assert_eq!(said.matches("owner: 1000:5 20620\r\n").count(), 2, "the console is that terminal: {said:?}");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(0));
    machine.logged(&spec.id);
    assert!(machine.output(&spec.id).iter().any(|line| line == "line: typed"), "it is in the log as well");
}

fn a_terminal_s_last_words_are_heard(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["flood=200", "exit=6"]);
    spec.terminal = Some(SIZE);
    for _ in 0..5 {
        let followed = start_followed(&machine, &spec);
        let reader = std::thread::spawn(move || rest(followed).0);
        assert_eq!(machine.exited(&spec.id).exit_code, Some(6));
        let said = reader.join().expect("what it said");
        assert!(said.ends_with(b"x\r\nflood: flooded\r\n") && said.len() == 200 * 1001 + 16, "{}", said.len());
        machine.logged(&spec.id);
        machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
    }
}

/// One more process of a container, doing `words`.
pub(super) fn exec_spec(of: &crate::harness::Spec, words: &[&str]) -> ExecSpec {
    ExecSpec {
        id: of.id.clone(),
        process: ProcessSpec {
            env: vec!["PATH=/bin".into(), "FROM=exec".into()],
            cwd: "/".into(),
            seccomp: of.process.seccomp.clone(),
            ..process(words)
        },
        host_users: of.ids.is_host(),
        cgroup_files: of.cgroup_files.clone(),
        terminal: None,
    }
}

/// Starts it: its pid, and what it writes.
fn exec(machine: &Machine<'_>, spec: &ExecSpec) -> Result<(u32, File, Vec<OwnedFd>), Failure> {
    let null = File::open("/dev/null").expect("/dev/null");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
    let streams = if spec.terminal.is_some() { &[][..] } else { &streams[..] };
    match machine.call(Request::Exec(Box::new(spec.clone())), streams)? {
        (Reply::Executed { pid }, fds) => Ok((pid, read.into(), fds)),
        other => panic!("{other:?}"),
    }
}

fn exec_ended(machine: &Machine<'_>, of: u32) -> Option<u8> {
    machine.wait_for(|event| match event {
        Event::ExecExited { pid, ended, .. } if *pid == of => Some(ended.exit_code),
        _ => None,
    })
}

pub(super) fn run_exec(machine: &Machine<'_>, spec: &ExecSpec) -> (Option<u8>, String) {
    let (pid, mut output, _) = exec(machine, spec).unwrap_or_else(|failure| panic!("{failure}"));
    let mut said = String::new();
    output.read_to_string(&mut said).expect("what it writes");
    (exec_ended(machine, pid), said)
}

fn one_more_process_is_as_sealed(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["wait"]);
    let group = machine.join(&mut spec);
    let first = machine.start_container(&spec).expect("a start");
    let mut more = exec_spec(
        &spec,
        &[
            "pid",
            "processes",
            "cwd",
            "env",
            "fds",
            "ids",
            "session",
            "status=Seccomp",
            "status=NoNewPrivs",
            "status=CapEff",
            "status=CapBnd",
            "mount",
            "list=/sys/class/net",
            "read=/proc/sys/kernel/hostname",
            "exit=5",
        ],
    );
    more.process.cwd = "/work".into();
    let capabilities = format!("{DEFAULT_CAPABILITIES:016x}");
    let expected = format!(
        "pid: 2\nprocesses: 2\ncwd: /work\nenv: PATH=/bin FROM=exec\nfds: 0 1 2 3\nids: 0 0 []\nsession: 2\nstatus: 2\n\
         status: 1\nstatus: {capabilities}\nstatus: {capabilities}\nmount: permission denied\nlist: lo\nread: courses-1\n"
    );
    assert_eq!(run_exec(&machine, &more), (Some(5), expected));

    let mut user = exec_spec(&spec, &["ids", "status=CapEff", "read=/etc/secret"]);
    (user.process.uid, user.process.gid, user.process.groups) = (1000, 1001, vec![44]);
    let expected = "ids: 1000 1001 [44]\nstatus: 0000000000000000\nread: permission denied\n";
    assert_eq!(run_exec(&machine, &user), (Some(0), expected.to_owned()));

    // in the same cgroups and namespaces as the first one, and seen from outside as itself
    let (pid, _output, fds) = exec(&machine, &exec_spec(&spec, &["wait"])).expect("one more");
    let of = |pid: u32, what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).expect("its cgroups");
    assert_eq!(of(pid, "cgroup"), of(first, "cgroup"));
    for name in ["user", "mnt", "net", "ipc", "uts", "cgroup", "pid"] {
        let link = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace");
        assert_eq!(link(pid), link(first), "{name}");
    }
    assert!(of(pid, "status").lines().any(|line| line == "CoreDumping:\t0"));
    sampan_sys::pidfd::signal(fds[0].as_fd(), 9).expect("a signal");
    assert_eq!(exec_ended(&machine, pid), Some(137));
    // the supervisor's own children are made where it is
    assert_eq!(machine.run(&machine.spec(&["pid"])).1, ["pid: 1"]);
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    machine.exited(&spec.id);
    drop(group);
}

fn one_more_process_says_why_not(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["wait"]);
    let refused = |change: &dyn Fn(&mut ExecSpec), errno: i32, words: &str| {
        let mut more = exec_spec(&spec, &["pid"]);
        change(&mut more);
        let failure = exec(&machine, &more).expect_err(words);
        assert_eq!(failure.errno, errno, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    };
    refused(&|_| {}, 0, "there is none of this id");
    let (_, fds) = machine.create(&spec).expect("a child");
    refused(&|_| {}, 0, "is being started");
    machine.go(&spec, &fds).expect("a start");
    refused(
        &|more| more.process.args = vec!["nowhere".into()],
        2,
        "execute nowhere: \"nowhere\": executable file not found in $PATH",
    );
    refused(&|more| more.process.args = vec!["/bin/not-executable".into()], 13, "execute /bin/not-executable");
    refused(&|more| more.process.args = vec!["/bin/no-program".into()], 8, "execute");
    refused(&|more| more.process.cwd = "/nowhere".into(), 2, "enter the working directory /nowhere");
    refused(&|more| more.process.cwd = "/proc/self/fd/3".into(), 2, "enter the working directory");
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    machine.exited(&spec.id);
    refused(&|_| {}, 0, "has ended");
}

fn further_processes_end_with_their_container(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["wait"]);
    machine.start_container(&spec).expect("a start");
    let pids: Vec<u32> = (0..3).map(|_| exec(&machine, &exec_spec(&spec, &["wait"])).expect("one more").0).collect();
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    machine.wait_for(|event| {
        match event {
            Event::ExecExited { pid, ended: how, .. } => {
                assert!(pids.contains(pid) && how.exit_code == Some(137), "{event:?}");
            }
            Event::Exited { .. } => return Some(()),
            _ => {}
        }
        None
    });
}

fn one_more_process_at_a_terminal(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["wait"]);
    machine.start_container(&spec).expect("a start");
    let mut more = exec_spec(&spec, &["tty", "line", "tty", "fds", "exit=9"]);
    more.terminal = Some(SIZE);
    more.process.uid = 1000;
    let (pid, _, fds) = exec(&machine, &more).expect("one more");
    let [_process, master]: [OwnedFd; 2] = fds.try_into().expect("it and its terminal");
    let master = File::from(master);
    write_all(&master, b"hello\n");
    let mut said = Vec::new();
    let since = Instant::now();
    loop {
        let mut piece = [0; 1024];
        match (&master).read(&mut piece) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(since.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&said));
                poll(&mut [PollFd::new(&master, PollFlags::IN)], None).expect("words");
            }
            // everybody inside has closed it
            Err(error) if error.raw_os_error() == Some(5) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let said = String::from_utf8_lossy(&said);
    for words in ["tty: 33 77\r\n", "line: hello\r\n", "fds: 0 1 2 3\r\n"] {
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }
    assert_eq!(exec_ended(&machine, pid), Some(9));
}

fn many_more_processes_at_once(layer: &Layer) {
    let machine = Machine::start(layer);
    let spec = machine.spec(&["wait"]);
    machine.start_container(&spec).expect("a start");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", machine.welcome.pid)).expect("fds").count();
    let before = descriptors();
    let link = &machine.link;
    let took: Vec<Duration> = std::thread::scope(|scope| {
        let one = |_| {
            scope.spawn(|| {
                let more = exec_spec(&spec, &["exit=7"]);
                let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
                let since = Instant::now();
                link.call(Request::Exec(Box::new(more)), &[null.as_fd(); 3]).expect("one more");
                since.elapsed()
            })
        };
        let threads: Vec<_> = (0..20).map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    let mut seen = 0;
    while seen < took.len() {
        seen += machine.wait_for(|event| match event {
            Event::ExecExited { ended, .. } => Some(usize::from(ended.exit_code == Some(7))),
            _ => None,
        });
    }
    let mut alone: Vec<Duration> = (0..50)
        .map(|_| {
            let since = Instant::now();
            let (pid, ..) = exec(&machine, &exec_spec(&spec, &["exit=0"])).expect("one more");
            let took = since.elapsed();
            assert_eq!(exec_ended(&machine, pid), Some(0));
            took
        })
        .collect();
    alone.sort();
    println!("  one more process: p50 {:?}, p90 {:?} (debug build)", alone[25], alone[45]);
    assert_eq!(descriptors(), before, "the supervisor keeps nothing of them");
}

fn what_is_kept_from_its_program_is_given_up(layer: &Layer) {
    let machine = Machine::start(layer);
    let mut spec = machine.spec(&["wait"]);
    let group = machine.join(&mut spec);
    machine.start_container(&spec).expect("a start");
    // as a container may do by a signal, if it is fast enough
    group.freeze().expect("a halt");
    let since = Instant::now();
    let failure = exec(&machine, &exec_spec(&spec, &["pid"])).expect_err("it stands still");
    assert!(failure.message.contains("in time"), "{failure}");
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    group.thaw().expect("it goes on");
    assert_eq!(run_exec(&machine, &exec_spec(&spec, &["exit=3"])).0, Some(3));
    machine.call(Request::Signal { id: spec.id.clone(), signal: 9 }, &[]).expect("a signal");
    machine.exited(&spec.id);
}
