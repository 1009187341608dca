//! `clone3`: a child in namespaces of its own, known by its pidfd from its first moment.
//!
//! Only for processes with one thread. The child is a copy of its parent's memory, and a lock that another thread
//! held at that moment would stay locked in it for ever; with one thread there is no such lock, so the child may
//! allocate, format and return errors like any other code. Processes with threads (the daemon) start programs
//! through `std::process::Command` and containers through the supervisor.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::process::Pid;

use crate::process;

/// The namespaces that a child gets anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// None: it shares its parent's.
    pub const NONE: Self = Self(0);
    /// Users, groups and capabilities.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Processes: the child is number 1.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// System V IPC and message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// The network.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// The view of cgroups.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// What the clocks are ahead. Entered by children only, and not by those that are cloned into it: it must be
    /// [unshared](unshare) first, for its offsets to be set.
    pub const TIME: Self = Self(CLONE_NEWTIME);

    /// Both these and those.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A child that was made.
#[derive(Debug)]
pub struct Cloned {
    /// Its process id.
    pub pid: Pid,
    /// The process itself: readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Makes a child that runs `child`, exits with what that returns, and sends `SIGCHLD` then.
///
/// In the child all descriptors but `keep` are closed before `child` runs, so that nothing of the parent's lives on
/// in a child that waits; `child` must use none but those.
///
/// It begins its life in the cgroup of version 2 whose directory `cgroup` is, where there is one: moving there later
/// would wait for a grace period (5–20 ms), since it takes the lock that every fork holds a share of.
///
/// # Errors
/// The kernel's; `Unsupported` where this process has several threads.
pub fn clone<F>(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[BorrowedFd<'_>],
    child: F,
) -> io::Result<Cloned>
where
    F: FnOnce() -> u8,
{
    clone_for(Parent::Own, namespaces, cgroup, keep, child)
}

/// As [`clone`], but the child is this process's parent's: it is told of the child's end, with the signal that it is told
/// of this process's end with. For a go-between that has entered what its parent must not enter.
///
/// # Errors
/// As [`clone`].
pub fn clone_sibling<F>(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[BorrowedFd<'_>],
    child: F,
) -> io::Result<Cloned>
where
    F: FnOnce() -> u8,
{
    clone_for(Parent::Above, namespaces, cgroup, keep, child)
}

/// Whose child it is going to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// The one that clones.
    Own,
    /// The parent of the one that clones.
    Above,
}

fn clone_for<F>(
    parent: Parent,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[BorrowedFd<'_>],
    child: F,
) -> io::Result<Cloned>
where
    F: FnOnce() -> u8,
{
    if !process::is_single_threaded()? {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a process with several threads must not clone itself"));
    }
    let mut kept: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain numbers, for which zero is "none".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    match parent {
        Parent::Own => arguments.exit_signal = libc::SIGCHLD as u64,
        // the signal is this process's own then; another one is refused
        Parent::Above => arguments.flags |= libc::CLONE_PARENT as u64,
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: without CLONE_VM the child has memory of its own, on a copy of this stack, as after fork(); this process
    // has one thread (checked above), so nothing that the child will touch was left locked or half-written. `pidfd`
    // outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // whatever happens, the child must never run on into what its parent was doing
            let _guard = ExitOnUnwind;
            close_all_but(&kept);
            process::exit(child())
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("clone3 returns -1, 0 or a pid");
            // SAFETY: the kernel has put a new descriptor there, and nobody else knows it.
            Ok(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
    }
}

/// `linux/sched.h`.
const CLONE_NEWTIME: u64 = 0x80;
/// `linux/sched.h`; libc has it as a number that is too short for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        process::exit(101);
    }
}

/// Closes every descriptor of this process but these: for a child of [`clone`]'s that is going to wait, and needs the rest
/// no more. Their owners are never dropped in it: it ends in `execve` or [`exit`](process::exit).
pub fn keep_only(keep: &[BorrowedFd<'_>]) {
    let mut kept: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    close_all_but(&kept);
}

/// `kept` is sorted.
fn close_all_but(kept: &[RawFd]) {
    let mut from: libc::c_uint = 0;
    for &fd in kept {
        let fd = fd as libc::c_uint;
        if fd > from {
            close_range(from, fd - 1);
        }
        from = from.max(fd + 1);
    }
    close_range(from, libc::c_uint::MAX);
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: takes no pointers. The descriptors' owners are on stack frames that this child never returns to.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Moves this process (it has one thread) to new namespaces.
///
/// # Errors
/// The kernel's; `Unsupported` where this process has several threads.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    if !process::is_single_threaded()? {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "one thread of several must not leave a namespace"));
    }
    // SAFETY: takes a number; namespaces do not take descriptors or memory from anybody.
    let left = unsafe { libc::unshare(namespaces.0 as libc::c_int) };
    if left < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kind of a namespace that is held by descriptor (ioctl_ns(2)).
///
/// # Errors
/// The kernel's: `ENOTTY` where it is none.
pub fn kind_of(namespace: BorrowedFd<'_>) -> io::Result<Namespaces> {
    /// `_IO(0xb7, 3)` (linux/nsfs.h).
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(Namespaces(kind.unsigned_abs().into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        std::thread::spawn(|| {
            assert_eq!(clone(Namespaces::NONE, None, &[], || 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
            assert_eq!(unshare(Namespaces::MOUNT).unwrap_err().kind(), io::ErrorKind::Unsupported);
        })
        .join()
        .unwrap();
    }
}
