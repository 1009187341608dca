//! What is Linux's: config-linux.md.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Resources, Seccomp, nullable};

/// All that is Linux's.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// The namespaces it has of its own, or joins; in all others it is with the runtime.
    #[serde(default, deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    /// Users of its user namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of its user namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
    /// What its clocks are ahead, by `monotonic` and `boottime`.
    #[serde(default, deserialize_with = "nullable")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes beside those that every container has.
    #[serde(default, deserialize_with = "nullable")]
    pub devices: Vec<Device>,
    /// Its cgroup, in every hierarchy; one is chosen where there is none.
    #[serde(default, deserialize_with = "nullable")]
    pub cgroups_path: String,
    /// What it may use.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// Cache and memory bandwidth.
    #[serde(default)]
    pub intel_rdt: Option<serde_json::Value>,
    /// Files below `/proc/sys`, by their names with dots.
    #[serde(default, deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    /// Its filter of system calls.
    #[serde(default)]
    pub seccomp: Option<Seccomp>,
    /// What becomes of mounts made on either side.
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs_propagation: String,
    /// Paths that it must not read.
    #[serde(default, deserialize_with = "nullable")]
    pub masked_paths: Vec<String>,
    /// Paths that it must not change.
    #[serde(default, deserialize_with = "nullable")]
    pub readonly_paths: Vec<String>,
    /// SELinux' label of its mounts.
    #[serde(default, deserialize_with = "nullable")]
    pub mount_label: String,
    /// What kind of system it is told it is on.
    #[serde(default)]
    pub personality: Option<Personality>,
}

/// One namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The one to join; a new one where there is none.
    #[serde(default)]
    pub path: Option<String>,
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    /// The first in the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// What one clock is ahead.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(default)]
    pub secs: i64,
    /// And nanoseconds.
    #[serde(default)]
    pub nanosecs: u32,
}

/// A device node.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where, in the container.
    pub path: String,
    /// Of which driver.
    #[serde(default)]
    pub major: i64,
    /// Which of its.
    #[serde(default)]
    pub minor: i64,
    /// Who may do what with it.
    #[serde(default)]
    pub file_mode: Option<u32>,
    /// Its owner in the container.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its group in the container.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// What kind of system it is told it is on.
#[derive(Debug, Clone, Deserialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None are specified yet.
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
}
