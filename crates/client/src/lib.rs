//! The typed Rust SDK over Sampan's native API: a root, a client, one method a request, and the start of the daemon
//! where none answers.
//!
//! Two levels. [`Cloud`] gives handles to make and hold things by:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sampan_client::Cloud;
//! use sampan_client::model::{ByteSize, Cpus};
//!
//! let cloud = Cloud::connect_or_start().await?;
//! let server = cloud.server(Cpus::ONE, ByteSize::gib(1)).create().await?;
//! let app = server.deploy("examples/hello-rust").await?;
//! println!("{}", app.http().await?);
//! server.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Client`], below it, has one method a request, with the API's own types:
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
//! # What is dropped
//!
//! | dropped | what becomes of it |
//! |---|---|
//! | a handle: [`Cloud`], [`Server`], [`App`], [`Watch`] | nothing: servers and apps go on until somebody closes or removes them |
//! | [`NewServer::create`] before it has told | a server that was made all the same is closed |
//! | [`Deploy`] while it compiles or uploads | the compiler is stopped; nothing has a name yet |
//! | [`Deploy`], [`Run`] before they have told | given up, as `sampan up` does on Ctrl-C: what was before goes on |
//! | [`App::http`], [`Watch::next`] | nothing: they only look; ask again |
//! | a request of [`Client`]'s | its connection is closed; whether the daemon has begun is not known |
//!
//! What is taken back is so by a task of the runtime's: a program that ends at once leaves it as it is.
//!
//! The command line uses this crate and nothing below it, so whatever it can do, a program can. It decides nothing
//! itself: names, sizes and states are judged by the daemon. It never prints (a compiler may: [`Deploy::quiet`]), and
//! it never asks for privilege
//! ([`StartError::NeedsRoot`] leaves that to whoever has a person in front of them).
//!
//! Vocabulary: a **root** is the directory that holds everything of one Sampan ([`Root`]); a **lost connection**
//! ([`ClientError::Lost`]) is a daemon that went away in the middle of an answer. Requests that may be made twice
//! are made again when that happens, to a fresh daemon where the client may start one ([`Client::on_demand`]).

#![forbid(unsafe_code)]

mod app;
mod binary;
mod cloud;
mod connection;
mod containers;
mod daemon;
mod deploy;
mod error;
mod files;
mod images;
mod logs;
mod root;
mod server;
mod servers;
mod services;
mod start;
mod stream;
mod streams;
pub mod systemd;
mod undo;
mod unix;
mod volumes;
mod watch;

pub use app::App;
pub use cloud::{Cloud, NewServer};
pub use connection::Client;
pub use deploy::{Deploy, DeployError, Run};
pub use error::ClientError;
pub use files::FileStream;
pub use images::BlobStream;
pub use logs::{LogEntry, LogOptions, LogStream, Output};
pub use root::{DEFAULT_ROOT, Root, RootError};
pub use sampan_model as model;
pub use sampan_pack as pack;
pub use server::Server;
pub use start::{Listen, ListenError, StartError, StartOptions, connect_or_start, ensure_started};
pub use stream::JsonLines;
pub use streams::{ProcessEvent, ProcessInput, ProcessOutput, ProcessStream};
pub use watch::{Seen, Watch};
