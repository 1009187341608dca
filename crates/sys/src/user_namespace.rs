//! User namespaces that are nothing but a map of ids: what an idmapped mount is given
//! ([`map_ids`](crate::mount::map_ids)), or what an overlay is mounted for.
//!
//! A namespace is born with a process. That one is cloned here, does nothing at all, and is ended once its namespace is
//! held by descriptor; so this works in processes with threads too, where [`clone`](crate::clone::clone) must not.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};

use rustix::process::{Signal, WaitIdOptions};

/// Consecutive ids inside and what they are outside, as in `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// The first id inside. For an idmapped mount: the id on the disk.
    pub inside: u32,
    /// The first id outside. For an idmapped mount: the id that is seen.
    pub outside: u32,
    /// How many there are.
    pub length: u32,
}

/// Makes a user namespace with these maps of users and of groups. Blocks for about a millisecond.
///
/// # Errors
/// The kernel's: among others `EINVAL` where a map makes no sense, `ENOSPC` where there are too many namespaces.
pub fn with_maps(users: IdMap, groups: IdMap) -> io::Result<OwnedFd> {
    with_all_maps(&[users], &[groups])
}

/// As [`with_maps`], with maps of several ranges.
///
/// # Errors
/// As there.
pub fn with_all_maps(users: &[IdMap], groups: &[IdMap]) -> io::Result<OwnedFd> {
    let process = Process::clone()?;
    write_maps(process.pid.unsigned_abs(), users, groups)?;
    Ok(File::open(format!("/proc/{}/ns/user", process.pid))?.into())
}

/// Says what the ids of a process's new user namespace are outside; once: the kernel takes no second word.
///
/// # Errors
/// The kernel's, as [`with_maps`].
pub fn write_maps(pid: u32, users: &[IdMap], groups: &[IdMap]) -> io::Result<()> {
    for (name, maps) in [("uid_map", users), ("gid_map", groups)] {
        let lines: String = maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.length)).collect();
        // whole, in one write: the kernel takes no second one
        File::options().write(true).open(format!("/proc/{pid}/{name}"))?.write_all(lines.as_bytes())?;
    }
    Ok(())
}

/// The process that does nothing. It ends with this value, or with the thread that made it.
struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    fn clone() -> io::Result<Self> {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let mut pidfd: RawFd = -1;
        // SAFETY: `clone_args` is plain numbers, for which zero is "none". Its exit signal is none too: nobody who waits
        // for children of this process hears of this one.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        // handlers of this process must not run in the child, and what is open here must not stay open there
        arguments.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::CLONE_FILES) as u64 | CLONE_CLEAR_SIGHAND;
        arguments.pidfd = &raw mut pidfd as u64;
        // SAFETY: without CLONE_VM the child has memory of its own, on a copy of this stack, as after fork(). Of it the
        // child uses only what `wait_for_the_end` says. `pidfd` outlives the call.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => wait_for_the_end(parent),
            pid => {
                let pid = i32::try_from(pid).expect("clone3 returns -1, 0 or a pid");
                // SAFETY: the kernel has put a new descriptor there, and nobody else knows it.
                Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
            }
        }
    }
}

/// `linux/sched.h`; libc has it as a number that is too short for it.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// The child: another thread of its parent may have held any lock when it was cloned, so there is nothing here but
/// system calls (signal-safety(7)).
fn wait_for_the_end(parent: i32) -> ! {
    // SAFETY: numbers only; null pointers where there may be none.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // it may have died before that call
        if libc::syscall(libc::SYS_getppid) == libc::c_long::from(parent) {
            loop {
                let none = std::ptr::null::<libc::c_void>();
                libc::syscall(libc::SYS_ppoll, none, 0, none, none, 0);
            }
        }
        libc::syscall(libc::SYS_exit_group, 0);
    }
    loop {
        std::hint::spin_loop();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // neither can fail: it is our own child, and nobody has waited for it
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        // a child without an exit signal is waited for by those who say so
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(self.pidfd.as_fd()), options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_maps_and_no_process() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let map = |inside, outside| IdMap { inside, outside, length: 1 };
        // several at once: the tests' process has threads
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || with_maps(map(1000, 70_000 + number), map(5, 80_000)).expect("a namespace"));
            }
        });
        assert!(with_maps(IdMap { inside: 0, outside: 0, length: 0 }, map(0, 0)).is_err(), "a map of nothing");
        let children =
            std::fs::read_to_string(format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_nonzero()));
        assert!(children.is_ok_and(|children| children.is_empty()));
    }
}
