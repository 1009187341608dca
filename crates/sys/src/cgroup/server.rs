//! The cgroups of one server and its container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::group::hand_down;
use super::{CgroupError, Hierarchy, Limits, Mounts, RemoveError, file, remove};

/// The period over which processor time is rationed: the kernel's default, and Docker's.
const CPU_PERIOD_US: u64 = 100_000;

/// What a server has used and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use, page cache included, in bytes.
    pub memory_bytes: u64,
    /// Processor time used so far, in microseconds.
    pub cpu_us: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// The cgroups of one server and its container, in every hierarchy.
#[derive(Debug, Clone)]
pub struct ServerGroup {
    mounts: Mounts,
    places: Vec<Place>,
}

/// The two directories in one hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Place {
    hierarchy: Hierarchy,
    server: PathBuf,
    container: PathBuf,
}

impl Place {
    pub(super) fn new(hierarchy: &Hierarchy, group: &Path, server: &str, container: &str) -> Self {
        let server = group.join(server);
        let container = server.join(format!("container-{container}"));
        Self { hierarchy: hierarchy.clone(), server, container }
    }

    fn has(&self, controller: &str) -> bool {
        self.hierarchy.controllers.iter().any(|own| own == controller)
    }
}

impl ServerGroup {
    pub(super) fn new(mounts: Mounts, places: Vec<Place>) -> Self {
        Self { mounts, places }
    }

    pub(super) fn make(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut made = Vec::new();
        let result = self.places.iter().try_for_each(|place| self.make_place(place, &mut made));
        let result = result.and_then(|()| self.update(limits));
        if result.is_err() {
            // best effort: the reason is worth more than what its clearing up says
            let _ = remove::trees(made.into_iter(), Instant::now());
        }
        result
    }

    fn make_place(&self, place: &Place, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        if !file::make(&place.server)? {
            // left by one that ended badly; its counters must not become ours
            if remove::trees([place.server.clone()].into_iter(), Instant::now()).is_err() {
                return Err(CgroupError::InUse { path: place.server.clone(), pids: self.pids()? });
            }
            file::make(&place.server)?;
        }
        made.push(place.server.clone());
        if place.hierarchy.is_unified() {
            hand_down(&place.hierarchy, &place.server)?;
        }
        file::make(&place.container).map(drop)
    }

