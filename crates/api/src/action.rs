//! Everything that can be asked for, and what can come of it.

use std::time::Duration;

use sampan_container::LogRange;
use sampan_model::view::{
    Change, ContainerCreate, ContainerView, DaemonView, Deploy, DeployEvent, Exit, FsckView, ImageDetails, ImageView,
    LogFrame, ProcessRow, PruneView, Pruned, ServerView, ServiceView, Stats, VolumeView,
};
use sampan_model::{Digest, ImageName, Label, ServiceSpec};
use tokio::sync::mpsc;

use crate::ApiError;
use crate::operations::Operation;
use crate::servers::ServerAction;
use crate::volumes::VolumeAction;

/// A request, free of HTTP. Blobs are not among them: their bytes are streamed (see [`Core`](crate::Core)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// How the daemon is.
    ShowDaemon,
    /// What it has counted and measured.
    ShowMetrics,
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
    /// Take an image's name away; by force also one that is in use.
    ForgetImage(ImageName, Force),
    /// Remove what no image needs, and where that is asked for images that nothing uses.
    PruneImages(Unused),
    /// Examine every image, and where that is asked for mend what can be.
    ExamineImages(Repair),
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
    /// Create a container, and start it.
    Run(Box<ContainerCreate>, Start),
    /// Something with a container that is there.
    Operate(String, Operation),
    /// Something with servers.
    Servers(ServerAction),
    /// Something with volumes.
    Volumes(VolumeAction),
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

/// Whether a new container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Now,
    /// When somebody asks for it.
    Later,
}

/// Whether what runs may be ended for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It may.
    Yes,
    /// It may not.
    No,
}

/// Whether images that nothing uses are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// They are.
    Removed,
    /// They stay.
    Kept,
}

/// Whether what is wrong is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is.
    Yes,
    /// It is only told.
    No,
}

/// What came of an action.
pub enum Outcome {
    /// It is done, and there is nothing to say.
    Done,
    /// It has begun.
    Begun,
    /// The daemon.
    Daemon(Box<DaemonView>),
    /// What it has counted, in Prometheus's text format.
    Metrics(String),
    /// An image.
    Image(ImageView),
    /// An image with all that it says of itself.
    ImageDetails(Box<ImageDetails>),
    /// What was removed of images.
    Pruned(PruneView),
    /// What is wrong with images.
    Examined(FsckView),
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
    /// A volume.
    Volume(VolumeView),
    /// Volumes.
    Volumes(Vec<VolumeView>),
    /// What was removed of volumes.
    VolumesPruned(Pruned),
    /// A server.
    Server(Box<ServerView>),
    /// Servers.
    Servers(Vec<ServerView>),
    /// A container's processes.
    Processes(Vec<ProcessRow>),
    /// What a container uses.
    Stats(Box<Stats>),
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
