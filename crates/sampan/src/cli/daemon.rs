//! `sampan daemon start|status|stop|restart`.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sampan_client::{Client, ClientError, Listen};
use sampan_model::view::{DaemonView, ProcessView};
use serde_json::{Value, json};

use super::age::{age, bytes};
use super::args::Globals;
use super::connect::connect;
use super::failure::Failure;
use super::output;
use super::table::table;

/// How long everything may take to stop: containers have 10 s each, side by side.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// How long the others may take to end once the daemon, which ends them, has.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// How long a daemon may take to replace itself.
const RESTART_LIMIT: Duration = Duration::from_secs(60);

/// `sampan daemon start`.
pub async fn start(globals: &Globals) -> Result<(), Failure> {
    let daemon = connect(globals).await?.daemon().await?;
    if let Some(asked) = globals.http
        && !listens_there(&daemon, asked)
    {
        eprintln!("warning: it was running already and listens elsewhere; to have --http {asked}, stop it first");
    }
    print(globals, &daemon)
}

fn listens_there(daemon: &DaemonView, asked: Listen) -> bool {
    daemon.http.iter().any(|address| match asked {
        Listen::Port(0) => true,
        Listen::Port(port) => address.port() == port,
        Listen::Address(asked) => address.ip() == asked.ip() && (asked.port() == 0 || address.port() == asked.port()),
    })
}

/// `sampan daemon status`.
pub async fn status(globals: &Globals) -> Result<(), Failure> {
    let daemon = Client::connect(&globals.root()?).await?.daemon().await?;
    print(globals, &daemon)
}

