//! AppArmor's profiles and SELinux' labels: applied where the machine has them, refused where it does not.
//!
//! They are written to files of `/proc`, through a `/proc` that nothing can have been mounted over (CVE-2025-52881).

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::config::{Config, Process};
use super::error::OciError;
use crate::child::Step as _;
use crate::wire::Failure;

/// `SELINUX_MAGIC` (linux/magic.h).
const SELINUX: rustix::fs::FsWord = 0xf97c_ff8c;

/// Whether the machine has SELinux.
pub(super) fn has_selinux() -> bool {
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|system| system.f_type == SELINUX)
}

/// Whether the machine has AppArmor.
pub(super) fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Refuses what could not be applied.
pub(super) fn check(config: &Config, process: &Process) -> Result<(), OciError> {
    if !process.apparmor_profile.is_empty() && !has_apparmor() {
        return Err(OciError::config("process.apparmorProfile", "this machine has no AppArmor"));
    }
    for (what, label) in
        [("process.selinuxLabel", &process.selinux_label), ("linux.mountLabel", &config.linux.mount_label)]
    {
        if !label.is_empty() && !has_selinux() {
            return Err(OciError::config(what, "this machine has no SELinux"));
        }
    }
    Ok(())
}

/// Whether there is anything to write.
pub(super) fn are_there(process: &Process) -> bool {
    !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty()
}

/// What the program that this process executes next is confined by.
pub(super) fn apply(proc: BorrowedFd<'_>, process: &Process) -> Result<(), Failure> {
    if !process.apparmor_profile.is_empty() {
        let step = format!("set the AppArmor profile {}", process.apparmor_profile);
        let text = format!("exec {}", process.apparmor_profile);
        // its own file, since 5.8; before that the first security module's
        let own = write(proc, "thread-self/attr/apparmor/exec", &text);
        own.or_else(|_| write(proc, "thread-self/attr/exec", &text)).step(&step)?;
    }
    if !process.selinux_label.is_empty() {
        let step = format!("set the SELinux label {}", process.selinux_label);
        write(proc, "thread-self/attr/exec", &process.selinux_label).step(&step)?;
    }
    Ok(())
}

/// Writes to a file of the kernel's own `/proc`.
pub(super) fn write(proc: BorrowedFd<'_>, path: &str, text: &str) -> rustix::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(file, text.as_bytes()).map(drop)
}
