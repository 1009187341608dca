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
    /// The name is another user's.
    #[error("the name {0:?} is taken")]
    Strangers(String),
    /// No image of that name.
    #[error("there is no image {0:?}")]
    NoImage(String),
    /// The image is in use.
    #[error("the image {name:?} is in use by {by}")]
    ImageInUse {
        /// Its name.
        name: String,
        /// By what: `container "job"`, `service "hello"`.
        by: String,
    },
    /// A text that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The OCI runtime that is asked for.
    #[error(transparent)]
    Runtime(#[from] crate::runtimes::RuntimeError),
    /// What an OCI runtime was told.
    #[error(transparent)]
    External(#[from] sampan_runtime::external::RuntimeError),
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
    /// A port cannot be published.
    #[error(transparent)]
    Publish(#[from] sampan_network::published::PublishError),
    /// A port that only root may listen on.
    #[error("port {port} cannot be published: ports below {first} are root's")]
    PrivilegedPort {
        /// The port.
        port: u16,
        /// The first that is not.
        first: u16,
    },
    /// More ports than there may be.
    #[error("{asked} ports are published: at most {most} are")]
    TooManyPorts {
        /// How many were asked for.
        asked: usize,
        /// The most.
        most: usize,
    },
    /// More sockets of published ports than there may be.
    #[error(
        "{asked} more ports cannot be published: {most} sockets are the most at once, and localhost takes two a port"
    )]
    NoSocketsLeft {
        /// How many ports were asked for.
        asked: usize,
        /// The most sockets of one user's containers, or of all.
        most: usize,
    },
    /// As many as there may be.
    #[error("there are {0} containers already, the most that an instance has")]
    TooManyContainers(usize),
    /// A start could not be ended.
    #[error("too many open files: the daemon may have {0}, and a start needs some of those that are left")]
    NoDescriptors(u64),
    /// No server of that name.
    #[error("there is no server {0:?}")]
    NoServer(String),
    /// The name is another server's.
    #[error("the server name {0:?} is in use")]
    ServerTaken(String),
    /// Nothing can be started on a server that is stopped.
    #[error("the server {0:?} is stopped")]
    ServerStopped(String),
    /// A size of a container that has none of its own.
    #[error("container {container:?} runs on the server {server:?}, whose size it shares")]
    SharedSize {
        /// The container.
        container: String,
        /// The server.
        server: String,
    },
    /// Less memory than is in use.
    #[error("the memory cannot be limited to {asked}: {used} of it are in use")]
    MemoryInUse {
        /// What was asked for.
        asked: String,
        /// What is in use.
        used: String,
    },
    /// A disk of a container that has none of its own.
    #[error("a container on a server with a name shares the server's disk, and has none of its own size")]
    ServerDisk,
    /// It does not run.
    #[error("container {0:?} is not running")]
    NotRunning(String),
    /// It is paused.
    #[error("container {0:?} is paused")]
    Paused(String),
    /// It is not paused.
    #[error("container {0:?} is not paused")]
    NotPaused(String),
    /// A text that is no signal.
    #[error(transparent)]
    Signal(#[from] sampan_model::signal::SignalError),
    /// It runs, and that is in the way.
    #[error("container {0:?} is running")]
    Running(String),
    /// Its output cannot be handed on.
    #[error("{}", .0)]
    Unfollowed(Failure),
    /// Too many are attached to it.
    #[error("{most} are attached to container {name:?} already")]
    TooManyAttached {
        /// Its name.
        name: String,
        /// The most.
        most: usize,
    },
    /// Too many logs are read.
    #[error("{0} logs of this user's containers are read at once already")]
    TooManyReaders(usize),
    /// Nothing was given to execute.
    #[error("no command was given to execute in container {0:?}")]
    NoExecCommand(String),
    /// The container does not know the user or the group.
    #[error("container {container:?} has no {what} {name:?} in its /etc")]
    NoSuchUser {
        /// Its name.
        container: String,
        /// `user` or `group`.
        what: &'static str,
        /// Who was asked for.
        name: String,
    },
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
    /// What is to be mounted in it.
    #[error(transparent)]
    Mount(#[from] crate::MountError),
    /// What it is to be kept from, or is to be opened to it.
    #[error(transparent)]
    Confine(#[from] crate::ConfineError),
    /// Files of it.
    #[error(transparent)]
    Files(#[from] crate::files::FilesError),
    /// A bound on what it writes.
    #[error(transparent)]
    Disk(#[from] crate::DiskError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] crate::VolumeError),
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
