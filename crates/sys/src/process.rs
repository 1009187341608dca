//! Becoming another program, and what must be set right before: descriptors, signals, keyring.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::process::DumpableBehavior;

use crate::mount;

/// Whether this process has one thread only.
///
/// # Errors
/// Where `/proc` is not there.
pub fn is_single_threaded() -> io::Result<bool> {
    // a directory has two links and one more a subdirectory: one for each thread
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

/// Ends this process at once: no destructors, no buffers flushed.
pub fn exit(code: u8) -> ! {
    // SAFETY: always sound; it does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Makes `fds[0]` descriptor 0, `fds[1]` descriptor 1 and so on, kept at `execve`; every other descriptor is closed
/// there (not before). For children that are about to become another program: it replaces what those numbers were.
///
/// # Errors
/// The kernel's.
pub fn place_descriptors(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    // out of the way first: a source must not be overwritten before it is used
    let first_free = RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX);
    let sources = fds
        .iter()
        .map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, first_free)?))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    for (number, source) in (0..).zip(&sources) {
        // SAFETY: takes no pointers. Owners of `number` in this process find another file under it: the caller is a
        // child before its execve and has no use for them, as documented.
        if unsafe { libc::dup2(source.as_fd().as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: takes no pointers and closes nothing yet.
    let marked = unsafe {
        libc::syscall(libc::SYS_close_range, first_free as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if marked < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from `first` on: for the start of a process, before it has opened anything, against what it
/// was left open by whoever started it.
///
/// # Errors
/// The kernel's.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointers. Nothing of this process owns those descriptors yet, as documented.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptor that whoever started this process left open for it under that number, close-on-exec from here on. To
/// be asked for once a number, at the start: the one that is given owns it.
///
/// # Errors
/// `EBADF` where there is none.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: only asked whether it is open, which is answered for any number but -1.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nobody in this process owns it: the number is one that the starting process chose for it,
    // and it is asked for once, as documented.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// Gives every signal its default meaning and lets all of them through: `execve` keeps what was ignored (as the
/// standard library ignores `SIGPIPE`) and blocked.
pub fn reset_signals() {
    // Not through libc: glibc keeps signals 32 and 33 for itself, refuses to change them, and its posix_spawn starts
    // programs with both ignored. All zero is SIG_DFL, whatever the architecture's structure is
    const DEFAULT: [u64; 8] = [0; 8];
    const SET_BYTES: usize = 8;
    for signal in 1..=64 {
        // SAFETY: reads a structure of at most 64 bytes, which is there; null for "the old one is not wanted". SIG_DFL
        // runs no code of ours. It fails for SIGKILL and SIGSTOP, which is well.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                SET_BYTES,
            )
        };
    }
    // SAFETY: a signal set is plain memory, initialised by `sigemptyset`; null for "the old one is not wanted".
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Whether other processes of this user may look into this one (`/proc/PID`, `ptrace`, core dumps).
///
/// # Errors
/// The kernel's.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    let behaviour = if dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(rustix::process::set_dumpable_behavior(behaviour)?)
}

/// What kind of system this process, and all that it executes, is told it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// What the machine is.
    Linux,
    /// The 32-bit sort of it (`uname -m`).
    Linux32,
}

/// Sets it (personality(2)).
///
/// # Errors
/// The kernel's.
pub fn set_personality(personality: Personality) -> io::Result<()> {
    // PER_LINUX, PER_LINUX32 (linux/personality.h)
    let number = match personality {
        Personality::Linux => 0,
        Personality::Linux32 => 8,
    };
    // SAFETY: takes a number.
    let before = unsafe { libc::personality(number) };
    if before < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves the session keyring it was born with for a new, empty one.
///
/// # Errors
/// The kernel's; `ENOSYS` where it has no keyrings.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for a new keyring without one.
    let ring = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>(), 0, 0, 0)
    };
    if ring < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The arguments or the environment of a program.
#[derive(Debug)]
pub struct Strings {
    // owns what `pointers` points to; a CString's bytes do not move with it
    _texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// From texts.
    ///
    /// # Errors
    /// `InvalidInput` where one has a zero byte.
    pub fn new<T: AsRef<[u8]>>(texts: &[T]) -> io::Result<Self> {
        let texts = texts.iter().map(|text| CString::new(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _texts: texts, pointers })
    }
}

/// This process's own program, through a mount of it that is read-only and in nobody's list: what is executed from here
/// on through it (`/proc/self/fd/N`) names a file by `/proc/PID/exe` that nobody can open for writing, whoever they are
/// (CVE-2019-5736). Costs no memory, unlike a copy.
///
/// # Errors
/// The kernel's; this process must be root.
pub fn own_program() -> io::Result<OwnedFd> {
    let program = mount::clone_of(rustix::fs::CWD, c"/proc/self/exe")?;
    mount::restrict(program.as_fd(), mount::Attributes::MOUNT_ATTR_RDONLY | mount::Attributes::MOUNT_ATTR_NOSUID)?;
    Ok(program)
}

/// Becomes the program at `path`. Returns only where that failed: with the kernel's error.
pub fn execute(path: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: a terminated path and two null-terminated arrays of terminated strings, all alive.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program that `file` is, wherever it lies and whoever may walk there. Returns only where that failed.
pub fn execute_file(file: BorrowedFd<'_>, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: as in `execute`; the empty path means the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
