//! The whole logger in a thread, its socket and pipes in the test's hands.

use std::path::Path;
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use sampan_model::view::LogFrame;

use super::*;
use crate::logs::{self, Entry, Reader};

struct Running {
    dir: tempfile::TempDir,
    control: OwnedFd,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(dir: tempfile::TempDir) -> Self {
        let (control, other) = frame::pair().unwrap();
        let directory = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let thread = std::thread::spawn(move || serve(other.as_fd(), directory.as_fd()));
        Self { dir, control, thread: Some(thread) }
    }

    fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) {
        frame::send(self.control.as_fd(), &serde_json::to_vec(order).unwrap(), fds).unwrap();
    }

    fn open(&self, byte: u8) -> Output {
        let output = Output { id: id(byte), ends: [pipe(), pipe()] };
        self.send(&Order::Open { id: id(byte), followers: 0 }, &output.ends.each_ref().map(|(read, _)| read.as_fd()));
        output
    }

    fn end(&self, output: &Output) {
        self.send(&Order::End { id: output.id.clone() }, &[]);
        let frame = frame::receive(self.control.as_fd()).unwrap().unwrap();
        let Answer::Logged { id } = serde_json::from_slice(&frame.body).unwrap();
        assert_eq!(id, output.id);
    }

    /// Hang up, and wait for the logger's end.
    fn stop(mut self) -> tempfile::TempDir {
        let (spare, _) = frame::pair().unwrap();
        drop(std::mem::replace(&mut self.control, spare));
        self.thread.take().unwrap().join().unwrap().unwrap();
        self.dir
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Running {
    fn follow(&self, output: &Output) -> OwnedFd {
        let (read, write) = pipe();
        self.send(&Order::Follow { id: output.id.clone() }, &[write.as_fd()]);
        read
    }
}

/// All that a follower is told, by stream, until its end.
fn followed(pipe: &OwnedFd) -> [Vec<u8>; 2] {
    let mut told = [Vec::new(), Vec::new()];
    let read = |length: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut at = 0;
        while at < length {
            match rustix::io::read(pipe, &mut bytes[at..]).unwrap() {
                0 => return None,
                count => at += count,
            }
        }
        Some(bytes)
    };
    while let Some(head) = read(LogFrame::HEAD) {
        let frame = LogFrame::decode(head.try_into().unwrap()).unwrap();
        if frame == LogFrame::END {
            assert_eq!(read(1), None, "what comes after the end");
            break;
        }
        told[usize::from(frame.stream) - 1].extend(read(frame.length as usize).unwrap());
    }
    told
}

struct Output {
    id: ContainerId,
    ends: [(OwnedFd, OwnedFd); 2],
}

impl Output {
    fn out(&self, bytes: &[u8]) {
        write(&self.ends[0].1, bytes);
    }

    fn error(&self, bytes: &[u8]) {
        write(&self.ends[1].1, bytes);
    }
}

fn write(fd: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = rustix::io::write(fd, bytes).unwrap();
        bytes = &bytes[count..];
    }
}

