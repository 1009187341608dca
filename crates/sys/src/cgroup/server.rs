//! The cgroup of one server: its limits, and the containers on it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use super::container::{Above, ContainerGroup};
use super::devices::DefaultDevices;
use super::making::{Draft, Making};
use super::tree::{Place, Tree};
use super::{CgroupError, Limits, Mounts, check_name, file};

const CONTAINER: &str = "container-";

/// The cgroup of one server, in every hierarchy.
#[derive(Debug, Clone)]
pub struct ServerGroup {
    mounts: Arc<Mounts>,
    tree: Tree,
    devices: DefaultDevices,
}

impl Deref for ServerGroup {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl ServerGroup {
    pub(super) fn new(mounts: Arc<Mounts>, places: Vec<Place>, devices: DefaultDevices) -> Self {
        Self { mounts, tree: Tree { places }, devices }
    }

    /// With `hands_down` there are to be containers' cgroups in it.
    pub(super) fn draft(&self, limits: &Limits, hands_down: bool) -> Draft {
        Draft { tree: self.tree.clone(), devices: self.devices.clone(), limits: *limits, hands_down }
    }

    /// The cgroup of the only container of a server that was made for it alone
    /// ([`Group::begin_alone`](super::Group::begin_alone)): the server's own.
    pub fn alone(&self) -> ContainerGroup {
        ContainerGroup::new(Arc::clone(&self.mounts), self.tree.clone(), Above::Instance)
    }

    /// Begin to make the cgroup of a container on this server. The limits are the server's: programs find them when they
    /// ask how much there is. What an earlier one of that name left empty is replaced; on failure nothing is left.
    ///
    /// # Errors
    /// When the name is no good, there is such a container with processes in it, or the kernel refuses a limit.
    pub fn begin_container(&self, name: &str, limits: &Limits) -> Result<(ContainerGroup, Making), CgroupError> {
        let container = self.container(name)?;
        let (tree, devices) = (container.tree().clone(), self.devices.clone());
        let making = Draft { tree, devices, limits: *limits, hands_down: false }.begin()?;
        Ok((container, making))
    }

    /// The same, all of it.
    ///
    /// # Errors
    /// As there.
    pub fn create_container(&self, name: &str, limits: &Limits) -> Result<ContainerGroup, CgroupError> {
        let (container, making) = self.begin_container(name, limits)?;
        making.finish()?;
        Ok(container)
    }

    /// The cgroup of a container that was made earlier. Nothing is looked at: it may be gone.
    ///
    /// # Errors
    /// When the name is no good.
    pub fn container(&self, name: &str) -> Result<ContainerGroup, CgroupError> {
        check_name(name)?;
        Ok(ContainerGroup::new(Arc::clone(&self.mounts), self.below(&format!("{CONTAINER}{name}")), Above::Server))
    }

    /// The names of the containers on it, whole or in part.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn containers(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for place in &self.places {
            for child in file::children(&place.directory)? {
                let name = child.file_name().and_then(|name| name.to_str());
                names.extend(name.and_then(|name| name.strip_prefix(CONTAINER)).map(str::to_owned));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Set other limits, of the server and of all containers on it. Memory that is in use is reclaimed first, where it can
    /// be.
    ///
    /// # Errors
    /// When the kernel refuses one: on version 1 also less memory than is in use.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        let containers: Vec<Tree> =
            self.containers()?.iter().map(|name| self.below(&format!("{CONTAINER}{name}"))).collect();
        for tree in &containers {
            if let Some(place) = tree.home("cpu").filter(|place| !place.hierarchy.is_unified()) {
                // a child's share may never be above its parent's, so it is lifted while the parent's changes
                file::write_if_there(&place.directory.join("cpu.cfs_quota_us"), "-1")?;
            }
        }
        self.places.iter().chain(containers.iter().flat_map(|tree| &tree.places)).try_for_each(|place| {
            match place.limit(limits) {
                // a container that has just ended
                Err(_) if !place.directory.exists() => Ok(()),
                result => result,
            }
        })
    }
}

#[cfg(test)]
mod tests;
