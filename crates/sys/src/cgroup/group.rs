//! The group of one Sampan instance.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::devices::DefaultDevices;
use super::tree::Place;
use super::{
    CgroupError, Cgroups, ContainerGroup, HANDED_DOWN, Hierarchy, Limits, Making, Mounts, RemoveError, ServerGroup,
    check_name, file, remove,
};

const ROLE: &str = "role-";
const SERVER: &str = "server-";

/// The group of one Sampan instance: `sampan-TAG` in every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) cgroups: Cgroups,
    name: String,
    devices: DefaultDevices,
    mounts: Arc<Mounts>,
}

impl Group {
    pub(super) fn make(cgroups: &Cgroups, name: &str) -> Result<Self, CgroupError> {
        check_name(name)?;
        match cgroups.missing() {
            missing if missing.is_empty() => {}
            missing => return Err(CgroupError::Missing(missing)),
        }
        let group = Self {
            cgroups: cgroups.clone(),
            name: name.to_owned(),
            devices: DefaultDevices::load(cgroups)?,
            mounts: cgroups.mounts().into(),
        };
        for hierarchy in &cgroups.hierarchies {
            group.prepare(hierarchy)?;
        }
        Ok(group)
    }

    fn prepare(&self, hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        let directory = self.directory(hierarchy);
        if hierarchy.is_unified() {
            hand_down(hierarchy, &hierarchy.mount)?;
        }
        file::make(&directory)?;
        if hierarchy.is_unified() {
            return hand_down(hierarchy, &directory);
        }
        for controller in &hierarchy.controllers {
            match controller.as_str() {
                "cpuset" => {
                    // a v1 cpuset begins empty, and nobody can join it until it is filled; the children copy it
                    for name in ["cpuset.cpus", "cpuset.mems"] {
                        if file::read(&directory.join(name))?.is_empty() {
                            file::write(&directory.join(name), &file::read(&hierarchy.mount.join(name))?)?;
                        }
                    }
                    file::write(&directory.join("cgroup.clone_children"), "1")?;
                }
                "memory" => {
                    let path = directory.join("memory.use_hierarchy");
                    if file::read_if_there(&path)?.is_some_and(|value| value == "0") {
                        file::write(&path, "1")?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Make (or find) the leaf for one of our own processes, such as `supervisor`, and name the files to write `0` into
    /// to join it.
    ///
    /// # Errors
    /// When the name is no good or a directory cannot be made.
    pub fn role(&self, name: &str) -> Result<Vec<PathBuf>, CgroupError> {
        check_name(name)?;
        let mut files = Vec::with_capacity(self.cgroups.hierarchies.len());
        for hierarchy in &self.cgroups.hierarchies {
            let directory = self.directory(hierarchy).join(format!("{ROLE}{name}"));
            let new = file::make(&directory)?;
            files.push(hierarchy.join_file(&directory));
            if new {
                self.devices.set(&Place { hierarchy: Arc::clone(hierarchy), directory })?;
            }
        }
        Ok(files)
    }

    /// Make the cgroup of a server, with its limits. What an earlier one of that name left empty is replaced; on failure
    /// nothing is left.
    ///
    /// # Errors
    /// When the name is no good, there is such a server with processes in it, or the kernel refuses a limit.
    pub fn create_server(&self, name: &str, limits: &Limits) -> Result<ServerGroup, CgroupError> {
        let group = self.server(name)?;
        group.draft(limits, true).begin()?.finish()?;
        Ok(group)
    }

    /// Begin to make the cgroup of a server that has one container all its life: they share the one cgroup, which is half
    /// the work of making and removing them.
    ///
    /// # Errors
    /// As of [`create_server`](Self::create_server).
    pub fn begin_alone(&self, name: &str, limits: &Limits) -> Result<(ContainerGroup, Making), CgroupError> {
        let group = self.server(name)?;
        Ok((group.alone(), group.draft(limits, false).begin()?))
    }

    /// The cgroup of a server that was made earlier. Nothing is looked at: it may be gone.
    ///
    /// # Errors
    /// When the name is no good.
    pub fn server(&self, name: &str) -> Result<ServerGroup, CgroupError> {
        check_name(name)?;
        let places = self.cgroups.hierarchies.iter().map(|hierarchy| Place {
            hierarchy: Arc::clone(hierarchy),
            directory: self.directory(hierarchy).join(format!("{SERVER}{name}")),
        });
        Ok(ServerGroup::new(Arc::clone(&self.mounts), places.collect(), self.devices.clone()))
    }

    /// The names of the servers there are, whole or in part.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn servers(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for hierarchy in &self.cgroups.hierarchies {
            for child in file::children(&self.directory(hierarchy))? {
                let name = child.file_name().and_then(|name| name.to_str());
                names.extend(name.and_then(|name| name.strip_prefix(SERVER)).map(str::to_owned));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Remove the group with all that is in it. Nothing is killed: it waits for processes that are ending, 5 s in all.
    ///
    /// # Errors
    /// All failures; it goes on past each.
    pub fn remove(&self) -> Result<(), RemoveError> {
        let directories = self.cgroups.hierarchies.iter().map(|hierarchy| self.directory(hierarchy));
        remove::trees(directories, Instant::now() + remove::WAIT)
    }

    fn directory(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(&self.name)
    }
}

/// Let the children of a v2 cgroup have controllers.
pub(super) fn hand_down(hierarchy: &Hierarchy, directory: &std::path::Path) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.subtree_control");
    let wanted = HANDED_DOWN.iter().filter(|wanted| hierarchy.controllers.iter().any(|own| own == *wanted));
    let wanted: Vec<String> = wanted.map(|controller| format!("+{controller}")).collect();
    if wanted.is_empty() { Ok(()) } else { file::write(&path, &wanted.join(" ")) }
}
