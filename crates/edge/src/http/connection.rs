//! Client connections: accepting, the count of them, and how long they may be silent.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::proxy;
use crate::limits::{ACCEPT_PAUSE, Limits};
use crate::worker::{Place, Worker};

/// Written to a connection over the limit; such a connection is not worth parsing a request for.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
retry-after: 1\r\ncontent-length: 77\r\n\r\nthe limit of open connections to this edge is reached; try again in a moment\n";

/// Accepts connections and serves each in a task of its own, until it is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match worker.shared.connections.open() {
                Some(place) => drop(spawn_local(serve(Rc::clone(&worker), stream, peer, place))),
                // A new connection's send buffer is empty, so one attempt writes all.
                None => drop(stream.try_write(FULL)),
            },
            // The peer went away between its SYN and our accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "connections cannot be accepted; pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: Place) {
    // Neither can fail on a connected socket; a connection without them works, only less well. Keep-alive probes find
    // the peers that vanished in the middle of an event stream.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let limits = &worker.shared.limits;
    let silence = Arc::new(Silence::new());
    let io = TokioIo::new(Watched { stream, silence: Arc::clone(&silence), _place: place });
    let service = service_fn(|request| {
        let turn = Turn::begin(&silence);
        let worker = Rc::clone(&worker);
        async move { Ok::<_, Infallible>(proxy::handle(worker, peer, request, turn).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            // hyper's own time limit has one length for idling and for heads; ours has two (see `Silence`)
            .header_read_timeout(None)
            .max_buf_size(limits.head_bytes)
            .max_header_size(limits.head_bytes)
            .serve_connection(io, service)
            .with_upgrades()
    );
    let mut check = pin!(tokio::time::sleep(limits.head_timeout));
    let mut finish = worker.finish();
    let mut finishing = false;
    loop {
        tokio::select! {
            biased;
            // Its error is the client's: a request that does not parse (answered by hyper), or a broken connection.
            _ = connection.as_mut() => return,
            _ = finish.wait_for(|finish| *finish), if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = check.as_mut() => {
                let now = Instant::now();
                let until = silence.until(limits);
                if until.is_some_and(|until| until <= now) {
                    return;
                }
                // a head that begins right after this look is looked at again before its time is up
                let next = now + limits.head_timeout;
                check.as_mut().reset(until.map_or(next, |until| until.min(next)));
            }
        }
    }
}

/// How long a connection has been silent: what its time limits are counted from.
///
/// ```text
///   Idle ──first byte──▶ Head ──request parsed──▶ Busy ──response ended──▶ Idle
/// ```
///
/// Kept as two bits of phase and a time in milliseconds, so that reading a byte costs no lock and no timer: the
/// connection's task looks here when the earliest limit could have passed, not at each change.
#[derive(Debug)]
struct Silence {
    opened: Instant,
    state: AtomicU64,
}

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;

impl Silence {
    fn new() -> Self {
        Self { opened: Instant::now(), state: AtomicU64::new(IDLE) }
    }

    fn enter(&self, phase: u64) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.state.store(millis << 2 | phase, Ordering::Relaxed);
    }

    fn heard(&self) {
        if self.state.load(Ordering::Relaxed) & 3 == IDLE {
            self.enter(HEAD);
        }
    }

    /// The end of a response is still being written to a slow client.
    fn wrote(&self) {
        if self.state.load(Ordering::Relaxed) & 3 == IDLE {
            self.enter(IDLE);
        }
    }

    /// When the connection is to be closed if nothing changes; none while a request is served.
    fn until(&self, limits: &Limits) -> Option<Instant> {
        let state = self.state.load(Ordering::Relaxed);
        let since = self.opened + Duration::from_millis(state >> 2);
        match state & 3 {
            IDLE => Some(since + limits.idle_timeout),
            HEAD => Some(since + limits.head_timeout),
            _ => None,
        }
    }
}

/// A request being served, from the end of its head to the end of its response; then the connection is idle again.
#[derive(Debug)]
pub(super) struct Turn(Arc<Silence>);

impl Turn {
    fn begin(silence: &Arc<Silence>) -> Self {
        silence.enter(BUSY);
        Self(Arc::clone(silence))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.enter(IDLE);
    }
}

/// A client's socket that says when it is heard, and holds the connection's place for as long as it is open: also when
/// it was upgraded.
struct Watched {
    stream: TcpStream,
    silence: Arc<Silence>,
    _place: Place,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.silence.heard();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.silence.wrote();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            self.silence.wrote();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
