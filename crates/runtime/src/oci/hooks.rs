//! Hooks: other people's programs, run beside a container's life, with its state on their standard input.
//!
//! A hook is cloned and not spawned, since a process with one thread may do so and [`std::process`] knows no limit of
//! time; it also works where there is no `/proc` (in a container, before its program). It has three standard streams, its
//! own environment and nothing else of ours.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};
use sampan_sys::clone::{Namespaces, clone};
use sampan_sys::process::{self, Strings};

use super::config::{Hook, State};

/// A hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be run.
    #[error("run the {stage} hook {path}")]
    Run {
        /// Of which kind.
        stage: &'static str,
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said so.
    #[error("the {stage} hook {path} ended with code {code}{}", told(.said))]
    Code {
        /// Of which kind.
        stage: &'static str,
        /// Its file.
        path: String,
        /// The code; 128 + N for signal N.
        code: u8,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// It took too long, and was killed.
    #[error("the {stage} hook {path} was still running after {seconds} s, and was killed")]
    Timeout {
        /// Of which kind.
        stage: &'static str,
        /// Its file.
        path: String,
        /// How long it was given.
        seconds: u64,
    },
}

fn told(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Runs them one after the other, until one fails.
pub(super) fn run(stage: &'static str, hooks: &[Hook], state: &State<'_>) -> Result<(), HookError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(state).unwrap_or_default();
    hooks.iter().try_for_each(|hook| run_one(stage, hook, &text))
}

/// The code that a hook ends with which could not be executed: as the shell's.
const NOT_EXECUTED: u8 = 127;
/// What fits into a pipe that nobody reads (pipe(7)), in bytes.
const PIPE: usize = 64 * 1024;
/// What of its words is told.
const SAID_MAX: usize = 1024;

fn run_one(stage: &'static str, hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let path = || hook.path.clone();
    let wrap = |source: io::Error| HookError::Run { stage, path: path(), source };
    let seconds =
        match hook.timeout {
            None => None,
            Some(seconds) => Some(u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).ok_or_else(|| {
                wrap(io::Error::new(io::ErrorKind::InvalidInput, format!("its timeout is {seconds} s")))
            })?),
        };
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (stdin, to_hook) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| wrap(errno.into()))?;
    let (from_hook, stderr) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|errno| wrap(errno.into()))?;
    let keep = [stdin.as_fd(), stderr.as_fd()];
    let cloned = clone(Namespaces::NONE, None, &keep, || execute(hook, &stdin, &stderr)).map_err(wrap)?;
    drop((stdin, stderr));
    // a hook that does not read it must not keep us waiting: it fits
    if state.len() > PIPE {
        rustix::pipe::fcntl_setpipe_size(&to_hook, state.len()).map_err(|errno| wrap(errno.into()))?;
    }
    let _ = std::fs::File::from(to_hook).write_all(state);

    let mut said = Vec::new();
    let finished = wait(&cloned.pidfd, &from_hook, deadline, &mut said).map_err(wrap)?;
    if !finished {
        let _ = sampan_sys::pidfd::signal(cloned.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
    }
    let status = rustix::process::waitid(WaitId::PidFd(cloned.pidfd.as_fd()), WaitIdOptions::EXITED)
        .map_err(|errno| wrap(errno.into()))?;
    if !finished {
        return Err(HookError::Timeout { stage, path: path(), seconds: seconds.unwrap_or_default() });
    }
    let status = status.ok_or_else(|| wrap(io::ErrorKind::UnexpectedEof.into()))?;
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128_u8.wrapping_add(signal.unwrap_or_default() as u8),
    };
    if code == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(HookError::Code { stage, path: path(), code, said })
}

/// Until it has ended (`true`) or its time is over, keeping the end of what it says.
fn wait(pidfd: &OwnedFd, from_hook: &OwnedFd, deadline: Option<Instant>, said: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0_u8; 4096];
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(from_hook, PollFlags::IN)];
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(false),
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let (ended, talks) = (!fds[0].revents().is_empty(), fds[1].revents().contains(PollFlags::IN));
        let closed = fds[1].revents().contains(PollFlags::HUP) && !talks;
        if talks && let Ok(count) = rustix::io::read(from_hook, &mut buffer) {
            said.extend_from_slice(&buffer[..count]);
            said.drain(..said.len().saturating_sub(SAID_MAX));
        }
        if ended {
            return Ok(true);
        }
        if closed {
            // it closed its standard error, and runs on
            return wait_for_end(pidfd, deadline);
        }
    }
}

fn wait_for_end(pidfd: &OwnedFd, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

/// The child: becomes the hook.
fn execute(hook: &Hook, stdin: &OwnedFd, stderr: &OwnedFd) -> u8 {
    let fail = |error: &dyn std::fmt::Display| {
        let _ = rustix::io::write(stderr, error.to_string().as_bytes());
        NOT_EXECUTED
    };
    let own = [hook.path.clone()];
    let arguments = if hook.args.is_empty() { &own[..] } else { &hook.args[..] };
    let prepared = std::ffi::CString::new(hook.path.as_str())
        .map_err(io::Error::from)
        .and_then(|path| Ok((path, Strings::new(arguments)?, Strings::new(&hook.env)?)));
    let (path, arguments, environment) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error),
    };
    // what it prints is nobody's; where there is no such device, its standard error takes it
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let stdout = null.as_ref().unwrap_or(stderr);
    if let Err(error) = process::place_descriptors(&[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]) {
        return fail(&error);
    }
    process::reset_signals();
    let error = process::execute(&path, &arguments, &environment);
    fail(&error)
}
