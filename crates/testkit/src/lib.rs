//! What tests share: waiting without guessing, telling whether an instance left anything behind, and a host out there
//! to be reached.
//!
//! For tests only: it panics where a library would return an error, and no crate but tests uses it.

#![forbid(unsafe_code)]

pub mod leftovers;
pub mod outside;
pub mod waiting;

pub use leftovers::leftovers;
pub use outside::Outside;
pub use waiting::{wait_for, wait_until};
