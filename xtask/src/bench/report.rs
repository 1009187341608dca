//! What was measured, for machines (serde) and for people (`Display`), and whether a promise is met.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// How many processors.
    pub cpus: usize,
    /// What was measured.
    pub suites: Vec<Suite>,
}

/// One of the benchmarks.
#[derive(Debug, Default, Serialize)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// How it was measured.
    pub how: String,
    /// Its tables.
    pub sections: Vec<Section>,
    /// What was promised of it.
    pub promises: Vec<Promise>,
    /// Who is not there, and why.
    pub absent: Vec<Absent>,
}

/// Rows that were measured in turns, and single figures.
#[derive(Debug, Serialize)]
pub struct Section {
    /// Under what circumstances.
    pub title: String,
    /// The first is what the ratios are against.
    pub rows: Vec<Row>,
    /// What else was found.
    pub figures: Vec<Figure>,
    /// What is to be said of them.
    pub note: Option<String>,
}

/// One contender's times, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Who.
    pub name: String,
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The median over the first row's median.
    pub p50_ratio: f64,
    /// The 99th percentile over the first row's median.
    pub p99_ratio: f64,
    /// In the order they were taken.
    pub samples_ms: Vec<f64>,
}

/// A figure that is no time of a contender's.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Of what.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of which unit.
    pub unit: &'static str,
}

/// A line of the table in `SPECIFICATION.md`, and what was found.
#[derive(Debug, Serialize)]
pub struct Promise {
    /// What is promised, without the figure.
    pub what: String,
    /// Which side of the bound is good.
    pub side: Side,
    /// The bound.
    pub bound: f64,
    /// What was measured.
    pub measured: f64,
    /// Of both.
    pub unit: &'static str,
    /// Whether it is kept.
    pub verdict: Verdict,
    /// Why that cannot be told.
    pub why: Option<String>,
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// The machine is too noisy to tell.
    Untold,
}

/// Which side of a bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Less.
    AtMost,
    /// More.
    AtLeast,
}

/// A peer that is not there, and why.
#[derive(Debug, Serialize)]
pub struct Absent {
    /// Who.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Report {
    /// With what is to be known of this machine.
    pub fn new(suites: Vec<Suite>) -> Result<Self> {
        Ok(Self {
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            suites,
        })
    }
}

impl Section {
    /// Ratios are against the first row.
    pub fn new(title: impl Into<String>, mut rows: Vec<Row>) -> Self {
        let floor = rows.first().map_or(f64::NAN, |row| row.p50_ms);
        for row in &mut rows {
            row.p50_ratio = row.p50_ms / floor;
            row.p99_ratio = row.p99_ms / floor;
        }
        Self { title: title.into(), rows, figures: Vec::new(), note: None }
    }

    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// The row of that name, or whose name begins so where a version follows.
    pub fn row(&self, name: &str) -> Option<&Row> {
        let exact = self.rows.iter().find(|row| row.name == name);
        exact.or_else(|| self.rows.iter().find(|row| row.name.starts_with(name)))
    }
}

impl Row {
    /// Of these samples. Its ratios come when it is put beside others.
    pub fn new(name: impl Into<String>, samples_ms: Vec<f64>) -> Self {
        let (p50_ms, p99_ms) = (percentile(&samples_ms, 50), percentile(&samples_ms, 99));
        Self { name: name.into(), p50_ms, p99_ms, p50_ratio: f64::NAN, p99_ratio: f64::NAN, samples_ms }
    }
}

impl Promise {
    /// Kept where `measured` is no more than `bound`.
    pub fn at_most(what: impl Into<String>, measured: f64, bound: f64, unit: &'static str) -> Self {
        Self::new(what.into(), Side::AtMost, bound, measured, unit, measured <= bound)
    }

    /// Kept where `measured` is no less than `bound`.
    pub fn at_least(what: impl Into<String>, measured: f64, bound: f64, unit: &'static str) -> Self {
        Self::new(what.into(), Side::AtLeast, bound, measured, unit, measured >= bound)
    }

    fn new(what: String, side: Side, bound: f64, measured: f64, unit: &'static str, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::NotMet };
        Self { what, side, bound, measured, unit, verdict, why: None }
    }

    /// The same, not to be told here.
    pub fn untold(self, why: String) -> Self {
        Self { verdict: Verdict::Untold, why: Some(why), ..self }
    }

    /// Whether it is kept.
    pub fn is_met(&self) -> bool {
        self.verdict == Verdict::Met
    }
}

