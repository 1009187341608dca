//! HTTP → one [`Action`] that carries its [`Caller`]; and what comes of it → HTTP.
//!
//! `native` is Sampan's own API, as [`sampan_model::view`] lists it. Only this crate knows HTTP's shapes: a face
//! parses a request into an action, [`Core::perform`] does it, and the face writes the outcome. Who may speak is known
//! by the socket's peer credentials ([`Access`]).

#![forbid(unsafe_code)]

mod access;
mod action;
pub(crate) mod codes;
mod core;
mod create;
mod download;
mod error;
mod metrics;
pub mod native;
mod openapi;
mod operations;
mod owners;
mod servers;
mod upload;
mod volumes;

pub use access::{Access, Caller};
pub use action::{Action, Outcome};
pub use core::{Core, DaemonOrder};
pub use error::ApiError;
