//! Network namespaces: making one, and running code in one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
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
/// The calling thread enters it and comes back, which costs three system calls (a thread of its own would cost some
/// 150 µs). Threads and processes that `work` makes stay in it, as sockets do that it opens, which may be used from
/// anywhere. A thread that could not come back would do others' work in a strange namespace: the process ends instead.
///
/// The caller needs `CAP_SYS_ADMIN` in the user namespaces that own `netns` and its own.
///
/// # Errors
/// `netns` could not be entered.
///
/// # Panics
/// Where `work` does.
pub fn run_in<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = Home(File::open("/proc/thread-self/ns/net")?.into());
    enter(netns)?;
    let done = work();
    drop(home);
    Ok(done)
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}

/// Where a thread goes back to when this is dropped.
struct Home(OwnedFd);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = enter(self.0.as_fd()) {
            eprintln!("a thread could not come back from another network namespace: {error}");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> std::path::PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").expect("its namespace")
    }

    #[test]
    fn a_thread_comes_back_after_a_panic_too() {
        let (home, netns) = (here(), fresh().expect("namespace (as root)"));
        assert_ne!(run_in(netns.as_fd(), here).expect("enter (as root)"), home);
        assert_eq!(here(), home);
        let work = || run_in(netns.as_fd(), || panic!("as it was asked to"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        assert_eq!(here(), home);
    }
}
