//! Programs that are measured, or that serve measurements: each in a process group of its own, so that a terminal's
//! Ctrl-C is ours alone, and none for longer than it is given.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The longest that one measured command, or one answer, may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command to its end and tells how long that took.
pub fn timed(command: &mut Command) -> Result<Duration> {
    let name = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let status = wait(&mut child, PATIENCE).with_context(|| format!("run {name}"))?;
    let took = start.elapsed();
    if !status.success() {
        let mut text = String::new();
        if let Some(stderr) = child.stderr.take() {
            // a grandchild may hold the pipe: what is there is enough
            let _ = stderr.take(4096).read_to_string(&mut text);
        }
        bail!("{status}: {}", text.trim());
    }
    Ok(took)
}

/// Waits for a child's end; one that takes too long is killed, and waited for.
pub fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("its pid is no pid")?;
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    if !is_ready_within(&pidfd, patience)? {
        child.kill()?;
        child.wait()?;
        bail!("it still ran after {} s, and was killed", patience.as_secs());
    }
    Ok(child.wait()?)
}

/// Whether there is something to read, or an end, within that time.
fn is_ready_within(fd: &impl AsFd, patience: Duration) -> Result<bool> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            woken => return Ok(woken? > 0),
        }
    }
}

/// A program that does something for every line it is sent, and answers with a line.
pub struct Served {
    name: String,
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Served {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("run {name}"))?;
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().with_context(|| format!("{name} has no output"))?);
        Ok(Self { name, child, asks, answers })
    }

    /// One line for another.
    pub fn ask(&mut self) -> Result<String> {
        let Self { name, asks, answers, .. } = self;
        asks.as_mut().context("its input is closed")?.write_all(b"\n").with_context(|| format!("ask {name}"))?;
        if answers.buffer().is_empty() && !is_ready_within(answers.get_ref(), PATIENCE)? {
            bail!("{name} has not answered within {} s", PATIENCE.as_secs());
        }
        let mut line = String::new();
        answers.read_line(&mut line).with_context(|| format!("read {name}'s answer"))?;
        if line.is_empty() {
            bail!("{name} has ended");
        }
        Ok(line.trim().to_owned())
    }

    /// Closes its input, returns what else it wrote, and waits for its end.
    pub fn end(mut self) -> Result<String> {
        drop(self.asks.take());
        let mut rest = String::new();
        let status = wait(&mut self.child, PATIENCE).with_context(|| format!("end {}", self.name))?;
        self.answers.read_to_string(&mut rest)?;
        if status.success() { Ok(rest) } else { bail!("{}: {status}", self.name) }
    }
}

impl Drop for Served {
    /// For the ways out that do not come by `end`: an error on the way.
    fn drop(&mut self) {
        drop(self.asks.take());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = wait(&mut self.child, Duration::from_secs(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_timed_and_their_errors_told() {
        assert!(timed(&mut Command::new("true")).unwrap() < Duration::from_secs(10));
        let error = timed(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3: why");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let error = wait(&mut child, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.to_string(), "it still ran after 0 s, and was killed");
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn served() {
        let mut served =
            Served::spawn(Command::new("sh").args(["-c", "while read -r l; do echo $((n += 1)); done; echo bye"]))
                .unwrap();
        assert_eq!(served.ask().unwrap(), "1");
        assert_eq!(served.ask().unwrap(), "2");
        assert_eq!(served.end().unwrap(), "bye\n");
    }
}
