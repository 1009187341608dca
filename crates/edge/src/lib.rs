//! The edge: the data plane. Requests for `NAME.localhost` go to the least loaded ready replica of service NAME, and
//! servers' questions for names are answered, and published ports lead to their containers, on sockets that were opened for the edge and handed to it.
//!
//! It knows one immutable [`EdgeTable`] at a time and nothing else: no records, no containers, no health. It opens no
//! listening socket, writes no file and runs as nobody: strangers' bytes are parsed here. It keeps nothing that the next
//! edge would need; whoever started it replays the table and the sockets to the next one.
//!
//! ```text
//!                     ┌ control (the caller's task): tables and sockets in, status out
//!   Control ──▶ run ──┤
//!                     ├ worker 0 ┐ one thread, runtime, table, set of listeners and pool of kept connections each;
//!                     └ worker N ┘ they share atomic counters (in flight, open connections) and nothing else
//! ```
//!
//! Vocabulary: a *table* names services, their *replicas* (upstream addresses) and the keys of sockets; a *flight* is
//! one request or upgraded connection under way at a replica; a *part* is what one socket is used for and by which
//! workers.
//!
//! # What a status promises
//!
//! A table is *applied* when every worker routes by it. A worker chooses a replica and counts the flight in one go,
//! without waiting between, so whatever chose by an older table was counted before `applied` is told: once
//! `applied >= R` and `in_flight` has no entry for an address that table R does not have, nothing will ever be sent to
//! that address again, and its idle connections are closed.

#![forbid(unsafe_code)]

mod control;
mod dns;
mod http;
mod limits;
mod listeners;
mod ports;
mod table;
mod worker;

use std::os::fd::OwnedFd;

use sampan_model::EdgeTable;

pub use control::run;
pub use limits::Limits;

/// What the edge is told.
#[derive(Debug)]
pub enum Control {
    /// Sockets, each under its key. A key that is held already gets the new socket. They are used as soon as a table
    /// names their keys; one that the next table does not name is closed.
    Sockets(Vec<(String, OwnedFd)>),
    /// The table to route by from now on.
    Table(EdgeTable),
}

/// Why the edge ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A worker thread could not be started.
    #[error("start thread {thread} of {threads}")]
    Start {
        /// Which.
        thread: usize,
        /// Of how many.
        threads: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A worker thread ended by itself: a bug. What it served is lost, so the whole edge is to be started again.
    #[error("worker thread {thread} ended by itself; restart the edge")]
    Ended {
        /// Which.
        thread: usize,
    },
}
