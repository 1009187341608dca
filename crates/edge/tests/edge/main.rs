//! The edge as whoever starts it sees it: real sockets on 127.0.0.1, applications played by the tests.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod drain;
mod limits;
mod names;
mod parsing;
mod ports;
mod proxying;
mod support;
