//! The client against a daemon of canned answers.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
mod handles;
mod requests;
mod streams;
