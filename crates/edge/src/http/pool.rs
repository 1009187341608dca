//! Connections to upstreams, and the idle ones that are kept for the next request. One pool a thread: a connection stays
//! on the thread that made it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::body::RequestBody;
use crate::limits::Limits;
use crate::table::{Flight, Replica};
use crate::worker::Worker;

/// The idle connections of one thread.
#[derive(Debug)]
pub(crate) struct Pool {
    /// By address, the longest idle first.
    idle: RefCell<HashMap<SocketAddr, VecDeque<Idle>>>,
    limit: usize,
    timeout: Duration,
    filled: Notify,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use by one request, and that request's flight.
pub(super) struct Lease {
    /// The connection.
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether it had been used before: the upstream may be closing it at this moment.
    pub(super) kept: bool,
    flight: Flight,
    worker: Rc<Worker>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The kernel says so.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Nothing came back in time.
    #[error("connect to {address}: no answer within {} ms", limit.as_millis())]
    Late {
        /// Where to.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// hyper refused the connection before anything was sent.
    #[error("connect to {address}: {source}")]
    Handshake {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
}

/// A connection for this flight: one that has been idle for less than `idle_for`, the most recently used first, else a
/// new one.
pub(super) async fn connect(worker: &Rc<Worker>, flight: Flight, idle_for: Duration) -> Result<Lease, ConnectError> {
    let address = flight.replica.address;
    if let Some(sender) = worker.pool.take(address, idle_for) {
        return Ok(Lease { sender, kept: true, flight, worker: Rc::clone(worker) });
    }
    let limits = &worker.shared.limits;
    let limit = limits.connect_timeout;
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::Late { address, limit })?
        .map_err(|source| ConnectError::Connect { address, source })?;
    // Cannot fail on a connected socket; without it the connection only waits for acknowledgements now and then.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits.head_bytes)
        .max_header_size(limits.head_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Handshake { address, source })?;
    // Ends when the connection does, or when its last sender is dropped and the exchange is over. Its error is told to
    // the request that is under way; without one it is of no interest.
    spawn_local(connection.with_upgrades());
    Ok(Lease { sender, kept: false, flight, worker: Rc::clone(worker) })
}

impl Lease {
    /// The response is read to its end: the flight is over, the connection can be kept.
    pub(super) fn give_back(self) {
        let Self { mut sender, flight, worker, .. } = self;
        let address = flight.replica.address;
        drop(flight);
        if sender.is_ready() {
            worker.pool.put(&worker, address, sender);
        } else if !sender.is_closed() {
            // The response was complete before the request's body was, or the connection's task has yet to notice.
            spawn_local(async move {
                if sender.ready().await.is_ok() {
                    worker.pool.put(&worker, address, sender);
                }
            });
        }
    }

    /// Where it leads.
    pub(super) fn replica(&self) -> &Replica {
        &self.flight.replica
    }

    /// The connection becomes a tunnel: what is left is the flight.
    pub(super) fn into_flight(self) -> Flight {
        self.flight
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            idle: RefCell::default(),
            limit: limits.upstream_idle,
            timeout: limits.upstream_idle_timeout,
            filled: Notify::new(),
        }
    }

    /// Closes the idle connections to every address that `keep` does not name.
    pub(crate) fn keep(&self, keep: impl Fn(SocketAddr) -> bool) {
        self.idle.borrow_mut().retain(|&address, _| keep(address));
    }

    fn take(&self, address: SocketAddr, idle_for: Duration) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&address)?;
        while let Some(Idle { sender, since }) = kept.pop_back() {
            if since.elapsed() >= idle_for {
                // the others have been idle for longer
                kept.push_back(Idle { sender, since });
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, worker: &Worker, address: SocketAddr, sender: SendRequest<RequestBody>) {
        if !worker.table().holds(address) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            self.filled.notify_one();
        }
        let kept = idle.entry(address).or_default();
        if kept.len() >= self.limit {
            kept.pop_front();
        }
        kept.push_back(Idle { sender, since: Instant::now() });
    }

    /// Closes what has been idle for too long, and forgets what the upstream has closed.
    fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|idle| idle.since.elapsed() < self.timeout && !idle.sender.is_closed());
            !kept.is_empty()
        });
    }
}

/// Sweeps the thread's pool for as long as the thread runs; sleeps without a timer while the pool is empty.
pub(crate) async fn reap(worker: Rc<Worker>) {
    let pool = &worker.pool;
    loop {
        pool.filled.notified().await;
        while !pool.idle.borrow().is_empty() {
            sleep(pool.timeout / 4).await;
            pool.sweep();
        }
    }
}
