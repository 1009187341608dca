//! What can go wrong between a program and the daemon.

use std::path::PathBuf;

use sampan_model::view::ErrorView;

use crate::{RootError, StartError};

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no sampan daemon answers at {}", socket.display())]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is not for this caller.
    #[error("the sampan daemon's socket {} is not open to this user", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket could not be connected to for another reason.
    #[error("connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon went away before it had answered.
    #[error("the connection to the sampan daemon was lost during {request}")]
    Lost {
        /// The request's method and path.
        request: String,
        /// What the connection said.
        #[source]
        source: hyper::Error,
    },
    /// The connection was cut before what was attached to had ended: the daemon went away. The process has not.
    #[error("the connection to the sampan daemon was cut during {request}")]
    Cut {
        /// The request's method and path.
        request: String,
    },
    /// The daemon refused.
    #[error("{}", error.message)]
    Api {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        error: ErrorView,
    },
    /// The answer is not what the API says it is: another version, or no Sampan at all.
    #[error("the answer to {request} cannot be read: {reason}")]
    Answer {
        /// The request's method and path.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file to upload could not be read.
    #[error("read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No root could be chosen.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A fresh daemon was needed and could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ClientError {
    /// Whether the daemon refused with this code (see [`ErrorView::code`]).
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Api { error, .. } if error.code == wanted)
    }

    /// Whether the daemon was not there, or went away: the same request may succeed with the next one.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::NoDaemon { .. } | Self::Lost { .. } | Self::Cut { .. })
    }

    /// What to do next, for people.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoDaemon { .. } => Some("start it with `sampan daemon start`".into()),
            Self::Forbidden { .. } => {
                Some("become a member of the group 'sampan', or run the command with sudo".into())
            }
            Self::Lost { .. } => Some("run the command again; `sampan daemon status` shows whether one runs".into()),
            Self::Cut { .. } => Some("`sampan attach NAME` attaches to it again".into()),
            Self::Api { error, .. } => error.hint.clone(),
            Self::Answer { .. } => {
                Some("compare `sampan version` with `sampan daemon status`: `sampan daemon restart` upgrades it".into())
            }
            Self::Start(error) => error.hint(),
            Self::Connect { .. } | Self::File { .. } | Self::Root(_) => None,
        }
    }
}