/// `sampan daemon stop`.
pub async fn stop(globals: &Globals) -> Result<(), Failure> {
    let root = globals.root()?;
    let client = match Client::connect(&root).await {
        Ok(client) => client,
        Err(ClientError::NoDaemon { .. }) => {
            if !globals.quiet {
                eprintln!("no daemon runs for {}", root.path().display());
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let processes = Processes::of(&client.daemon().await?);
    client.stop_daemon().await?;
    processes.wait_for_end().await?;
    if !globals.quiet {
        eprintln!("stopped; what ran comes back at the next start");
    }
    Ok(())
}

/// `sampan daemon restart`.
pub async fn restart(globals: &Globals) -> Result<(), Failure> {
    let client = Client::connect(&globals.root()?).await?;
    let before = client.daemon().await?;
    client.restart_daemon().await?;
    let end = Instant::now() + RESTART_LIMIT;
    // the next one keeps pid and socket, so nothing but itself tells that it is there: it is asked until it does
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        match client.daemon().await {
            Ok(after) if after.started_at != before.started_at => return print(globals, &after),
            Err(error) if !error.is_lost() => return Err(error.into()),
            _ if Instant::now() >= end => {
                let log = client.root().daemon_log();
                let message = format!("the daemon has not come back after {} s", RESTART_LIMIT.as_secs());
                return Err(Failure::new(message).with_hint(format!("its log is {}", log.display())));
            }
            _ => {}
        }
    }
}

fn print(globals: &Globals, daemon: &DaemonView) -> Result<(), Failure> {
    let memory: Vec<_> = daemon.processes.iter().map(|process| proportional_memory(process.pid)).collect();
    if globals.json {
        output::print_json(&to_json(daemon, &memory))
    } else if globals.quiet {
        output::print_lines(daemon.processes.iter().map(|process| process.pid))
    } else {
        output::print(&render(daemon, &memory, Timestamp::now()))
    }
}

/// The API's value with `pss_bytes` for each process and for all together.
fn to_json(daemon: &DaemonView, memory: &[Option<u64>]) -> Value {
    let mut value = serde_json::to_value(daemon).expect("the API's types have string keys only");
    for (at, bytes) in memory.iter().enumerate() {
        value["processes"][at]["pss_bytes"] = json!(bytes);
    }
    value["pss_bytes"] = json!(memory.iter().copied().sum::<Option<u64>>());
    value
}

fn render(daemon: &DaemonView, memory: &[Option<u64>], now: Timestamp) -> String {
    let http: Vec<_> = daemon.http.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "sampan {}, up {}\nroot     {}\nsocket   {}\nhttp     {}\n\n",
        daemon.version,
        age(now, daemon.started_at),
        daemon.root.display(),
        daemon.socket.display(),
        if http.is_empty() { "-".into() } else { http.join(", ") },
    );
    let shown = |memory: Option<u64>| memory.map(bytes).unwrap_or_default();
    let row = |(process, memory): (&ProcessView, &Option<u64>)| {
        [process.role.clone(), process.pid.to_string(), shown(*memory)]
    };
    let mut rows: Vec<_> = daemon.processes.iter().zip(memory).map(row).collect();
    rows.push(["together".into(), String::new(), shown(memory.iter().copied().sum())]);
    text.push_str(&table(["PROCESS", "PID", "MEMORY"], &rows));
    for warning in &daemon.warnings {
        text.push_str(&format!("\nwarning: {warning}\n"));
    }
    text
}

/// A process's memory, what it shares divided among those it shares it with. `None` where it may not be seen.
fn proportional_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Sampan's own processes, held so that their end can be waited for.
pub struct Processes(Vec<(ProcessView, OwnedFd)>);

impl Processes {
    /// Those of this daemon that live.
    pub fn of(daemon: &DaemonView) -> Self {
        let hold = |process: &ProcessView| {
            let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
            Some((process.clone(), pidfd_open(pid, PidfdFlags::empty()).ok()?))
        };
        Self(daemon.processes.iter().filter_map(hold).collect())
    }

    /// Waits until all of them have ended, and no longer than a limit.
    pub async fn wait_for_end(self) -> Result<(), Failure> {
        let waited = tokio::task::spawn_blocking(move || self.wait());
        waited.await.unwrap_or_else(|error| Err(Failure::new(format!("wait for the daemon's end: {error}"))))
    }

    /// The daemon, which ends the others, is waited for first.
    fn wait(mut self) -> Result<(), Failure> {
        self.0.sort_by_key(|(process, _)| process.role != "daemon");
        for (process, pidfd) in self.0 {
            let limit = if process.role == "daemon" { STOP_LIMIT } else { REST_LIMIT };
            if !ends_within(&pidfd, limit) {
                let ProcessView { role, pid } = process;
                let message = format!("the {role} (pid {pid}) still runs after {} s", limit.as_secs());
                return Err(Failure::new(message).with_hint("look into the daemon's log, then try again"));
            }
        }
        Ok(())
    }
}

/// Waits until a daemon that was killed is gone; `None` where it is not.
pub fn wait_for_end_of(pidfd: &OwnedFd) -> Option<()> {
    ends_within(pidfd, REST_LIMIT).then_some(())
}

fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            woken => return woken.is_ok_and(|count| count > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon() -> DaemonView {
        DaemonView {
            version: "0.1.0".into(),
            root: "/r".into(),
            socket: "/r/run/sampan.sock".into(),
            started_at: Timestamp::from_second(0).unwrap(),
            revision: 7,
            http: vec![([127, 0, 0, 1], 8080).into()],
            parked: Vec::new(),
            processes: vec![
                ProcessView { role: "daemon".into(), pid: 10 },
                ProcessView { role: "supervisor".into(), pid: 11 },
            ],
            warnings: vec!["port 8080 is taken".into()],
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
sampan 0.1.0, up 1 hour
root     /r
socket   /r/run/sampan.sock
http     127.0.0.1:8080

PROCESS      PID   MEMORY
daemon       10    12.0 MiB
supervisor   11    1.5 MiB
together     -     13.5 MiB

warning: port 8080 is taken
";
        let memory = [Some(12 << 20), Some(3 << 19)];
        assert_eq!(render(&daemon(), &memory, Timestamp::from_second(3600).unwrap()), expected);
    }

    #[test]
    fn for_programs() {
        let value = to_json(&daemon(), &[Some(1), Some(2)]);
        assert_eq!(value["processes"][1], json!({ "role": "supervisor", "pid": 11, "pss_bytes": 2 }));
        assert_eq!((&value["pss_bytes"], &value["revision"]), (&json!(3), &json!(7)));
        assert_eq!(to_json(&daemon(), &[Some(1), None])["pss_bytes"], Value::Null);
    }

    #[test]
    fn our_own_memory_is_seen() {
        assert!(proportional_memory(std::process::id()).unwrap() > 0);
        assert_eq!(proportional_memory(u32::MAX), None);
    }

    #[test]
    fn where_it_listens() {
        for (asked, expected) in [("8080", true), ("0", true), ("81", false), ("0.0.0.0:8080", false)] {
            assert_eq!(listens_there(&daemon(), asked.parse().unwrap()), expected, "{asked}");
        }
    }
}
