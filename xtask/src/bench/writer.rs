//! Somebody who writes to the disk that the containers are on: 80 MB/s, and an fdatasync now and then, as a database
//! or a log does. It is a process of its own (`cargo xtask bench writer FILE SECONDS`, for the suites' own use),
//! bounded in rate, size and time, and ends when its input is closed.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::bounded::Served;
use super::scratch::Scratch;

/// Its word on the command line.
pub const WORD: &str = "writer";
/// Bytes a second.
pub const RATE: u64 = 80_000_000;
const CHUNK: usize = 1_000_000;
/// How much is written between two syncs.
const SYNC_EVERY: u64 = 16 * CHUNK as u64;
/// Where the file is written from its beginning again.
const LONGEST: u64 = 256 * CHUNK as u64;
/// The longest that it writes, should nobody end it.
const LIMIT_S: u64 = 1800;

/// A writer that writes.
pub struct Writer {
    served: Served,
    file: PathBuf,
}

impl Writer {
    /// Starts it, and waits for its first sync.
    pub fn start(scratch: &Scratch) -> Result<Self> {
        let file = scratch.join("written");
        let xtask = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(xtask);
        command.args(["bench", WORD]).arg(&file).arg(LIMIT_S.to_string());
        let mut served = Served::spawn(&mut command)?;
        served.ask()?;
        Ok(Self { served, file })
    }

    /// Ends it; returns how many megabytes a second it has written.
    pub fn end(self) -> Result<f64> {
        let rest = self.served.end()?;
        std::fs::remove_file(&self.file)?;
        rest.trim().parse().with_context(|| format!("the writer said {rest:?}"))
    }
}

/// Writes until standard input ends.
pub fn write(words: &[&str]) -> Result<()> {
    static ENDED: AtomicBool = AtomicBool::new(false);
    let [path, seconds] = words else { bail!("usage: cargo xtask bench writer FILE SECONDS") };
    let limit = Duration::from_secs(seconds.parse().with_context(|| format!("{seconds:?} is no number of seconds"))?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::SeqCst);
    });
    let mut file = File::create(path).with_context(|| format!("make {path}"))?;
    let chunk = vec![0x5a; CHUNK];
    let (mut written, mut counted) = (0, None);
    let start = Instant::now();
    while !ENDED.load(Ordering::SeqCst) && start.elapsed() < limit {
        if written % LONGEST == 0 {
            file.rewind()?;
        }
        file.write_all(&chunk).with_context(|| format!("write to {path}"))?;
        written += CHUNK as u64;
        if written % SYNC_EVERY == 0 {
            file.sync_data().with_context(|| format!("sync {path}"))?;
            if counted.is_none() {
                counted = Some((Instant::now(), written));
                println!("writing");
            }
        }
        // behind its rate after a slow sync, it does not make up for it with a burst beyond the next chunks
        std::thread::sleep(due(written).saturating_sub(start.elapsed()));
    }
    let (since, before) = counted.unwrap_or((start, 0));
    println!("{:.1}", (written - before) as f64 / 1e6 / since.elapsed().as_secs_f64());
    Ok(())
}

/// When so many bytes are due.
fn due(written: u64) -> Duration {
    Duration::from_nanos(written.saturating_mul(1_000_000_000 / (RATE / 1000)) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_due_at_the_rate() {
        assert_eq!(due(0), Duration::ZERO);
        assert_eq!(due(RATE), Duration::from_secs(1));
        assert_eq!(due(60 * RATE), Duration::from_secs(60));
    }
}
