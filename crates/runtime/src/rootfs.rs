//! A container's root file system: an image's layers, read-only, under a directory that takes what is written.
//!
//! Layers and upper directory belong to user 0 and so on *on disk*, and are shown to the container through its own
//! ids (idmapped mounts, Linux 5.19), so a layer serves any number of containers and an upper any later start. Where a
//! file system cannot do that, this refuses; it never shares the host's ids instead.
//!
//! Made in the daemon, as mounting waits for locks and disks and the supervisor waits for neither.

mod stack;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use sampan_model::IdRange;
use sampan_sys::mount::{self, MountError};

use self::stack::{Upper, stack};

/// The most layers of one image: overlayfs's own limit is 500.
pub const MOST_LAYERS: usize = 128;

/// A root file system could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// There are none, or too many.
    #[error("an image of {0} layers: from 1 to {MOST_LAYERS} are possible")]
    Layers(usize),
    /// The directory for what is written could not be prepared.
    #[error("prepare {path}")]
    Prepare {
        /// What was to be made, changed or removed.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be mounted apart.
    #[error("clone the mount of {path}")]
    Clone {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system cannot show its files under other ids.
    #[error(
        "map the owners of {path}: its file system cannot show files under other ids (idmapped mounts); move Sampan's root \
         to ext4, xfs or btrfs with --root (NFS and FUSE cannot, tmpfs since Linux 6.3, overlay never)"
    )]
    Idmap {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layers could not be put where a kernel before 6.15 wants them.
    #[error("put the layers over one another in a mount namespace aside, as a kernel before 6.15 needs it")]
    Aside(#[source] io::Error),
    /// This thread may not create files in the container's name.
    #[error("create files as the container's root {0}")]
    Owner(u32, #[source] io::Error),
    /// The overlay itself.
    #[error(transparent)]
    Overlay(#[from] MountError),
}

/// What lies under the directory that takes what is written.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// A layer over those of the image, of which "/" does not count.
    pub places: Option<&'a Path>,
    /// The image's, the topmost first.
    pub image: &'a [&'a Path],
}

impl<'a> Layers<'a> {
    /// The image's topmost.
    fn top(&self) -> Result<&'a Path, RootfsError> {
        match self.image {
            [top, ..] if self.image.len() <= MOST_LAYERS => Ok(top),
            other => Err(RootfsError::Layers(other.len())),
        }
    }
}

/// Mounts `layers` under `dir`, which holds what this call makes: `u/`, what the container has
/// written, and `w/`, overlayfs's own. `dir` is closed to everybody but root, because root of a container can leave
/// files there that are setuid *root* on the host's disk. `ids` are those of the user namespace `userns`; the host's own are not mapped.
///
/// The mount is detached: it is gone when the descriptor is dropped, and it goes to the supervisor with
/// [`Request::Go`](crate::wire::Request::Go). It is `volatile`: nothing is synced when it ends, so one container's exit
/// does not wait for another's dirty pages. After a crash of the *machine* what was written is not to be trusted.
///
/// Changes the calling thread's file system user while it works, and nobody else's; it is what it was when this
/// returns. Blocks.
///
/// # Errors
/// [`RootfsError`]. What was made in `dir` stays, for the next try.
pub fn mount_overlay(
    layers: Layers<'_>,
    dir: &Path,
    userns: BorrowedFd<'_>,
    ids: IdRange,
) -> Result<OwnedFd, RootfsError> {
    prepare(layers.top()?, dir)?;
    // upper and work directory must be on one mount: that of the directory above them
    let upper = mapped(dir, userns, ids)?;
    overlay(layers, &upper, Path::new(""), userns, ids)
}

