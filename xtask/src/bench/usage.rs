//! What processes and the machine have used: processor time, memory of ours, memory of the kernel's.

use std::fs;

use anyhow::{Context as _, Result};

/// Processor time so far, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// In programs.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
    /// Of children that were waited for.
    pub children_s: f64,
}

/// `USER_HZ`: the unit of times in /proc on every Linux that we run on.
const TICKS_A_SECOND: f64 = 100.0;

impl Cpu {
    /// Of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&text).with_context(|| format!("{path} is {text:?}"))
    }

    /// PID (NAME) STATE PPID …, where a name may hold brackets (proc_pid_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_A_SECOND);
        Some(Self { user_s: seconds(14)?, system_s: seconds(15)?, children_s: seconds(16)? + seconds(17)? })
    }

    /// In programs and in the kernel, without the children.
    pub fn sum_s(self) -> f64 {
        self.user_s + self.system_s
    }

    /// What was used since.
    pub fn since(self, before: Self) -> Self {
        Self {
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
            children_s: self.children_s - before.children_s,
        }
    }
}

/// Of the kernel's threads that there are, in seconds. A worker that ends takes its time with it.
pub fn kernel_threads_s() -> f64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let texts = pids.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    // their parent is 2, kthreadd
    let is_thread =
        |text: &String| text.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some("2"));
    texts.filter(is_thread).filter_map(|text| Some(Cpu::parse(&text)?.sum_s())).sum()
}

/// The machine's processor time so far, in seconds: busy, and all.
pub fn machine() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has no cpu line")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already (proc_stat(5))
    let all: f64 = ticks.iter().take(8).sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok(((all - idle) / TICKS_A_SECOND, all / TICKS_A_SECOND))
}

/// A process's memory in MiB, what it shares divided among those it shares it with.
pub fn pss_mib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(kib(&text, "Pss:").with_context(|| format!("{path} has no Pss"))? / 1024.0)
}

/// The kernel's own memory on the whole machine, in MiB: slab, page tables, stacks, per-cpu.
pub fn kernel_mib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let parts = ["Slab:", "PageTables:", "KernelStack:", "Percpu:"];
    Ok(parts.iter().filter_map(|name| kib(&text, name)).sum::<f64>() / 1024.0)
}

fn kib(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_process() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 250 30 20 20 0 1 0 5 6 7";
        assert_eq!(Cpu::parse(text), Some(Cpu { user_s: 1.5, system_s: 2.5, children_s: 0.5 }));
        assert_eq!(Cpu::parse("7 (a) S 1"), None);
    }

    #[test]
    fn of_this_process_and_machine() {
        assert!(Cpu::of(std::process::id()).unwrap().user_s >= 0.0);
        assert!(pss_mib(std::process::id()).unwrap() > 0.1);
        let (busy, all) = machine().unwrap();
        assert!(0.0 < busy && busy <= all);
        assert!(kernel_threads_s() > 0.0);
        assert!(kernel_mib().unwrap() > 1.0);
    }
}
