//! Resources → what is written where, on either version. The plan is made without touching anything, and carried out in
//! its order; what the kernel finds senseless (`EINVAL`) is tried once more at the end: a limit that may not be above
//! another which is only raised after it, on version 1 memory's of that with swap, a quota's period and burst.
//!
//! The conversions are runc's. What version 2 has no setting for is ignored and said, as runc ignores it.

use std::io;

use rustix::io::Errno;

use super::resources::{Io, Throttle, io_weight, weight_of_shares};
use super::tree::Tree;
use super::{CgroupError, Cpu, Memory, Resources, file};

/// Which version a controller's hierarchy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// What a plan has to know of the machine and of the cgroup.
pub(super) trait Ground {
    /// Where a controller is, if it is anywhere.
    fn version(&self, controller: &str) -> Option<Version>;

    /// Whether there is version 2 and nothing else.
    fn unified_alone(&self) -> bool;

    /// What a file of a controller holds; `None` where it is not there.
    fn read(&self, controller: &str, file: &str) -> Result<Option<String>, CgroupError>;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    pub missing: Missing,
}

/// What to do where there is no such file: the kernel's options decide on some.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Refused,
    Skipped,
    Instead { file: &'static str, value: String },
}

/// What to do, and what is left undone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub writes: Vec<Write>,
    pub ignored: Vec<&'static str>,
}

/// The pseudo-controller of files that are written as they are named.
const UNIFIED: &str = "";

pub(super) fn plan(resources: &Resources, ground: &dyn Ground) -> Result<Plan, CgroupError> {
    let mut plan = Plan::default();
    plan.memory(&resources.memory, ground)?;
    plan.cpu(&resources.cpu, ground)?;
    plan.cpuset(&resources.cpu, ground)?;
    if let Some(limit) = resources.pids.filter(|&limit| limit != 0) {
        version(ground, "pids", "pids")?;
        plan.put("pids", "pids.max", number_or_max(limit));
    }
    plan.io(&resources.io, ground)?;
    plan.huge_pages(resources, ground)?;
    plan.network(resources, ground)?;
    for rdma in &resources.rdma {
        version(ground, "rdma", "rdma")?;
        let mut value = rdma.device.clone();
        for (word, number) in [("hca_handle", rdma.handles), ("hca_object", rdma.objects)] {
            if let Some(number) = number {
                value.push_str(&format!(" {word}={number}"));
            }
        }
        plan.put("rdma", "rdma.max", value);
    }
    for (name, value) in &resources.unified {
        if !ground.unified_alone() {
            return Err(CgroupError::NotUnified(name.clone()));
        }
        if name.contains('/') || !name.contains('.') {
            return Err(CgroupError::Setting(name.chars().take(80).collect()));
        }
        plan.put(UNIFIED, name.clone(), value.clone());
    }
    Ok(plan)
}

fn version(ground: &dyn Ground, controller: &'static str, resource: &'static str) -> Result<Version, CgroupError> {
    ground.version(controller).ok_or(CgroupError::NoController { controller, resource })
}

/// Version 2 has a word for what version 1 has -1 for.
fn number_or_max(number: i64) -> String {
    if number < 0 { "max".into() } else { number.to_string() }
}

/// In the older fields 0 is "as it is".
fn set<T: PartialEq + Default + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|&value| value != T::default())
}

impl Plan {
    fn put(&mut self, controller: &'static str, file: impl Into<String>, value: impl Into<String>) {
        let (file, value) = (file.into(), value.into());
        self.writes.push(Write { controller, file, value, missing: Missing::Refused });
    }

    fn put_if_there(&mut self, controller: &'static str, file: impl Into<String>, value: impl Into<String>) {
        let (file, value) = (file.into(), value.into());
        self.writes.push(Write { controller, file, value, missing: Missing::Skipped });
    }

    fn put_or(&mut self, controller: &'static str, file: &str, value: String, other: &'static str, instead: String) {
        let missing = Missing::Instead { file: other, value: instead };
        self.writes.push(Write { controller, file: file.into(), value, missing });
    }

    fn ignore(&mut self, asked: bool, name: &'static str) {
        if asked {
            self.ignored.push(name);
        }
    }

