//! How big this machine is: the most that a server may ask for.

use std::io;

use sampan_model::{ByteSize, ServerSize};

use crate::ContainerError;

/// The machine's processors and memory, and which boot of it this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Processors that may be used here.
    pub cpus: u32,
    /// Memory, as the kernel counts it.
    pub memory: ByteSize,
    /// The kernel's id of this boot.
    pub boot_id: String,
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn look() -> io::Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { cpus: u32::try_from(cpus).unwrap_or(u32::MAX), memory: memory_total(&meminfo), boot_id })
    }

    /// Whether a server of this size fits: CPUs at most the machine's, memory at most the machine's rounded up to a
    /// GiB.
    ///
    /// # Errors
    /// [`ContainerError::TooLarge`], saying what there is.
    pub fn holds(&self, size: &ServerSize) -> Result<(), ContainerError> {
        let whole_gib = ByteSize::gib(self.memory.0.div_ceil(1 << 30));
        if size.cpus.milli() > self.cpus.saturating_mul(1000) {
            return Err(ContainerError::TooLarge {
                what: "CPUs",
                asked: size.cpus.to_string(),
                most: self.cpus.to_string(),
            });
        }
        if size.memory_bytes > whole_gib {
            return Err(ContainerError::TooLarge {
                what: "memory",
                asked: size.memory_bytes.to_string(),
                most: whole_gib.to_string(),
            });
        }
        if size.memory_bytes < SMALLEST_MEMORY {
            return Err(ContainerError::TooSmall { what: "memory", least: SMALLEST_MEMORY.to_string() });
        }
        Ok(())
    }
}

/// Below this not even the sealed child can be started (Docker's own limit).
const SMALLEST_MEMORY: ByteSize = ByteSize::mib(6);

fn memory_total(meminfo: &str) -> ByteSize {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
        .unwrap_or(0);
    ByteSize(kib * 1024)
}

#[cfg(test)]
mod tests {
    use sampan_model::Cpus;

    use super::*;

    #[test]
    fn sizes_end_at_the_machine() {
        let memory = memory_total("MemTotal:        7600000 kB\nMemFree: 1 kB\n");
        let machine = Machine { cpus: 2, memory, boot_id: String::new() };
        let size = |cpus, memory_bytes| ServerSize { cpus: Cpus::from_milli(cpus), memory_bytes, pids: 10 };
        assert!(machine.holds(&size(2000, ByteSize::gib(8))).is_ok());
        assert!(machine.holds(&size(2001, ByteSize::gib(1))).is_err());
        assert!(machine.holds(&size(1000, ByteSize::mib(8 * 1024 + 1))).is_err());
        assert!(machine.holds(&size(1000, ByteSize::mib(1))).is_err());
    }
}
