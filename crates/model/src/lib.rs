//! The words of Sampan as types: names, ids, digests, sizes, specs, states, plans and route tables.
//!
//! No input or output happens here, nothing is asynchronous and nothing reads a clock: every other crate may depend
//! on this one, and this one depends on none of them. Text from outside is parsed into these types once, where it
//! enters; past that point a `Label` is a label.

#![forbid(unsafe_code)]

pub mod container;
pub mod digest;
pub mod instance;
pub mod name;
pub mod route;
pub mod service;
pub mod size;
pub mod view;

pub use container::{ContainerSpec, ContainerState, ContainerStatus, ServiceRef};
pub use digest::Digest;
pub use instance::{IdRange, Instance};
pub use name::{ContainerId, ContainerName, ImageName, Label};
pub use route::{DnsSocket, EdgeStatus, EdgeTable, RoutedService, Upstream};
pub use service::{Health, ServiceSpec};
pub use size::{ByteSize, Cpus, ServerSize};