    fn memory(&mut self, memory: &Memory, ground: &dyn Ground) -> Result<(), CgroupError> {
        self.ignore(set(memory.kernel).is_some(), "memory.kernel");
        self.ignore(set(memory.kernel_tcp).is_some(), "memory.kernelTCP");
        let (limit, swap, reservation) = (set(memory.limit), set(memory.swap), set(memory.reservation));
        let killer = memory.disable_oom_killer == Some(true);
        let tree = memory.use_hierarchy == Some(true);
        if limit.is_none() && swap.is_none() && reservation.is_none() && memory.swappiness.is_none() && !killer && !tree
        {
            return Ok(());
        }
        if memory.swappiness.is_some_and(|swappiness| swappiness > 100) {
            return Err(CgroupError::Swappiness(memory.swappiness.unwrap_or_default()));
        }
        match version(ground, "memory", "memory")? {
            Version::One => {
                if tree {
                    // refused where it is so already and there are cgroups below
                    if ground.read("memory", "memory.use_hierarchy")?.as_deref() == Some("0") {
                        self.put("memory", "memory.use_hierarchy", "1");
                    }
                }
                if let Some(limit) = limit {
                    self.put("memory", "memory.limit_in_bytes", limit.to_string());
                }
                let with_swap = swap.or(limit.filter(|&limit| limit == -1));
                if let Some(with_swap) = with_swap {
                    let value = with_swap.to_string();
                    // a kernel that counts no swap cannot be asked to limit it; that there is none, or no limit, holds
                    if with_swap < 0 || Some(with_swap) == limit {
                        self.put_if_there("memory", "memory.memsw.limit_in_bytes", value);
                    } else {
                        self.put("memory", "memory.memsw.limit_in_bytes", value);
                    }
                }
                if let Some(reservation) = reservation {
                    self.put("memory", "memory.soft_limit_in_bytes", reservation.to_string());
                }
                if killer {
                    self.put("memory", "memory.oom_control", "1");
                }
                if let Some(swappiness) = memory.swappiness {
                    self.put("memory", "memory.swappiness", swappiness.to_string());
                }
            }
            Version::Two => {
                self.ignore(killer, "memory.disableOOMKiller");
                self.ignore(memory.swappiness.is_some(), "memory.swappiness");
                check_use(memory, limit, ground)?;
                match swap_alone(limit, swap, ground)?.map(number_or_max) {
                    Some(swap) if swap == "0" || swap == "max" => {
                        self.put_if_there("memory", "memory.swap.max", swap);
                    }
                    Some(swap) => self.put("memory", "memory.swap.max", swap),
                    None => {}
                }
                if let Some(limit) = limit {
                    self.put("memory", "memory.max", number_or_max(limit));
                }
                if let Some(reservation) = reservation {
                    self.put("memory", "memory.low", number_or_max(reservation));
                }
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &Cpu, ground: &dyn Ground) -> Result<(), CgroupError> {
        let (shares, quota, period) = (set(cpu.shares), set(cpu.quota), set(cpu.period));
        let realtime = (set(cpu.realtime_period), set(cpu.realtime_runtime));
        let asked =
            shares.is_some() || quota.is_some() || period.is_some() || cpu.burst.is_some() || cpu.idle.is_some();
        if !asked && realtime == (None, None) {
            return Ok(());
        }
        match version(ground, "cpu", "cpu")? {
            Version::One => {
                // before the processes come: one with a real-time schedule may not come without
                if let Some(period) = realtime.0 {
                    self.put("cpu", "cpu.rt_period_us", period.to_string());
                }
                if let Some(runtime) = realtime.1 {
                    self.put("cpu", "cpu.rt_runtime_us", runtime.to_string());
                }
                if let Some(idle) = cpu.idle {
                    self.put("cpu", "cpu.idle", idle.to_string());
                }
                if let Some(shares) = shares.filter(|_| cpu.idle != Some(1)) {
                    self.put("cpu", "cpu.shares", shares.to_string());
                }
                if let Some(period) = period {
                    self.put("cpu", "cpu.cfs_period_us", period.to_string());
                }
                if let Some(quota) = quota {
                    self.put("cpu", "cpu.cfs_quota_us", quota.max(-1).to_string());
                }
                if let Some(burst) = cpu.burst {
                    self.put("cpu", "cpu.cfs_burst_us", burst.to_string());
                }
            }
            Version::Two => {
                self.ignore(realtime.0.is_some(), "cpu.realtimePeriod");
                self.ignore(realtime.1.is_some(), "cpu.realtimeRuntime");
                if let Some(idle) = cpu.idle {
                    self.put("cpu", "cpu.idle", idle.to_string());
                }
                // who is idle has no weight
                if let Some(shares) = shares.filter(|_| cpu.idle != Some(1)) {
                    self.put("cpu", "cpu.weight", weight_of_shares(shares).to_string());
                }
                match (quota, period) {
                    (None, None) => {}
                    // the kernel keeps the period
                    (Some(quota), None) => self.put("cpu", "cpu.max", number_or_max(quota)),
                    (Some(quota), Some(period)) => {
                        self.put("cpu", "cpu.max", format!("{} {period}", number_or_max(quota)));
                    }
                    (None, Some(period)) => {
                        let now = ground.read("cpu", "cpu.max")?.unwrap_or_default();
                        let quota = now.split(' ').next().filter(|quota| !quota.is_empty()).unwrap_or("max");
                        self.put("cpu", "cpu.max", format!("{quota} {period}"));
                    }
                }
                if let Some(burst) = cpu.burst {
                    self.put("cpu", "cpu.max.burst", burst.to_string());
                }
            }
        }
        Ok(())
    }

    fn cpuset(&mut self, cpu: &Cpu, ground: &dyn Ground) -> Result<(), CgroupError> {
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                version(ground, "cpuset", "cpu.cpus and cpu.mems")?;
                self.put("cpuset", file, list);
            }
        }
        Ok(())
    }

