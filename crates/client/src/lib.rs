//! The typed Rust SDK over Sampan's native API: a root, a client, one method a request, and the start of the daemon
//! where none answers.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sampan_client::{Client, Root};
//!
//! let client = Client::connect(&Root::resolve(None)?).await?;
//! for service in client.services().await? {
//!     println!("{} is {} at {}", service.name, service.health, service.url);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The command line uses this crate and nothing below it, so whatever it can do, a program can. It decides nothing
//! itself: names, sizes and states are judged by the daemon. It never prints, and it never asks for privilege
//! ([`StartError::NeedsRoot`] leaves that to whoever has a person in front of them).
//!
//! Vocabulary: a **root** is the directory that holds everything of one Sampan ([`Root`]); a **lost connection**
//! ([`ClientError::Lost`]) is a daemon that went away in the middle of an answer. Requests that may be made twice
//! are made again when that happens, to a fresh daemon where the client may start one ([`Client::on_demand`]).

#![forbid(unsafe_code)]

mod connection;
mod containers;
mod daemon;
mod error;
mod images;
mod logs;
mod root;
mod services;
mod start;
mod stream;
mod unix;

pub use connection::Client;
pub use error::ClientError;
pub use logs::{LogEntry, LogOptions, LogStream, Output};
pub use root::{DEFAULT_ROOT, Root, RootError};
pub use sampan_model as model;
pub use sampan_pack as pack;
pub use start::{Listen, ListenError, StartError, StartOptions, connect_or_start, ensure_started};
pub use stream::JsonLines;
