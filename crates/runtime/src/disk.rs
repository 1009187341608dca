//! A file system in a file, for what a container writes.

use std::os::fd::OwnedFd;

pub use sampan_sys::loop_device::LoopDevice;
pub use sampan_sys::mount::MountError;
use sampan_sys::mount::{Attributes, Builder};

/// Mounts the ext4 on a device, detached. Blocks on the disk.
///
/// # Errors
/// The kernel's: there is none, or it is damaged.
pub fn mount_ext4(device: &LoopDevice) -> Result<OwnedFd, MountError> {
    Builder::open("ext4")?
        .set("source", &device.path().to_string_lossy())?
        // the file is sparse, so its tables are zero already; and what is deleted is given back to the host
        .flag("noinit_itable")?
        .flag("discard")?
        .mount(Attributes::MOUNT_ATTR_NODEV)
}