/// As [`mount_overlay`], with a directory of a file system that is mounted nowhere: `below` its top, which is empty where
/// it is the container's own.
///
/// # Errors
/// [`RootfsError`]. What was made there stays, for the next try.
pub fn mount_overlay_on(
    layers: Layers<'_>,
    disk: OwnedFd,
    below: &Path,
    userns: BorrowedFd<'_>,
    ids: IdRange,
) -> Result<OwnedFd, RootfsError> {
    let top = layers.top()?;
    // not a clone of the directory: one of a mount that is in no namespace cannot be cloned before Linux 6.15
    let upper = Path::new(&path_of(&disk)).join(below);
    prepare(top, &upper)?;
    if !ids.is_host() {
        mount::map_ids(disk.as_fd(), userns).map_err(|source| RootfsError::Idmap { path: upper.clone(), source })?;
    }
    overlay(layers, &disk, below, userns, ids)
}

fn overlay(
    layers: Layers<'_>,
    mount: &OwnedFd,
    below: &Path,
    userns: BorrowedFd<'_>,
    ids: IdRange,
) -> Result<OwnedFd, RootfsError> {
    let all = layers.places.iter().chain(layers.image);
    let layers = all.map(|path| mapped(path, userns, ids)).collect::<Result<Vec<_>, _>>()?;
    stack(&layers, Some(&Upper { mount, below, owner: ids.start }))
}

/// An image's files as they are on the disk, to be read here: detached, read-only, owned by 0 and so on. Blocks.
///
/// # Errors
/// [`RootfsError`].
pub fn mount_layers(lowers: &[&Path]) -> Result<OwnedFd, RootfsError> {
    let clone = |path: &Path| {
        let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
        text.map_err(io::Error::from)
            .and_then(|text| mount::clone_of(CWD, &text))
            .map_err(|source| RootfsError::Clone { path: path.into(), source })
    };
    match lowers {
        [] => Err(RootfsError::Layers(0)),
        // an overlay has two layers at least
        [only] => clone(only),
        all if all.len() > MOST_LAYERS => Err(RootfsError::Layers(all.len())),
        all => {
            let layers = all.iter().map(|path| clone(path)).collect::<Result<Vec<_>, _>>()?;
            stack(&layers, None)
        }
    }
}

/// Makes `dir` and what [`mount_overlay`] wants in it, for whoever has something to put into `u/` before it is mounted.
/// What is there already stays as it is. Blocks.
///
/// # Errors
/// [`RootfsError::Prepare`].
pub fn prepare(top_layer: &Path, dir: &Path) -> Result<(), RootfsError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| RootfsError::Prepare { path, source }
    };
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(exists) if exists.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.map_err(error(dir))?,
    }
    let set_mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(error(path));
    set_mode(dir, 0o700)?;
    for name in ["u", "w"] {
        let path = dir.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) if name == "u" => {
                // "/" of a container is the upper directory's: as its image has it
                let root = std::fs::metadata(top_layer).map_err(error(top_layer))?;
                set_mode(&path, root.permissions().mode() & 0o7777)?;
                std::os::unix::fs::chown(&path, Some(root.uid()), Some(root.gid())).map_err(error(&path))?;
            }
            Err(exists) if exists.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(error(&path))?,
        }
    }
    // what a volatile overlay leaves so that nobody takes it for a synced one; the machine has not crashed since, or
    // whoever calls this has weighed that
    let mark = dir.join("w/work/incompat");
    match std::fs::remove_dir_all(&mark) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(error(&mark)),
    }
}

fn mapped(path: &Path, userns: BorrowedFd<'_>, ids: IdRange) -> Result<OwnedFd, RootfsError> {
    let clone_error = |source| RootfsError::Clone { path: path.into(), source };
    let text =
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| clone_error(error.into()))?;
    let tree = mount::clone_of(CWD, &text).map_err(clone_error)?;
    // to the host's own ids there is nothing to map, and the kernel refuses to
    if !ids.is_host() {
        mount::map_ids(tree.as_fd(), userns).map_err(|source| RootfsError::Idmap { path: path.into(), source })?;
    }
    Ok(tree)
}

/// Short whatever the path is (the kernel takes options of 255 bytes), and free of the commas and colons that would
/// mean something.
fn path_of(mount: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", mount.as_raw_fd())
}
