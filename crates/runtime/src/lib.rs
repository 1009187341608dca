//! Root file system + process spec → an isolated process. A library with thin hosts: the supervisor and the logger.
//!
//! ```text
//! daemon:      link ──asks──▶ supervisor    rootfs ──detached mount──▶ (through link)
//! supervisor:  the parent of everything; journal; clones a child for each container
//! child:       seals itself and becomes the container's program
//! oci:         bundles of others: each command a process of its own
//! external:    has another OCI runtime execute a container, where that is asked for
//! logger:      reads every container's output into files, and hands it on to whoever is attached
//! ```
//!
//! Nothing here knows images, networks or records: a start is a [`wire::StartSpec`] and a mounted root. What a
//! container may do by default is in [`defaults`] and [`seccomp`].

#![forbid(unsafe_code)]

mod child;
pub mod defaults;
pub mod disk;
pub mod external;
mod journal;
pub mod link;
pub mod logger;
pub mod logs;
pub mod mounts;
pub mod oci;
pub mod rootfs;
pub mod seccomp;
pub mod supervisor;
pub mod wire;

pub use sampan_sys::cgroup;
