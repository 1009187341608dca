//! Bringing all processes of a cgroup to a halt.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::remove::{self, NAP};
use super::tree::{Place, Tree};
use super::{CgroupError, file};

/// How long processes may take to come to rest. One in the middle of a system call that cannot be interrupted (a disk
/// that hangs) does not.
const REST: Duration = Duration::from_secs(5);

impl Tree {
    /// Brings all of its processes to a halt, and comes back when they rest. Where they do not within 5 s, they go on.
    ///
    /// The unified hierarchy's way where there is one, also without controllers: what it has frozen can still be killed.
    ///
    /// # Errors
    /// [`CgroupError::Restless`]; when the kernel refuses, or has no freezer.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let frozen = match self.freezer()? {
            Freezer::Unified(place) => freeze_unified(&place.directory),
            Freezer::V1(place) => freeze_v1(&place.directory),
        };
        if frozen.is_err() {
            // what is worth telling is the first failure
            let _ = self.thaw();
        }
        frozen
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.freezer()? {
            Freezer::Unified(place) => file::write(&place.directory.join("cgroup.freeze"), "0"),
            Freezer::V1(place) => file::write(&place.directory.join("freezer.state"), "THAWED"),
        }
    }

    /// Whether it is frozen, or told to be.
    ///
    /// # Errors
    /// When the state cannot be read, as when the cgroup is gone.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let (place, name) = match self.freezer() {
            Ok(Freezer::Unified(place)) => (place, "cgroup.freeze"),
            Ok(Freezer::V1(place)) => (place, "freezer.self_freezing"),
            Err(_) => return Ok(false),
        };
        Ok(file::number(&place.directory.join(name))? == 1)
    }

    fn freezer(&self) -> Result<Freezer<'_>, CgroupError> {
        // since Linux 5.2
        let unified = self.unified().filter(|place| place.directory.join("cgroup.freeze").exists());
        let v1 = || self.home("freezer").filter(|place| !place.hierarchy.is_unified());
        unified
            .map(Freezer::Unified)
            .or_else(|| v1().map(Freezer::V1))
            .ok_or_else(|| CgroupError::NoFreezer { path: self.directories().next().unwrap_or_default() })
    }
}

enum Freezer<'place> {
    Unified(&'place Place),
    V1(&'place Place),
}

/// The kernel tells by `cgroup.events` when all of them rest (cgroup-v2.rst, "cgroup.freeze").
fn freeze_unified(directory: &Path) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.events");
    let read = |source: rustix::io::Errno| CgroupError::Read { path: path.clone(), source: source.into() };
    // opened before it is asked for: the first change is then seen
    let events: OwnedFd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(read)?;
    file::write(&directory.join("cgroup.freeze"), "1")?;
    let deadline = Instant::now() + REST;
    while file::field(&path, "frozen")? != 1 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(restless(directory));
        }
        remove::wait(&mut [PollFd::new(&events, PollFlags::PRI)], left);
        // reading is what makes the next change one
        let mut space = [0; 256];
        rustix::io::pread(&events, &mut space, 0).map_err(read)?;
    }
    Ok(())
}

/// Version 1 tells nobody: it looks, and counts, when it is asked.
fn freeze_v1(directory: &Path) -> Result<(), CgroupError> {
    let state = directory.join("freezer.state");
    file::write(&state, "FROZEN")?;
    let deadline = Instant::now() + REST;
    while file::read(&state)? != "FROZEN" {
        if Instant::now() >= deadline {
            return Err(restless(directory));
        }
        remove::wait(&mut [], NAP);
    }
    Ok(())
}

fn restless(directory: &Path) -> CgroupError {
    CgroupError::Restless { path: directory.into(), waited_ms: u64::try_from(REST.as_millis()).unwrap_or(u64::MAX) }
}
