//! Starting the daemon in the background where none answers.
//!
//! ```text
//! this process                              EXE daemon --root ROOT [--http ADDRESS]
//!   pipe, spawn ─────────────────────────────▶ setsid, lock, recover, listen
//!   reads the pipe  ◀───────────── "ready\n"    (SAMPAN_READY_FD=1: its standard output is the pipe's other end,
//!                                               which it moves away, with /dev/null in its place)
//!                   ◀── one line of JSON, an ErrorView: it could not
//!                   ◀── end of file: it died
//! ```
//!
//! The daemon keeps nothing of ours: no terminal, no standard stream (`sampan up x | tee log` ends when `up` ends), no
//! working directory and little of the environment. Of two that start one at the same moment the loser's daemon
//! says `already_running`, and the loser waits for the winner's socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::pipe::{PipeFlags, pipe_with};
use sampan_model::view::ErrorView;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout};

use crate::systemd::Units;
use crate::{Client, ClientError, Root, unix};

/// How long a daemon may take until it listens: it reads the records and finds every container again before.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long another one's daemon may hold the root's lock without listening (it is coming, or going).
const LOCKED_LIMIT: Duration = Duration::from_secs(20);
/// How long one look at another one's daemon lasts, before it is tried again to be the one.
const LOCKED_LOOK: Duration = Duration::from_millis(500);
/// The longest message on the pipe.
const LONGEST_MESSAGE: u64 = 64 << 10;

/// What a fresh daemon is started with.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The `sampan` binary.
    pub exe: PathBuf,
    /// Where services are to be reached, where that was asked for.
    pub http: Option<Listen>,
}

/// Where to listen: a port on both loopback addresses, or one address. Text: `8080`, `0` (a free one),
/// `0.0.0.0:80`, `[::1]:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listen {
    /// This port of 127.0.0.1 and ::1.
    Port(u16),
    /// This address alone.
    Address(SocketAddr),
}

/// A text that says no place to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use a port such as 8080, or an address with a port such as 0.0.0.0:80")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;
    fn from_str(text: &str) -> Result<Self, ListenError> {
        let port = text.strip_prefix(':').unwrap_or(text);
        port.parse().map(Self::Port).or_else(|_| text.parse().map(Self::Address)).map_err(|_| ListenError)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The daemon needs root, and the caller is not.
    #[error("no sampan daemon runs for {}, and starting one needs root", root.display())]
    NeedsRoot {
        /// The root it is to run for.
        root: PathBuf,
    },
    /// There is no binary to start it from.
    #[error("no sampan daemon runs, and there is no `sampan` binary to start one from")]
    NoBinary,
    /// `SAMPAN_HTTP` says no place to listen.
    #[error("SAMPAN_HTTP is {text:?}")]
    Listen {
        /// What it says.
        text: String,
        /// What is wrong with that.
        #[source]
        source: ListenError,
    },
    /// The binary could not be started.
    #[error("start {} in the background", exe.display())]
    Spawn {
        /// The binary.
        exe: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon says why it cannot run.
    #[error("{}", .0.message)]
    Refused(ErrorView),
    /// systemd runs the daemon of this root, and could not start it.
    #[error("systemd could not start {unit}: {why}")]
    Systemd {
        /// The service.
        unit: String,
        /// What systemctl says.
        why: String,
    },
    /// It ended without a word.
    #[error("the sampan daemon ended before it was ready{}", last_words(log))]
    Died {
        /// Its log.
        log: PathBuf,
    },
    /// It took too long.
    #[error("the sampan daemon was not ready after {} s", limit.as_secs())]
    TooLong {
        /// The limit.
        limit: Duration,
        /// Its log.
        log: PathBuf,
    },
}

impl StartError {
    /// What to do next, for people.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NeedsRoot { root } => Some(format!("run `sudo sampan daemon start --root {}`", root.display())),
            Self::Refused(error) => error.hint.clone(),
            Self::Died { log } | Self::TooLong { log, .. } => Some(format!("its log is {}", log.display())),
            Self::Systemd { unit, .. } => Some(format!("`journalctl -u {unit} -n 20` shows why")),
            Self::NoBinary => Some("install sampan, or say where it is: SAMPAN_BIN=/path/to/sampan".into()),
            Self::Spawn { .. } | Self::Listen { .. } => None,
        }
    }
}

/// The last line of a dead daemon's log, which is most often the reason.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}

/// The client of the daemon for this root, which is started where none answers, then and whenever it goes away in
/// the middle of a request that may be made twice. Cancel-safe: a daemon that was begun goes on by itself.
/// [`Client::on_demand`] is the same without looking first.
///
/// # Errors
/// As [`ensure_started`] and [`Client::connect`].
pub async fn connect_or_start(root: &Root, options: &StartOptions) -> Result<Client, ClientError> {
    ensure_started(root, options).await?;
    Client::connect(root).await?;
    Ok(Client::on_demand(root, options))
}

