//! The Linux kernel, as far as Sampan needs it and `rustix` does not offer it safely: processes and namespaces,
//! mounts, cgroups v1 and v2, seccomp, netlink, nf_tables. The only crate with `unsafe`; each block has its proof.
//!
//! ```text
//! process, clone, pidfd, signal   being a process, making one, holding one, hearing of one
//! scheduling                      when its turn comes
//! identity, file_rights, seccomp  what a thread is and may
//! user_namespace                  a map of ids, held
//! mount, cgroup, net              what is in its sight: files, resources, the network
//! frame                           messages with descriptors between processes
//! ```
//!
//! It decides nothing and keeps no state: what to isolate, and in which order, is for the crates above.

pub mod cgroup;
pub mod clone;
pub mod file_rights;
pub mod frame;
pub mod identity;
pub mod loop_device;
pub mod mount;
pub mod net;
pub mod peer;
pub mod pidfd;
pub mod process;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod title;
pub mod user_namespace;
