//! Layers, and a directory for what is written, put over one another.
//!
//! All of them are detached mounts, and stay so where the kernel can: since Linux 6.15 overlayfs takes them by
//! descriptor. Before, it takes layers only that are mounted in its caller's own mount namespace; so a thread goes aside
//! into one, mounts them there under short names, and comes back with the overlay, detached as the others were. (Between
//! 6.5 and 6.15 a kernel says at once that it cannot; before, when all options are told. A mistake has the same error
//! number, so what is tried first is told only where the second way fails as well.)

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode};
use rustix::mount::MountFlags;
use sampan_sys::identity::FileOwner;
use sampan_sys::mount::{self, Attributes, Builder, MountError};

use super::{RootfsError, path_of};

/// What takes what is written.
pub(super) struct Upper<'a> {
    /// The mount that it is on.
    pub mount: &'a OwnedFd,
    /// The directory above `u/` and `w/`, from the mount's top.
    pub below: &'a Path,
    /// In whose name overlayfs works there.
    pub owner: u32,
}

/// The kernel is one that needs the second way.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// The overlay of `layers` (the topmost first), detached: under `upper`, or read-only.
pub(super) fn stack(layers: &[OwnedFd], upper: Option<&Upper<'_>>) -> Result<OwnedFd, RootfsError> {
    if ASIDE.load(Ordering::Relaxed) {
        return aside(layers, upper);
    }
    let first = match by_descriptor(layers, upper) {
        Err(RootfsError::Overlay(error)) if error.source_error().kind() == io::ErrorKind::InvalidInput => error,
        result => return result,
    };
    match aside(layers, upper) {
        Ok(overlay) => {
            ASIDE.store(true, Ordering::Relaxed);
            Ok(overlay)
        }
        // what the kernel said of the first try is worth more: it has words
        Err(_) if !first.said().is_empty() => Err(first.into()),
        Err(second) => Err(second),
    }
}

/// Overlayfs works with the rights of whoever made it. Made by host root it would go read-only without a word: 0 is not
/// mapped on the upper mount, so its first mkdir there gets EOVERFLOW. It is the container's root that makes it.
fn in_the_name_of(upper: Option<&Upper<'_>>) -> Result<Option<FileOwner>, RootfsError> {
    let owner = upper.map(|upper| upper.owner);
    let assume = |id| FileOwner::assume(id, id).map_err(|source| RootfsError::Owner(id, source));
    owner.map(assume).transpose()
}

fn by_descriptor(layers: &[OwnedFd], upper: Option<&Upper<'_>>) -> Result<OwnedFd, RootfsError> {
    let mut overlay = Builder::open("overlay")?;
    for layer in layers {
        overlay = overlay.set("lowerdir+", &path_of(layer))?;
    }
    let mut attributes = Attributes::MOUNT_ATTR_NODEV;
    match upper {
        Some(upper) => {
            let directory = Path::new(&path_of(upper.mount)).join(upper.below);
            overlay = overlay
                .set("upperdir", &directory.join("u").to_string_lossy())?
                .set("workdir", &directory.join("w").to_string_lossy())?
                .flag("volatile")?;
        }
        None => attributes |= Attributes::MOUNT_ATTR_RDONLY,
    }
    let _owner = in_the_name_of(upper)?;
    Ok(overlay.mount(attributes)?)
}

/// Where the overlay itself is mounted, in the namespace aside.
const TOP: &std::ffi::CStr = c"top";
/// And its upper mount.
const UPPER: &std::ffi::CStr = c"upper";

fn aside(layers: &[OwnedFd], upper: Option<&Upper<'_>>) -> Result<OwnedFd, RootfsError> {
    let mount = || {
        let place = Builder::open("tmpfs")?.set("size", "1m")?.mount(Attributes::MOUNT_ATTR_NOSUID)?;
        enter(&place).map_err(RootfsError::Aside)?;
        for (number, layer) in layers.iter().enumerate() {
            let name = CString::new(number.to_string()).expect("digits");
            attach(layer.as_fd(), &name).map_err(RootfsError::Aside)?;
        }
        let mut options = (0..layers.len()).map(|number| number.to_string()).collect::<Vec<_>>().join(":");
        options.insert_str(0, "lowerdir=");
        let mut flags = MountFlags::NODEV;
        match upper {
            Some(upper) => {
                attach(upper.mount.as_fd(), UPPER).map_err(RootfsError::Aside)?;
                // a directory of ours, whose name has neither comma nor colon
                let directory = Path::new("upper").join(upper.below);
                let directory = directory.display();
                options.push_str(&format!(",upperdir={directory}/u,workdir={directory}/w,volatile"));
            }
            None => flags |= MountFlags::RDONLY,
        }
        rustix::fs::mkdir(TOP, Mode::from_raw_mode(0o700)).map_err(|errno| RootfsError::Aside(errno.into()))?;
        let options = CString::new(options).expect("a path without zeros");
        let owner = in_the_name_of(upper)?;
        rustix::mount::mount("overlay", TOP, "overlay", flags, options.as_c_str()).map_err(|errno| {
            MountError::Create { kind: "overlay".to_owned(), said: String::new(), source: errno.into() }
        })?;
        drop(owner);
        mount::clone_of(CWD, TOP).map_err(RootfsError::Aside)
    };
    mount::aside(mount).map_err(RootfsError::Aside)?
}

/// Goes into a file system that is mounted nowhere yet. It covers this namespace's root, to which nobody goes back.
fn enter(place: &OwnedFd) -> io::Result<()> {
    mount::attach(place.as_fd(), c"/")?;
    Ok(rustix::process::fchdir(place)?)
}

fn attach(mount: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    rustix::fs::mkdir(name, Mode::from_raw_mode(0o700))?;
    mount::attach(mount, name)
}