    fn io(&mut self, io: &Io, ground: &dyn Ground) -> Result<(), CgroupError> {
        if *io == Io::default() {
            return Ok(());
        }
        if ground.version("blkio") == Some(Version::One) {
            self.io_v1(io);
            return Ok(());
        }
        if version(ground, "io", "blockIO")? == Version::One {
            return Err(CgroupError::NoController { controller: "blkio", resource: "blockIO" });
        }
        if let Some(weight) = set(io.weight) {
            self.put_or("io", "io.bfq.weight", weight.to_string(), "io.weight", io_weight(weight).to_string());
        }
        self.ignore(set(io.leaf_weight).is_some(), "blockIO.leafWeight");
        for device in &io.weight_devices {
            let name = format!("{}:{}", device.major, device.minor);
            if let Some(weight) = set(device.weight) {
                let instead = format!("{name} {}", io_weight(weight));
                self.put_or("io", "io.bfq.weight", format!("{name} {weight}"), "io.weight", instead);
            }
            self.ignore(set(device.leaf_weight).is_some(), "blockIO.weightDevice.leafWeight");
        }
        for (word, throttles) in
            [("rbps", &io.read_bps), ("wbps", &io.write_bps), ("riops", &io.read_iops), ("wiops", &io.write_iops)]
        {
            for Throttle { major, minor, rate } in throttles {
                let rate = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
                self.put("io", "io.max", format!("{major}:{minor} {word}={rate}"));
            }
        }
        Ok(())
    }

    fn io_v1(&mut self, io: &Io) {
        if let Some(weight) = set(io.weight) {
            self.put_or("blkio", "blkio.weight", weight.to_string(), "blkio.bfq.weight", weight.to_string());
        }
        if let Some(weight) = set(io.leaf_weight) {
            self.put("blkio", "blkio.leaf_weight", weight.to_string());
        }
        for device in &io.weight_devices {
            let value = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
            if let Some(weight) = set(device.weight) {
                let value = value(weight);
                self.put_or("blkio", "blkio.weight_device", value.clone(), "blkio.bfq.weight_device", value);
            }
            if let Some(weight) = set(device.leaf_weight) {
                self.put("blkio", "blkio.leaf_weight_device", value(weight));
            }
        }
        for (word, throttles) in [
            ("read_bps", &io.read_bps),
            ("write_bps", &io.write_bps),
            ("read_iops", &io.read_iops),
            ("write_iops", &io.write_iops),
        ] {
            for Throttle { major, minor, rate } in throttles {
                self.put("blkio", format!("blkio.throttle.{word}_device"), format!("{major}:{minor} {rate}"));
            }
        }
    }

