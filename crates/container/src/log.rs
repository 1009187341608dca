//! A container's log, read for one who follows it.
//!
//! A thread of its own reads, since the log is a file and its changes are told by inotify; it ends with the reader, or
//! when the container has ended and everything that it wrote is read.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use sampan_model::ContainerId;
use sampan_model::view::LogFrame;
use sampan_runtime::logs::Reader;
use tokio::sync::mpsc;

use crate::containers::Container;
use crate::{ContainerError, Containers};

/// Frames between the file and the one who reads: a slow one makes the thread wait, and loses nothing that the
/// log keeps.
const FRAMES: usize = 64;

impl Containers {
    /// A container's output: what is there, or its last `tail` lines; with `follow` also what is to come, until the
    /// container has ended.
    ///
    /// # Errors
    /// There is no such container, or its log cannot be read.
    pub fn read_log(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<usize>,
    ) -> Result<mpsc::Receiver<(LogFrame, Vec<u8>)>, ContainerError> {
        let container = self.inner.get(id)?;
        let failed = |source| ContainerError::Io { what: format!("read the log of {}", id.short()), source };
        let directory = &self.inner.foundation.logs_dir;
        let mut reader = Reader::open(directory, id, tail).map_err(failed)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let stop = Arc::new(stop);
        let (frames, receiver) = mpsc::channel(FRAMES);
        if follow {
            tokio::spawn(stop_at_end(Arc::clone(&container), frames.clone(), Arc::clone(&stop)));
        }
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                if let Err(error) = copy(&mut reader, &frames, follow.then_some((&*container, &*stop))) {
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
async fn stop_at_end(container: Arc<Container>, frames: mpsc::Sender<(LogFrame, Vec<u8>)>, stop: Arc<OwnedFd>) {
    let mut logged = container.logged.subscribe();
    tokio::select! {
        _ = logged.wait_for(|logged| *logged) => {}
        () = frames.closed() => {}
    }
    // cannot fail: the counter is far from full
    let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
}

fn copy(
    reader: &mut Reader,
    frames: &mpsc::Sender<(LogFrame, Vec<u8>)>,
    follow: Option<(&Container, &OwnedFd)>,
) -> std::io::Result<()> {
    loop {
        // asked before the file is read: what was logged by then is read below
        let all_logged = follow.is_none_or(|(container, _)| *container.logged.borrow());
        while let Some(entry) = reader.next()? {
            let stream = match entry.stream {
                sampan_runtime::logs::Stream::Stdout => 1,
                sampan_runtime::logs::Stream::Stderr => 2,
            };
            let mut text = entry.text;
            if !entry.partial {
                text.push(b'\n');
            }
            for piece in text.chunks(LogFrame::LONGEST as usize) {
                let length = u32::try_from(piece.len()).expect("a chunk is at most 64 KiB");
                let frame = LogFrame { stream, length, at_ns: entry.at_ns };
                if frames.blocking_send((frame, piece.to_vec())).is_err() {
                    return Ok(());
                }
            }
        }
        match follow {
            Some((_, stop)) if !all_logged && !frames.is_closed() => {
                reader.wait(stop.as_fd(), None)?;
            }
            _ => return Ok(()),
        }
    }
}
