//! One cgroup with all below it, in every hierarchy: what a server's and a container's have in common.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::plan::{self, On};
use super::{CgroupError, Cpu, Hierarchy, Limits, Memory, RemoveError, Resources, file, remove};

/// The period over which processor time is rationed: the kernel's default, and Docker's.
const CPU_PERIOD_US: u64 = 100_000;

/// What has been used and is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use in bytes, without what the kernel would give back at once: page cache that nobody has asked for
    /// lately (as Docker counts).
    pub memory_bytes: u64,
    /// Processor time used so far, in microseconds.
    pub cpu_us: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks so far.
    pub read_bytes: u64,
    /// Bytes written to disks so far.
    pub written_bytes: u64,
}

/// A cgroup in every hierarchy, and all below it.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) places: Vec<Place>,
}

/// Its directory in one hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub hierarchy: Arc<Hierarchy>,
    pub directory: PathBuf,
}

impl Place {
    pub fn has(&self, controller: &str) -> bool {
        self.hierarchy.controllers.iter().any(|own| own == controller)
    }

    /// The cgroup of that name in this one.
    pub fn below(&self, name: &str) -> Self {
        Self { hierarchy: Arc::clone(&self.hierarchy), directory: self.directory.join(name) }
    }

    /// Sets the limits of this directory alone, those that this hierarchy has.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let alone = Tree { places: vec![self.clone()] };
        let has = |controller: &str| self.has(controller);
        let plan = plan::plan(&resources(limits, has), &On(&alone))?;
        plan::carry_out(&plan, &alone)
    }
}

impl Tree {
    /// The processes in it, as seen from this pid namespace.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for place in &self.places {
            for directory in all_of(&place.directory)? {
                pids.extend(file::pids(&directory)?);
            }
        }
        Ok(pids.into_iter().collect())
    }

    /// How many of its processes the kernel has killed for memory.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(place) = self.home("memory") else { return Ok(0) };
        if place.hierarchy.is_unified() {
            return file::field(&place.directory.join("memory.events"), "oom_kill");
        }
        // version 1 counts each kill in the cgroup of its victim alone
        let mut kills = 0;
        for directory in all_of(&place.directory)? {
            kills += file::field(&directory.join("memory.oom_control"), "oom_kill")?;
        }
        Ok(kills)
    }

    /// What it uses.
    ///
    /// # Errors
    /// When a counter cannot be read, as when the cgroup is gone.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let read = |controller: &str, v1: &str, v2: &str| match self.home(controller) {
            Some(place) => file::number(&place.directory.join(if place.hierarchy.is_unified() { v2 } else { v1 })),
            None => Ok(0),
        };
        // the unified hierarchy counts processor time without any controller
        let cpu_us = match (self.home("cpuacct"), self.unified()) {
            (Some(place), _) => file::number(&place.directory.join("cpuacct.usage"))? / 1000,
            (None, Some(place)) => file::field(&place.directory.join("cpu.stat"), "usage_usec")?,
            (None, None) => 0,
        };
        let memory = read("memory", "memory.usage_in_bytes", "memory.current")?;
        let spare = match self.home("memory") {
            Some(place) => {
                let word = if place.hierarchy.is_unified() { "inactive_file" } else { "total_inactive_file" };
                file::field(&place.directory.join("memory.stat"), word)?
            }
            None => 0,
        };
        let (read_bytes, written_bytes) = self.disk_bytes()?;
        Ok(Usage {
            memory_bytes: memory.saturating_sub(spare),
            cpu_us,
            pids: read("pids", "pids.current", "pids.current")?,
            read_bytes,
            written_bytes,
        })
    }

    /// Read and written.
    fn disk_bytes(&self) -> Result<(u64, u64), CgroupError> {
        if let Some(place) = self.home("blkio") {
            let text = file::read_if_there(&place.directory.join("blkio.throttle.io_service_bytes_recursive"))?;
            return Ok(v1_disk_bytes(&text.unwrap_or_default()));
        }
        let Some(place) = self.home("io") else { return Ok((0, 0)) };
        Ok(v2_disk_bytes(&file::read_if_there(&place.directory.join("io.stat"))?.unwrap_or_default()))
    }

    /// Lift the limit on processor time, before its processes are killed: each has to run once more to die. A thousand of
    /// them, throttled (Linux 6.18 does so on the way back to user space), spend their whole share on being woken and
    /// throttled again and die never; seen with a fork bomb on half a processor.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lift_cpu_limit(&self) -> Result<(), CgroupError> {
        let Some(place) = self.home("cpu") else { return Ok(()) };
        let (file, value) = if place.hierarchy.is_unified() { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
        // the parent first: a child's share may never be above its parent's
        for directory in all_of(&place.directory)? {
            file::write_if_there(&directory.join(file), value)?;
        }
        Ok(())
    }

    /// Kill every process in it, those that are being forked too. Does not wait for their end; [`Self::remove`] does.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.lift_cpu_limit()?;
        if let Some(place) = self.unified() {
            // since Linux 5.14, for the whole tree and atomically; not for one of threads, whose processes are elsewhere too
            match file::write_if_there(&place.directory.join("cgroup.kill"), "1") {
                Err(CgroupError::Write { source, .. }) if Errno::from_io_error(&source) == Some(Errno::OPNOTSUPP) => {}
                result => result?,
            }
        }
        let roots: Vec<&Path> = self.places.iter().map(|place| place.directory.as_path()).collect();
        let freezer = self.home("freezer").filter(|place| !place.hierarchy.is_unified());
        remove::kill(&roots, freezer.map(|place| place.directory.as_path()))
    }

    /// Remove it. Nothing is killed: it waits for processes that are ending, 5 s in all.
    ///
    /// # Errors
    /// All failures; it goes on past each.
    pub fn remove(&self) -> Result<(), RemoveError> {
        remove::trees(self.directories(), Instant::now() + remove::WAIT)
    }

    /// Remove it where nothing is in it, neither a process nor a cgroup: what is so at most ends, in one system call a
    /// hierarchy. Whether it is gone; where it is not, part of it may be.
    pub fn remove_empty(&self) -> bool {
        let is_gone = |place: &Place| match rustix::fs::rmdir(&place.directory) {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(_) => false,
        };
        self.places.iter().all(is_gone)
    }

    /// Whether it was removed: no process is left that was in it.
    pub fn is_removed(&self) -> bool {
        // the last to go
        self.places.last().is_some_and(|place| matches!(place.directory.try_exists(), Ok(false)))
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.places.iter().map(|place| place.directory.clone())
    }

    pub(super) fn unified(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.hierarchy.is_unified())
    }

    pub(super) fn home(&self, controller: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.has(controller))
    }

    /// The cgroup of that name in this one.
    pub(super) fn below(&self, name: &str) -> Self {
        Self { places: self.places.iter().map(|place| place.below(name)).collect() }
    }
}

