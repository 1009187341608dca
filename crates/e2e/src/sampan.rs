//! One instance of Sampan on a root of its own, used through its command line, and gone without a trace at the end.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sampan_testkit::{leftovers, wait_for, wait_until};
use serde_json::Value;

use crate::{http, sources, tools};

/// How long anything may take that needs no compiler.
pub const SOON: Duration = Duration::from_secs(30);

/// An instance.
#[derive(Debug)]
pub struct Sampan {
    root: PathBuf,
    env: Vec<(String, String)>,
    /// Removed last, after everything of the instance.
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its words.
    pub command: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
}

impl Outcome {
    /// The exit code; -1 where a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Asserts that it succeeded.
    ///
    /// # Panics
    /// Where it did not; it tells everything it wrote.
    #[track_caller]
    pub fn assert_ok(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Asserts that it failed with this code and that its error output holds each of the words.
    ///
    /// # Panics
    /// Where it did not; it tells everything it wrote.
    #[track_caller]
    pub fn assert_fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code(), code, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in the error output of {self}");
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "sampan {command}: {status}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

impl Default for Sampan {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampan {
    /// An instance that nobody has used yet: its first command starts its daemon, on a free port.
    ///
    /// # Panics
    /// Where there is no root (uid 0) or no place for its files.
    pub fn new() -> Self {
        Self::within(|dir| dir.join("root"))
    }

    /// As [`new`](Self::new), with the root where `place` says, given a directory that is removed at the end.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn within(place: impl FnOnce(&Path) -> PathBuf) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests start containers and need root");
        let dir = tempfile::Builder::new().prefix("e2e-").tempdir_in(tools::scratch()).expect("a directory");
        let path = dir.path().canonicalize().expect("the directory's path");
        Self { root: place(&path), env: Vec::new(), dir }
    }

    /// The same with a variable set for all its commands.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory for the test's files, outside the root.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("the directory's path")
    }

    /// A command of it, to be started by the test.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tools::sampan());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(tools::go_dir()).chain(std::env::split_paths(&path)));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PATH", path.expect("a PATH was a PATH")).env("GOCACHE", tools::scratch().join("go-cache"));
        command.env("SAMPAN_ROOT", &self.root).env("SAMPAN_HTTP", "0");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where there is no binary.
    pub fn run(&self, words: &[&str]) -> Outcome {
        outcome(&mut self.command(words))
    }

    /// Runs a command that must succeed and returns what it wrote, without the last line's end.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).assert_ok().stdout.trim_end().to_owned()
    }

    /// Runs a command that must succeed and write JSON.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.ok(words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("sampan {words:?}: {error} in {text}"))
    }

    /// `sampan up` with these words; returns the URL.
    ///
    /// # Panics
    /// Where it fails or prints no URL.
    #[track_caller]
    pub fn up(&self, source: &Path, words: &[&str]) -> String {
        let source = source.to_str().expect("a path in UTF-8");
        let url = self.ok(&[&["up", source], words].concat());
        assert!(url.starts_with("http://") && url.lines().count() == 1, "the output is the URL alone: {url:?}");
        url
    }

    /// The one object that `inspect` shows for a name.
    ///
    /// # Panics
    /// Where there is none or several.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        match self.json(&["inspect", name]) {
            Value::Array(mut found) if found.len() == 1 => found.remove(0),
            other => panic!("inspect {name} shows {other}"),
        }
    }

    /// Every container there is, replicas of services and others, as `inspect` shows them.
    ///
    /// # Panics
    /// Where they are not listed.
    #[track_caller]
    pub fn containers(&self) -> Vec<Value> {
        let Value::Array(listed) = self.json(&["ps", "-a", "--json"]) else { panic!("ps lists no array") };
        let of = |listed: Value| match listed["replicas"].as_array() {
            Some(replicas) => replicas.clone(),
            None => vec![listed],
        };
        listed.into_iter().flat_map(of).collect()
    }

    /// Imports busybox as the image `bb`.
    ///
    /// # Panics
    /// Where that fails.
    #[track_caller]
    pub fn import_busybox(&self) {
        let tar = sources::busybox_tar();
        self.ok(&["image", "import", tar.to_str().expect("a path in UTF-8"), "bb"]);
    }

    /// The output of a shell in a fresh busybox container.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.ok(&["run", "--rm", "bb", "sh", "-c", script])
    }

    /// The pid of one of its processes: `daemon`, `supervisor`, `logger`, `edge`.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn pid_of(&self, role: &str) -> Pid {
        let status = self.json(&["daemon", "status", "--json"]);
        let processes = status["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pid = processes.iter().find(|process| process["role"] == role).and_then(|process| process["pid"].as_i64());
        pid.and_then(|pid| Pid::from_raw(pid as i32)).unwrap_or_else(|| panic!("no {role} in {status}"))
    }

    /// `kill -9` of one of its processes; returns once it is dead.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn kill(&self, role: &str) -> Pid {
        let pid = self.pid_of(role);
        kill_process(pid, Signal::KILL).expect("it can be killed");
        wait_until("the killed process to be gone", SOON, || is_gone(pid));
        pid
    }

    /// Asserts that nothing is left of what a failed command tried: no service, no container, no image.
    ///
    /// # Panics
    /// Where something is.
    #[track_caller]
    pub fn assert_nothing_runs(&self) {
        if self.root.join("run/sampan.sock").exists() {
            for listing in [&["ps", "-a", "--json"][..], &["image", "ls", "--json"]] {
                assert_eq!(self.json(listing), Value::Array(Vec::new()), "{listing:?}");
            }
        }
    }

    /// Removes everything and asserts that nothing is left.
    ///
    /// # Panics
    /// Where something is.
    #[track_caller]
    pub fn assert_purged(&self) {
        self.ok(&["purge", "--yes"]);
        let found = leftovers(&self.root);
        assert!(found.is_empty(), "left after purge:\n{}", found.join("\n"));
    }

    fn daemon_log(&self) -> String {
        let log = fs::read_to_string(self.root.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Sampan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the last of {}/daemon.log\n{}\n---", self.root.display(), self.daemon_log());
            let purge = self.run(&["purge", "--yes"]);
            if !purge.status.success() {
                eprintln!("{purge}");
            }
            for left in leftovers(&self.root) {
                eprintln!("left after purge: {left}");
            }
        } else {
            self.assert_purged();
        }
    }
}

/// Runs a command to its end.
///
/// # Panics
/// Where it cannot be run.
pub fn outcome(command: &mut Command) -> Outcome {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    Outcome {
        command: words.join(" "),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until the URL answers 200, and returns the body.
///
/// # Panics
/// Where it does not soon.
#[track_caller]
pub fn body_of(url: &str) -> String {
    wait_for(&format!("{url} to answer 200"), SOON, || {
        http::get(url).ok().filter(|response| response.status == 200).map(|response| response.body)
    })
}

/// Whether the process has ended, with all its threads (it may wait for its parent).
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return true };
    // a killed leader is a zombie before its threads have closed what they share
    let fields: Vec<&str> = rest.split_whitespace().collect();
    matches!(fields.first(), Some(&("Z" | "X"))) && matches!(fields.get(17), Some(&("0" | "1")))
}

/// The proportional set size of a process, in KiB.
///
/// # Panics
/// Where there is no such process.
pub fn pss_kib(pid: Pid) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("smaps_rollup has a line Pss");
    line.trim().trim_end_matches(" kB").parse().expect("Pss is a number of kB")
}

/// A listener of the test's own on a free port of 127.0.0.1.
///
/// # Panics
/// Where there is no free port.
pub fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}
