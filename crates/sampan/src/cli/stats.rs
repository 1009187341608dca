//! `sampan stats` and `top`: what containers use, and their processes.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use jiff::Timestamp;
use sampan_client::{Client, ClientError};
use sampan_model::ContainerStatus;
use sampan_model::view::{ProcessRow, Stats};

use super::age::bytes;
use super::args::{Globals, StatsArgs};
use super::connect::connect;
use super::failure::Failure;
use super::output;
use super::table::table;

/// How often the table is drawn anew.
const EVERY: Duration = Duration::from_secs(1);
/// Between the two looks whose difference is the processor's use, where the table is drawn once.
const BETWEEN: Duration = Duration::from_millis(250);

/// `sampan stats`.
pub async fn stats(globals: &Globals, args: StatsArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    if globals.json && args.no_stream {
        return output::print_json(&look(&client, &args.names).await?);
    }
    let mut before = by_id(look(&client, &args.names).await?);
    let mut ticks = tokio::time::interval(if args.no_stream { BETWEEN } else { EVERY });
    ticks.tick().await;
    let mut screen = Screen::default();
    loop {
        if globals.json {
            // one array a line: what a program reads without end
            let line = serde_json::to_string(&look(&client, &args.names).await?).expect("numbers and text");
            output::print(&format!("{line}\n"))?;
        } else {
            ticks.tick().await;
            let now = look(&client, &args.names).await?;
            screen.draw(&render(&before, &now))?;
            before = by_id(now);
        }
        if args.no_stream {
            return Ok(());
        }
        if globals.json {
            ticks.tick().await;
        }
    }
}

/// What each uses now: those that are named, else all that run.
async fn look(client: &Client, names: &[String]) -> Result<Vec<Stats>, ClientError> {
    let mut looked = Vec::new();
    for name in names {
        looked.push(client.container_stats(name).await?);
    }
    if names.is_empty() {
        for container in client.containers().await? {
            if container.state.status != ContainerStatus::Running {
                continue;
            }
            match client.container_stats(container.id.as_str()).await {
                Ok(stats) => looked.push(stats),
                // it has just ended
                Err(ClientError::Api { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(looked)
}

fn by_id(stats: Vec<Stats>) -> HashMap<String, Stats> {
    stats.into_iter().map(|one| (one.id.to_string(), one)).collect()
}

fn render(before: &HashMap<String, Stats>, now: &[Stats]) -> String {
    let rows: Vec<_> = now.iter().map(|stats| row(before.get(stats.id.as_str()), stats)).collect();
    table(["NAME", "CPU %", "MEMORY", "OF", "MEM %", "PIDS", "RECEIVED", "SENT", "READ", "WRITTEN"], &rows)
}

fn row(before: Option<&Stats>, now: &Stats) -> [String; 10] {
    let share = now.memory_bytes as f64 * 100.0 / now.memory_limit_bytes.max(1) as f64;
    [
        now.name.to_string(),
        before.and_then(|before| cpu_percent(before, now)).map_or(String::new(), |percent| format!("{percent:.1}%")),
        bytes(now.memory_bytes),
        bytes(now.memory_limit_bytes),
        format!("{share:.1}%"),
        now.pids.to_string(),
        bytes(now.received_bytes),
        bytes(now.sent_bytes),
        bytes(now.read_bytes),
        bytes(now.written_bytes),
    ]
}

/// Of one processor, as Docker has it: two busy ones are 200.
fn cpu_percent(before: &Stats, now: &Stats) -> Option<f64> {
    let wall_us = now.at.duration_since(before.at).as_micros();
    (wall_us > 0).then(|| now.cpu_us.saturating_sub(before.cpu_us) as f64 * 100.0 / wall_us as f64)
}

/// A table that is drawn over the one before, on a terminal; elsewhere one follows the other.
#[derive(Default)]
struct Screen {
    lines: usize,
}

impl Screen {
    fn draw(&mut self, text: &str) -> Result<(), Failure> {
        if !std::io::stdout().is_terminal() {
            return output::print(text);
        }
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        self.lines = text.lines().count();
        // each line is cleared to its end, and then what is below the last
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        output::print(&format!("{up}{lines}\x1b[J"))
    }
}

/// `sampan top`.
pub async fn top(globals: &Globals, name: &str) -> Result<(), Failure> {
    let rows = connect(globals).await?.container_processes(name).await?;
    if globals.json {
        return output::print_json(&rows);
    }
    if globals.quiet {
        return output::print_lines(rows.iter().map(|row| row.pid));
    }
    output::print(&render_processes(&rows, Timestamp::now()))
}

fn render_processes(rows: &[ProcessRow], now: Timestamp) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.inner_pid.to_string(),
                row.inner_ppid.to_string(),
                row.uid.to_string(),
                row.state.clone(),
                bytes(row.resident_bytes),
                format!("{:.2}s", row.cpu_ms as f64 / 1000.0),
                super::age::age(now, row.started_at),
                row.pid.to_string(),
                row.command.clone(),
            ]
        })
        .collect();
    table(["PID", "PPID", "UID", "STATE", "MEMORY", "CPU", "AGE", "HOST PID", "COMMAND"], &rows)
}

#[cfg(test)]
mod tests {
    use sampan_model::{ContainerId, ContainerName, Cpus};

    use super::*;

    fn stats(at_ms: i64, cpu_us: u64) -> Stats {
        Stats {
            id: ContainerId::from_bytes([1; 32]),
            name: ContainerName::parse("job").unwrap(),
            at: Timestamp::from_millisecond(at_ms).unwrap(),
            cpu_us,
            cpus: Cpus::ONE,
            memory_bytes: 16 << 20,
            memory_limit_bytes: 64 << 20,
            pids: 2,
            received_bytes: 0,
            sent_bytes: 2048,
            read_bytes: 0,
            written_bytes: 0,
        }
    }

    #[test]
    fn what_is_used() {
        let before = by_id(vec![stats(0, 1_000_000)]);
        let expected = "\
NAME   CPU %   MEMORY     OF         MEM %   PIDS   RECEIVED   SENT      READ   WRITTEN
job    50.0%   16.0 MiB   64.0 MiB   25.0%   2      0 B        2.0 KiB   0 B    0 B
";
        assert_eq!(render(&before, &[stats(2000, 2_000_000)]), expected);
        // a clock that stood still, a container that was not there before
        assert!(render(&before, &[stats(0, 2_000_000)]).contains("job    -  "));
        assert!(render(&HashMap::new(), &[stats(0, 0)]).contains("job    -  "));
    }
}
