//! The logger: reads what containers write, and keeps it in files ([`crate::logs`]). The role `sampan logger`: one
//! thread, no privilege, waits in one place.
//!
//! Descriptor 3 is the supervisor's socket ([`sampan_sys::frame`]), descriptor 4 the logs' directory, which is all of
//! the file system that it ever opens anything in. Messages, JSON:
//!
//! ```text
//! supervisor                                logger
//!   {"open":{"id":ID,"followers":N}}
//!     + [stdout, stderr, N pipes] ─────────▶  reads both pipes into ID.log, after what is there, and hands it on
//!     + [terminal, N pipes] ───────────────▶  the same, of a terminal's master
//!   {"follow":{"id":ID}} + [pipe] ─────────▶  hands on what it reads from now on, too
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
//! **Followers** get the bytes as they are read, in frames ([`LogFrame`](sampan_model::view::LogFrame)): no line is put
//! together for them and nothing is held back. While one is behind, its container's output is not read: the container
//! waits, no byte is lost, and all others go on. What is kept for it is what was read last; at the container's end,
//! what was in its pipes. A pipe that is closed without its container having ended says that this logger has gone.
//!
//! Deliberately absent: readers of what was written before. Whoever wants that reads the file.

mod follower;
mod line;
mod source;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use sampan_model::ContainerId;
use sampan_sys::{frame, process};
use serde::{Deserialize, Serialize};

use self::follower::{Follower, Reader};
use self::source::Source;
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
/// The most followers of one container. The daemon lets fewer come.
const MOST_FOLLOWERS: usize = 64;
/// The socket's key; an output's is its container's number twice, plus one for standard error; a follower's is its
/// number with this bit.
const CONTROL_KEY: u64 = u64::MAX;
const FOLLOWER_KEY: u64 = 1 << 63;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Open {
        id: ContainerId,
        /// How many of the descriptors are followers' pipes: the last ones.
        followers: usize,
    },
    Follow {
        id: ContainerId,
    },
    End {
        id: ContainerId,
    },
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
        followers: HashMap::new(),
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
            // first of all, each time: what is written after somebody has asked to follow is not to be read before
            while is_told(control) {
                if !logger.obey(control)? {
                    logger.leave();
                    return Ok(());
                }
            }
            match event.data.u64() {
                CONTROL_KEY => {}
                key if key & FOLLOWER_KEY != 0 => logger.attend(key, event.flags),
                key => logger.turn(key, event.flags),
            }
        }
        logger.let_go();
    }
}

/// Whether a message waits, or the end.
fn is_told(control: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&control, PollFlags::IN)], Some(&now)), Ok(1..))
}

struct Logger<'dir> {
    directory: BorrowedFd<'dir>,
    events: OwnedFd,
    /// By a number that is never given again: an event that was fetched before its container ended finds nothing.
    containers: HashMap<u64, Container<'dir>>,
    numbers: HashMap<ContainerId, u64>,
    /// By their keys; also those of containers that have ended which are behind.
    followers: HashMap<u64, Follower>,
    /// The next container's or follower's.
    next_number: u64,
    /// When to look after a held line, the earliest first; each output is there once at most.
    held: VecDeque<(Instant, u64)>,
    /// What was read last; one buffer for all.
    bytes: Vec<u8>,
    batch: Batch,
}

