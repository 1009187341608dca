//! The tests, in the order they run.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use crate::harness::{Layer, Machine};

mod confinement;
mod lifecycle;
mod mounts;
mod processes;
mod sealed;
mod servers;
mod streams;

type Test = (&'static str, fn(&Layer));

/// Runs those whose names contain the first of `words`, but for those that contain a word after `--skip`. With one
/// thread: the tests count processes and mounts of the machine's.
pub fn run(words: &[&str]) -> ExitCode {
    if words.contains(&"--list") {
        return ExitCode::SUCCESS;
    }
    let skipped: Vec<&str> = words.windows(2).filter(|pair| pair[0] == "--skip").map(|pair| pair[1]).collect();
    let filter = words.first().copied().filter(|filter| !filter.starts_with('-')).unwrap_or("");
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the sealed start needs root");
        return ExitCode::SUCCESS;
    }
    // orphans of a supervisor that a test kills come here, and are reaped here as init would
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("subreaper");
    let layer = Layer::make();
    let mut failed = 0;
    for (name, test) in sealed::TESTS
        .iter()
        .chain(confinement::TESTS)
        .chain(lifecycle::TESTS)
        .chain(mounts::TESTS)
        .chain(processes::TESTS)
        .chain(servers::TESTS)
        .chain(streams::TESTS)
        .filter(|(name, _)| name.contains(filter) && !skipped.iter().any(|skipped| name.contains(skipped)))
    {
        let since = Instant::now();
        let passed = std::panic::catch_unwind(AssertUnwindSafe(|| test(&layer))).is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, since.elapsed());
        failed += u32::from(!passed);
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs `words` and compares each line that they print.
fn check(machine: &Machine<'_>, cases: &[(&str, &str)]) {
    let words: Vec<&str> = cases.iter().map(|(word, _)| *word).collect();
    let spec = machine.spec(&words);
    check_spec(machine, &spec, cases);
}

fn check_spec(machine: &Machine<'_>, spec: &crate::harness::Spec, cases: &[(&str, &str)]) {
    let (code, lines) = machine.run(spec);
    let expected: Vec<String> = cases
        .iter()
        .map(|(word, found)| format!("{}: {found}", word.split_once('=').map_or(*word, |(what, _)| what)))
        .collect();
    assert_eq!((code, lines), (Some(0), expected), "{:?}", spec.process.args);
}
