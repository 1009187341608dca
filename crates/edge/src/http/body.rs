//! The bodies: what is read from a client and sent to an upstream, and the other way round. Both pass frames on as they
//! come; what they add is knowing when the end is reached.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::connection::Turn;
use super::pool::Lease;

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// None: there is none, so that the request can be sent again.
    incoming: Option<Incoming>,
    passed: Rc<Cell<Instant>>,
}

impl RequestBody {
    /// No body.
    pub(super) fn none(passed: Rc<Cell<Instant>>) -> Self {
        Self { incoming: None, passed }
    }

    /// This body. `passed` is kept at the time when the upstream asked for more of it last.
    pub(super) fn new(incoming: Incoming, passed: Rc<Cell<Instant>>) -> Self {
        Self { incoming: (!incoming.is_end_stream()).then_some(incoming), passed }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        self.passed.set(Instant::now());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// A response's body on its way to a client.
pub(super) struct ResponseBody {
    source: Source,
    _turn: Turn,
}

enum Source {
    /// Our own words.
    Text(Full<Bytes>),
    /// An upstream's. The lease is given back at the body's end, or dropped with it.
    Upstream { incoming: Incoming, lease: Option<Lease> },
}

impl ResponseBody {
    /// Our own words.
    pub(super) fn text(text: String, turn: Turn) -> Self {
        Self { source: Source::Text(Full::from(text)), _turn: turn }
    }

    /// An upstream's body, read from the connection of this lease; without a lease where the connection is a tunnel.
    pub(super) fn upstream(incoming: Incoming, lease: Option<Lease>, turn: Turn) -> Self {
        let mut source = Source::Upstream { incoming, lease };
        source.give_back_at_end();
        Self { source, _turn: turn }
    }
}

impl Source {
    fn give_back_at_end(&mut self) {
        if let Self::Upstream { incoming, lease } = self
            && incoming.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let never = |never: Infallible| match never {};
        match &mut self.source {
            Source::Text(text) => Pin::new(text).poll_frame(cx).map_err(never),
            Source::Upstream { incoming, lease } => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                match &frame {
                    // a body of known length ends with its last byte: it is not polled for an end
                    Some(Ok(_)) => self.source.give_back_at_end(),
                    None => drop(lease.take().map(Lease::give_back)),
                    Some(Err(_)) => drop(lease.take()),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_end_stream(),
            Source::Upstream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => text.size_hint(),
            Source::Upstream { incoming, .. } => incoming.size_hint(),
        }
    }
}
