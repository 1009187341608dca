//! What a cgroup's processes may use, as the OCI runtime-spec asks for it (1.2, config-linux.md, "Control groups"). The
//! words and units are those of cgroup version 1, as there; what becomes of them on either version is `plan`'s.
//!
//! `None`, and in the older fields 0, mean "as it is".

use super::DeviceRule;

/// `linux.resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// `devices`: the whole list, in its order, beginning with nothing allowed. `None` leaves the rules as they are.
    pub devices: Option<Vec<DeviceRule>>,
    /// `memory`.
    pub memory: Memory,
    /// `cpu`.
    pub cpu: Cpu,
    /// `pids.limit`: processes and threads; below 0: no limit.
    pub pids: Option<i64>,
    /// `blockIO`.
    pub io: Io,
    /// `hugepageLimits`.
    pub huge_pages: Vec<HugePages>,
    /// `network.classID`.
    pub network_class: Option<u32>,
    /// `network.priorities`: interface and priority.
    pub network_priorities: Vec<(String, u32)>,
    /// `rdma`.
    pub rdma: Vec<Rdma>,
    /// `unified`: files of version 2 and what to write to them.
    pub unified: Vec<(String, String)>,
}

/// `memory`, in bytes; -1: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// `limit`.
    pub limit: Option<i64>,
    /// `reservation`.
    pub reservation: Option<i64>,
    /// `swap`: of memory and swap together.
    pub swap: Option<i64>,
    /// `kernel`: means nothing since Linux 5.16.
    pub kernel: Option<i64>,
    /// `kernelTCP`: likewise.
    pub kernel_tcp: Option<i64>,
    /// `swappiness`, 0 to 100. Version 1 only.
    pub swappiness: Option<u64>,
    /// `disableOOMKiller`. Version 1 only.
    pub disable_oom_killer: Option<bool>,
    /// `useHierarchy`: means nothing since Linux 5.11, which always does.
    pub use_hierarchy: Option<bool>,
    /// `checkBeforeUpdate`: refuse a limit that is below what is in use. Version 1 always does.
    pub check_before_update: Option<bool>,
}

/// `cpu`, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// `shares`, 2 to 262,144.
    pub shares: Option<u64>,
    /// `quota`; below 0: none.
    pub quota: Option<i64>,
    /// `burst`.
    pub burst: Option<u64>,
    /// `period`.
    pub period: Option<u64>,
    /// `realtimeRuntime`. Version 1 only.
    pub realtime_runtime: Option<i64>,
    /// `realtimePeriod`. Version 1 only.
    pub realtime_period: Option<u64>,
    /// `cpus`, a list such as `0-2,7`.
    pub cpus: Option<String>,
    /// `mems`, likewise.
    pub mems: Option<String>,
    /// `idle`: 1 for whom only what nobody else wants is left.
    pub idle: Option<i64>,
}

/// `blockIO`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Io {
    /// `weight`, 10 to 1000.
    pub weight: Option<u16>,
    /// `leafWeight`. Version 1 before Linux 5.0 only.
    pub leaf_weight: Option<u16>,
    /// `weightDevice`.
    pub weight_devices: Vec<WeightDevice>,
    /// `throttleReadBpsDevice`, in bytes a second.
    pub read_bps: Vec<Throttle>,
    /// `throttleWriteBpsDevice`, in bytes a second.
    pub write_bps: Vec<Throttle>,
    /// `throttleReadIOPSDevice`, in requests a second.
    pub read_iops: Vec<Throttle>,
    /// `throttleWriteIOPSDevice`, in requests a second.
    pub write_iops: Vec<Throttle>,
}

/// One of `weightDevice`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightDevice {
    /// The device's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
    /// `weight`, 10 to 1000.
    pub weight: Option<u16>,
    /// `leafWeight`. Version 1 before Linux 5.0 only.
    pub leaf_weight: Option<u16>,
}

/// One of the throttles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle {
    /// The device's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
    /// How much a second; 0: no limit.
    pub rate: u64,
}

/// One of `hugepageLimits`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePages {
    /// `pageSize`, such as `2MB`.
    pub page_size: String,
    /// `limit`, in bytes.
    pub limit: u64,
}

/// One of `rdma`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    /// The device's name.
    pub device: String,
    /// `hcaHandles`.
    pub handles: Option<u32>,
    /// `hcaObjects`.
    pub objects: Option<u32>,
}

/// What version 2 calls a number of shares: 2 is 1, 1024 (the default) is 100 (the default), 262,144 is 10,000, and what
/// lies between a quadratic function of the logarithm, as runc (since 1.3.2) and crun (since 1.23) have it. Before, 1024
/// became 39, a third of what a process outside of any container gets.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// What version 2 calls a `blockIO` weight: 10 to 1000 becomes 1 to 10,000, in a line.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 2),
            (100, 17),
            (1024, 100),
            (10_000, 627),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        for (weight, expected) in [(0, 1), (10, 1), (15, 51), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), expected, "{weight}");
        }
    }
}
