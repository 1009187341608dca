//! The words of Sampan as types: names, ids, digests, sizes, specs, states, plans and route tables.
//!
//! No input or output happens here, nothing is asynchronous and nothing reads a clock: every other crate may depend
//! on this one, and this one depends on none of them. Text from outside is parsed into these types once, where it
//! enters; past that point a `Label` is a label.

#![forbid(unsafe_code)]

pub mod capability;
pub mod confinement;
pub mod container;
pub mod digest;
pub mod instance;
pub mod limit;
pub mod mount;
pub mod name;
pub mod owner;
pub mod port;
pub mod route;
pub mod server;
pub mod service;
pub mod signal;
pub mod size;
pub mod stream;
pub mod view;

pub use capability::Capability;
pub use confinement::{Confinement, Device, DeviceAccess, SeccompChoice};
pub use container::{ContainerSpec, ContainerState, ContainerStatus, RestartPolicy, ServiceRef};
pub use digest::Digest;
pub use instance::{IdRange, Instance};
pub use limit::{Resource, ResourceLimit};
pub use mount::{Disk, Mount, MountSource};
pub use name::{ContainerId, ContainerName, ImageName, Label};
pub use owner::Owner;
pub use port::{Protocol, PublishedPort};
pub use route::{DnsSocket, EdgeStatus, EdgeTable, ForwardedPort, RoutedService, Upstream};
pub use server::{ServerSpec, ServerStatus};
pub use service::{Health, ServiceSpec};
pub use size::{ByteSize, Cpus, ServerSize};
