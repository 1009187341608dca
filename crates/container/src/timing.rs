//! Where the time of starts and execs went: step by step for whoever asked for the start, and summed up in histograms
//! since the daemon began.
//!
//! A step costs a look at the clock; the sums cost one lock a start, held for some additions.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sampan_model::ContainerId;
use sampan_model::view::TimingStep;

use crate::Containers;
use crate::containers::lock;

/// The upper bounds of a histogram's buckets, in microseconds; what is more is in a last one.
pub const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000, 100_000,
    1_000_000, 10_000_000,
];

/// A start's steps as they are done.
#[derive(Debug)]
pub(crate) struct Laps {
    last: Instant,
    took: Vec<(&'static str, Duration)>,
}

impl Laps {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self { last: Instant::now(), took: Vec::with_capacity(12) }
    }

    /// A step is done. What was between it and the step before is its.
    pub(crate) fn lap(&mut self, step: &'static str) {
        let now = Instant::now();
        self.took.push((step, now - self.last));
        self.last = now;
    }

    fn in_all(&self) -> Duration {
        self.took.iter().map(|(_, took)| *took).sum()
    }

    /// As whoever asked for the start is told them.
    pub(crate) fn steps(&self) -> Vec<TimingStep> {
        let step = |(step, took): &(&'static str, Duration)| TimingStep { step: (*step).to_owned(), us: us(*took) };
        self.took.iter().map(step).collect()
    }
}

impl fmt::Display for Laps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, took) in &self.took {
            write!(f, "{step} {:.2} ms, ", took.as_secs_f64() * 1e3)?;
        }
        write!(f, "in all {:.2} ms", self.in_all().as_secs_f64() * 1e3)
    }
}

fn us(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// The steps of a creation that is to be followed by a start.
#[derive(Debug, Default)]
pub(crate) struct Timing(Mutex<Option<Laps>>);

impl Timing {
    /// It was created; its start is to come.
    pub(crate) fn created(&self, laps: Laps) {
        *lock(&self.0) = Some(laps);
    }

    /// Its start begins: with the steps of its creation, where that was for this start.
    pub(crate) fn starting(&self) -> Laps {
        let Some(mut laps) = lock(&self.0).take() else { return Laps::begin() };
        laps.lap("turn");
        laps
    }

    /// It is to be started some other day.
    pub(crate) fn forget(&self) {
        *lock(&self.0) = None;
    }
}

/// How many took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many were no longer than each of [`BOUNDS_US`] and longer than the one before; the last: longer than all.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let us = us(took);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What was counted since the daemon began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Starts that succeeded, from the request's arrival at this floor until the program was executed.
    pub starts: Histogram,
    /// Their steps, by name, in the order in which they were first seen.
    pub steps: Vec<(&'static str, Histogram)>,
    /// Starts that failed.
    pub failed: u64,
    /// Processes started in running containers, until they were executed.
    pub execs: Histogram,
}

/// The counts of all containers.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

impl Metrics {
    /// A container was started.
    pub(crate) fn started(&self, id: &ContainerId, laps: &Laps) {
        tracing::debug!(id = id.short(), "started: {laps}");
        let mut counts = lock(&self.0);
        counts.starts.add(laps.in_all());
        for (step, took) in &laps.took {
            match counts.steps.iter_mut().find(|(name, _)| name == step) {
                Some((_, histogram)) => histogram.add(*took),
                None => {
                    let mut histogram = Histogram::default();
                    histogram.add(*took);
                    counts.steps.push((step, histogram));
                }
            }
        }
    }

    /// A container could not be started.
    pub(crate) fn failed(&self) {
        lock(&self.0).failed += 1;
    }

    /// A process was started in a running container.
    pub(crate) fn executed(&self, since: Instant) {
        lock(&self.0).execs.add(since.elapsed());
    }
}

impl Containers {
    /// What was counted since this daemon began.
    pub fn counts(&self) -> Counts {
        lock(&self.inner.metrics.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let mut histogram = Histogram::default();
        for us in [0, 50, 51, 1_000, 10_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        let mut expected = [0; BOUNDS_US.len() + 1];
        (expected[0], expected[1], expected[4], expected[BOUNDS_US.len()]) = (2, 1, 1, 1);
        assert_eq!(histogram.counts, expected);
        assert_eq!((histogram.count(), histogram.sum_us), (5, 10_001_102));
    }

    #[test]
    fn a_start_is_counted_with_its_steps() {
        let (metrics, timing) = (Metrics::default(), Timing::default());
        let mut laps = Laps::begin();
        laps.lap("spec");
        timing.created(laps);
        let mut laps = timing.starting();
        laps.lap("root");
        metrics.started(&ContainerId::from_bytes([1; 32]), &laps);
        let steps = laps.steps();
        assert_eq!(steps.iter().map(|step| &*step.step).collect::<Vec<_>>(), ["spec", "turn", "root"]);
        let counts = lock(&metrics.0).clone();
        assert_eq!(counts.starts.count(), 1);
        assert_eq!(counts.steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), ["spec", "turn", "root"]);
        // its second start has nothing to do with its creation
        assert!(timing.starting().took.is_empty());
    }
}
