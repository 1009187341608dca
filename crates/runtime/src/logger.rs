//! The logger: reads what containers write, and keeps it in files ([`crate::logs`]). The role `sampan logger`: one
//! thread, no privilege, waits in one place.
//!
//! Descriptor 3 is the supervisor's socket ([`sampan_sys::frame`]), descriptor 4 the logs' directory, which is all of
//! the file system that it ever opens anything in. Messages, JSON:
//!
//! ```text
//! supervisor                                logger
//!   {"open":{"id":ID}} + [stdout, stderr] ─▶  reads both pipes into ID.log, after what is there
//!   {"end":{"id":ID}} ─────────────────────▶  what is in the pipes now, then no more
//!   ◀───────────────────── {"logged":{"id":ID}}
//! ```
//!
//! Where the socket ends, it writes what is in the pipes and ends as well. Where it is killed, the bytes wait in the
//! pipes for the next one; lost are only unfinished lines that it held for less than 0.2 s.
//!
//! **Fair and bounded.** A turn reads at most 64 KiB of each pipe that has something, so a container that floods waits
//! for its next turn like all others. A container holds at most two unfinished lines of 16 KiB, for at most 0.2 s.
//! The pipes are open for writing too and never end, and nobody else reads them.
//!
//! Deliberately absent: readers. Whoever follows a log follows the file.

mod line;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;
use sampan_model::ContainerId;
use sampan_sys::{frame, process};
use serde::{Deserialize, Serialize};

use self::line::Line;
use crate::logs::format::Stamp;
use crate::logs::{Batch, Stream, Writer};
use crate::seccomp;

const CONTROL: i32 = 3;
const DIRECTORY: i32 = 4;

/// What is read from one pipe in one turn, in bytes: what a pipe holds, unless it was made larger.
const TURN: usize = 64 * 1024;
/// How many pipes have their turn before the socket is looked at again.
const EVENTS: usize = 64;
/// How long an unfinished line is held, so that a line written in several pieces is one entry.
const HOLD: Duration = Duration::from_millis(200);
/// The socket's key; a pipe's is its container's number twice, plus one for standard error.
const CONTROL_KEY: u64 = u64::MAX;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Open { id: ContainerId },
    End { id: ContainerId },
}

/// To the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Logged { id: ContainerId },
}

