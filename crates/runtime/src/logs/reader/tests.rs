use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::logs::format::{Stamp, Stream, put};

struct Log {
    dir: tempfile::TempDir,
    id: ContainerId,
}

impl Log {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), id: ContainerId::from_bytes([1; 32]) }
    }

    /// Append lines; those that end in `…` go on.
    fn write(&self, texts: &[&str]) {
        let mut records = Vec::new();
        for text in texts {
            let partial = text.ends_with('…');
            put(&mut records, &Stamp::now(), Stream::Stdout, partial, text.as_bytes());
        }
        self.append(&records);
    }

    fn append(&self, bytes: &[u8]) {
        let path = self.dir.path().join(live_name(&self.id));
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn rotate(&self) {
        fs::rename(self.dir.path().join(live_name(&self.id)), self.dir.path().join(rotated_name(&self.id))).unwrap();
    }

    fn open(&self, tail: Option<usize>) -> Reader {
        Reader::open(self.dir.path(), &self.id, tail).unwrap()
    }
}

fn rest(reader: &mut Reader) -> Vec<String> {
    std::iter::from_fn(|| reader.next().unwrap()).map(|entry| String::from_utf8(entry.text).unwrap()).collect()
}

#[test]
fn both_files_in_order() {
    let log = Log::new();
    log.write(&["1", "2"]);
    log.rotate();
    log.write(&["3"]);
    assert_eq!(rest(&mut log.open(None)), ["1", "2", "3"]);
}

#[test]
fn tails() {
    let log = Log::new();
    log.write(&["1", "2", "a…", "b"]);
    log.rotate();
    log.write(&["3", "c…", "d…", "e", "4…"]);
    for (lines, expected) in [
        (0, &[][..]),
        (1, &["4…"]),
        (2, &["c…", "d…", "e", "4…"]),
        (3, &["3", "c…", "d…", "e", "4…"]),
        (4, &["a…", "b", "3", "c…", "d…", "e", "4…"]),
        (5, &["2", "a…", "b", "3", "c…", "d…", "e", "4…"]),
        (6, &["1", "2", "a…", "b", "3", "c…", "d…", "e", "4…"]),
        (usize::MAX, &["1", "2", "a…", "b", "3", "c…", "d…", "e", "4…"]),
    ] {
        assert_eq!(rest(&mut log.open(Some(lines))), expected, "{lines}");
    }
}

