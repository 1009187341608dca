//! What runs in a container, and what it uses: read from its cgroup and from `/proc`.

use std::collections::HashMap;
use std::fs;

use jiff::{SignedDuration, Timestamp};
use sampan_model::ContainerId;
use sampan_model::view::{ProcessRow, Stats};

use crate::{ContainerError, Containers};

/// More processes than these are not listed.
const MOST_PROCESSES: usize = 10_000;
/// A command line is shown up to here.
const LONGEST_COMMAND: usize = 4096;
/// The wire's end in a server.
const INTERFACE: &str = "eth0";

impl Containers {
    /// The processes of a running container, by their ids inside; at most 10,000.
    ///
    /// # Errors
    /// It does not run.
    pub async fn top(&self, id: &ContainerId) -> Result<Vec<ProcessRow>, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("listing processes", move |inner| {
            container.running_pid()?;
            let record = container.record();
            let ids = inner.ids_of(&record);
            let boot = boot_time()?;
            let pids = inner.container_group(&record)?.pids()?;
            let mut processes: Vec<Process> =
                pids.into_iter().take(MOST_PROCESSES).filter_map(|pid| Process::read(pid, boot)).collect();
            processes.sort_by_key(|process| process.inner_pid);
            let inner_pids: HashMap<u32, u32> = processes.iter().map(|one| (one.pid, one.inner_pid)).collect();
            let rows = processes.into_iter().map(|process| ProcessRow {
                pid: process.pid,
                inner_pid: process.inner_pid,
                inner_ppid: inner_pids.get(&process.ppid).copied().unwrap_or(0),
                uid: process.uid.checked_sub(ids.start).filter(|uid| *uid < ids.length).unwrap_or(NOBODY),
                state: process.state.to_string(),
                resident_bytes: process.resident_bytes,
                cpu_ms: process.cpu_ms,
                started_at: process.started_at,
                command: process.command,
            });
            Ok(rows.collect())
        })
        .await
    }

    /// What a running container uses now. The network is its server's, and so that of all containers on it.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stats(&self, id: &ContainerId) -> Result<Stats, ContainerError> {
        let container = self.inner.get(id)?;
        self.blocking("reading what is in use", move |inner| {
            let pid = container.running_pid()?;
            let record = container.record();
            let usage = inner.container_group(&record)?.usage()?;
            let path = format!("/proc/{pid}/net/dev");
            // it may have ended in between: that is no error of its numbers
            let (received_bytes, sent_bytes) = fs::read_to_string(path).map(|text| traffic(&text)).unwrap_or_default();
            let size = record.spec.size;
            Ok(Stats {
                id: record.id.clone(),
                name: record.spec.name.clone(),
                at: Timestamp::now(),
                cpu_us: usage.cpu_us,
                cpus: size.cpus,
                memory_bytes: usage.memory_bytes,
                memory_limit_bytes: size.memory_bytes.min(inner.foundation.machine.memory).0,
                pids: usage.pids,
                received_bytes,
                sent_bytes,
                read_bytes: usage.read_bytes,
                written_bytes: usage.written_bytes,
            })
        })
        .await
    }
}

/// The id that the kernel shows for one that is not mapped.
const NOBODY: u32 = 65_534;

/// A process, as `/proc` has it; ids are the host's unless they are called inner.
struct Process {
    pid: u32,
    ppid: u32,
    inner_pid: u32,
    uid: u32,
    state: char,
    resident_bytes: u64,
    cpu_ms: u64,
    started_at: Timestamp,
    command: String,
}

impl Process {
    /// `None` where it has ended.
    fn read(pid: u32, boot: Timestamp) -> Option<Self> {
        let directory = format!("/proc/{pid}");
        // the name and the command line are bytes of its own choice
        let stat = String::from_utf8_lossy(&fs::read(format!("{directory}/stat")).ok()?).into_owned();
        let status = String::from_utf8_lossy(&fs::read(format!("{directory}/status")).ok()?).into_owned();
        let command = fs::read(format!("{directory}/cmdline")).ok()?;
        Self::parse(pid, boot, &stat, &status, &command)
    }

