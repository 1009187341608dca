//! What can go wrong with containers.

use std::io;

use sampan_model::name::NameError;
use sampan_runtime::link::LinkError;
use sampan_runtime::wire::Failure;

/// Why something could not be done with a container or an image.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No container of that name or id, or more than one.
    #[error("there is no container {0:?}")]
    NotFound(String),
    /// A prefix that several ids have.
    #[error("{0:?} is the beginning of more than one container's id")]
    Ambiguous(String),
    /// No image of that name.
    #[error("there is no image {0:?}")]
    NoImage(String),
    /// A text that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is another container's.
    #[error("the container name {name:?} is in use by {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// More than the machine has.
    #[error("{asked} of {what} is more than this machine has: {most}")]
    TooLarge {
        /// `CPUs` or `memory`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// The most that there is.
        most: String,
    },
    /// Less than a container needs.
    #[error("a server needs at least {least} of {what}")]
    TooSmall {
        /// `memory`.
        what: &'static str,
        /// The least.
        least: String,
    },
    /// No address and ids are left.
    #[error("all {0} servers of this instance are in use")]
    NoServerLeft(u32),
    /// It runs, and that is in the way.
    #[error("container {0:?} is running")]
    Running(String),
    /// The image says nothing to run, and nothing was given.
    #[error("the image {0:?} names no command, and none was given")]
    NoCommand(String),
    /// Its program could not be executed.
    #[error("{}", .0)]
    Start(Failure),
    /// The image.
    #[error(transparent)]
    Image(#[from] sampan_image::ImageError),
    /// A layer could not be unpacked.
    #[error(transparent)]
    Layer(#[from] sampan_image::LayersError),
    /// The bytes of images.
    #[error(transparent)]
    Blob(#[from] sampan_store::BlobError),
    /// The image's user.
    #[error(transparent)]
    User(#[from] sampan_image::user::UserError),
    /// The supervisor.
    #[error(transparent)]
    Supervisor(LinkError),
    /// The network.
    #[error(transparent)]
    Network(#[from] sampan_network::NetworkError),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] sampan_runtime::cgroup::CgroupError),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] sampan_runtime::rootfs::RootfsError),
    /// The records.
    #[error(transparent)]
    Records(#[from] sampan_store::RecordsError),
    /// A file of our own.
    #[error("could not {what}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// It was killed, and does not end.
    #[error("container {0:?} was killed and does not end: the kernel holds one of its processes")]
    Stuck(String),
    /// A task of ours ended by itself.
    #[error("{0} was given up: the daemon is stopping")]
    Stopping(&'static str),
}

impl From<LinkError> for ContainerError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(failure) => Self::Start(failure),
            other => Self::Supervisor(other),
        }
    }
}
