//! `cargo xtask bench start`: from asking for a container that runs `true` until it is gone, as a user's shell sees it:
//! the whole of `sampan run --rm bb true`, `runc run`, `crun run`, `docker run --rm`, beside the bare kernel's floor
//! (`bench/kernel_floor.c`, without a program to ask it).
//!
//! All contenders take turns, one start each a round, with an idle gap before every start: a machine that is busy for
//! a while is so for all of them, and work that is put off until after a start (an RCU grace period, a cgroup's
//! removal) cannot hide in the next one. Only ratios of one run mean anything. The peers get their root file system
//! ready made and no address.

mod contenders;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::process::{self, run};
use crate::{debian, workspace};
use contenders::Contender;

/// The idle time before each start.
const GAP: Duration = Duration::from_millis(20);
const USAGE: &str = "cargo xtask bench start [--runs N] [--json]";

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    kernel: String,
    cpus: usize,
    runs: usize,
    gap_ms: u64,
    results: Vec<Measured>,
    absent: Vec<Absent>,
}

/// One contender's figures, in milliseconds.
#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    p50_ms: f64,
    p99_ms: f64,
    /// Median over the floor's median.
    ratio: f64,
    /// In the order they were taken.
    samples_ms: Vec<f64>,
}

/// A peer that is not there, and why.
#[derive(Debug, Serialize)]
struct Absent {
    name: String,
    why: String,
}

/// Measures and prints.
pub fn start(words: &[&str]) -> Result<()> {
    let mut runs = 100;
    let mut json = false;
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--json" => json = true,
            "--runs" => {
                let number = words.next().context(USAGE)?;
                runs = number
                    .parse()
                    .ok()
                    .filter(|runs| (1..=100_000).contains(runs))
                    .with_context(|| format!("{number:?} is no number of runs from 1 to 100000; usage: {USAGE}"))?;
            }
            _ => bail!("{word:?} is not understood; usage: {USAGE}"),
        }
    }
    if !process::is_root() {
        bail!("containers are started as root: run `sudo -E env PATH=$PATH cargo xtask bench start`");
    }
    debian::fetch(debian::FOR_BENCHMARKS)?;
    run(process::cargo().current_dir(workspace::root()).args(["build", "--locked", "--release", "--bin", "sampan"]))?;
    let report = in_scratch(|scratch| measure(scratch, runs))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

/// Lends a directory that is empty before and gone after.
fn in_scratch(work: impl FnOnce(&Path) -> Result<Report>) -> Result<Report> {
    let scratch = workspace::target().join(format!("tmp/bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let result = work(&scratch);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    result
}

fn measure(scratch: &Path, runs: usize) -> Result<Report> {
    let rootfs = make_rootfs(scratch)?;
    let mut contenders = vec![contenders::floor(scratch, &rootfs)?, contenders::sampan(scratch, &rootfs)?];
    let mut absent = Vec::new();
    for (name, peer) in contenders::peers(scratch, &rootfs) {
        match peer {
            Ok(peer) => contenders.push(peer),
            Err(error) => absent.push(Absent { name: name.to_owned(), why: format!("{error:#}") }),
        }
    }
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(runs); contenders.len()];
    for _ in 0..runs {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            std::thread::sleep(GAP);
            let took = contender.start().with_context(|| format!("start with {}", contender.name))?;
            samples.push(took.as_secs_f64() * 1e3);
        }
    }
    let names: Vec<String> = contenders.iter().map(|contender| contender.name.clone()).collect();
    contenders.into_iter().try_for_each(Contender::end)?;
    let floor = percentile(&samples[0], 50);
    let results = names
        .into_iter()
        .zip(samples)
        .map(|(name, samples_ms)| {
            let p50_ms = percentile(&samples_ms, 50);
            Measured { name, p50_ms, p99_ms: percentile(&samples_ms, 99), ratio: p50_ms / floor, samples_ms }
        })
        .collect();
    Ok(Report {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        runs,
        gap_ms: GAP.as_millis() as u64,
        results,
        absent,
    })
}

/// A root file system of one static busybox under all its names.
fn make_rootfs(scratch: &Path) -> Result<PathBuf> {
    let rootfs = scratch.join("rootfs");
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(rootfs.join(dir))?;
    }
    let busybox = debian::BUSYBOX.file().context("busybox is not unpacked")?;
    let inside = rootfs.join("bin/busybox");
    std::fs::copy(&busybox, &inside).with_context(|| format!("copy {}", busybox.display()))?;
    for name in process::output(Command::new(&inside).arg("--list"))?.lines().filter(|&name| name != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    Ok(rootfs)
}

/// The nearest-rank percentile.
fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn table(report: &Report) -> String {
    let Report { kernel, cpus, runs, gap_ms, results, absent } = report;
    let names = results.iter().map(|result| &result.name).chain(absent.iter().map(|absent| &absent.name));
    let width = names.map(String::len).max().unwrap_or_default();
    let mut text = format!(
        "start to end of `true`, {runs} runs each in turns, {gap_ms} ms idle before each; Linux {kernel}, {cpus} CPUs\n\n"
    );
    text.push_str(&format!("{:width$} {:>9} {:>9} {:>9}\n", "", "p50 ms", "p99 ms", "× floor"));
    for Measured { name, p50_ms, p99_ms, ratio, .. } in results {
        text.push_str(&format!("{name:width$} {p50_ms:>9.2} {p99_ms:>9.2} {ratio:>9.2}\n"));
    }
    for Absent { name, why } in absent {
        text.push_str(&format!("{name:width$} absent: {}\n", why.lines().next().unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (samples, percent, expected) in
            [(&hundred[..], 50, 50.0), (&hundred, 99, 99.0), (&[7.0], 99, 7.0), (&[1.0, 2.0], 50, 1.0)]
        {
            assert_eq!(percentile(samples, percent), expected);
        }
    }

    #[test]
    fn tables() {
        let measured = |name: &str, p50_ms, ratio| Measured {
            name: name.into(),
            p50_ms,
            p99_ms: 2.0 * p50_ms,
            ratio,
            samples_ms: vec![],
        };
        let report = Report {
            kernel: "6.18.0".into(),
            cpus: 2,
            runs: 5,
            gap_ms: 20,
            results: vec![measured("kernel floor", 2.0, 1.0), measured("sampan run", 5.0, 2.5)],
            absent: vec![Absent { name: "docker run".into(), why: "no daemon\nmore".into() }],
        };
        assert_eq!(
            table(&report),
            "\
start to end of `true`, 5 runs each in turns, 20 ms idle before each; Linux 6.18.0, 2 CPUs

                p50 ms    p99 ms   × floor
kernel floor      2.00      4.00      1.00
sampan run        5.00     10.00      2.50
docker run   absent: no daemon
"
        );
    }
}
