//! The daemon's side: starting a supervisor where none answers.

use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::READY;
use super::settings::Settings;

/// What a supervisor is started with.
#[derive(Debug, Clone)]
pub struct SupervisorConfig {
    /// Sampan's own program.
    pub exe: PathBuf,
    /// Where its socket, lock and journal are: an existing directory, absolute.
    pub run_dir: PathBuf,
    /// Where the logger writes: absolute, made where it is missing, given to the logger's user.
    pub log_dir: PathBuf,
    /// The instance's tag, to be seen in a list of processes.
    pub tag: String,
    /// The user and group id of the logger.
    pub logger_id: u32,
    /// The user and group id of the edge.
    pub edge_id: u32,
    /// Files to write `0` into to join a cgroup of its own in each hierarchy.
    pub cgroup_files: Vec<PathBuf>,
    /// What its standard error, and the roles', is appended to.
    pub stderr: PathBuf,
}

/// No supervisor could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its standard error could not be opened.
    #[error("open {path} for the supervisor's messages")]
    Messages {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program could not be run.
    #[error("run {exe} as supervisor")]
    Run {
        /// The program.
        exe: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran, and could not begin.
    #[error("begin as supervisor: {0}")]
    Refused(String),
}

/// Starts a supervisor and returns when it listens. It is no child of this process, in a session of its own, and
/// goes on when this process ends. Blocks for some ten milliseconds.
///
/// # Errors
/// [`StartError`]; among others where there is a supervisor for that run directory already.
pub fn start(config: &SupervisorConfig) -> Result<(), StartError> {
    let messages = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&config.stderr)
        .map_err(|source| StartError::Messages { path: config.stderr.clone(), source })?;
    let settings = Settings {
        run_dir: config.run_dir.clone(),
        log_dir: config.log_dir.clone(),
        tag: config.tag.clone(),
        logger_id: config.logger_id,
        edge_id: config.edge_id,
        cgroup_files: config.cgroup_files.clone(),
    };
    let run = |source| StartError::Run { exe: config.exe.clone(), source };
    let mut child = Command::new(&config.exe)
        .arg("supervisor")
        .args(settings.to_args())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(messages)
        .spawn()
        .map_err(run)?;
    // it says one word and closes; the child itself ends at once, and the one that stays is nobody's child
    let mut said = String::new();
    let heard = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut said));
    child.wait().map_err(run)?;
    heard.map_err(run)?;
    match said.trim() {
        READY => Ok(()),
        "" => Err(StartError::Refused(format!("it ended without a word; see {}", config.stderr.display()))),
        why => Err(StartError::Refused(why.into())),
    }
}
