//! Ending and removing whole trees of cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;

use super::tree::all_of;
use super::{CgroupError, RemoveError, file};

/// How long a removal waits for processes that are ending, in all.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// How often new processes may turn up before killing is given up. A process with a pending SIGKILL cannot fork, so each
/// round leaves only what was forked during it; frozen, there is nothing.
const ROUNDS: u32 = 1000;
/// How many ending processes are watched before the list is read anew.
const WATCHED: usize = 256;
/// How long to wait where there is nothing to watch: the last thread is on its way out.
pub(super) const NAP: Duration = Duration::from_millis(1);

/// Remove each tree, leaves first, waiting until the deadline for processes that are ending.
pub(super) fn trees(roots: impl Iterator<Item = PathBuf>, deadline: Instant) -> Result<(), RemoveError> {
    let begun = Instant::now();
    let mut failures = Vec::new();
    for root in roots {
        match all_of(&root) {
            Ok(directories) => {
                for directory in directories.iter().rev() {
                    failures.extend(remove(directory, begun, deadline).err());
                }
            }
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(RemoveError { failures }) }
}

fn remove(directory: &Path, begun: Instant, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
            Err(source) => return Err(CgroupError::Remove { path: directory.into(), source }),
        }
        let pids = file::pids(directory)?;
        let now = Instant::now();
        // with children that could not be removed, waiting is in vain
        if now >= deadline || !file::children(directory)?.is_empty() {
            let waited_ms = u64::try_from((now - begun).as_millis()).unwrap_or(u64::MAX);
            return Err(CgroupError::Busy { path: directory.into(), pids, waited_ms });
        }
        wait_for_an_end(&pids, deadline);
    }
}

/// Wait until these processes have ended, or the deadline.
fn wait_for_an_end(pids: &[u32], deadline: Instant) {
    let begun = Instant::now();
    for pidfd in pids.iter().take(WATCHED).filter_map(|&pid| open(pid).ok().flatten()) {
        let left = deadline.saturating_duration_since(Instant::now());
        wait(&mut [PollFd::new(&pidfd, PollFlags::IN)], left);
    }
    if begun.elapsed() < NAP {
        wait(&mut [], NAP);
    }
}

pub(super) fn wait(what: &mut [PollFd<'_>], time: Duration) {
    let time = Timespec::try_from(time).ok();
    // an error, EINTR most likely, only means that we look again sooner
    let _ = poll(what, time.as_ref());
}

/// A handle on a process; `None` where it is gone.
fn open(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Send SIGKILL to every process in these trees, frozen meanwhile where there is a v1 freezer.
pub(super) fn kill(roots: &[&Path], freezer: Option<&Path>) -> Result<(), CgroupError> {
    let mut signalled = BTreeSet::new();
    if round(roots, &mut signalled)? == 0 {
        return Ok(());
    }
    let Some(freezer) = freezer else { return rounds(roots, &mut signalled) };
    let state = freezer.join("freezer.state");
    file::write_if_there(&state, "FROZEN")?;
    let killed = rounds(roots, &mut signalled);
    // whatever came of it: a frozen process does not even die
    file::write_if_there(&state, "THAWED").and(killed)
}

fn rounds(roots: &[&Path], signalled: &mut BTreeSet<u32>) -> Result<(), CgroupError> {
    for _ in 0..ROUNDS {
        if round(roots, signalled)? == 0 {
            return Ok(());
        }
    }
    Err(CgroupError::KillUnending { path: roots[0].into(), rounds: ROUNDS })
}

/// Signal the processes that were not yet. Returns how many those were.
fn round(roots: &[&Path], signalled: &mut BTreeSet<u32>) -> Result<usize, CgroupError> {
    let mut found = 0;
    for root in roots {
        for directory in all_of(root)? {
            let wrap = |pid, errno: Errno| CgroupError::Kill { pid, path: directory.clone(), source: errno.into() };
            let mut handles = Vec::new();
            for pid in file::pids(&directory)? {
                if !signalled.contains(&pid) {
                    handles.extend(open(pid).map_err(|errno| wrap(pid, errno))?.map(|pidfd| (pid, pidfd)));
                }
            }
            if handles.is_empty() {
                continue;
            }
            // a handle may be on a stranger who got the pid since; who is still listed now is one of ours
            let listed: BTreeSet<u32> = file::pids(&directory)?.into_iter().collect();
            for (pid, pidfd) in handles.into_iter().filter(|(pid, _)| listed.contains(pid)) {
                match pidfd_send_signal(&pidfd, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(wrap(pid, errno)),
                }
                signalled.insert(pid);
                found += 1;
            }
        }
    }
    Ok(found)
}
