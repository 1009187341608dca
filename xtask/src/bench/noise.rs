//! What a measurement's own machine does to it: a loop that only counts takes its turn beside the others. Nobody's
//! kernel or daemon is in it, so what its slowest runs take longer, others had of the processors, or the processors slept.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::report::{Promise, Section};
use super::turns::{Contender, idle};

/// Its row.
const NAME: &str = "a loop that counts";
/// About as long as what is measured beside it.
const LENGTH: Duration = Duration::from_millis(4);
/// Above this 99th percentile over its median a machine is too noisy to tell others' by.
const QUIET: f64 = 2.0;

/// The loop, as long as it takes after the same idle time as the others.
pub fn contender() -> Result<Contender<'static>> {
    let trial = 1_000_000;
    let mut took: Vec<Duration> = (0..9)
        .map(|_| {
            idle();
            count(trial)
        })
        .collect();
    took.sort_unstable();
    let turns = trial as f64 * LENGTH.as_secs_f64() / took[took.len() / 2].as_secs_f64();
    Contender::new(NAME, move || Ok(count(turns as u64)))
}

fn count(turns: u64) -> Duration {
    let start = Instant::now();
    for turn in 0..turns {
        black_box(turn);
    }
    start.elapsed()
}

/// Whether a 99th percentile of this section can be held against anybody.
pub fn judge(promise: Promise, section: &Section) -> Promise {
    let Some(row) = section.row(NAME) else { return promise };
    let spread = row.p99_ms / row.p50_ms;
    if promise.is_met() || spread <= QUIET {
        return promise;
    }
    promise.untold(format!("{NAME} has a p99 of {spread:.1} × its own p50 here"))
}

#[cfg(test)]
mod tests {
    use super::super::report::Row;
    use super::*;

    #[test]
    fn a_noisy_machine_tells_nothing() {
        let section = |slowest: f64| Section::new("alone", vec![Row::new(NAME, vec![4.0, 4.0, slowest])]);
        let missed = || Promise::at_most("p99", 5.0, 4.0, "× the floor");
        assert!(judge(missed(), &section(7.9)).to_string().starts_with("NOT met"));
        let told = judge(missed(), &section(20.0)).to_string();
        assert!(
            told.starts_with("untold ") && told.ends_with("(a loop that counts has a p99 of 5.0 × its own p50 here)"),
            "{told}"
        );
        assert!(judge(Promise::at_most("p99", 3.0, 4.0, "×"), &section(20.0)).is_met());
    }
}
