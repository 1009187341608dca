//! Every limit of the edge, by name. The defaults are what production runs with; tests lower them.

use std::time::Duration;

/// How often a request is tried, each time on another connection, before it is answered 502.
pub(crate) const TRIES: usize = 3;

/// The youngest keep-alive time a usual server has is two seconds (gunicorn); Node and Uvicorn have five. A request that
/// cannot be sent twice takes a kept connection only while it has been idle for less than this, so that it does not
/// meet the server's closing of it half-way.
pub(crate) const UNREPEATABLE_IDLE: Duration = Duration::from_secs(1);

/// The least time between two statuses that tell of draining upstreams.
pub(crate) const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// How long accepting pauses where the process is out of descriptors or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The stack of a worker thread. Address space; only what is used becomes memory.
pub(crate) const THREAD_STACK: usize = 1024 * 1024;

/// What the edge allows, and how long it waits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Worker threads, each with a runtime, listeners and kept connections of its own.
    pub threads: usize,
    /// Open client connections, upgraded ones too. Further ones are answered 503 and closed.
    pub connections: usize,
    /// Bytes of a request's or a response's head. Larger requests: 431; larger responses: 502.
    pub head_bytes: usize,
    /// From a request's first byte to the end of its head; past it the connection is closed.
    pub head_timeout: Duration,
    /// A client connection without a request; past it the connection is closed.
    pub idle_timeout: Duration,
    /// Connecting to an upstream; past it the next is tried.
    pub connect_timeout: Duration,
    /// From the last byte of the request that was passed on to the end of the response's head; past it: 504. Long,
    /// for reports and long polls; there is no limit on pauses within a response (event streams).
    pub response_timeout: Duration,
    /// Kept idle connections for each upstream and thread; the oldest is closed for the next.
    pub upstream_idle: usize,
    /// How long an idle connection to an upstream is kept.
    pub upstream_idle_timeout: Duration,
    /// At the end: how long requests under way may take yet.
    pub drain_timeout: Duration,
    /// Names being asked of the resolvers at once, for each thread. Further ones are answered SERVFAIL.
    pub dns_queries: usize,
    /// How long one resolver may take.
    pub dns_timeout: Duration,
    /// Open TCP connections of the name service, for each thread. Further ones are closed.
    pub dns_connections: usize,
    /// A TCP connection of the name service without a question; past it, it is closed.
    pub dns_idle_timeout: Duration,
    /// Clients of one published UDP port at once. Packets of further ones are lost.
    pub udp_sessions: usize,
    /// A client of a published UDP port to or from whom nothing passes; past it, it is forgotten.
    pub udp_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 16_384,
            head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(300),
            upstream_idle: 256,
            upstream_idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            dns_queries: 1_000,
            dns_timeout: Duration::from_secs(2),
            dns_connections: 256,
            dns_idle_timeout: Duration::from_secs(10),
            udp_sessions: 1_024,
            udp_idle_timeout: Duration::from_secs(90),
        }
    }
}
