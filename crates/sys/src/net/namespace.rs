//! Network namespaces: making one, and running code in one.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Makes a network namespace, owned by the caller's user namespace. It lasts for as long as something holds it: the
/// descriptor, a socket in it, a process. (A server's own is made by its first process; this is for trying things.)
///
/// # Errors
/// The thread or the namespace could not be made (`EPERM` without `CAP_SYS_ADMIN`).
pub fn fresh() -> io::Result<OwnedFd> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            // SAFETY: what is unsafe to leave is the table of descriptors; this leaves the network namespace alone
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        })?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` in the network namespace `netns` and gives back what it returns.
///
/// It runs on a thread made for it, which enters the namespace first and ends afterwards: no other thread is ever in a
/// strange namespace, whatever `work` does, and there is nothing to go back from. Such a thread costs some 50 µs.
/// Sockets that `work` opens stay in that namespace and may be used from anywhere.
///
/// The caller needs `CAP_SYS_ADMIN` in the user namespace that owns `netns`.
///
/// # Errors
/// The thread could not be made, or `netns` could not be entered.
///
/// # Panics
/// Where `work` does.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
