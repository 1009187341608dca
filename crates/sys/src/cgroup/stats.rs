//! What a cgroup has used and is using, in the detail of `runc events` and Docker's `stats`, in runc's units on either
//! version: nanoseconds and bytes.

use std::collections::BTreeMap;

use super::tree::{Place, Tree};
use super::{CgroupError, file};

/// What a cgroup has used and is using; what this machine does not count is 0 or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: u64,
    /// How many there may be; `None`: no limit.
    pub pids_limit: Option<u64>,
    /// Bytes read from and written to each disk.
    pub io_bytes: Vec<IoEntry>,
    /// Reads and writes of each disk.
    pub io_requests: Vec<IoEntry>,
    /// By page size.
    pub huge_pages: BTreeMap<String, HugePageStats>,
    /// Time lost to waiting for the processor, memory and disks. Version 2, and a kernel that counts it.
    pub pressure: [Option<Pressure>; 3],
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// In all.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub kernel: u64,
    /// On each processor. Version 1 only.
    pub each: Vec<u64>,
    /// Periods in which it ran.
    pub periods: u64,
    /// Those in which it was held back.
    pub throttled_periods: u64,
    /// How long it was.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// The page cache's part.
    pub cache: u64,
    /// Memory.
    pub memory: MemoryUse,
    /// Memory and swap together.
    pub with_swap: MemoryUse,
    /// The kernel's part. Version 1 only.
    pub kernel: MemoryUse,
    /// That of TCP buffers. Version 1 only.
    pub kernel_tcp: MemoryUse,
    /// The whole of `memory.stat`.
    pub details: BTreeMap<String, u64>,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In use.
    pub used: u64,
    /// The most that ever was. On version 2 since Linux 5.19.
    pub most: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The limit; `u64::MAX`: none.
    pub limit: u64,
}

/// One number of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEntry {
    /// The device's.
    pub major: u64,
    /// The device's.
    pub minor: u64,
    /// `Read`, `Write` and so on.
    pub operation: String,
    /// The number.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugePageStats {
    /// In use.
    pub used: u64,
    /// The most that ever was. Version 1 only.
    pub most: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// The shares of time in percent that some, and that all of the processes that wanted to run lost, over 10, 60 and 300 s;
/// and in all, in microseconds (psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one waited.
    pub some: PressureLine,
    /// All waited.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Percent over 10, 60 and 300 s.
    pub averages: [f64; 3],
    /// Microseconds in all.
    pub total: u64,
}

impl Tree {
    /// What it has used and is using.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        self.cpu_stats(&mut stats.cpu)?;
        if let Some(place) = self.home("memory") {
            memory_stats(place, &mut stats.memory)?;
            stats.memory.oom_kills = self.oom_kills()?;
        }
        if let Some(place) = self.home("pids") {
            stats.pids = number(place, "pids.current")?.unwrap_or(0);
            stats.pids_limit = number(place, "pids.max")?;
        }
        self.io_stats(&mut stats)?;
        if let Some(place) = self.home("hugetlb") {
            stats.huge_pages = huge_page_stats(place)?;
        }
        if let Some(place) = self.unified() {
            for (slot, kind) in stats.pressure.iter_mut().zip(["cpu", "memory", "io"]) {
                // a kernel that is told not to count it says EOPNOTSUPP
                let text = file::read_if_there(&place.directory.join(format!("{kind}.pressure")));
                *slot = text.ok().flatten().map(|text| pressure(&text));
            }
        }
        Ok(stats)
    }

    fn cpu_stats(&self, cpu: &mut CpuStats) -> Result<(), CgroupError> {
        if let Some(place) = self.home("cpuacct") {
            // USER_HZ, which is 100 on every architecture that we run on
            const TICK_NS: u64 = 10_000_000;
            cpu.total = number(place, "cpuacct.usage")?.unwrap_or(0);
            let ticks = fields(place, "cpuacct.stat")?;
            cpu.user = ticks.get("user").copied().unwrap_or(0) * TICK_NS;
            cpu.kernel = ticks.get("system").copied().unwrap_or(0) * TICK_NS;
            let each = file::read_if_there(&place.directory.join("cpuacct.usage_percpu"))?.unwrap_or_default();
            cpu.each = each.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        }
        // version 2 counts time without the controller; what is throttled is counted where the limit is
        let home = self.home("cpu").or_else(|| self.unified());
        let Some(place) = home else { return Ok(()) };
        let found = fields(place, "cpu.stat")?;
        let get = |word: &str| found.get(word).copied().unwrap_or(0);
        (cpu.periods, cpu.throttled_periods) = (get("nr_periods"), get("nr_throttled"));
        if place.hierarchy.is_unified() {
            cpu.throttled = get("throttled_usec") * 1000;
            if self.home("cpuacct").is_none() {
                cpu.total = get("usage_usec") * 1000;
                cpu.user = get("user_usec") * 1000;
                cpu.kernel = get("system_usec") * 1000;
            }
        } else {
            cpu.throttled = get("throttled_time");
        }
        Ok(())
    }

    fn io_stats(&self, stats: &mut Stats) -> Result<(), CgroupError> {
        if let Some(place) = self.home("blkio") {
            for prefix in ["blkio.bfq", "blkio.throttle"] {
                let read = |name: &str| file::read_if_there(&place.directory.join(format!("{prefix}.{name}")));
                let bytes = v1_entries(&read("io_service_bytes_recursive")?.unwrap_or_default());
                // the disks' scheduler counts, or, where none of theirs is asked, the throttle does
                if !bytes.is_empty() {
                    stats.io_bytes = bytes;
                    stats.io_requests = v1_entries(&read("io_serviced_recursive")?.unwrap_or_default());
                    break;
                }
            }
        } else if let Some(place) = self.home("io") {
            let text = file::read_if_there(&place.directory.join("io.stat"))?.unwrap_or_default();
            stats.io_bytes = v2_entries(&text, &[("rbytes", "Read"), ("wbytes", "Write")]);
            stats.io_requests = v2_entries(&text, &[("rios", "Read"), ("wios", "Write")]);
        }
        Ok(())
    }
}