fn id(byte: u8) -> ContainerId {
    ContainerId::from_bytes([byte; 32])
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn entries(dir: &Path, id: &ContainerId) -> Vec<Entry> {
    let mut reader = Reader::open(dir, id, None).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

/// `o`/`e` for the stream, `F`/`P`, the text.
fn shown(dir: &Path, id: &ContainerId) -> Vec<String> {
    entries(dir, id)
        .into_iter()
        .map(|entry| {
            let stream = if entry.stream == Stream::Stdout { 'o' } else { 'e' };
            let flag = if entry.partial { 'P' } else { 'F' };
            format!("{stream}{flag} {}", String::from_utf8_lossy(&entry.text))
        })
        .collect()
}

/// Wait until so many entries are in the file.
fn wait_for(dir: &Path, id: &ContainerId, count: usize) {
    let (stop, _keep) = pipe();
    let mut reader = Reader::open(dir, id, None).unwrap();
    let mut seen = 0;
    while seen < count {
        match reader.next().unwrap() {
            Some(_) => seen += 1,
            None => {
                let woken = reader.wait(stop.as_fd(), Some(Duration::from_secs(20))).unwrap();
                assert_eq!(woken, logs::Woken::Changed, "{seen} of {count} entries");
            }
        }
    }
}

#[test]
fn lines_of_both_streams() {
    let logger = Running::start();
    let output = logger.open(1);
    output.out(b"one\ntwo\n\n");
    output.error(b"oh\xff\r\n");
    output.out(b"unfinished");
    logger.end(&output);
    let mut found = shown(logger.path(), &output.id);
    found.sort();
    assert_eq!(found, ["eF oh\u{fffd}\r", "oF ", "oF one", "oF two", "oP unfinished"]);
    assert_eq!(entries(logger.path(), &output.id).iter().filter(|entry| entry.text == b"oh\xff\r").count(), 1);
    logger.stop();
}

#[test]
fn pieces_written_together_are_one_line() {
    let logger = Running::start();
    let output = logger.open(1);
    for piece in ["a ", "line ", "in ", "pieces", "\n"] {
        output.out(piece.as_bytes());
    }
    wait_for(logger.path(), &output.id, 1);
    assert_eq!(shown(logger.path(), &output.id), ["oF a line in pieces"]);
    logger.stop();
}

#[test]
fn a_prompt_is_seen_while_it_waits_and_its_line_goes_on() {
    let logger = Running::start();
    let output = logger.open(1);
    output.out(b"name? ");
    wait_for(logger.path(), &output.id, 1);
    assert_eq!(shown(logger.path(), &output.id), ["oP name? "]);
    output.out(b"x\n");
    output.out(b"bye> ");
    wait_for(logger.path(), &output.id, 3);
    logger.end(&output);
    // what it never ended stays without an end
    assert_eq!(shown(logger.path(), &output.id), ["oP name? ", "oF x", "oP bye> "]);
    logger.stop();
}

#[test]
fn long_lines_are_parts() {
    const PART: usize = logs::format::TEXT_MAX;
    let logger = Running::start();
    for (number, (length, parts)) in
        [(PART - 1, 1), (PART, 1), (PART + 1, 2), (2 * PART, 2), (2 * PART + 1, 3), (200_000, 13)]
            .into_iter()
            .enumerate()
    {
        let output = logger.open(number as u8);
        let line: Vec<u8> = (0..length).map(|at| b'a' + (at % 23) as u8).collect();
        output.out(&line);
        output.out(b"\nnext\n");
        logger.end(&output);
        let entries = entries(logger.path(), &output.id);
        let (next, line_entries) = entries.split_last().unwrap();
        assert_eq!(next.text, b"next");
        assert!(line_entries.iter().rev().skip(1).all(|entry| entry.partial) && !line_entries.last().unwrap().partial);
        assert_eq!(line_entries.iter().flat_map(|entry| entry.text.clone()).collect::<Vec<u8>>(), line, "{length}");
        assert!(line_entries.len() >= parts && line_entries.len() <= parts + 1, "{length}: {}", line_entries.len());
    }
    logger.stop();
}

/// Two loggers' lives, one after the other: every byte arrives once.
#[test]
fn nothing_is_lost_over_a_change_of_loggers() {
    let first = Running::start();
    let output = first.open(1);
    let writer = std::thread::spawn({
        let end = output.ends[0].1.try_clone().unwrap();
        move || {
            for number in 0..50_000 {
                write(&end, format!("line {number}\n").as_bytes());
            }
        }
    });
    wait_for(first.path(), &output.id, 1000);
    let second = Running::start_in(first.stop());
    second.send(
        &Order::Open { id: output.id.clone(), followers: 0 },
        &output.ends.each_ref().map(|(read, _)| read.as_fd()),
    );
    writer.join().unwrap();
    second.end(&output);
    let mut reader = Reader::open(second.path(), &output.id, None).unwrap();
    let mut line = Vec::new();
    let mut number = 0;
    while let Some(entry) = reader.next().unwrap() {
        line.extend_from_slice(&entry.text);
        if !entry.partial {
            assert_eq!(line, format!("line {number}").into_bytes());
            number += 1;
            line.clear();
        }
    }
    assert_eq!(number, 50_000);
    second.stop();
}

#[test]
fn a_flood_starves_nobody_and_has_its_limit() {
    let logger = Running::start();
    let flood = logger.open(1);
    let quiet = logger.open(2);
    let (stop, stop_end) = pipe();
    let flooder = std::thread::spawn({
        let end = flood.ends[0].1.try_clone().unwrap();
        move || {
            let bytes = [&[b'x'; 1023][..], b"\n"].concat().repeat(64);
            let stopped = || poll(&mut [PollFd::new(&stop, PollFlags::IN)], Some(&Timespec::default())) != Ok(0);
            while !stopped() {
                write(&end, &bytes);
            }
        }
    });
    wait_for(logger.path(), &flood.id, 40_000);
    let begun = Instant::now();
    quiet.out(b"here\n");
    wait_for(logger.path(), &quiet.id, 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    rustix::io::write(&stop_end, b"x").unwrap();
    flooder.join().unwrap();
    logger.end(&flood);
    let size: u64 = [".log", ".log.1"]
        .map(|suffix| std::fs::metadata(logger.path().join(format!("{}{suffix}", flood.id))).unwrap().len())
        .iter()
        .sum();
    assert!(size > logs::ROTATED_AT && size <= 2 * logs::ROTATED_AT, "{size}");
    logger.stop();
}

#[test]
fn followers_get_the_bytes_as_they_are_and_the_end() {
    let logger = Running::start();
    let output = logger.open(1);
    output.out(b"before");
    wait_for(logger.path(), &output.id, 1);
    let followers = [logger.follow(&output), logger.follow(&output)];
    output.out(b"no line's end");
    output.error(b"\0\xff\n");
    logger.end(&output);
    for follower in followers {
        assert_eq!(followed(&follower), [&b"no line's end"[..], b"\0\xff\n"]);
    }
    assert_eq!(followed(&logger.follow(&output)), [b"", b""], "of one that is over there is nothing but the end");
    logger.stop();
}

#[test]
fn one_that_is_behind_holds_its_container_and_loses_nothing() {
    let logger = Running::start();
    let (output, other) = (logger.open(1), logger.open(2));
    let follower = logger.follow(&output);
    let writer = std::thread::spawn({
        let end = output.ends[0].1.try_clone().unwrap();
        move || (0..100_000).for_each(|number| write(&end, format!("line {number}\n").as_bytes()))
    });
    // until the pipes are full: nobody reads then
    let waiting = || rustix::io::ioctl_fionread(&output.ends[0].0).unwrap();
    while waiting() < 60_000 {
        std::thread::yield_now();
    }
    other.out(b"goes on\n");
    wait_for(logger.path(), &other.id, 1);
    assert!(!writer.is_finished());
    let reader = std::thread::spawn(move || followed(&follower));
    writer.join().unwrap();
    logger.end(&output);
    let expected: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
    assert!(reader.join().unwrap() == [expected.into_bytes(), Vec::new()]);
    logger.stop();
}

#[test]
fn one_that_is_behind_at_the_end_gets_the_rest() {
    let logger = Running::start();
    let output = logger.open(1);
    let (follower, gone) = (logger.follow(&output), logger.follow(&output));
    let piece = [&[b'x'; 1023][..], b"\n"].concat();
    let mut written = 0;
    let is_full = || poll(&mut [PollFd::new(&output.ends[0].1, PollFlags::OUT)], Some(&WHILE)) == Ok(0);
    while !is_full() {
        output.out(&piece);
        written += piece.len();
    }
    logger.end(&output);
    drop(gone);
    let [out, _] = followed(&follower);
    assert_eq!(out.len(), written);
    logger.stop();
}

/// Longer than the logger takes to read what there is.
const WHILE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

#[test]
fn an_unknown_end_is_answered_and_an_open_twice_goes_on() {
    let logger = Running::start();
    let stranger = Output { id: id(9), ends: [pipe(), pipe()] };
    logger.end(&stranger);
    frame::send(logger.control.as_fd(), b"{\"dance\":{}}", &[]).unwrap();
    let first = logger.open(1);
    first.out(b"one");
    let second = logger.open(1);
    second.out(b"two\n");
    logger.end(&second);
    assert_eq!(shown(logger.path(), &id(1)), ["oP one", "oF two"]);
    logger.stop();
}

#[test]
fn hanging_up_writes_what_there_is() {
    let logger = Running::start();
    let outputs: Vec<Output> = (0..40).map(|byte| logger.open(byte)).collect();
    for output in &outputs {
        output.error(b"last words\nand");
    }
    let dir = logger.stop();
    for output in &outputs {
        assert_eq!(shown(dir.path(), &output.id), ["eF last words", "eP and"]);
    }
}
