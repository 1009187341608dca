//! The stage: a small tmpfs in the supervisor's own mount namespace, and its working directory.
//!
//! It holds device nodes, made once, so that containers never share an inode with the host's `/dev` (a container
//! that changed the owner of its `/dev/null` once changed the host's, runc 3674), and the place where a container's
//! root file system is attached before it becomes the root. A clone of the supervisor has its own copy of the stage
//! as its working directory, so that no path needs to be walked there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use sampan_sys::clone::{Namespaces, unshare};
use sampan_sys::mount::{self, Attributes, Builder};

/// A device node that every container has.
pub(crate) struct Device {
    /// Where it is on the stage.
    pub path: &'static CStr,
    /// Where it is in a container.
    pub target: &'static CStr,
    major: u32,
    minor: u32,
}

const fn device(path: &'static CStr, target: &'static CStr, major: u32, minor: u32) -> Device {
    Device { path, target, major, minor }
}

/// The devices.
pub(crate) const DEVICES: [Device; 6] = [
    device(c"null", c"/dev/null", 1, 3),
    device(c"zero", c"/dev/zero", 1, 5),
    device(c"full", c"/dev/full", 1, 7),
    device(c"random", c"/dev/random", 1, 8),
    device(c"urandom", c"/dev/urandom", 1, 9),
    device(c"tty", c"/dev/tty", 5, 0),
];

/// Where a root file system is attached, on the stage.
pub(crate) const ROOT: &CStr = c"root";

/// Sets the stage at `place` (a directory that is made where it is missing) in a mount namespace of this process's
/// own, and enters it. What the host mounts and unmounts later is followed, so that nobody's disk is held on to.
/// Gives `/dev/null` of the stage, open for reading.
pub(crate) fn set(place: &Path) -> io::Result<OwnedFd> {
    unshare(Namespaces::MOUNT)?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    match rustix::fs::mkdir(place, Mode::from_raw_mode(0o700)) {
        Err(rustix::io::Errno::EXIST) => {}
        result => result?,
    }
    let stage = Builder::open("tmpfs")
        .and_then(|builder| builder.set("mode", "755")?.set("size", "64k")?.mount(Attributes::MOUNT_ATTR_NOSUID))
        .map_err(|error| io::Error::new(error.source_error().kind(), error.to_string()))?;
    let target = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach_to(stage.as_fd(), target.as_fd())?;
    rustix::process::fchdir(&stage)?;
    rustix::fs::mkdir(ROOT, Mode::from_raw_mode(0o755))?;
    for device in &DEVICES {
        let (number, mode) = (rustix::fs::makedev(device.major, device.minor), Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, device.path, FileType::CharacterDevice, mode, number)?;
        // past the umask
        rustix::fs::chmodat(CWD, device.path, mode, rustix::fs::AtFlags::empty())?;
    }
    Ok(rustix::fs::open(DEVICES[0].path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