#[test]
fn a_long_tail_is_found_from_the_end() {
    let log = Log::new();
    let lines: Vec<String> = (0..5000).map(|number| format!("{number} {}", "x".repeat(number % 700))).collect();
    log.write(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for count in [1, 99, 1000, 4999, 5000] {
        assert_eq!(rest(&mut log.open(Some(count))), lines[5000 - count..], "{count}");
    }
}

#[test]
fn follows_growth_and_rotations() {
    let log = Log::new();
    let mut reader = log.open(None);
    assert_eq!(rest(&mut reader), [""; 0]);
    log.write(&["1"]);
    assert_eq!(rest(&mut reader), ["1"]);
    log.write(&["2"]);
    log.rotate();
    // between rename and creation
    assert_eq!(rest(&mut reader), ["2"]);
    log.write(&["3"]);
    assert_eq!(rest(&mut reader), ["3"]);
    // two rotations while nobody read: the file we hold is gone, its two successors are there
    log.write(&["4"]);
    log.rotate();
    log.write(&["5"]);
    log.rotate();
    log.write(&["6"]);
    assert_eq!(rest(&mut reader), ["4", "5", "6"]);
    log.write(&["7"]);
    assert_eq!(rest(&mut reader), ["7"]);
}

#[test]
fn half_an_entry_is_waited_for_and_rubbish_skipped() {
    let log = Log::new();
    let mut reader = log.open(None);
    log.append(b"2026-01-02T03:04:05.000000000Z stdout F he");
    assert_eq!(rest(&mut reader), [""; 0]);
    log.append(b"llo\nrubbish\n\n");
    log.write(&["on"]);
    assert_eq!(rest(&mut reader), ["hello", "on"]);
    log.append(&vec![b'x'; 300_000]);
    assert_eq!(rest(&mut reader), [""; 0]);
    assert!(reader.buffer.len() <= 2 * READ);
    log.append(b"\n");
    log.write(&["after"]);
    assert_eq!(rest(&mut reader), ["after"]);
    assert_eq!(rest(&mut log.open(Some(1))), ["after"]);
}

#[test]
fn links_and_other_things_are_refused() {
    let log = Log::new();
    let path = log.dir.path().join(live_name(&log.id));
    symlink("/etc/passwd", &path).unwrap();
    assert!(log.open(None).next().is_err());
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(log.open(None).next().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn waiting() {
    let log = Log::new();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut reader = log.open(None);
    let soon = Some(Duration::from_millis(20));
    let long = Some(Duration::from_secs(20));
    // the first time only sets the watch
    assert_eq!(reader.wait(stop.as_fd(), long).unwrap(), Woken::Changed);
    assert_eq!(reader.wait(stop.as_fd(), soon).unwrap(), Woken::TimedOut);
    // another container's files are none of our business
    fs::write(log.dir.path().join("other.log"), "x").unwrap();
    assert_eq!(reader.wait(stop.as_fd(), soon).unwrap(), Woken::TimedOut);

    let check = |reader: &mut Reader, expected: &str| {
        assert_eq!(reader.wait(stop.as_fd(), long).unwrap(), Woken::Changed);
        assert_eq!(rest(reader), [expected]);
    };
    log.write(&["1"]);
    check(&mut reader, "1");
    // the events of what was read already wake once in vain at most
    while reader.wait(stop.as_fd(), soon).unwrap() == Woken::Changed {}
    log.write(&["2"]);
    check(&mut reader, "2");
    log.rotate();
    log.write(&["3"]);
    check(&mut reader, "3");
    while reader.wait(stop.as_fd(), soon).unwrap() == Woken::Changed {}
    std::thread::scope(|scope| {
        scope.spawn(|| log.write(&["4"]));
        check(&mut reader, "4");
    });
    rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
    while reader.wait(stop.as_fd(), long).unwrap() != Woken::Stopped {}
}

/// However many follow logs: the kernel's instances are not all theirs.
#[test]
fn waiting_without_an_inotify_instance() {
    static ONE: Instances = Instances { taken: AtomicUsize::new(0), most: 1 };
    let log = Log::new();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let long = Some(Duration::from_secs(20));
    let open = || {
        let mut reader = log.open(None);
        reader.instances = &ONE;
        assert_eq!(reader.wait(stop.as_fd(), long).unwrap(), Woken::Changed);
        reader
    };
    let (first, mut second) = (open(), open());
    assert!(first.watch.is_some() && second.watch.is_none());
    assert_eq!(second.wait(stop.as_fd(), Some(Duration::from_millis(5))).unwrap(), Woken::TimedOut);
    log.write(&["1"]);
    assert_eq!(second.wait(stop.as_fd(), long).unwrap(), Woken::Changed);
    assert_eq!(rest(&mut second), ["1"]);
    drop(first);
    assert_eq!(second.wait(stop.as_fd(), long).unwrap(), Woken::Changed);
    assert!(second.watch.is_some(), "the first one's is free");
    rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
    assert_eq!(second.wait(stop.as_fd(), long).unwrap(), Woken::Stopped);
}

#[test]
fn what_comes_after_the_end_that_was_meant_is_not_read() {
    for tail in [None, Some(2)] {
        let log = Log::new();
        log.write(&["1", "2"]);
        log.rotate();
        log.write(&["3"]);
        let mut reader = log.open(tail);
        reader.end_here().unwrap();
        log.write(&["4"]);
        let expected: &[&str] = if tail.is_none() { &["1", "2", "3"] } else { &["2", "3"] };
        assert_eq!(rest(&mut reader), expected, "{tail:?}");
        log.rotate();
        log.write(&["5"]);
        assert_eq!(rest(&mut reader), Vec::<String>::new(), "{tail:?}");
    }
}
