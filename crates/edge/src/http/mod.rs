//! The ingress: an HTTP/1.1 reverse proxy.
//!
//! Bodies stream through with back-pressure and are never held whole. What is ambiguous is refused; what is sent on is
//! written anew from what was parsed, so that the upstream cannot read it in another way than the edge did. HTTP/2, TLS
//! and access control are not here. Interim responses (103) are not passed on: hyper's server cannot send them; `100
//! Continue` is sent by the edge itself when the upstream begins to take the body.

mod body;
mod connection;
mod headers;
mod host;
mod page;
mod pool;
mod proxy;
mod tunnel;

pub(crate) use connection::accept;
pub(crate) use pool::{Pool, reap};
