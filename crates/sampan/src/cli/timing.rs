//! `sampan run --timing`: where a start's time went, this command's own and the daemon's part of it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sampan_model::view::TimingStep;
use serde_json::json;

use super::args::Globals;

/// When this program began to run its own code. What the kernel and the loader did before is not seen from here.
static BEGUN: OnceLock<Instant> = OnceLock::new();

/// Called first.
pub fn begin() {
    let _ = BEGUN.set(Instant::now());
}

/// The steps of this command, where they are asked for.
#[derive(Debug)]
pub struct Timing(Option<Laps>);

#[derive(Debug)]
struct Laps {
    last: Instant,
    took: Vec<(&'static str, Duration)>,
}

impl Timing {
    /// From the program's beginning.
    pub fn begun() -> Self {
        Self(Some(Laps { last: BEGUN.get().copied().unwrap_or_else(Instant::now), took: Vec::new() }))
    }

    /// Nobody asks.
    pub fn none() -> Self {
        Self(None)
    }

    /// A step is done.
    pub fn lap(&mut self, step: &'static str) {
        if let Some(laps) = &mut self.0 {
            let now = Instant::now();
            laps.took.push((step, now - laps.last));
            laps.last = now;
        }
    }

    /// Says it on standard error; `daemons` are the daemon's steps.
    pub fn print(self, globals: &Globals, daemons: &[TimingStep]) {
        let Some(laps) = self.0 else { return };
        let own: Vec<TimingStep> =
            laps.took.iter().map(|(step, took)| TimingStep { step: (*step).to_owned(), us: us(*took) }).collect();
        if globals.json {
            eprintln!("{}", json!({ "command": own, "daemon": daemons }));
        } else {
            eprint!("{}", render(&own, daemons));
        }
    }
}

fn us(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Two small tables, in milliseconds.
fn render(own: &[TimingStep], daemons: &[TimingStep]) -> String {
    let mut text = part("sampan run", own);
    // a daemon of another version may not tell
    if !daemons.is_empty() {
        text.push_str(&part("of it in the daemon", daemons));
    }
    text
}

fn part(title: &str, steps: &[TimingStep]) -> String {
    const IN_ALL: &str = "in all";
    let in_all = steps.iter().map(|step| step.us).sum();
    let lines = steps.iter().map(|step| (&*step.step, step.us)).chain([(IN_ALL, in_all)]);
    let width = lines.clone().map(|(step, _)| step.chars().count() + 2).max().unwrap_or(0).max(title.chars().count());
    let mut text = format!("{title:width$}        ms\n");
    for (step, us) in lines {
        text.push_str(&format!("  {step:0$}  {1:>8.2}\n", width - 2, us as f64 / 1e3));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let step = |step: &str, us| TimingStep { step: step.into(), us };
        let own = [step("command line", 640), step("until it runs", 3_100)];
        assert_eq!(
            render(&own, &[step("image", 120)]),
            "\
sampan run             ms
  command line       0.64
  until it runs      3.10
  in all             3.74
of it in the daemon        ms
  image                  0.12
  in all                 0.12
"
        );
        assert_eq!(render(&own[..1], &[]).lines().count(), 3);
    }
}
