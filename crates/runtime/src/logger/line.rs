//! Bytes → entries: one stream of a container, of which the last line may be unfinished.

use crate::logs::format::{Stamp, TEXT_MAX};
use crate::logs::{Batch, Stream, Writer};

/// A stream's unfinished line.
#[derive(Debug)]
pub(super) struct Line {
    stream: Stream,
    /// What of it has not been written.
    held: Vec<u8>,
    /// When the first byte of that was read.
    stamp: Stamp,
    /// Whether that began with the last bytes taken.
    new: bool,
}

impl Line {
    pub fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new(), stamp: Stamp::now(), new: false }
    }

    /// Whether something is held.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether what is held began with the last bytes taken.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Put the lines of these bytes, which were read at this time, and hold the rest.
    pub fn take(&mut self, bytes: &[u8], stamp: &Stamp, writer: &mut Writer<'_>, batch: &mut Batch) {
        self.new = false;
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let rest = lines.next_back().unwrap_or_default();
        for line in lines {
            let last = self.split(line, stamp, writer, batch);
            self.put(last, stamp, false, writer, batch);
        }
        let rest = self.split(rest, stamp, writer, batch);
        if !rest.is_empty() {
            if self.held.is_empty() {
                self.stamp = *stamp;
                self.new = true;
            }
            self.held.extend_from_slice(rest);
        }
    }

    /// Put the parts of a line that fill an entry. Returns the rest, which fits into one with what is held.
    fn split<'line>(
        &mut self,
        mut line: &'line [u8],
        stamp: &Stamp,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
    ) -> &'line [u8] {
        while let Some((part, rest)) = line.split_at_checked(TEXT_MAX - self.held.len()).filter(|(_, r)| !r.is_empty())
        {
            self.put(part, stamp, true, writer, batch);
            line = rest;
        }
        line
    }

    /// Put what is held, and this.
    fn put(&mut self, text: &[u8], stamp: &Stamp, partial: bool, writer: &mut Writer<'_>, batch: &mut Batch) {
        if self.held.is_empty() {
            writer.put(batch, stamp, self.stream, partial, text);
        } else {
            self.held.extend_from_slice(text);
            writer.put(batch, &self.stamp, self.stream, partial, &self.held);
            // freed, not kept: there may be a thousand containers
            self.held = Vec::new();
        }
    }

    /// Put what is held as a part of a line that goes on; or that never ends, where the stream is over: an end of line
    /// that the program did not write is not made up.
    pub fn let_go(&mut self, writer: &mut Writer<'_>, batch: &mut Batch) {
        if self.is_held() {
            let stamp = self.stamp;
            self.put(&[], &stamp, true, writer, batch);
        }
    }
}
