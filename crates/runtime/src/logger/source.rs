//! What one container's output is read from: a pipe, or its terminal.

use std::os::fd::OwnedFd;
use std::time::Instant;

use jiff::Timestamp;

use super::line::Line;
use crate::logs::format::Stamp;
use crate::logs::{Batch, Stream, Writer};

/// The most that is read at once from a terminal that nobody writes to any more: more than a terminal's buffers hold
/// (64 KiB on the way and 4 KiB at its end).
const TERMINAL_REST: usize = 256 * 1024;

/// One of a container's outputs.
pub(super) struct Source {
    pub end: OwnedFd,
    pub line: Line,
    /// Since when a line has been held.
    pub since: Instant,
    /// Whether it is in the queue of held lines.
    pub queued: bool,
    stream: Stream,
    is_terminal: bool,
}

/// Bytes that were read, and where and when.
pub(super) struct Said<'bytes> {
    pub bytes: &'bytes [u8],
    pub stream: Stream,
    pub at: Timestamp,
}

impl Source {
    /// A pipe.
    pub fn pipe(end: OwnedFd, stream: Stream) -> Self {
        Self { end, line: Line::new(stream), since: Instant::now(), queued: false, stream, is_terminal: false }
    }

    /// A terminal's master, which does not block.
    pub fn terminal(end: OwnedFd) -> Self {
        Self { is_terminal: true, ..Self::pipe(end, Stream::Stdout) }
    }

    /// Reads once, at most so many bytes, puts its lines into the batch, and tells what was read.
    pub fn read<'bytes>(
        &mut self,
        most: usize,
        buffer: &'bytes mut [u8],
        writer: &mut Writer<'_>,
        batch: &mut Batch,
    ) -> Option<Said<'bytes>> {
        // a pipe's end may be one that blocks, and somebody may have been faster. What waits in a terminal cannot be
        // asked: a part of it may still be on its way, which a read waits for
        if !self.is_terminal && self.waiting() == 0 {
            return None;
        }
        let most = most.min(buffer.len());
        // of a terminal that everybody has closed: EIO
        let count = rustix::io::read(&self.end, &mut buffer[..most]).ok().filter(|&count| count > 0)?;
        let at = Timestamp::now();
        self.line.take(&buffer[..count], &Stamp::of(at), writer, batch);
        Some(Said { bytes: &buffer[..count], stream: self.stream, at })
    }

    /// Reads all that is there now, and not what may still come: that could be without end.
    pub fn drain(
        &mut self,
        buffer: &mut [u8],
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        mut told: impl FnMut(Said<'_>),
    ) {
        let mut left = if self.is_terminal { TERMINAL_REST } else { self.waiting() };
        while left > 0 {
            let Some(said) = self.read(left, buffer, writer, batch) else { break };
            left -= said.bytes.len().min(left);
            told(said);
        }
        self.line.let_go(writer, batch);
    }

    fn waiting(&self) -> usize {
        usize::try_from(rustix::io::ioctl_fionread(&self.end).unwrap_or(0)).unwrap_or(0)
    }
}
