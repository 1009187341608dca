//! A container's log, read for one who follows it.
//!
//! A thread of its own reads, since the log is a file and its changes are told by inotify; it ends with the reader, or
//! when the container has ended and everything that it wrote is read.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{EventfdFlags, eventfd};
use sampan_model::ContainerId;
use sampan_model::view::LogFrame;
use sampan_runtime::logs::{Entry, Reader, Stream};
use tokio::sync::mpsc;

use crate::containers::{Container, lock};
use crate::{ContainerError, Containers};

/// Frames between the file and the one who reads: a slow one makes the thread wait, and loses nothing that the
/// log keeps.
const FRAMES: usize = 64;

/// Logs of one user's containers that are read at once: each has a thread.
const MOST_READERS: usize = 256;

/// Those who read logs, by the containers' owners: nobody's readers are in another user's way.
#[derive(Default)]
pub(crate) struct Readers(Mutex<HashMap<u32, usize>>);

/// One of them, until it is dropped.
struct Seat {
    readers: Arc<Readers>,
    uid: u32,
}

impl Readers {
    fn seat(self: &Arc<Self>, uid: u32) -> Result<Seat, ContainerError> {
        let mut readers = lock(&self.0);
        let count = readers.entry(uid).or_default();
        if *count >= MOST_READERS {
            return Err(ContainerError::TooManyReaders(MOST_READERS));
        }
        *count += 1;
        Ok(Seat { readers: Arc::clone(self), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut readers = lock(&self.readers.0);
        if let Some(count) = readers.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.uid);
            }
        }
    }
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogRange {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Only so many last lines of what is there.
    pub tail: Option<usize>,
    /// Only what was written then or later.
    pub since: Option<Timestamp>,
    /// Only what was written before; the log that is followed ends there.
    pub until: Option<Timestamp>,
}

impl LogRange {
    /// The lines before an end cannot be found from the file's end, which may be further on by then: those that are
    /// wanted are the last ones read.
    fn last_before(&self) -> Option<usize> {
        self.tail.filter(|_| self.until.is_some() || !self.follow)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Timestamp::now() >= until)
    }
}

impl Containers {
    /// A part of a container's output.
    ///
    /// # Errors
    /// There is no such container, or its log cannot be read.
    pub async fn read_log(
        &self,
        id: &ContainerId,
        range: LogRange,
    ) -> Result<mpsc::Receiver<(LogFrame, Vec<u8>)>, ContainerError> {
        let container = self.inner.get(id)?;
        if !range.follow {
            container.last_words().await;
        }
        let seat = self.inner.readers.seat(container.record().spec.owner.uid)?;
        let failed = |source| ContainerError::Io { what: format!("read the log of {}", id.short()), source };
        let directory = &self.inner.foundation.logs_dir;
        let mut reader = Reader::open(directory, id, range.tail.filter(|_| range.until.is_none())).map_err(failed)?;
        if !range.follow {
            reader.end_here().map_err(failed)?;
        }
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let stop = Arc::new(stop);
        let (frames, receiver) = mpsc::channel(FRAMES);
        if range.follow {
            tokio::spawn(stop_at_end(Arc::clone(&container), frames.clone(), Arc::clone(&stop), range.until));
        }
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let _seat = seat;
                if let Err(error) = copy(&mut reader, &frames, range, (&container, &stop)) {
                    tracing::warn!(id = %container.id, %error, "a log could not be read to its end");
                }
                // first: closing the reader's inotify waits for a grace period of the kernel's, some 10 ms
                drop(frames);
            })
            .map_err(failed)?;
        Ok(receiver)
    }
}

/// Wakes the thread when there is nothing left to wait for.
async fn stop_at_end(
    container: Arc<Container>,
    frames: mpsc::Sender<(LogFrame, Vec<u8>)>,
    stop: Arc<OwnedFd>,
    until: Option<Timestamp>,
) {
    let mut logged = container.logged.subscribe();
    let over = async {
        match until {
            // what is in the past is over at once
            Some(until) => {
                let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                tokio::time::sleep(left).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = logged.wait_for(|logged| *logged) => {}
        () = frames.closed() => {}
        () = over => {}
    }
    // cannot fail: the counter is far from full
    let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
}

fn copy(
    reader: &mut Reader,
    frames: &mpsc::Sender<(LogFrame, Vec<u8>)>,
    range: LogRange,
    (container, stop): (&Container, &OwnedFd),
) -> std::io::Result<()> {
    let mut last = range.last_before().map(|most| Last { most, whole: 0, entries: VecDeque::new() });
    loop {
        // asked before the file is read: what was logged by then is read below
        let all_logged = !range.follow || *container.logged.borrow();
        let is_over = range.is_over();
        while let Some(entry) = reader.next()? {
            let at = entry.at();
            if range.since.is_some_and(|since| at < since) {
                continue;
            }
            if range.until.is_some_and(|until| at >= until) {
                return Last::tell(last, frames);
            }
            match &mut last {
                Some(last) => last.keep(entry),
                None if tell(entry, frames).is_err() => return Ok(()),
                None => {}
            }
        }
        if all_logged || is_over || frames.is_closed() {
            return Last::tell(last, frames);
        }
        Last::tell(last.take(), frames)?;
        reader.wait(stop.as_fd(), None)?;
    }
}

/// The last lines of what was read so far.
struct Last {
    most: usize,
    /// How many of the entries end a line: parts count as one with the part that ends them.
    whole: usize,
    entries: VecDeque<Entry>,
}

impl Last {
    /// The log is bounded, and so is this.
    fn keep(&mut self, entry: Entry) {
        self.whole += usize::from(!entry.partial);
        self.entries.push_back(entry);
        while self.whole > self.most {
            let first = self.entries.pop_front();
            self.whole -= usize::from(first.is_some_and(|first| !first.partial));
        }
    }

    fn tell(last: Option<Self>, frames: &mpsc::Sender<(LogFrame, Vec<u8>)>) -> std::io::Result<()> {
        for entry in last.into_iter().flat_map(|last| last.entries) {
            if tell(entry, frames).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Nobody reads any more.
struct Gone;

fn tell(entry: Entry, frames: &mpsc::Sender<(LogFrame, Vec<u8>)>) -> Result<(), Gone> {
    let stream = match entry.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let mut text = entry.text;
    if !entry.partial {
        text.push(b'\n');
    }
    for piece in text.chunks(LogFrame::LONGEST as usize) {
        let length = u32::try_from(piece.len()).expect("a chunk is at most 64 KiB");
        let frame = LogFrame { stream, length, at_ns: entry.at_ns };
        frames.blocking_send((frame, piece.to_vec())).map_err(|_| Gone)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_s_readers_are_bounded_and_in_nobody_s_way() {
        let readers = Arc::new(Readers::default());
        let mut seats: Vec<Seat> = (0..MOST_READERS).map(|_| readers.seat(1000).expect("a seat")).collect();
        assert!(matches!(readers.seat(1000), Err(ContainerError::TooManyReaders(MOST_READERS))));
        drop(readers.seat(1001).expect("another user's"));
        seats.pop();
        seats.push(readers.seat(1000).expect("the one that was left"));
        drop(seats);
        assert!(lock(&readers.0).is_empty());
    }
}
