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
//! ([`Block`](sampan_model::instance::Block)). A container runs on a server of its own, or on one with a name, which it
//! shares with others.

#![forbid(unsafe_code)]

mod adopt;
mod again;
mod attach;
mod binds;
mod child;
mod confine;
mod containers;
mod create;
mod descriptor;
mod devices;
mod disk;
mod edge;
mod end;
mod error;
mod exec;
pub mod failpoint;
pub mod files;
mod fsck;
mod garbage;
mod going;
mod images;
mod log;
mod machine;
mod mounts;
mod named;
mod operations;
mod owners;
mod pool;
mod ports;
mod record;
mod roots;
pub mod runtimes;
mod seed;
mod server;
mod servers;
mod start;
mod supervisor;
mod timing;
mod tree;
mod usage;
mod volumes;
mod wires;

pub use attach::{Attached, Input, MOST_ATTACHED, Signals};
pub use confine::ConfineError;
pub use containers::{Containers, Foundation};
pub use create::Asked;
pub use disk::DiskError;
pub use edge::EdgeTables;
pub use error::ContainerError;
pub use exec::{ExecSession, Process};
pub use images::{ImageRecord, Images};
pub use log::LogRange;
pub use machine::Machine;
pub use mounts::{MOST_MOUNTS, MountError};
pub use pool::{LARGEST_POOL, POOL_SIZE};
pub use record::ContainerRecord;
pub use sampan_network::listening::Listening;
pub use seed::SeedError;
pub use servers::ServerRecord;
pub use supervisor::{Connected, Supervisor};
pub use timing::{BOUNDS_US, Counts, Histogram};
pub use tree::remove as remove_tree;
pub use volumes::{VolumeError, VolumeRecord, VolumeUsers, Volumes, volumes_of};
