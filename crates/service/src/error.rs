//! What can go wrong with services.

use std::path::PathBuf;

use sampan_container::ContainerError;
use sampan_store::RecordsError;

/// Why something could not be done with a service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is none of that name.
    #[error("there is no service {0:?}")]
    NotFound(String),
    /// The name is another source's.
    #[error("the name {name:?} belongs to the service from {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// Where that service comes from: a directory, or "another source".
        owner: String,
    },
    /// The name is another user's.
    #[error("the name {0:?} is taken")]
    Strangers(String),
    /// A number of replicas that cannot be.
    #[error("{asked} replicas were asked for: use 1 to {most}")]
    Replicas {
        /// What was asked for.
        asked: u32,
        /// The most.
        most: u32,
    },
    /// Several replicas on one server.
    #[error("{asked} replicas were asked for on the server {server:?}: there they would share one address, so it is 1")]
    PlacedReplicas {
        /// The server.
        server: String,
        /// What was asked for.
        asked: u32,
    },
    /// A name in the environment that cannot be.
    #[error("{0:?} is no name of an environment variable")]
    EnvironmentName(String),
    /// It is being removed.
    #[error("the service {0:?} is being removed")]
    Removing(String),
    /// There is no such deploy.
    #[error("the service {name:?} has no deploy {version}")]
    NoDeploy {
        /// The service.
        name: String,
        /// The version.
        version: u64,
    },
    /// A container or an image.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// An owner as people read it.
pub(crate) fn owner(source: Option<&PathBuf>) -> String {
    source.map_or_else(|| "another source".to_owned(), |path| path.display().to_string())
}