    /// proc_pid_stat(5), proc_pid_status(5), proc_pid_cmdline(5).
    fn parse(pid: u32, boot: Timestamp, stat: &str, status: &str, command: &[u8]) -> Option<Self> {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        // from the third field on
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at - 3).and_then(|field| field.parse::<u64>().ok());
        let field =
            |word: &str| status.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(':')).map(str::trim);
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let milliseconds = |count: u64| count.saturating_mul(1000) / ticks;
        let started = SignedDuration::from_millis(i64::try_from(milliseconds(number(22)?)).ok()?);
        let resident_kib: u64 =
            field("VmRSS").and_then(|text| text.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0);
        Some(Self {
            pid,
            ppid: u32::try_from(number(4)?).ok()?,
            inner_pid: field("NSpid")?.split_ascii_whitespace().next_back()?.parse().ok()?,
            uid: field("Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            resident_bytes: resident_kib * 1024,
            cpu_ms: milliseconds(number(14)? + number(15)?),
            started_at: boot.checked_add(started).ok()?,
            command: command_line(command).unwrap_or_else(|| format!("[{name}]")),
        })
    }
}

/// The words of a command line; `None` where there is none, as of a process that has ended and was not waited for.
fn command_line(bytes: &[u8]) -> Option<String> {
    let words = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let words = &words[..words.len().min(LONGEST_COMMAND)];
    (!words.is_empty()).then(|| String::from_utf8_lossy(words).replace('\0', " "))
}

fn boot_time() -> Result<Timestamp, ContainerError> {
    let error = |source| ContainerError::Io { what: "read /proc/stat".to_owned(), source };
    let text = fs::read_to_string("/proc/stat").map_err(error)?;
    let second = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    second
        .and_then(|second| Timestamp::from_second(second).ok())
        .ok_or_else(|| error(std::io::ErrorKind::InvalidData.into()))
}

/// Bytes received and sent, of `/proc/PID/net/dev`: the first and the ninth number of the interface's line.
fn traffic(text: &str) -> (u64, u64) {
    let line = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == INTERFACE);
    let numbers: Vec<u64> = line
        .map(|(_, rest)| rest.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect())
        .unwrap_or_default();
    (numbers.first().copied().unwrap_or(0), numbers.get(8).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_whatever_they_are_called() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1000 1 1 1";
        let status = "Name:\ta) b (c\nUid:\t3000000005\t3000000033\t0\t0\nNSpid:\t42\t3\nVmRSS:\t    12 kB\n";
        let check = |command: &[u8], shown: &str| {
            let process = Process::parse(42, Timestamp::UNIX_EPOCH, stat, status, command).expect("a process");
            assert_eq!((process.ppid, process.inner_pid, process.uid, process.state), (7, 3, 3_000_000_033, 'S'));
            let second = Timestamp::from_second(10).expect("a time");
            assert_eq!((process.resident_bytes, process.cpu_ms, process.started_at), (12 * 1024, 3000, second));
            assert_eq!(process.command, shown);
        };
        check(b"sleep\0 60 \0", "sleep  60 ");
        check(b"", "[a) b (c]");
        check(b"\xff\0", "\u{fffd}");
        assert!(Process::parse(1, Timestamp::UNIX_EPOCH, "1 (x", status, b"").is_none());
        assert!(Process::parse(1, Timestamp::UNIX_EPOCH, stat, "", b"").is_none());
    }

    #[test]
    fn we_are_read() {
        let ours = Process::read(std::process::id(), boot_time().expect("a boot")).expect("we run");
        assert_eq!((ours.pid, ours.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
        assert!(ours.started_at <= Timestamp::now() && ours.resident_bytes > 0);
        assert!(Process::read(u32::MAX, Timestamp::UNIX_EPOCH).is_none());
    }

    #[test]
    fn traffic_is_the_wires() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets|bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 700 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (700, 900));
        assert_eq!(traffic("lo: 1"), (0, 0));
    }
}
