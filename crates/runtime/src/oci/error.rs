//! What can go wrong, in runc's words where other programs look for them: containerd, Docker and Podman tell errors apart
//! by "does not exist", "container not running", "executable file not found" and the like.

use std::io;

use super::config::Status;
use crate::wire::Failure;

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The configuration asks for something that cannot be.
    #[error("config.json: {what}: {why}")]
    Config {
        /// Which member.
        what: String,
        /// Why not.
        why: String,
    },
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no JSON of that form.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A name that no container can have.
    #[error("invalid container ID {0:?}: it may have letters, digits and _ + - . (not those alone), at most 1024")]
    Id(String),
    /// There is none of this name.
    #[error("container {0} does not exist")]
    NotFound(String),
    /// There is one of this name.
    #[error("container with id {0} already exists")]
    Exists(String),
    /// It has ended.
    #[error("container not running: {0}")]
    NotRunning(String),
    /// It is not in a state in which that can be done.
    #[error("cannot {action} container {id}: it is {}, and must be {wanted}", .status.as_str())]
    Status {
        /// What was tried.
        action: &'static str,
        /// Which.
        id: String,
        /// What it is.
        status: Status,
        /// What it must be.
        wanted: &'static str,
    },
    /// The kernel refused.
    #[error("{step}")]
    Step {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be made.
    #[error("unable to start container process: {}", words(.0))]
    Start(Failure),
    /// It could not be executed in the container.
    #[error("unable to start container process: {}", words(.0))]
    Exec(Failure),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] super::hooks::HookError),
    /// Its cgroup.
    #[error("its cgroup")]
    Cgroup(#[from] sampan_sys::cgroup::CgroupError),
    /// Its cgroup could not be removed.
    #[error("remove its cgroup")]
    Remove(#[from] sampan_sys::cgroup::RemoveError),
    /// This runtime does not do that.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl OciError {
    pub(super) fn config(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { what: what.into(), why: why.into() }
    }

    /// It and its causes in one line.
    pub fn line(&self) -> String {
        super::line(self)
    }
}

/// The kernel's errors as Go spells them: callers look for "permission denied" and the like in small letters.
pub(super) fn in_small_letters(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn words(failure: &Failure) -> String {
    let Failure { step, errno, message } = failure;
    if *errno == 0 { failure.to_string() } else { format!("{step}: {}", in_small_letters(message)) }
}

/// Names what was tried.
pub(super) trait When<T> {
    fn when(self, step: impl Into<String>) -> Result<T, OciError>;
}

impl<T, E: Into<io::Error>> When<T> for Result<T, E> {
    fn when(self, step: impl Into<String>) -> Result<T, OciError> {
        self.map_err(|error| OciError::Step { step: step.into(), source: error.into() })
    }
}