fn memory_stats(place: &Place, memory: &mut MemoryStats) -> Result<(), CgroupError> {
    memory.details = fields(place, "memory.stat")?;
    if !place.hierarchy.is_unified() {
        memory.cache = memory.details.get("cache").copied().unwrap_or(0);
        for (kind, part) in [
            ("", &mut memory.memory),
            (".memsw", &mut memory.with_swap),
            (".kmem", &mut memory.kernel),
            (".kmem.tcp", &mut memory.kernel_tcp),
        ] {
            let read = |name: &str| number(place, &format!("memory{kind}.{name}"));
            *part = MemoryUse {
                used: read("usage_in_bytes")?.unwrap_or(0),
                most: read("max_usage_in_bytes")?.unwrap_or(0),
                failures: read("failcnt")?.unwrap_or(0),
                limit: read("limit_in_bytes")?.unwrap_or(0),
            };
        }
        return Ok(());
    }
    memory.cache = memory.details.get("file").copied().unwrap_or(0);
    let of = |kind: &str| -> Result<MemoryUse, CgroupError> {
        let Some(used) = number(place, &format!("{kind}.current"))? else { return Ok(MemoryUse::default()) };
        Ok(MemoryUse {
            used,
            most: number(place, &format!("{kind}.peak"))?.unwrap_or(0),
            failures: fields(place, &format!("{kind}.events"))?.get("max").copied().unwrap_or(0),
            limit: number(place, &format!("{kind}.max"))?.unwrap_or(u64::MAX),
        })
    };
    memory.memory = of("memory")?;
    let swap = of("memory.swap")?;
    // version 1 has the sum, which is what those who read this know
    memory.with_swap = MemoryUse {
        used: swap.used + memory.memory.used,
        limit: swap.limit.saturating_add(memory.memory.limit),
        ..swap
    };
    Ok(())
}

fn huge_page_stats(place: &Place) -> Result<BTreeMap<String, HugePageStats>, CgroupError> {
    let mut found = BTreeMap::new();
    let unified = place.hierarchy.is_unified();
    for name in file::names(&place.directory)? {
        let end = if unified { ".current" } else { ".usage_in_bytes" };
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(end));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let read = |name: &str| Ok::<_, CgroupError>(number(place, &format!("hugetlb.{size}.{name}"))?.unwrap_or(0));
        let pages = if unified {
            let failures = fields(place, &format!("hugetlb.{size}.events"))?.get("max").copied().unwrap_or(0);
            HugePageStats { used: read("current")?, most: 0, failures }
        } else {
            HugePageStats {
                used: read("usage_in_bytes")?,
                most: read("max_usage_in_bytes")?,
                failures: read("failcnt")?,
            }
        };
        found.insert(size.to_owned(), pages);
    }
    Ok(found)
}

/// A file's number; `None` where there is no such file, or it says `max`.
fn number(place: &Place, name: &str) -> Result<Option<u64>, CgroupError> {
    let path = place.directory.join(name);
    match file::read_if_there(&path)? {
        None => Ok(None),
        Some(text) if text == "max" => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(CgroupError::Parse { path, text: text.chars().take(80).collect() }),
        },
    }
}

/// Lines of `word number`; none where there is no such file.
fn fields(place: &Place, name: &str) -> Result<BTreeMap<String, u64>, CgroupError> {
    let text = file::read_if_there(&place.directory.join(name))?.unwrap_or_default();
    let field = |line: &str| {
        let (word, number) = line.split_once(' ')?;
        Some((word.to_owned(), number.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(field).collect())
}

/// Lines such as `8:0 Read 4096`; the last is a total.
fn v1_entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (device, operation, value) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = device.split_once(':')?;
        Some(IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation: operation.into(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn v2_entries(text: &str, words: &[(&str, &str)]) -> Vec<IoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (word, value) in fields.filter_map(|field| field.split_once('=')) {
            let operation = words.iter().find(|(own, _)| *own == word).map(|(_, operation)| *operation);
            if let (Some(operation), Ok(value)) = (operation, value.parse()) {
                entries.push(IoEntry { major, minor, operation: operation.into(), value });
            }
        }
    }
    entries
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
fn pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let slot = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (word, value) in fields.filter_map(|field| field.split_once('=')) {
            match word {
                "avg10" => slot.averages[0] = value.parse().unwrap_or(0.0),
                "avg60" => slot.averages[1] = value.parse().unwrap_or(0.0),
                "avg300" => slot.averages[2] = value.parse().unwrap_or(0.0),
                "total" => slot.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks() {
        let entry = |operation: &str, value| IoEntry { major: 8, minor: 16, operation: operation.into(), value };
        assert_eq!(v1_entries("8:16 Read 4096\n8:16 Sync 1\nTotal 4097\n"), [entry("Read", 4096), entry("Sync", 1)]);
        assert_eq!(
            v2_entries("8:16 rbytes=4096 wbytes=7 rios=1\nbroken\n", &[("rbytes", "Read"), ("wbytes", "Write")]),
            [entry("Read", 4096), entry("Write", 7)]
        );
    }

    #[test]
    fn pressures() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7";
        let found = pressure(text);
        assert_eq!((found.some.averages, found.some.total, found.full.total), ([1.5, 0.25, 0.0], 42, 7));
    }
}
