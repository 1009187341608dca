//! What a container may use: config-linux.md, "Control groups". Also what `update` reads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::nullable;

/// All of it. What is not there is not changed.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Which devices, in order.
    #[serde(default, deserialize_with = "nullable")]
    pub devices: Vec<DeviceRule>,
    /// Memory.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Processors.
    #[serde(default)]
    pub cpu: Option<Cpu>,
    /// Processes.
    #[serde(default)]
    pub pids: Option<Pids>,
    /// Disks.
    #[serde(default, rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Large pages.
    #[serde(default, deserialize_with = "nullable")]
    pub hugepage_limits: Vec<HugePages>,
    /// Marks of its packets (version 1).
    #[serde(default)]
    pub network: Option<Network>,
    /// Handles of RDMA devices, by their names.
    #[serde(default, deserialize_with = "nullable")]
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of version 2 and what is written to them.
    #[serde(default, deserialize_with = "nullable")]
    pub unified: BTreeMap<String, String>,
}

/// A device rule.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct DeviceRule {
    /// Allowed or denied.
    #[serde(default)]
    pub allow: bool,
    /// `a`, `c` or `b`.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// All where there is none.
    #[serde(default)]
    pub major: Option<i64>,
    /// All where there is none.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Of `rwm`.
    #[serde(default, deserialize_with = "nullable")]
    pub access: String,
}

/// Bytes; -1 is no limit.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The most.
    #[serde(default)]
    pub limit: Option<i64>,
    /// What it is pressed back to first.
    #[serde(default)]
    pub reservation: Option<i64>,
    /// The most, swap included.
    #[serde(default)]
    pub swap: Option<i64>,
    /// The kernel's (version 1; the kernel has given it up).
    #[serde(default)]
    pub kernel: Option<i64>,
    /// The kernel's of TCP (version 1).
    #[serde(default, rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// From 0 to 100 (version 1).
    #[serde(default)]
    pub swappiness: Option<u64>,
    /// Whether it waits in place of being killed (version 1).
    #[serde(default, rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Whether groups below count (version 1).
    #[serde(default)]
    pub use_hierarchy: Option<bool>,
    /// Whether a limit below what is in use is refused.
    #[serde(default)]
    pub check_before_update: Option<bool>,
}

/// Processors.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Its part, 1024 being everybody's.
    #[serde(default)]
    pub shares: Option<u64>,
    /// Microseconds in each period; -1 is no limit.
    #[serde(default)]
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    #[serde(default)]
    pub burst: Option<u64>,
    /// Microseconds.
    #[serde(default)]
    pub period: Option<u64>,
    /// Microseconds of real-time processes in each period (version 1).
    #[serde(default)]
    pub realtime_runtime: Option<i64>,
    /// Microseconds (version 1).
    #[serde(default)]
    pub realtime_period: Option<u64>,
    /// A list of processors.
    #[serde(default, deserialize_with = "nullable")]
    pub cpus: String,
    /// A list of memory nodes.
    #[serde(default, deserialize_with = "nullable")]
    pub mems: String,
    /// 1: it runs when nobody else does.
    #[serde(default)]
    pub idle: Option<i64>,
}

/// Processes.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Pids {
    /// The most; none or less is no limit.
    #[serde(default)]
    pub limit: Option<i64>,
}

/// Disks.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Its part, from 10 to 1000.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Its own processes' part (version 1).
    #[serde(default)]
    pub leaf_weight: Option<u16>,
    /// Its part of single disks.
    #[serde(default, deserialize_with = "nullable")]
    pub weight_device: Vec<Weight>,
    /// Bytes a second.
    #[serde(default, deserialize_with = "nullable")]
    pub throttle_read_bps_device: Vec<Throttle>,
    /// Bytes a second.
    #[serde(default, deserialize_with = "nullable")]
    pub throttle_write_bps_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(default, rename = "throttleReadIOPSDevice", deserialize_with = "nullable")]
    pub throttle_read_iops_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(default, rename = "throttleWriteIOPSDevice", deserialize_with = "nullable")]
    pub throttle_write_iops_device: Vec<Throttle>,
}

/// A part of one disk.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Weight {
    /// Its number.
    pub major: i64,
    /// Its number.
    pub minor: i64,
    /// From 10 to 1000.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Its own processes' (version 1).
    #[serde(default)]
    pub leaf_weight: Option<u16>,
}

/// A rate of one disk.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Throttle {
    /// Its number.
    pub major: i64,
    /// Its number.
    pub minor: i64,
    /// A second.
    #[serde(default)]
    pub rate: u64,
}

/// Large pages.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugePages {
    /// `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Marks of its packets.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Network {
    /// net_cls' number.
    #[serde(default, rename = "classID")]
    pub class_id: Option<u32>,
    /// net_prio's.
    #[serde(default, deserialize_with = "nullable")]
    pub priorities: Vec<InterfacePriority>,
}

/// One interface's priority.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct InterfacePriority {
    /// Its name.
    pub name: String,
    /// The priority.
    pub priority: u32,
}

/// Handles of an RDMA device.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rdma {
    /// Handles.
    #[serde(default)]
    pub hca_handles: Option<u32>,
    /// Objects.
    #[serde(default)]
    pub hca_objects: Option<u32>,
}
