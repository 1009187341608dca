//! Processes held by descriptor: a pidfd names one process for ever, where a pid is given to the next.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};

/// The process that has the pid now.
///
/// # Errors
/// The kernel's: `ESRCH` where there is none.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends it a signal.
///
/// # Errors
/// The kernel's: `ESRCH` where it has ended, `EINVAL` where that is no signal.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no signal information (null) and no flags.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_uint,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The shell's exit code of a wait status: 0–255, 128 + N for signal N.
pub fn code_of_status(status: i32) -> u8 {
    match status & 0x7f {
        0 => (status >> 8) as u8,
        signal => 128 + signal as u8,
    }
}

/// The exit code of a process that is no child of this one and that has been reaped by whoever's it was. `None`: it
/// has not been, or the kernel (before 6.15) does not keep it.
pub fn exit_code(pidfd: BorrowedFd<'_>) -> Option<u8> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the request says how large the structure is, and it is that large (`PIDFD_INFO_SIZE_VER0`).
    let got = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (got == 0 && info.mask & INFO_EXIT != 0).then(|| code_of_status(info.exit_code))
}

const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` (include/uapi/linux/pidfd.h).
const GET_INFO: libc::Ioctl = (3 << 30 | (size_of::<Info>() as u32) << 16 | 0xff << 8 | 11) as libc::Ioctl;

/// `struct pidfd_info`, its first version: 64 bytes.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_shells() {
        for (status, code) in [(0, 0), (0x300, 3), (0xff00, 255), (9, 137), (0x8b, 139)] {
            assert_eq!(code_of_status(status), code, "{status:#x}");
        }
    }

    #[test]
    fn structure_is_the_kernels() {
        assert_eq!(size_of::<Info>(), 64);
    }

    #[test]
    fn nobody_is_reported() {
        assert!(open(0).is_err());
        assert!(open(u32::MAX).is_err());
    }
}