    /// The files to write `0` into to join the container's leaf, one a hierarchy. On version 1 they move the writing
    /// thread alone: the process must have no other.
    pub fn files(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.hierarchy.join_file(&place.container)).collect()
    }

    /// What the container mounts below its `/sys/fs/cgroup`.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The container's directory in the unified hierarchy, for `CLONE_INTO_CGROUP`; `None` on version 1 alone.
    pub fn unified(&self) -> Option<&Path> {
        self.places.iter().find(|place| place.hierarchy.is_unified()).map(|place| place.container.as_path())
    }

    /// Set other limits. Memory that is in use is reclaimed first, where it can be.
    ///
    /// # Errors
    /// When the kernel refuses one: on version 1 also less memory than is in use.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        for place in &self.places {
            if place.hierarchy.is_unified() {
                for directory in [&place.server, &place.container] {
                    for (file, value) in v2_settings(limits, |controller| place.has(controller)) {
                        let path = directory.join(file);
                        // memory.swap.max is missing where the kernel counts no swap
                        if file == "memory.swap.max" {
                            file::write_if_there(&path, &value)?;
                        } else {
                            file::write(&path, &value)?;
                        }
                    }
                }
                continue;
            }
            if place.has("cpu") {
                // a child's share may never be above its parent's, so it is lifted while the parent's changes
                let quota = cpu_quota_us(limits).to_string();
                file::write(&place.container.join("cpu.cfs_quota_us"), "-1")?;
                for directory in [&place.server, &place.container] {
                    file::write(&directory.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                    file::write(&directory.join("cpu.cfs_quota_us"), &quota)?;
                }
            }
            for directory in [&place.server, &place.container] {
                if place.has("memory") {
                    limit_memory_v1(directory, limits.memory_bytes)?;
                }
                if place.has("pids") {
                    file::write(&directory.join("pids.max"), &limits.pids.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// How many of the server's processes the kernel has killed for memory.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(place) = self.home("memory") else { return Ok(0) };
        if place.hierarchy.is_unified() {
            return file::field(&place.server.join("memory.events"), "oom_kill");
        }
        // version 1 counts each kill in the cgroup of its victim alone
        let mut kills = 0;
        for directory in tree(&place.server)? {
            kills += file::field(&directory.join("memory.oom_control"), "oom_kill")?;
        }
        Ok(kills)
    }

    /// The server's processes, as seen from this pid namespace.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for place in &self.places {
            for directory in tree(&place.server)? {
                pids.extend(file::pids(&directory)?);
            }
        }
        Ok(pids.into_iter().collect())
    }

    /// What the server uses.
    ///
    /// # Errors
    /// When a counter cannot be read, as when the server is gone.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let read = |controller: &str, v1: &str, v2: &str| match self.home(controller) {
            Some(place) => file::number(&place.server.join(if place.hierarchy.is_unified() { v2 } else { v1 })),
            None => Ok(0),
        };
        // the unified hierarchy counts processor time without any controller
        let cpu_us = match (self.home("cpuacct"), self.places.iter().find(|place| place.hierarchy.is_unified())) {
            (Some(place), _) => file::number(&place.server.join("cpuacct.usage"))? / 1000,
            (None, Some(place)) => file::field(&place.server.join("cpu.stat"), "usage_usec")?,
            (None, None) => 0,
        };
        Ok(Usage {
            memory_bytes: read("memory", "memory.usage_in_bytes", "memory.current")?,
            cpu_us,
            pids: read("pids", "pids.current", "pids.current")?,
        })
    }

    /// Lift the limit on processor time, before the server's processes are killed: each has to run once more to die.
    /// A thousand of them, throttled (Linux 6.18 does so on the way back to user space), spend their whole share on
    /// being woken and throttled again and die never; seen with a fork bomb on half a processor.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lift_cpu_limit(&self) -> Result<(), CgroupError> {
        let Some(place) = self.home("cpu") else { return Ok(()) };
        let (file, value) = if place.hierarchy.is_unified() { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
        // the parent first: a child's share may never be above its parent's
        for directory in [&place.server, &place.container] {
            file::write_if_there(&directory.join(file), value)?;
        }
        Ok(())
    }

    /// Kill every process of the server, those that are being forked too. Does not wait for their end; [`Self::remove`]
    /// does.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.lift_cpu_limit()?;
        if let Some(place) = self.places.iter().find(|place| place.hierarchy.is_unified()) {
            // since Linux 5.14, for the whole tree and atomically
            file::write_if_there(&place.server.join("cgroup.kill"), "1")?;
        }
        let servers: Vec<&Path> = self.places.iter().map(|place| place.server.as_path()).collect();
        let freezer = self.home("freezer").filter(|place| !place.hierarchy.is_unified());
        remove::kill(&servers, freezer.map(|place| place.server.as_path()))
    }

    /// Remove the server's cgroups. Nothing is killed: it waits for processes that are ending, 5 s in all.
    ///
    /// # Errors
    /// All failures; it goes on past each.
    pub fn remove(&self) -> Result<(), RemoveError> {
        remove::trees(self.directories(), Instant::now() + remove::WAIT)
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.places.iter().map(|place| place.server.clone())
    }

    fn home(&self, controller: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.has(controller))
    }
}

/// A cgroup and all below it.
pub(super) fn tree(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let children = file::children(directory)?;
        found.extend(children);
        next += 1;
    }
    Ok(found)
}

fn cpu_quota_us(limits: &Limits) -> u64 {
    // the kernel takes no quota below a millisecond
    (u64::from(limits.cpu_milli) * CPU_PERIOD_US / 1000).max(1000)
}

fn v2_settings(limits: &Limits, has: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    [
        ("cpu", "cpu.max", format!("{} {CPU_PERIOD_US}", cpu_quota_us(limits))),
        ("memory", "memory.max", limits.memory_bytes.to_string()),
        ("memory", "memory.swap.max", "0".into()),
        ("pids", "pids.max", limits.pids.to_string()),
    ]
    .into_iter()
    .filter(|(controller, ..)| has(controller))
    .map(|(_, file, value)| (file, value))
    .collect()
}

/// The limit of memory and swap together may never be below that of memory alone: which is written first depends on
/// whether they rise or fall.
fn limit_memory_v1(directory: &Path, bytes: u64) -> Result<(), CgroupError> {
    let value = bytes.to_string();
    let memory = directory.join("memory.limit_in_bytes");
    let both = directory.join("memory.memsw.limit_in_bytes");
    match file::read_if_there(&both)? {
        // the kernel counts no swap
        None => file::write(&memory, &value),
        Some(now) if now.parse::<u64>().is_ok_and(|now| now < bytes) => {
            file::write(&both, &value)?;
            file::write(&memory, &value)
        }
        Some(_) => {
            file::write(&memory, &value)?;
            file::write(&both, &value)
        }
    }
}

#[cfg(test)]
mod tests;
