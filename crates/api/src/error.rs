//! Errors as callers see them: a stable code, what failed, and what to do next.

use axum::http::StatusCode;
use sampan_container::files::FilesError;
use sampan_container::{ConfineError, ContainerError, DiskError, MountError, VolumeError};
use sampan_model::view::{ErrorBody, ErrorView};
use sampan_service::ServiceError;

/// An error with its HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The error.
    pub view: ErrorView,
}

impl ApiError {
    /// An error of these parts.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>, hint: Option<&str>) -> Self {
        let view = ErrorView { code: code.to_owned(), message: message.into(), hint: hint.map(str::to_owned) };
        Self { status, view }
    }

    /// The request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, None)
    }

    /// The daemon is on its way out, or was restarted in the middle of it.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the daemon is stopping", Some("try again"))
    }

    /// The body that says so.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.view.clone() }
    }
}

/// An error's text with its sources'.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Whether the disk being full is at the bottom of it.
fn is_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        if error.to_string().contains("database or disk is full") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The disk is full.
pub(crate) fn no_space(message: String) -> ApiError {
    let hint = "make room on the file system of Sampan's root (`df -h` shows it), then try again";
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", message, Some(hint))
}

/// Whose name a hint's command is to be given; where the error has none to tell, the word for one.
fn subject(error: &ContainerError) -> &str {
    match error {
        ContainerError::NameTaken { name, .. } | ContainerError::TooManyAttached { name, .. } => name,
        ContainerError::NotRunning(name) | ContainerError::Paused(name) | ContainerError::Running(name) => name,
        _ => "NAME",
    }
}

