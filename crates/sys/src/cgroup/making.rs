//! A cgroup as it is made, in every hierarchy: first where a process may be born, then the rest.
//!
//! `clone3` takes a cgroup of version 2, so that one has to be there before the process is; those of version 1 it joins
//! itself, when it runs. Making ten directories takes as long as cloning: they are made meanwhile.

use std::path::PathBuf;
use std::time::Instant;

use super::devices::DefaultDevices;
use super::group::hand_down;
use super::tree::{Place, Tree};
use super::{CgroupError, Limits, file, remove};

/// What a cgroup is to be.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub tree: Tree,
    pub devices: DefaultDevices,
    pub limits: Limits,
    /// There are to be others in it.
    pub hands_down: bool,
}

/// A cgroup in which a process may be born; the rest of it is to be [made](Self::finish). Dropped before, nothing of it
/// stays.
#[derive(Debug)]
pub struct Making {
    draft: Draft,
    begun: Vec<PathBuf>,
}

impl Draft {
    /// Makes what is of version 2. What an earlier one of that name left empty is replaced.
    ///
    /// # Errors
    /// There is such a cgroup with processes in it, or the kernel refuses a limit.
    pub fn begin(self) -> Result<Making, CgroupError> {
        let begun = Vec::with_capacity(self.tree.places.len());
        let mut making = Making { draft: self, begun };
        making.make(|place| place.hierarchy.is_unified())?;
        Ok(making)
    }

    fn place(&self, place: &Place) -> Result<(), CgroupError> {
        if !file::make(&place.directory)? {
            // left by one that ended badly; its counters must not become ours
            if remove::trees([place.directory.clone()].into_iter(), Instant::now()).is_err() {
                return Err(CgroupError::InUse { path: place.directory.clone(), pids: self.tree.pids()? });
            }
            file::make(&place.directory)?;
        }
        if place.hierarchy.is_unified() && self.hands_down {
            hand_down(&place.hierarchy, &place.directory)?;
        } else {
            self.devices.set(place)?;
        }
        place.limit(&self.limits)
    }
}

impl Making {
    /// Makes the rest.
    ///
    /// # Errors
    /// As it was begun. Nothing is left then.
    pub fn finish(mut self) -> Result<(), CgroupError> {
        self.make(|place| !place.hierarchy.is_unified())?;
        self.begun.clear();
        Ok(())
    }

    fn make(&mut self, which: impl Fn(&Place) -> bool) -> Result<(), CgroupError> {
        for place in self.draft.tree.places.iter().filter(|place| which(place)) {
            let made = self.draft.place(place);
            // one with processes in it is not ours to clear up
            if !matches!(made, Err(CgroupError::InUse { .. })) {
                self.begun.push(place.directory.clone());
            }
            made?;
        }
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            // best effort: why it is not finished is worth more than what its clearing up says
            let _ = remove::trees(self.begun.drain(..), Instant::now());
        }
    }
}
