//! Following what a container says, across daemons.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, ready};
use hyper::Method;
use jiff::Timestamp;
use sampan_model::view::LogFrame;

use crate::connection::{Call, segment};
use crate::stream::Pieces;
use crate::{Client, ClientError};

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// Only what was written then or later.
    pub since: Option<Timestamp>,
    /// Only what was written before. A log that is followed ends there.
    pub until: Option<Timestamp>,
}

/// Where a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// Some bytes that a container wrote: a line with its newline, or a piece of a longer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it wrote them to.
    pub output: Output,
    /// When they were read from it.
    pub at: Timestamp,
    /// The bytes as they were.
    pub bytes: Bytes,
}

impl Client {
    /// What a container has written, oldest first. With [`LogOptions::follow`] the stream ends with the container,
    /// and goes on with the next daemon where this one goes away; nothing is told twice or left out by that, as far
    /// as the log still has it.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`]; [`ClientError::Lost`] where there is no daemon to go on with.
    pub async fn logs(&self, container: &str, options: LogOptions) -> Result<LogStream, ClientError> {
        let pieces = self.log_pieces(container, options).await?;
        Ok(LogStream {
            client: self.clone(),
            container: container.into(),
            options,
            frames: Frames::new(pieces),
            told: VecDeque::new(),
            skip: VecDeque::new(),
        })
    }

    async fn log_pieces(&self, container: &str, options: LogOptions) -> Result<Pieces, ClientError> {
        let LogOptions { follow, tail, since, until } = options;
        let mut path = format!("/v1/containers/{}/logs?follow={follow}", segment(container));
        if let Some(lines) = tail {
            path.push_str(&format!("&tail={lines}"));
        }
        for (name, at) in [("since", since), ("until", until)] {
            path.extend(at.map(|at| format!("&{name}={}", segment(&at.to_string()))));
        }
        self.ask_again(&Call::new(Method::GET, path), |answer| async { Ok(Pieces::new(answer)) }).await
    }
}

/// The entries of one container's log. Dropping it closes the connection.
pub struct LogStream {
    client: Client,
    container: String,
    options: LogOptions,
    frames: Frames,
    /// The last moment's entries: where to go on in the next daemon's telling of the same log.
    told: VecDeque<LogEntry>,
    /// Entries of the last moment that were told by the daemon before.
    skip: VecDeque<LogEntry>,
}

impl LogStream {
    /// The next entry; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the daemon went away and no other can be started; [`ClientError::Answer`] where the
    /// bytes are no log.
    pub async fn next(&mut self) -> Option<Result<LogEntry, ClientError>> {
        loop {
            match self.frames.next().await? {
                Ok(entry) => {
                    if self.is_news(&entry) {
                        return Some(Ok(entry));
                    }
                }
                Err(error) if self.options.follow && error.is_lost() => {
                    if let Err(error) = self.resume(error).await {
                        return Some(Err(error));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Asks the next daemon for the whole log; what was told already is passed over.
    async fn resume(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.client.revive(error).await?;
        self.frames =
            Frames::new(self.client.log_pieces(&self.container, LogOptions { tail: None, ..self.options }).await?);
        self.skip = self.told.clone();
        Ok(())
    }

    fn is_news(&mut self, entry: &LogEntry) -> bool {
        if let Some(first) = self.skip.front() {
            if entry.at < first.at {
                return false;
            }
            if entry == first {
                self.skip.pop_front();
                return false;
            }
            self.skip.clear();
        }
        if self.told.front().is_some_and(|last| last.at != entry.at) {
            self.told.clear();
        }
        self.told.push_back(entry.clone());
        true
    }
}

/// The entries of one answer.
struct Frames {
    pieces: Pieces,
    buffer: BytesMut,
}

impl Frames {
    fn new(pieces: Pieces) -> Self {
        Self { pieces, buffer: BytesMut::new() }
    }
}

/// Takes one entry off the buffer's front, where a whole one is there. `Err` where the bytes are no frame.
fn take_entry(buffer: &mut BytesMut) -> Result<Option<LogEntry>, ()> {
    let Some(head) = buffer.first_chunk::<{ LogFrame::HEAD }>() else { return Ok(None) };
    let frame = LogFrame::decode(*head).ok_or(())?;
    let end = LogFrame::HEAD + frame.length as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let bytes = buffer.split_to(end).split_off(LogFrame::HEAD).freeze();
    let at = Timestamp::from_nanosecond(frame.at_ns.into()).map_err(drop)?;
    Ok(Some(LogEntry { output: if frame.stream == 1 { Output::Stdout } else { Output::Stderr }, at, bytes }))
}

impl Stream for Frames {
    type Item = Result<LogEntry, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match take_entry(&mut self.buffer) {
                Ok(Some(entry)) => return Poll::Ready(Some(Ok(entry))),
                Ok(None) => {}
                Err(()) => return Poll::Ready(Some(Err(self.pieces.unreadable("it is no log stream".into())))),
            }
            match ready!(self.pieces.poll(context)) {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.buffer.is_empty() => return Poll::Ready(None),
                None => {
                    self.buffer.clear();
                    return Poll::Ready(Some(Err(self.pieces.unreadable("it ends within an entry".into()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_whole() {
        let mut wire = Vec::new();
        for (stream, text) in [(1, "one\n"), (2, ""), (1, "two")] {
            wire.extend(LogFrame { stream, length: text.len() as u32, at_ns: 7 }.encode());
            wire.extend(text.as_bytes());
        }
        let mut buffer = BytesMut::new();
        let mut told = Vec::new();
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            while let Some(entry) = take_entry(&mut buffer).unwrap() {
                told.push((entry.output, entry.bytes));
            }
        }
        let expected = [(Output::Stdout, "one\n"), (Output::Stderr, ""), (Output::Stdout, "two")];
        assert_eq!(told, expected.map(|(output, text)| (output, Bytes::from_static(text.as_bytes()))));
        assert!(take_entry(&mut BytesMut::from(&[9u8; 16][..])).is_err());
    }
}
