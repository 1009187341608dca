//! Networks: an instance's block of addresses, and servers wired to it.
//!
//! Every server has one address and one wire of its own to the host, which routes between them: no bridge, no ARP, no
//! broadcast. It costs the same for the first server and for the thousandth.
//!
//! ```text
//!   server (network namespace)            host
//!   lo    127.0.0.0/8                     sp0-TAG      GATEWAY/32 (a bridge without ports: an interface to hold it)
//!   eth0  ADDRESS/32 ══════ wire ═══════  spTAG-INDEX  no address; route ADDRESS/32, source GATEWAY
//!         default via GATEWAY                          route BLOCK unreachable: what nobody has goes nowhere
//!   127.0.0.11:53 (UDP, TCP) ── descriptors ──▶ the edge, which answers names there
//! ```
//!
//! The firewall table `sampan_TAG` ([`firewall`](Network#the-firewall)) lets servers out under the host's address, lets
//! answers back in, and nothing else: neither servers among themselves nor strangers from outside reach a server. The
//! host reaches them all.
//!
//! What this crate deliberately does not do: make network namespaces (it wires those it is handed), answer names,
//! serve published ports (it opens their
//! sockets), give servers IPv6 (it keeps them from it: nothing here would filter it), remember anything. What there
//! is, is read back from the kernel.
//!
//! Vocabulary: the **block** is the run of 4,096 addresses an instance has claimed, the **gateway** its second address,
//! held by the host; a **wire** is a veth pair; an **instance** is one running Sampan.

#![forbid(unsafe_code)]

mod block;
mod check;
mod error;
mod firewall;
pub mod listening;
mod loopback;
mod network;
pub mod published;
mod wire;

pub use check::{Finding, check};
pub use error::NetworkError;
pub use network::Network;
pub use wire::Wired;
