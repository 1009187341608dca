//! Sampan from outside: the harness of the black-box tests in `tests/e2e`.
//!
//! It knows the binary, its command line, its URLs and what it must not leave on the machine; nothing of the crates
//! within but the words (`sampan-model`). Every [`Sampan`] is an instance of its own, so tests run side by side.
//! Needs root. What it needs beside the binary is fetched by `cargo xtask tools`.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod bundles;
pub mod guest;
pub mod http;
pub mod load;
pub mod machine;
pub mod native;
pub mod null;
pub mod peers;
pub mod sampan;
pub mod schema;
pub mod sources;
pub mod stream;
pub mod terminal;
pub mod tools;

pub use sampan::{Outcome, Sampan};