/// Sees to it that a daemon listens for this root (whether it lets this caller in is another matter).
/// Cancel-safe as [`connect_or_start`].
///
/// # Errors
/// [`StartError`].
pub async fn ensure_started(root: &Root, options: &StartOptions) -> Result<(), StartError> {
    let end = Instant::now() + LOCKED_LIMIT;
    let mut died = false;
    loop {
        if listens(root).await {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NeedsRoot { root: root.path().into() });
        }
        let units = Units::of(root);
        if units.are_installed() {
            return units.start().await;
        }
        match spawn(root, options).await {
            Ok(()) => return Ok(()),
            Err(StartError::Refused(error)) if error.code == "already_running" => {
                if Instant::now() >= end {
                    return Err(StartError::TooLong { limit: LOCKED_LIMIT, log: root.daemon_log() });
                }
                wait_for_socket(root, Instant::now() + LOCKED_LOOK).await;
            }
            // killed on its way, perhaps: the next one finds what it left
            Err(StartError::Died { .. }) if !died => died = true,
            Err(error) => return Err(error),
        }
    }
}

async fn listens(root: &Root) -> bool {
    !matches!(unix::connect(&root.socket()).await, Err(ClientError::NoDaemon { .. }))
}

/// Starts one daemon and waits for its word.
async fn spawn(root: &Root, options: &StartOptions) -> Result<(), StartError> {
    let failed = |source: io::Error| StartError::Spawn { exe: options.exe.clone(), source };
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut command = tokio::process::Command::new(&options.exe);
    command.args(["daemon".as_ref(), "--root".as_ref(), root.path().as_os_str()]);
    if let Some(listen) = options.http {
        command.arg("--http").arg(listen.to_string());
    }
    command
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_for_daemon)))
        .env("SAMPAN_READY_FD", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(Stdio::null());
    let child = command.spawn();
    drop(command); // and with it our copy of the pipe's other end
    let mut child = child.map_err(failed)?;
    let message = timeout(READY_LIMIT, read_message(ours)).await;
    let log = root.daemon_log();
    match message {
        Ok(Ok(message)) if message == "ready" => Ok(()),
        Ok(Ok(message)) => match serde_json::from_str(&message) {
            Ok(error) => {
                // it ends now, and lets go of what it had: let the next try find it gone
                drop(timeout(LOCKED_LOOK, child.wait()).await);
                Err(StartError::Refused(error))
            }
            Err(_) => Err(StartError::Died { log }),
        },
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(StartError::TooLong { limit: READY_LIMIT, log }),
    }
}

/// Whether the daemon has a use for a variable of ours.
fn is_for_daemon(name: &str) -> bool {
    const NAMES: [&str; 9] =
        ["PATH", "HOME", "LANG", "TZ", "RUST_LOG", "RUST_BACKTRACE", "SUDO_UID", "SUDO_GID", "SUDO_USER"];
    NAMES.contains(&name) || name.starts_with("SAMPAN_") && name != "SAMPAN_ROOT" && name != "SAMPAN_HTTP"
}

async fn read_message(pipe: OwnedFd) -> io::Result<String> {
    let mut message = String::new();
    BufReader::new(pipe::Receiver::from_owned_fd(pipe)?.take(LONGEST_MESSAGE)).read_line(&mut message).await?;
    Ok(message.trim_end().into())
}

/// Waits until somebody else's daemon listens, or `end`.
async fn wait_for_socket(root: &Root, end: Instant) {
    // without inotify (its instances are limited) only the tick is left
    let watch = watch_directory(&root.run_dir()).ok().map(Arc::new);
    while Instant::now() < end && !listens(root).await {
        let watch = watch.clone();
        drop(tokio::task::spawn_blocking(move || next_name_or_tick(watch.as_deref())).await);
    }
}

fn watch_directory(directory: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    Ok(watch)
}

/// Waits for a new name in the directory, and no longer than a tick: a socket's name is there a moment before it
/// listens, and nothing tells of the latter.
fn next_name_or_tick(watch: Option<&OwnedFd>) {
    const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut waited: Vec<PollFd> = watch.iter().map(|watch| PollFd::new(*watch, PollFlags::IN)).collect();
    let woken = poll(&mut waited, Some(&TICK));
    if let (Ok(1..), Some(watch)) = (woken, watch) {
        let mut events = [0; 4096];
        while rustix::io::read(watch, &mut events).is_ok_and(|count| count > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen() {
        for (text, shown) in [("8080", "8080"), (":0", "0"), ("0.0.0.0:80", "0.0.0.0:80"), ("[::1]:1", "[::1]:1")] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        for bad in ["", "x", "65536", "localhost:80", "1.2.3.4", "-1"] {
            assert_eq!(bad.parse::<Listen>(), Err(ListenError), "{bad}");
        }
    }

    /// A daemon in shell, and what becomes of its start.
    async fn check(script: &str, expected: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path()).unwrap();
        let exe = dir.path().join("fake");
        std::fs::write(&exe, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = StartOptions { exe, http: Some(Listen::Port(0)) };
        let told = match spawn(&root, &options).await {
            Ok(()) => "ready".into(),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expected, "{script}");
    }

    #[tokio::test]
    async fn the_daemon_s_word_is_heard() {
        check("echo ready ", "ready").await;
        check("[ \"$*\" = \"daemon --root $(dirname $0) --http 0\" ] && echo ready ", "ready").await;
        check(r#"echo '{"code":"x","message":"port 1 is taken","hint":null}' "#, "port 1 is taken").await;
        check("exit 1", "the sampan daemon ended before it was ready").await;
        check("echo 'disk full' > $(dirname $0)/daemon.log", "the sampan daemon ended before it was ready: disk full")
            .await;
    }
}
