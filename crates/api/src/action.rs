//! Everything that can be asked for, and what can come of it.

use std::time::Duration;

use sampan_model::view::{
    Change, ContainerCreate, ContainerView, DaemonView, Deploy, DeployEvent, Exit, ImageView, LogFrame, ServiceView,
};
use sampan_model::{Digest, ImageName, Label, ServiceSpec};
use tokio::sync::mpsc;

use crate::ApiError;

/// A request, free of HTTP. Blobs are not among them: their bytes are streamed (see [`Core`](crate::Core)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// How the daemon is.
    ShowDaemon,
    /// End everything, keep the records.
    StopDaemon,
    /// Replace the daemon's process.
    RestartDaemon,
    /// End everything, keep nothing.
    Purge,
    /// Name a manifest.
    NameImage(ImageName, Digest),
    /// All images.
    ListImages,
    /// One image.
    ShowImage(ImageName),
    /// Take an image's name away.
    ForgetImage(ImageName),
    /// Intend a service.
    PutService(Box<ServiceSpec>),
    /// All services.
    ListServices,
    /// One service.
    ShowService(Label),
    /// Remove a service.
    RemoveService(Label),
    /// Follow a deploy.
    FollowDeploy(Label, u64),
    /// Give a deploy up.
    CancelDeploy(Label, u64),
    /// Create and start a container.
    Run(Box<ContainerCreate>),
    /// All containers.
    ListContainers,
    /// One container.
    ShowContainer(String),
    /// End a container.
    StopContainer(String, Duration),
    /// Wait for a container's end.
    WaitContainer(String),
    /// Remove a container.
    RemoveContainer(String, Force),
    /// A container's log.
    ReadLog(String, LogRange),
    /// What a name means.
    Inspect(String),
    /// Follow the records.
    FollowRecords(u64),
}

/// Whether what runs may be ended for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It may.
    Yes,
    /// It may not.
    No,
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogRange {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Only so many last lines of what is there.
    pub tail: Option<usize>,
}

/// What came of an action.
pub enum Outcome {
    /// It is done, and there is nothing to say.
    Done,
    /// It has begun.
    Begun,
    /// The daemon.
    Daemon(Box<DaemonView>),
    /// An image.
    Image(ImageView),
    /// Images.
    Images(Vec<ImageView>),
    /// A deploy.
    Deploy(Deploy),
    /// A service.
    Service(Box<ServiceView>),
    /// Services.
    Services(Vec<ServiceView>),
    /// A container.
    Container(Box<ContainerView>),
    /// Containers.
    Containers(Vec<ContainerView>),
    /// How a container ended.
    Exit(Exit),
    /// Objects of several kinds.
    Objects(Vec<serde_json::Value>),
    /// A deploy's events.
    DeployEvents(mpsc::Receiver<DeployEvent>),
    /// The records' changes.
    Changes(mpsc::Receiver<Result<Change, ApiError>>),
    /// A log.
    Log(mpsc::Receiver<(LogFrame, Vec<u8>)>),
}
