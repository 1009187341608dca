//! Servers and the containers on them: image + runtime + network → a life cycle, with logs and events.
//!
//! [`Containers`] is the only way in. What is asked for is a [`ContainerSpec`](sampan_model::ContainerSpec); what has
//! become of it is read from its record or watched. Every record is written before the thing it tells of is made, and
//! removed after that thing is gone, so that a daemon that was killed anywhere between finds what it must clean up:
//! starting is *adopting* what is there ([`Containers::adopt`]), and there is no other recovery.
//!
//! It does not restart what ended (that is `service`'s policy) and knows no HTTP (that is `api`'s).
//!
//! Vocabulary: a *server* is a slice of the machine with an index, which gives it its address and its user ids
//! ([`Block`](sampan_model::instance::Block)); each container here runs on a server of its own.

#![forbid(unsafe_code)]

mod adopt;
mod containers;
mod edge;
mod error;
pub mod failpoint;
mod garbage;
mod images;
mod log;
mod machine;
mod record;
mod start;
mod supervisor;
mod tree;
mod wires;

pub use containers::{CONTAINER_CGROUP, Containers, Foundation};
pub use edge::EdgeTables;
pub use error::ContainerError;
pub use images::{ImageRecord, Images};
pub use machine::Machine;
pub use record::ContainerRecord;
pub use sampan_network::listening::Listening;
pub use supervisor::{Connected, Supervisor};