/// A cgroup and all below it, those above first.
pub(super) fn all_of(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
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

/// What a server's limits are in the words of the specification, as far as there are controllers for it.
fn resources(limits: &Limits, has: impl Fn(&str) -> bool) -> Resources {
    let bytes = has("memory").then(|| i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX));
    let (quota, period) = match has("cpu") {
        true => (i64::try_from(cpu_quota_us(limits)).ok(), Some(CPU_PERIOD_US)),
        false => (None, None),
    };
    Resources {
        cpu: Cpu { quota, period, ..Cpu::default() },
        // no swap beyond
        memory: Memory { limit: bytes, swap: bytes, ..Memory::default() },
        pids: has("pids").then(|| limits.pids.into()),
        ..Resources::default()
    }
}

/// The bytes read and written, of lines such as `8:0 Read 4096`; the last line is a total.
fn v1_disk_bytes(text: &str) -> (u64, u64) {
    let sum = |word: &str| {
        let numbers = text.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (_device, kind, number) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == word).then(|| number.parse::<u64>().ok()).flatten()
        });
        numbers.sum()
    };
    (sum("Read"), sum("Write"))
}

/// The bytes read and written, of lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn v2_disk_bytes(text: &str) -> (u64, u64) {
    let sum = |word: &str| {
        let fields = text.split_ascii_whitespace().filter_map(|field| field.split_once('='));
        fields.filter(|(name, _)| *name == word).filter_map(|(_, number)| number.parse::<u64>().ok()).sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_resources() {
        let limits = Limits { cpu_milli: 1500, memory_bytes: 8 << 30, pids: 4096 };
        let all = resources(&limits, |_| true);
        assert_eq!((all.cpu.quota, all.cpu.period, all.pids), (Some(150_000), Some(100_000), Some(4096)));
        assert_eq!((all.memory.limit, all.memory.swap), (Some(8 << 30), Some(8 << 30)));
        let some = resources(&limits, |controller| controller == "pids");
        assert_eq!(some, Resources { pids: Some(4096), ..Resources::default() });
        assert_eq!(cpu_quota_us(&Limits { cpu_milli: 1, ..limits }), 1000);
    }

    #[test]
    fn disks_are_summed() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 4106\n8:16 Read 1\nTotal 4107\n";
        let v2 = "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=0\n";
        assert_eq!([v1_disk_bytes(v1), v2_disk_bytes(v2)], [(4097, 10); 2]);
        assert_eq!([v1_disk_bytes("Total 0"), v2_disk_bytes("")], [(0, 0); 2]);
    }
}
