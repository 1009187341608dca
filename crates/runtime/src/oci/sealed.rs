//! The runtime's own file, out of the reach of what it executes (CVE-2019-5736).
//!
//! A container's first process is a copy of the runtime until it executes the program, and what it executes may well be
//! itself again: `/proc/self/exe` as the command, or as the interpreter of a script. A program that has got hold of that
//! file can wait until it is not executed any more, and write to it: the next runtime is the attacker's, as root.
//!
//! So the runtime executes itself once more before it touches a bundle, from a detached clone of the mount that its file
//! is on, made read-only. `/proc/self/exe` then leads through that mount: opened for writing, however and by whomever, it
//! is a file on a read-only file system. Nobody can make the mount writable again, as it is in no mount namespace; it
//! goes when the last process does that was executed from it. Nothing is copied: it costs three system calls and one
//! `execve`, where a sealed copy in memory costs the whole file.
//!
//! A mount that is read-only and in a mount namespace is none of that: its host may make it writable again.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags};
use sampan_sys::process::{self, Strings};

use super::error::{OciError, When as _};

const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Executes this program once more with the same arguments, from where it cannot be written to; returns where it is there
/// already.
///
/// # Errors
/// The kernel's: before Linux 5.12 it cannot be done.
pub fn seal() -> Result<(), OciError> {
    if is_sealed().when("look at /proc/self/exe")? {
        return Ok(());
    }
    let step = "protect its own program from what it executes";
    let own = process::own_program().when(step)?;
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment: Vec<Vec<u8>> =
        std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    let arguments = Strings::new(&arguments).when(step)?;
    let environment = Strings::new(&environment).when(step)?;
    // the standard library ignores SIGPIPE, and what is ignored stays so
    process::reset_signals();
    Err::<(), _>(process::execute_file(own.as_fd(), &arguments, &environment)).when(step)
}

fn is_sealed() -> io::Result<bool> {
    if !rustix::fs::statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(false);
    }
    let own = rustix::fs::statx(CWD, OWN, AtFlags::empty(), StatxFlags::MNT_ID)?;
    Ok(!lists(&std::fs::read_to_string("/proc/self/mountinfo")?, own.stx_mnt_id))
}

/// Whether a mount is among those of a mount namespace (proc_pid_mountinfo(5)).
fn lists(mountinfo: &str, mount: u64) -> bool {
    mountinfo.lines().filter_map(|line| line.split_once(' ')).any(|(id, _)| id.parse() == Ok(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_number() {
        let mountinfo = "21 1 254:0 / / rw - ext4 /dev/vda rw\n22 21 0:5 / /proc rw - proc proc rw\n";
        assert_eq!([21, 22, 1, 2, 254].map(|mount| lists(mountinfo, mount)), [true, true, false, false, false]);
    }
}
