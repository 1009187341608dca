//! Contenders, and how they take turns.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::interrupt;
use super::report::{Row, Section};

/// The idle time before each measurement.
pub const GAP: Duration = Duration::from_millis(20);

/// Lets the machine be idle for that long: how it is measured, not what is waited for.
pub fn idle() {
    std::thread::sleep(GAP);
}

/// Does the thing that is measured once, and tells how long it took. What it holds undoes itself when it is dropped.
pub type Once<'a> = Box<dyn FnMut() -> Result<Duration> + Send + 'a>;

/// One of those measured.
pub struct Contender<'a> {
    /// What it is called in the table.
    pub name: String,
    once: Once<'a>,
}

impl<'a> Contender<'a> {
    /// Warmed up by one measurement that does not count.
    pub fn new(name: impl Into<String>, once: impl FnMut() -> Result<Duration> + Send + 'a) -> Result<Self> {
        let mut contender = Self { name: name.into(), once: Box::new(once) };
        contender.measure()?;
        Ok(contender)
    }

    fn measure(&mut self) -> Result<Duration> {
        (self.once)().with_context(|| format!("measure {}", self.name))
    }
}

/// Measures them in turns. The first is the floor that the others' ratios are against.
pub fn take_turns(title: &str, runs: usize, contenders: &mut [Contender<'_>]) -> Result<Section> {
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(runs); contenders.len()];
    for _ in 0..runs {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            interrupt::check()?;
            idle();
            samples.push(contender.measure()?.as_secs_f64() * 1e3);
        }
    }
    let names = contenders.iter().map(|contender| contender.name.clone());
    Ok(Section::new(title, names.zip(samples).map(|(name, samples)| Row::new(name, samples)).collect()))
}
