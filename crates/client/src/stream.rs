//! Answers without end: one JSON value a line.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use futures_util::{Stream, StreamExt, ready};
use hyper::body::Body as _;
use sampan_model::view::ErrorBody;
use serde::de::DeserializeOwned;

use crate::ClientError;
use crate::connection::Answer;

/// The longest line.
const LONGEST_LINE: usize = 4 << 20;

/// A stream of values, each of which the daemon tells as soon as it is so.
///
/// Dropping it closes the connection. It ends when the daemon ends the answer; a connection that breaks off is
/// [`ClientError::Lost`].
pub struct JsonLines<T> {
    pieces: Pieces,
    buffer: BytesMut,
    searched: usize,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { pieces: Pieces { answer }, buffer: BytesMut::new(), searched: 0, value: PhantomData }
    }

    /// The next value; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Lost`], or [`ClientError::Answer`] where a line is no such value.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        StreamExt::next(self).await
    }

    fn parse(&self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| match serde_json::from_slice::<ErrorBody>(line) {
            // it began well, and could not go on
            Ok(body) => ClientError::Api { status: self.pieces.answer.status.as_u16(), error: body.error },
            Err(_) => self.pieces.unreadable(error.to_string()),
        })
    }
}

impl<T: DeserializeOwned> Stream for JsonLines<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let end = self.searched + at;
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue; // a sign of life
                }
                return Poll::Ready(Some(self.parse(&line)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_LINE {
                let reason = format!("a line is longer than {} MiB, the limit for one value", LONGEST_LINE >> 20);
                return Poll::Ready(Some(Err(self.pieces.unreadable(reason))));
            }
            match ready!(self.pieces.poll(context)) {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.buffer.is_empty() => return Poll::Ready(None),
                None => {
                    let rest = std::mem::take(&mut self.buffer);
                    self.searched = 0;
                    return Poll::Ready(Some(self.parse(&rest)));
                }
            }
        }
    }
}

/// The bytes of an answer as they come.
pub(crate) struct Pieces {
    answer: Answer,
}

impl Pieces {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { answer }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<bytes::Bytes, ClientError>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.answer.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    Err(_trailers) => continue,
                },
                Some(Err(source)) => Some(Err(ClientError::Lost { request: self.answer.request.clone(), source })),
                None => None,
            });
        }
    }

    pub(crate) fn unreadable(&self, reason: String) -> ClientError {
        ClientError::Answer { request: self.answer.request.clone(), reason }
    }
}