impl From<ContainerError> for ApiError {
    fn from(error: ContainerError) -> Self {
        let message = in_full(&error);
        if is_no_space(&error) {
            return no_space(message);
        }
        let of = |status, code, hint: Option<&str>| {
            let hint = hint.map(|hint| hint.replace("NAME", subject(&error)));
            Self::new(status, code, message.clone(), hint.as_deref())
        };
        match &error {
            ContainerError::NotFound(_) => {
                of(StatusCode::NOT_FOUND, "not_found", Some("`sampan ps -a` lists what there is"))
            }
            ContainerError::NoImage(_) => of(
                StatusCode::NOT_FOUND,
                "not_found",
                Some("`sampan image ls` lists the images; `sampan image import ROOTFS.tar NAME` makes one"),
            ),
            ContainerError::ImageInUse { .. } => of(
                StatusCode::CONFLICT,
                "in_use",
                Some(
                    "remove that first (`sampan rm NAME`, `sampan down NAME`), or take only the name away with --force",
                ),
            ),
            ContainerError::Strangers(_) => of(StatusCode::CONFLICT, "name_taken", Some("choose another name")),
            ContainerError::Ambiguous(_) => of(StatusCode::CONFLICT, "ambiguous", Some("give more of its digits")),
            ContainerError::Name(_) => of(StatusCode::BAD_REQUEST, "bad_request", None),
            ContainerError::NameTaken { .. } => of(
                StatusCode::CONFLICT,
                "name_taken",
                Some("choose another with --name, or remove that one: `sampan rm NAME`"),
            ),
            ContainerError::TooLarge { .. } => {
                of(StatusCode::BAD_REQUEST, "too_large", Some("ask for at most that with --cpus and --memory"))
            }
            ContainerError::TooSmall { .. } => {
                of(StatusCode::BAD_REQUEST, "too_small", Some("ask for more with --memory"))
            }
            ContainerError::NoServerLeft(_) | ContainerError::TooManyContainers(_) => {
                of(StatusCode::CONFLICT, "no_server_left", Some("remove containers that have ended: `sampan rm NAME`"))
            }
            ContainerError::NoDescriptors(_) => of(
                StatusCode::CONFLICT,
                "no_server_left",
                Some(
                    "end containers: `sampan stop NAME`; or raise the daemon's limit: LimitNOFILE= in its unit, `ulimit -Hn`",
                ),
            ),
            ContainerError::Publish(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => of(
                StatusCode::CONFLICT,
                "port_taken",
                Some("choose another port of the host (`-p OTHER:PORT`), or none for a free one (`-p PORT`)"),
            ),
            ContainerError::Publish(_) => {
                of(StatusCode::BAD_REQUEST, "cannot_listen", Some("`ip addr` lists the addresses of this machine"))
            }
            ContainerError::PrivilegedPort { .. } => {
                of(StatusCode::FORBIDDEN, "forbidden", Some("choose a higher port of the host, such as 8080"))
            }
            ContainerError::TooManyPorts { .. } | ContainerError::NoSocketsLeft { .. } => {
                of(StatusCode::BAD_REQUEST, "too_large", None)
            }
            ContainerError::Files(FilesError::Path { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                of(StatusCode::NOT_FOUND, "not_found", Some("`sampan exec NAME ls` shows what there is"))
            }
            ContainerError::Files(_) => of(StatusCode::BAD_REQUEST, "cannot_copy", None),
            ContainerError::Disk(error) => {
                let code = match error {
                    DiskError::NoQuota(_) => "no_quota",
                    DiskError::TooSmall(_) => "too_small",
                    _ => "bad_disk",
                };
                of(StatusCode::BAD_REQUEST, code, error.hint())
            }
            ContainerError::Mount(MountError::Volume(error)) | ContainerError::Volume(error) => {
                let (status, code) = match error {
                    VolumeError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
                    VolumeError::NameTaken(_) => (StatusCode::CONFLICT, "name_taken"),
                    VolumeError::InUse { .. } => (StatusCode::CONFLICT, "in_use"),
                    VolumeError::Reserved => (StatusCode::BAD_REQUEST, "bad_request"),
                    _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
                };
                of(status, code, error.hint().as_deref())
            }
            ContainerError::Confine(error) => {
                let (status, code) = match error {
                    ConfineError::ForRoot(_) => (StatusCode::FORBIDDEN, "forbidden"),
                    _ => (StatusCode::BAD_REQUEST, "bad_confinement"),
                };
                of(status, code, error.hint())
            }
            ContainerError::Mount(error) => of(StatusCode::BAD_REQUEST, "bad_mount", error.hint().as_deref()),
            ContainerError::NoServer(_) => of(
                StatusCode::NOT_FOUND,
                "not_found",
                Some("`sampan server ls` lists them; `sampan server create NAME` makes one"),
            ),
            ContainerError::ServerTaken(_) => of(
                StatusCode::CONFLICT,
                "name_taken",
                Some("choose another name, or close that server: `sampan server close NAME`"),
            ),
            ContainerError::ServerStopped(_) => {
                of(StatusCode::CONFLICT, "server_stopped", Some("start it first: `sampan server start NAME`"))
            }
            ContainerError::SharedSize { .. } => of(
                StatusCode::CONFLICT,
                "shared_size",
                Some("change the server's: `sampan server resize NAME --cpus 2 --memory 4GiB`"),
            ),
            ContainerError::MemoryInUse { .. } => of(
                StatusCode::CONFLICT,
                "in_use",
                Some("ask for more with --memory, or end something that uses it (`sampan stats` shows what)"),
            ),
            ContainerError::ServerDisk => of(
                StatusCode::BAD_REQUEST,
                "no_shared_disk",
                Some("leave --disk out, or give it to the server: `sampan server create NAME --disk 1GiB --disk-loop`"),
            ),
            ContainerError::NotRunning(_) => {
                of(StatusCode::CONFLICT, "not_running", Some("start it first: `sampan start NAME`"))
            }
            ContainerError::Paused(_) => {
                of(StatusCode::CONFLICT, "paused", Some("let it go on first: `sampan unpause NAME`"))
            }
            ContainerError::NotPaused(_) => {
                of(StatusCode::CONFLICT, "not_paused", Some("`sampan ps` shows which containers are"))
            }
            ContainerError::Signal(_) => of(StatusCode::BAD_REQUEST, "bad_request", None),
            ContainerError::Running(_) => {
                of(StatusCode::CONFLICT, "running", Some("stop it first: `sampan stop NAME`, or use --force"))
            }
            ContainerError::Unfollowed(_) => of(
                StatusCode::CONFLICT,
                "streams_lost",
                Some("read its log: `sampan logs -f NAME`; `sampan restart NAME` makes it one to attach to again"),
            ),
            ContainerError::TooManyAttached { .. } => of(
                StatusCode::CONFLICT,
                "in_use",
                Some("detach one of them (Ctrl-P Ctrl-Q), or read its log: `sampan logs -f NAME`"),
            ),
            ContainerError::TooManyReaders(_) => {
                of(StatusCode::CONFLICT, "in_use", Some("end one of the `sampan logs -f` that follow them"))
            }
            ContainerError::NoExecCommand(_) => {
                of(StatusCode::BAD_REQUEST, "bad_request", Some("give a command after the container's name"))
            }
            ContainerError::NoSuchUser { .. } => {
                of(StatusCode::BAD_REQUEST, "bad_request", Some("give a number, or a name that the container knows"))
            }
            ContainerError::NoCommand(_) => {
                of(StatusCode::BAD_REQUEST, "bad_request", Some("give a command after the image"))
            }
            ContainerError::Start(failure) => match failure.errno {
                _ if !failure.step.starts_with("execute") => of(StatusCode::BAD_REQUEST, "start_failed", None),
                ENOENT => of(
                    StatusCode::BAD_REQUEST,
                    "not_found_executable",
                    Some("look for it in the image: is the path right, and is its loader there?"),
                ),
                EACCES => of(StatusCode::BAD_REQUEST, "not_executable", Some("is it a file with the execute bit?")),
                ENOEXEC => {
                    of(StatusCode::BAD_REQUEST, "not_executable", Some("is it built for this machine's architecture?"))
                }
                _ => of(StatusCode::BAD_REQUEST, "not_executable", None),
            },
            ContainerError::Image(sampan_image::ImageError::BlobMissing(_)) => {
                of(StatusCode::BAD_REQUEST, "blob_missing", Some("upload it first"))
            }
            ContainerError::Image(_) | ContainerError::Layer(_) | ContainerError::User(_) => {
                of(StatusCode::BAD_REQUEST, "bad_image", None)
            }
            ContainerError::Runtime(error) => of(StatusCode::BAD_REQUEST, "no_runtime", error.hint()),
            ContainerError::Stopping(_) => of(StatusCode::SERVICE_UNAVAILABLE, "stopping", Some("try again")),
            ContainerError::Supervisor(_)
            | ContainerError::Network(_)
            | ContainerError::Cgroup(_)
            | ContainerError::Rootfs(_)
            | ContainerError::External(_)
            | ContainerError::Records(_)
            | ContainerError::Blob(_)
            | ContainerError::Stuck(_)
            | ContainerError::Io { .. } => of(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                Some("`sampan doctor` looks for what this machine lacks"),
            ),
        }
    }
}

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let message = in_full(&error);
        if is_no_space(&error) {
            return no_space(message);
        }
        let of = |status, code, hint| Self::new(status, code, message.clone(), hint);
        match error {
            ServiceError::Container(error) => error.into(),
            ServiceError::NotFound(_) => of(StatusCode::NOT_FOUND, "not_found", Some("`sampan ps` lists the services")),
            ServiceError::NameTaken { .. } => of(
                StatusCode::CONFLICT,
                "name_taken",
                Some("choose another name with --name, or remove that service: `sampan down NAME`"),
            ),
            ServiceError::Strangers(_) => {
                of(StatusCode::CONFLICT, "name_taken", Some("choose another name with --name"))
            }
            ServiceError::Replicas { .. } | ServiceError::PlacedReplicas { .. } | ServiceError::EnvironmentName(_) => {
                of(StatusCode::BAD_REQUEST, "bad_request", None)
            }
            ServiceError::Removing(_) => of(StatusCode::CONFLICT, "removing", Some("try again when it is gone")),
            ServiceError::NoDeploy { .. } => of(StatusCode::NOT_FOUND, "not_found", None),
            ServiceError::Stopping => of(StatusCode::SERVICE_UNAVAILABLE, "stopping", Some("try again")),
            ServiceError::Records(_) => of(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                Some("`sampan doctor` looks for what this machine lacks"),
            ),
        }
    }
}