/// Be the logger: `sampan logger`, started by the supervisor. Returns when the socket has ended.
pub fn main() -> ExitCode {
    if let Err(error) = seccomp::confine_role() {
        eprintln!("sampan logger: {error}");
        return ExitCode::FAILURE;
    }
    let served = process::inherited(CONTROL)
        .and_then(|control| Ok((control, process::inherited(DIRECTORY)?)))
        .and_then(|(control, directory)| serve(control.as_fd(), directory.as_fd()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sampan logger: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(control: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut logger = Logger {
        directory,
        events: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        containers: HashMap::new(),
        numbers: HashMap::new(),
        next_number: 0,
        held: VecDeque::new(),
        bytes: vec![0; TURN],
        batch: Batch::default(),
    };
    epoll::add(&logger.events, control, epoll::EventData::new_u64(CONTROL_KEY), epoll::EventFlags::IN)?;
    let mut ready = Vec::with_capacity(EVENTS);
    loop {
        ready.clear();
        let timeout = logger.held.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        match epoll::wait(&logger.events, spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &ready {
            match event.data.u64() {
                CONTROL_KEY => {
                    if !logger.obey(control)? {
                        logger.leave();
                        return Ok(());
                    }
                }
                key => logger.turn(key, event.flags),
            }
        }
        logger.let_go();
    }
}

struct Logger<'dir> {
    directory: BorrowedFd<'dir>,
    events: OwnedFd,
    /// By a number that is never given again: an event that was fetched before its container ended finds nothing.
    containers: HashMap<u64, Container<'dir>>,
    numbers: HashMap<ContainerId, u64>,
    next_number: u64,
    /// When to look after a held line, the earliest first; each pipe is there once at most.
    held: VecDeque<(Instant, u64)>,
    /// What was read last; one buffer for all.
    bytes: Vec<u8>,
    batch: Batch,
}

struct Container<'dir> {
    pipes: Vec<Pipe>,
    writer: Writer<'dir>,
}

struct Pipe {
    end: OwnedFd,
    line: Line,
    /// Since when a line has been held.
    since: Instant,
    /// Whether it is in the queue of held lines.
    queued: bool,
}

impl<'dir> Logger<'dir> {
    /// Take one message. Returns false where there will be none.
    fn obey(&mut self, control: BorrowedFd<'_>) -> io::Result<bool> {
        let frame = match frame::receive(control) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&frame.body) {
            Ok(Order::Open { id }) => self.open(id, frame.fds)?,
            Ok(Order::End { id }) => {
                self.end(&id);
                let answer = serde_json::to_vec(&Answer::Logged { id }).map_err(io::Error::other)?;
                match frame::send(control, &answer, &[]) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                    sent => sent?,
                }
            }
            // a newer supervisor's: it must not cost the containers their logger
            Err(error) => eprintln!("sampan logger: a message that is not understood: {error}"),
        }
        Ok(true)
    }

    fn open(&mut self, id: ContainerId, ends: Vec<OwnedFd>) -> io::Result<()> {
        self.end(&id);
        let number = self.next_number;
        self.next_number += 1;
        let mut pipes = Vec::new();
        for (end, stream) in ends.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            let key = key_of(number, pipes.len());
            epoll::add(&self.events, &end, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
            pipes.push(Pipe { end, line: Line::new(stream), since: Instant::now(), queued: false });
        }
        let writer = Writer::new(self.directory, id.clone());
        self.containers.insert(number, Container { pipes, writer });
        self.numbers.insert(id, number);
        Ok(())
    }

    /// Write what is in the container's pipes now, unfinished lines too, and forget it.
    fn end(&mut self, id: &ContainerId) {
        let Some(mut container) = self.numbers.remove(id).and_then(|number| self.containers.remove(&number)) else {
            return;
        };
        let Container { pipes, writer } = &mut container;
        for pipe in pipes {
            pipe.drain(&mut self.bytes, writer, &mut self.batch);
            pipe.line.let_go(writer, &mut self.batch);
            // the supervisor has the same open file: closing ours would not end the events
            let _ = epoll::delete(&self.events, &pipe.end);
        }
        writer.write(&mut self.batch);
    }

    /// A pipe has something.
    fn turn(&mut self, key: u64, flags: epoll::EventFlags) {
        let Some(Container { pipes, writer }) = self.containers.get_mut(&(key / 2)) else { return };
        let Some(pipe) = pipes.get_mut((key % 2) as usize) else { return };
        if pipe.read(TURN, &mut self.bytes, writer, &mut self.batch) == 0 {
            // no writer is left, not even we: a pipe that was not opened as the supervisor does, and would wake us
            // without end
            if flags.contains(epoll::EventFlags::HUP) {
                let _ = epoll::delete(&self.events, &pipe.end);
            }
            return;
        }
        writer.write(&mut self.batch);
        if pipe.line.is_held() {
            let now = Instant::now();
            // a line that goes on is held from its beginning
            if pipe.line.is_new() {
                pipe.since = now;
            }
            if !pipe.queued {
                pipe.queued = true;
                self.held.push_back((now + HOLD, key));
            }
        }
    }

    /// Write the lines that have been held long enough.
    fn let_go(&mut self) {
        let now = Instant::now();
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.held.pop_front() else { return };
            let Some(Container { pipes, writer }) = self.containers.get_mut(&(key / 2)) else { continue };
            let Some(pipe) = pipes.get_mut((key % 2) as usize) else { continue };
            pipe.queued = false;
            if !pipe.line.is_held() {
                continue;
            }
            if pipe.since + HOLD > now {
                // another line than the one that was queued
                pipe.queued = true;
                self.held.push_back((pipe.since + HOLD, key));
            } else {
                pipe.line.let_go(writer, &mut self.batch);
                writer.write(&mut self.batch);
            }
        }
    }

    /// There is no supervisor any more: write what there is. The lines may go on under the next.
    fn leave(mut self) {
        for Container { pipes, writer } in self.containers.values_mut() {
            for pipe in pipes {
                pipe.drain(&mut self.bytes, writer, &mut self.batch);
                pipe.line.let_go(writer, &mut self.batch);
            }
            writer.write(&mut self.batch);
        }
    }
}

impl Pipe {
    /// Read once, at most so many bytes. Returns how many there were.
    fn read(&mut self, most: usize, bytes: &mut [u8], writer: &mut Writer<'_>, batch: &mut Batch) -> usize {
        // the end may be one that blocks, and somebody may have been faster
        let waiting = rustix::io::ioctl_fionread(&self.end).unwrap_or(0);
        if waiting == 0 {
            return 0;
        }
        let most = most.min(bytes.len());
        let Ok(count) = rustix::io::read(&self.end, &mut bytes[..most]) else { return 0 };
        self.line.take(&bytes[..count], &Stamp::now(), writer, batch);
        count
    }

    /// Read all that is there now, and not what may still come: that could be without end.
    fn drain(&mut self, bytes: &mut [u8], writer: &mut Writer<'_>, batch: &mut Batch) {
        let mut left = usize::try_from(rustix::io::ioctl_fionread(&self.end).unwrap_or(0)).unwrap_or(0);
        while left > 0 {
            match self.read(left, bytes, writer, batch) {
                0 => return,
                count => left -= count.min(left),
            }
        }
    }
}

fn key_of(number: u64, pipe: usize) -> u64 {
    number * 2 + pipe as u64
}

#[cfg(test)]
mod tests;