impl Suite {
    /// Adds what is promised of two rows' medians; nothing where one of them is absent.
    pub fn promise_faster(&mut self, section: usize, of: &str, than: &str, times: f64) {
        let section = &self.sections[section];
        let (Some(of), Some(than)) = (section.row(of), section.row(than)) else { return };
        let what = format!("{} is faster than {}", of.name, than.name);
        self.promises.push(Promise::at_least(what, than.p50_ms / of.p50_ms, times, "×"));
    }
}

/// The nearest-rank percentile.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}, {} CPUs", self.kernel, self.cpus)?;
        self.suites.iter().try_for_each(|suite| write!(f, "\n{suite}"))
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, how, sections, promises, absent } = self;
        writeln!(f, "{name}: {how}")?;
        for section in sections {
            write!(f, "\n{section}")?;
        }
        for Absent { name, why } in absent {
            writeln!(f, "  {name} is absent: {}", why.lines().next().unwrap_or_default())?;
        }
        if !promises.is_empty() {
            writeln!(f)?;
        }
        promises.iter().try_for_each(|promise| writeln!(f, "  {promise}"))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.rows.iter().map(|row| &row.name).chain(self.figures.iter().map(|figure| &figure.name));
        let width = names.map(|name| name.chars().count()).max().unwrap_or_default();
        let Self { title, rows, figures, note } = self;
        let indented = width + 2;
        if rows.is_empty() {
            writeln!(f, "  {title}")?;
        } else {
            let title_width = title.chars().count().max(indented);
            let width = title_width.saturating_sub(2);
            writeln!(f, "{:title_width$} {:>9} {:>9} {:>8} {:>8}", title, "p50 ms", "p99 ms", "p50 ×", "p99 ×")?;
            for Row { name, p50_ms, p99_ms, p50_ratio, p99_ratio, .. } in rows {
                writeln!(f, "  {name:width$} {p50_ms:>9.2} {p99_ms:>9.2} {p50_ratio:>8.2} {p99_ratio:>8.2}")?;
            }
        }
        for Figure { name, value, unit } in figures {
            writeln!(f, "  {name:width$} {} {unit}", number(*value))?;
        }
        note.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, side, bound, measured, unit, verdict, why } = self;
        let verdict = match verdict {
            Verdict::Met => "met    ",
            Verdict::NotMet => "NOT met",
            Verdict::Untold => "untold ",
        };
        let side = match side {
            Side::AtMost => "at most",
            Side::AtLeast => "at least",
        };
        write!(f, "{verdict} {what}: {} {unit}, promised {side} {} {unit}", number(*measured), number(*bound))?;
        why.iter().try_for_each(|why| write!(f, " ({why})"))
    }
}

/// With as many decimals as say something.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
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
    fn promises() {
        for (promise, met) in [
            (Promise::at_most("a", 2.0, 2.0, "×"), true),
            (Promise::at_most("a", 2.01, 2.0, "×"), false),
            (Promise::at_least("a", 35.0, 35.0, "×"), true),
            (Promise::at_least("a", f64::NAN, 1.0, "×"), false),
            (Promise::at_most("a", f64::NAN, 1.0, "×"), false),
        ] {
            assert_eq!(promise.is_met(), met, "{promise}");
        }
    }

    #[test]
    fn tables() {
        let rows = vec![Row::new("kernel floor", vec![2.0, 2.0, 4.0]), Row::new("sampan run --rm", vec![5.0, 5.0])];
        let mut section = Section::new("alone", rows);
        section.add("writes", 80.25, "MB/s");
        section.note = Some("the disk is slow".into());
        let mut suite = Suite {
            name: "start",
            how: "in turns".into(),
            sections: vec![section],
            promises: vec![Promise::at_most("p50", 2.5, 2.0, "× the floor")],
            absent: vec![Absent { name: "docker".into(), why: "no daemon\nmore".into() }],
        };
        suite.promise_faster(0, "sampan run", "kernel", 0.1);
        suite.promise_faster(0, "sampan run", "podman", 3.0);
        let report = Report { kernel: "6.18.0".into(), cpus: 2, suites: vec![suite] };
        assert_eq!(
            report.to_string(),
            "\
Linux 6.18.0, 2 CPUs

start: in turns

alone                p50 ms    p99 ms    p50 ×    p99 ×
  kernel floor         2.00      4.00     1.00     2.00
  sampan run --rm      5.00      5.00     2.50     2.50
  writes          80.2 MB/s
  the disk is slow
  docker is absent: no daemon

  NOT met p50: 2.50 × the floor, promised at most 2 × the floor
  met     sampan run --rm is faster than kernel floor: 0.40 ×, promised at least 0.10 ×
"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["suites"][0]["promises"][0]["side"], "at_most");
        assert_eq!(json["suites"][0]["sections"][0]["rows"][1]["p50_ratio"], 2.5);
    }
}
