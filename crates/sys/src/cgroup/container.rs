//! The cgroup of one container on its server: joined by its processes, and frozen as a whole.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::devices::{self, Set};
use super::tree::Tree;
use super::{CgroupError, DeviceRule, Mounts};

/// The cgroup of one container, in every hierarchy.
#[derive(Debug, Clone)]
pub struct ContainerGroup {
    mounts: Arc<Mounts>,
    tree: Tree,
    above: Above,
}

/// What the cgroup above is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above {
    /// The server's.
    Server,
    /// The instance's: it is alone on its server, whose cgroup it has.
    Instance,
}

impl Deref for ContainerGroup {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl ContainerGroup {
    pub(super) fn new(mounts: Arc<Mounts>, tree: Tree, above: Above) -> Self {
        Self { mounts, tree, above }
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The files to write `0` into to join it, one a hierarchy. On version 1 they move the writing thread alone: the
    /// process must have no other.
    pub fn files(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.hierarchy.join_file(&place.directory)).collect()
    }

    /// Lets its processes use these devices and no others: the rules in their order, beginning with nothing allowed.
    /// [`DOCKER_DEVICES`](super::DOCKER_DEVICES) are what it begins with; [`EVERY_DEVICE`](super::EVERY_DEVICE) lifts all.
    /// On version 1 the cgroups above it come to allow as much; their other containers keep what they have.
    ///
    /// # Errors
    /// When the rules cannot be said to the kernel, or it refuses them.
    pub fn set_devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let set = Set::of(rules)?;
        if let Some(place) = self.home("devices") {
            let parent = place.directory.parent();
            let above = match self.above {
                Above::Instance => [None, parent],
                Above::Server => [parent.and_then(Path::parent), parent],
            };
            above.into_iter().flatten().try_for_each(|directory| devices::widen_v1(directory, &set))?;
        }
        self.tree.set_devices(&set)
    }

    /// Its path from where hierarchies are mounted, which is the same in each; with a slash before it.
    pub fn path(&self) -> PathBuf {
        let place = self.places.first();
        let below = place.and_then(|place| place.directory.strip_prefix(&place.hierarchy.mount).ok());
        Path::new("/").join(below.unwrap_or(Path::new("")))
    }

    /// What the container mounts below its `/sys/fs/cgroup`.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Its directory in the unified hierarchy, for `CLONE_INTO_CGROUP`; `None` on version 1 alone.
    pub fn unified(&self) -> Option<&Path> {
        self.tree.unified().map(|place| place.directory.as_path())
    }
}
