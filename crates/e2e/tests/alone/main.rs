//! Tests that look at the whole machine, or want it for themselves: a binary of their own, since cargo runs one at a
//! time, and each of them holds [`ALONE`].

#![forbid(unsafe_code)]

mod ports;
mod random;
mod storms;

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// Until it is dropped, no other test of this binary runs.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
