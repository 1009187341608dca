//! Detached mounts for containers, beside their root file systems: what the daemon hands over with
//! [`Request::Go`](crate::wire::Request::Go), and the rights it opens files of others with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
pub use sampan_sys::file_rights::FileRights;
pub use sampan_sys::mount::{
    Attributes, clone_at, clone_of_tree_at, map_ids, map_ids_of_tree, part_tree, restrict_tree,
};
pub use sampan_sys::user_namespace::{IdMap, with_maps as user_namespace};

/// A directory as a mount of its own, detached, whose files' owners are shown through the ids of `userns`; as
/// they are on the disk where there is none.
///
/// # Errors
/// The kernel's: `EINVAL` where the file system cannot show other ids.
pub fn mapped_directory(path: &Path, userns: Option<BorrowedFd<'_>>, attributes: Attributes) -> io::Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mount = sampan_sys::mount::clone_of(CWD, &text)?;
    part_tree(mount.as_fd())?;
    if let Some(userns) = userns {
        map_ids(mount.as_fd(), userns)?;
    }
    restrict_tree(mount.as_fd(), attributes)?;
    Ok(mount)
}
