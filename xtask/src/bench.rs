//! `cargo xtask bench SUITE`: what Sampan promises of speed and memory, measured beside the bare kernel
//! (`bench/kernel_floor.c`) and the peers, and judged: met or NOT met.
//!
//! All contenders of a suite take turns, one measurement each a round, with an idle gap before every one: a machine
//! that is busy for a while is so for all of them, and work that is put off until after a start (an RCU grace period,
//! a cgroup's removal) cannot hide in the next one. Only ratios of one run mean anything. Whatever a suite makes is
//! its own (a root, a socket, a cgroup), bounded in time, and gone at the end, also after an error or a Ctrl-C.

mod api;
mod bounded;
mod churn;
mod docker;
mod exec;
mod floor;
mod http;
mod interrupt;
mod noise;
mod oci;
mod options;
mod report;
mod sampan;
mod scratch;
mod start;
mod thousand;
mod traces;
mod turns;
mod usage;
mod writer;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, run};
use crate::{debian, workspace};
use options::Options;
use report::{Report, Suite};
use scratch::Scratch;

/// A suite's name, what it measures, how often where nothing is said, and how.
struct Entry {
    name: &'static str,
    about: &'static str,
    runs: usize,
    measure: fn(&Bench) -> Result<Suite>,
}

#[rustfmt::skip]
const SUITES: &[Entry] = &[
    Entry { name: "api", about: "a start over the native API until its end is known; alone, and beside a disk writer", runs: 200, measure: api::measure },
    Entry { name: "start", about: "`sampan run --rm IMAGE true`, the whole command, beside crun, runc and docker", runs: 100, measure: start::measure },
    Entry { name: "exec", about: "one more process in a running container, over the API and as a command", runs: 100, measure: exec::measure },
    Entry { name: "churn", about: "starts and removals, four at a time, for --seconds; the bottleneck; what is left", runs: 1, measure: churn::measure },
    Entry { name: "thousand", about: "--runs containers that stay: the last start beside the first; memory", runs: 1000, measure: thousand::measure },
];

/// What a suite is given.
pub struct Bench {
    /// Where its files go; gone at the end.
    pub scratch: Scratch,
    /// The `sampan` that is measured.
    pub binary: std::path::PathBuf,
    /// How often.
    pub runs: usize,
    /// How long, where that is what counts.
    pub seconds: u64,
}

/// Measures and prints.
pub fn bench(words: &[&str]) -> Result<()> {
    match words {
        [] | ["help" | "-h" | "--help"] => {
            print!("{}", usage());
            return Ok(());
        }
        [writer::WORD, rest @ ..] => return writer::write(rest),
        _ => {}
    }
    let options = Options::parse(words).with_context(usage)?;
    let chosen: Vec<&Entry> =
        SUITES.iter().filter(|suite| options.suite == "all" || options.suite == suite.name).collect();
    if chosen.is_empty() {
        bail!("{:?} is no suite\n{}", options.suite, usage());
    }
    if !process::is_root() {
        bail!("containers are started as root: run `sudo -E env PATH=$PATH cargo xtask bench {}`", options.suite);
    }
    debian::fetch(debian::FOR_BENCHMARKS)?;
    let binary = match options.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("find {}", binary.display()))?,
        None => {
            let release = ["build", "--locked", "--release", "--bin", "sampan"];
            run(process::cargo().current_dir(workspace::root()).args(release))?;
            workspace::target().join("release/sampan")
        }
    };
    interrupt::listen()?;
    let mut suites = Vec::new();
    for suite in chosen {
        eprintln!("xtask: bench {}: {}", suite.name, suite.about);
        let scratch = Scratch::make()?;
        let runs = options.runs.unwrap_or(suite.runs);
        let bench = Bench { scratch, binary: binary.clone(), runs, seconds: options.seconds };
        let measured = (suite.measure)(&bench).with_context(|| format!("bench {}", suite.name));
        bench.scratch.remove()?;
        suites.push(measured?);
    }
    let report = Report::new(suites)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn usage() -> String {
    let mut text = format!("usage: {}\n\n", options::USAGE);
    let all = ("all", "every suite, one report");
    for (name, about) in SUITES.iter().map(|suite| (suite.name, suite.about)).chain([all]) {
        text.push_str(&format!("  {name:9} {about}\n"));
    }
    text
}