struct Container<'dir> {
    sources: Vec<Source>,
    writer: Writer<'dir>,
    followers: Vec<u64>,
    /// It is not read, since a follower is behind.
    waits: bool,
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
            Ok(Order::Open { id, followers }) => self.open(id, frame.fds, followers)?,
            Ok(Order::Follow { id }) => self.follow(&id, frame.fds)?,
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

    fn open(&mut self, id: ContainerId, mut ends: Vec<OwnedFd>, followers: usize) -> io::Result<()> {
        self.end(&id);
        let followers = ends.split_off(ends.len().saturating_sub(followers));
        let number = self.number();
        let is_terminal = ends.len() == 1;
        let sources = ends.into_iter().zip([Stream::Stdout, Stream::Stderr]);
        let sources: Vec<Source> = sources
            .map(|(end, stream)| if is_terminal { Source::terminal(end) } else { Source::pipe(end, stream) })
            .collect();
        watch(&self.events, number, &sources)?;
        let writer = Writer::new(self.directory, id.clone());
        self.containers.insert(number, Container { sources, writer, followers: Vec::new(), waits: false });
        self.numbers.insert(id.clone(), number);
        self.follow(&id, followers)
    }

    /// Dropping the pipe tells whoever reads it that nothing will come.
    fn follow(&mut self, id: &ContainerId, pipes: Vec<OwnedFd>) -> io::Result<()> {
        let Some(&number) = self.numbers.get(id) else { return Ok(()) };
        for pipe in pipes {
            let key = FOLLOWER_KEY | self.number();
            let Some(container) = self.containers.get_mut(&number) else { return Ok(()) };
            if container.followers.len() >= MOST_FOLLOWERS {
                eprintln!("sampan logger: {} has {MOST_FOLLOWERS} followers already", id.short());
                continue;
            }
            let follower = Follower::new(pipe, number)?;
            // its end is told of, without being asked for
            epoll::add(&self.events, &follower.pipe, epoll::EventData::new_u64(key), epoll::EventFlags::empty())?;
            container.followers.push(key);
            self.followers.insert(key, follower);
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Write what is in the container's pipes now, unfinished lines too, and forget it. Followers get it too, in time, and
    /// the end's mark.
    fn end(&mut self, id: &ContainerId) {
        let Some(mut container) = self.numbers.remove(id).and_then(|number| self.containers.remove(&number)) else {
            return;
        };
        let Container { sources, writer, followers, .. } = &mut container;
        for source in sources {
            source.drain(&mut self.bytes, writer, &mut self.batch, |said| {
                followers.retain(|key| {
                    let Some(follower) = self.followers.get_mut(key) else { return false };
                    let stays = follower.tell(&said) != Reader::Gone;
                    if !stays {
                        let _ = epoll::delete(&self.events, &follower.pipe);
                        self.followers.remove(key);
                    }
                    stays
                });
            });
            // the supervisor has the same open file: closing ours would not end the events
            let _ = epoll::delete(&self.events, &source.end);
        }
        writer.write(&mut self.batch);
        for key in &container.followers {
            let reader = self.followers.get_mut(key).map_or(Reader::Gone, Follower::end);
            self.heed(*key, reader);
        }
    }

    /// An output has something.
    fn turn(&mut self, key: u64, flags: epoll::EventFlags) {
        let Some(container) = self.containers.get_mut(&(key / 2)) else { return };
        // fetched before it had to wait
        if container.waits {
            return;
        }
        let Container { sources, writer, followers, .. } = container;
        let Some(source) = sources.get_mut((key % 2) as usize) else { return };
        let Some(said) = source.read(TURN, &mut self.bytes, writer, &mut self.batch) else {
            // no writer is left, not even we: an output that was not opened as the supervisor does, and would wake us
            // without end
            if flags.contains(epoll::EventFlags::HUP) {
                let _ = epoll::delete(&self.events, &source.end);
            }
            return;
        };
        writer.write(&mut self.batch);
        if source.line.is_held() {
            let now = Instant::now();
            // a line that goes on is held from its beginning
            if source.line.is_new() {
                source.since = now;
            }
            if !source.queued {
                source.queued = true;
                self.held.push_back((now + HOLD, key));
            }
        }
        let readers: Vec<(u64, Reader)> = followers
            .iter()
            .filter_map(|key| Some((*key, self.followers.get_mut(key)?.tell(&said))))
            .filter(|(_, reader)| *reader != Reader::Ready)
            .collect();
        for (key, reader) in readers {
            self.heed(key, reader);
        }
    }

    /// A follower has room, or has gone.
    fn attend(&mut self, key: u64, flags: epoll::EventFlags) {
        let Some(follower) = self.followers.get_mut(&key) else { return };
        let has_gone = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        let reader = if has_gone { Reader::Gone } else { follower.flush() };
        self.heed(key, reader);
    }

    /// What follows from where a follower is: who is waited for, who waits, and who is forgotten.
    fn heed(&mut self, key: u64, reader: Reader) {
        let Some(follower) = self.followers.get_mut(&key) else { return };
        let of = follower.of;
        let is_over = !self.containers.contains_key(&of);
        let (data, room) = (epoll::EventData::new_u64(key), epoll::EventFlags::OUT);
        let interest = if follower.is_behind() { room } else { epoll::EventFlags::empty() };
        let is_watched = epoll::modify(&self.events, &follower.pipe, data, interest).is_ok();
        if reader == Reader::Gone || !is_watched || (is_over && !follower.is_behind()) {
            let _ = epoll::delete(&self.events, &follower.pipe);
            self.followers.remove(&key);
        }
        let Some(container) = self.containers.get_mut(&of) else { return };
        container.followers.retain(|key| self.followers.contains_key(key));
        let waits = container.followers.iter().any(|key| self.followers[key].is_behind());
        if waits == container.waits {
            return;
        }
        container.waits = waits;
        if waits {
            for source in &container.sources {
                let _ = epoll::delete(&self.events, &source.end);
            }
        } else if let Err(error) = watch(&self.events, of, &container.sources) {
            eprintln!("sampan logger: an output is not read any more: {error}");
        }
    }

    /// Write the lines that have been held long enough.
    fn let_go(&mut self) {
        let now = Instant::now();
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.held.pop_front() else { return };
            let Some(Container { sources, writer, .. }) = self.containers.get_mut(&(key / 2)) else { continue };
            let Some(source) = sources.get_mut((key % 2) as usize) else { continue };
            source.queued = false;
            if !source.line.is_held() {
                continue;
            }
            if source.since + HOLD > now {
                // another line than the one that was queued
                source.queued = true;
                self.held.push_back((source.since + HOLD, key));
            } else {
                source.line.let_go(writer, &mut self.batch);
                writer.write(&mut self.batch);
            }
        }
    }

    /// There is no supervisor any more: write what there is. The lines may go on under the next; followers are not told,
    /// as they could make this wait.
    fn leave(mut self) {
        for Container { sources, writer, .. } in self.containers.values_mut() {
            for source in sources {
                source.drain(&mut self.bytes, writer, &mut self.batch, |_| {});
            }
            writer.write(&mut self.batch);
        }
    }
}

/// Has the outputs of the container of this number read.
fn watch(events: &OwnedFd, number: u64, sources: &[Source]) -> io::Result<()> {
    for (at, source) in sources.iter().enumerate() {
        let key = epoll::EventData::new_u64(key_of(number, at));
        epoll::add(events, &source.end, key, epoll::EventFlags::IN)?;
    }
    Ok(())
}

fn key_of(number: u64, output: usize) -> u64 {
    number * 2 + output as u64
}

#[cfg(test)]
mod tests;
