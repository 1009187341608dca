//! The bytes of an answer: pieces of memory and of files, read a piece at a time, so that a large file takes no more
//! memory than a small one.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::JoinHandle;

/// How much of a file is read at once, and with it the memory that an answer takes.
const PIECE: u64 = 128 << 10;

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// A file's, from the first to the one before `end`.
    File { file: Arc<File>, at: u64, end: u64 },
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { at, end, .. } => end - at,
        }
    }
}

/// An answer's bytes.
#[derive(Debug, Default)]
pub(crate) struct Body {
    parts: VecDeque<Part>,
    /// The next piece of a file, on its way.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    pub(crate) fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts = parts.into_iter().filter(|part| part.length() > 0);
        Self { parts: parts.collect(), reading: None }
    }

    /// How many bytes are left.
    pub(crate) fn length(&self) -> u64 {
        self.parts.iter().map(Part::length).sum()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = &mut *self;
        let Some(part) = body.parts.front_mut() else { return Poll::Ready(None) };
        let bytes = match part {
            Part::Bytes(bytes) => std::mem::take(bytes),
            Part::File { file, at, end } => {
                let reading = body.reading.get_or_insert_with(|| {
                    let (file, at, length) = (Arc::clone(file), *at, PIECE.min(*end - *at));
                    tokio::task::spawn_blocking(move || read(&file, at, length))
                });
                let read = ready!(Pin::new(reading).poll(context));
                body.reading = None;
                match read.map_err(io::Error::other).flatten() {
                    Ok(bytes) => {
                        *at += bytes.len() as u64;
                        bytes
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        if part.length() == 0 {
            body.parts.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

/// A piece of a file, whole. One that has become shorter breaks the answer off: its length was said before.
fn read(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}