    fn huge_pages(&mut self, resources: &Resources, ground: &dyn Ground) -> Result<(), CgroupError> {
        for pages in &resources.huge_pages {
            let (size, limit) = (&pages.page_size, pages.limit.to_string());
            if size.is_empty() || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(CgroupError::PageSize(size.chars().take(80).collect()));
            }
            let end = match version(ground, "hugetlb", "hugepageLimits")? {
                Version::One => "limit_in_bytes",
                Version::Two => "max",
            };
            self.put("hugetlb", format!("hugetlb.{size}.{end}"), limit.clone());
            // what is reserved, since Linux 5.7: a fault beyond the limit is a SIGBUS, a reservation an error
            self.put_if_there("hugetlb", format!("hugetlb.{size}.rsvd.{end}"), limit);
        }
        Ok(())
    }

    fn network(&mut self, resources: &Resources, ground: &dyn Ground) -> Result<(), CgroupError> {
        if ground.unified_alone() {
            self.ignore(resources.network_class.is_some(), "network.classID");
            self.ignore(!resources.network_priorities.is_empty(), "network.priorities");
            return Ok(());
        }
        if let Some(class) = set(resources.network_class) {
            version(ground, "net_cls", "network.classID")?;
            self.put("net_cls", "net_cls.classid", class.to_string());
        }
        for (interface, priority) in &resources.network_priorities {
            version(ground, "net_prio", "network.priorities")?;
            self.put("net_prio", "net_prio.ifpriomap", format!("{interface} {priority}"));
        }
        Ok(())
    }
}

/// Version 2 makes room by killing; who wants to be refused instead says so.
fn check_use(memory: &Memory, limit: Option<i64>, ground: &dyn Ground) -> Result<(), CgroupError> {
    let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(()) };
    if memory.check_before_update != Some(true) {
        return Ok(());
    }
    let used = ground.read("memory", "memory.current")?.and_then(|used| used.parse().ok()).unwrap_or(0);
    if used > limit { Err(CgroupError::MemoryUsed { used, limit }) } else { Ok(()) }
}

/// Version 2 limits swap alone, where the specification has the sum.
fn swap_alone(limit: Option<i64>, both: Option<i64>, ground: &dyn Ground) -> Result<Option<i64>, CgroupError> {
    let Some(both) = both else { return Ok(limit.filter(|&limit| limit < 0)) };
    if both < 0 {
        return Ok(Some(-1));
    }
    let limit = match limit {
        Some(limit) if limit < 0 => return Ok(Some(both)),
        Some(limit) => limit,
        None => match ground.read("memory", "memory.max")?.and_then(|limit| limit.parse().ok()) {
            Some(limit) => limit,
            None => return Err(CgroupError::SwapWithoutLimit(both)),
        },
    };
    if both < limit { Err(CgroupError::SwapBelowLimit { both, limit }) } else { Ok(Some(both - limit)) }
}

/// A cgroup in every hierarchy.
pub(super) struct On<'tree>(pub &'tree Tree);

impl Ground for On<'_> {
    fn version(&self, controller: &str) -> Option<Version> {
        let place = self.0.home(controller)?;
        Some(if place.hierarchy.is_unified() { Version::Two } else { Version::One })
    }

    fn unified_alone(&self) -> bool {
        self.0.places.iter().all(|place| place.hierarchy.is_unified())
    }

    fn read(&self, controller: &str, name: &str) -> Result<Option<String>, CgroupError> {
        self.0.home(controller).map_or(Ok(None), |place| file::read_if_there(&place.directory.join(name)))
    }
}

/// Carries it out.
pub(super) fn carry_out(plan: &Plan, tree: &Tree) -> Result<(), CgroupError> {
    let mut again = Vec::new();
    for write in &plan.writes {
        match put(write, tree) {
            Err(CgroupError::Write { source, .. }) if Errno::from_io_error(&source) == Some(Errno::INVAL) => {
                again.push(write);
            }
            result => result?,
        }
    }
    again.into_iter().try_for_each(|write| put(write, tree))
}

fn put(write: &Write, tree: &Tree) -> Result<(), CgroupError> {
    let home = if write.controller == UNIFIED { tree.unified() } else { tree.home(write.controller) };
    // the plan has only what is there
    let Some(place) = home else { return Ok(()) };
    match (file::write(&place.directory.join(&write.file), &write.value), &write.missing) {
        (Err(CgroupError::Write { source, .. }), Missing::Skipped) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        (Err(CgroupError::Write { source, .. }), Missing::Instead { file, value })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            self::file::write(&place.directory.join(file), value)
        }
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests;
