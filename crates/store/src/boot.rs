//! Which boot of the machine this is.

use std::io;

/// The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`, see random(4)). What was observed in
/// another boot (pids, mounts, files that were never synced) is no longer so.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
