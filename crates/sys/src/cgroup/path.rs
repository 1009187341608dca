//! A cgroup at a path that somebody else chose: `linux.cgroupsPath` of an OCI bundle, as runc's cgroupfs driver reads it.
//!
//! | path | version 1, each hierarchy | version 2 |
//! |---|---|---|
//! | absolute | below its mount | below its mount |
//! | relative | below the caller's own cgroup | beside the caller's own: that one has processes, and may not have limits below |
//!
//! `..` never leads out. What is above the last component is made where it is missing, and stays; on version 2 it hands
//! its controllers down as far as it can.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::devices::{self, Set};
use super::plan::{self, Ground as _, On, Plan};
use super::tree::{Place, Tree};
use super::{CgroupError, Cgroups, Hierarchy, Kind, Resources, file, remove};

/// A cgroup at a path, in every hierarchy. What can be done with what is in it is in [`Tree`].
#[derive(Debug, Clone)]
pub struct PathGroup {
    tree: Tree,
}

impl Deref for PathGroup {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl Cgroups {
    /// The cgroup at a path. Nothing is made or looked at.
    ///
    /// # Errors
    /// When the path has no component that is a name.
    pub fn at(&self, path: &Path) -> Result<PathGroup, CgroupError> {
        let clean = clean(path);
        if clean.as_os_str().is_empty() {
            return Err(CgroupError::Path(path.into()));
        }
        let place = |hierarchy: &Arc<Hierarchy>| {
            let base = match (path.is_absolute(), hierarchy.is_unified() && self.unified_alone()) {
                (true, _) => Path::new(""),
                (false, false) => &hierarchy.own,
                (false, true) => hierarchy.own.parent().unwrap_or(Path::new("")),
            };
            Place { hierarchy: Arc::clone(hierarchy), directory: hierarchy.mount.join(base).join(&clean) }
        };
        Ok(PathGroup { tree: Tree { places: self.hierarchies.iter().map(place).collect() } })
    }

    /// The cgroup that [`PathGroup::paths`] told of, when it was made. What is not mounted any more is left out.
    pub fn of_paths(&self, paths: &BTreeMap<String, PathBuf>) -> PathGroup {
        let place = |hierarchy: &Arc<Hierarchy>| {
            let directory = hierarchy.words().into_iter().find_map(|word| paths.get(&word))?.clone();
            Some(Place { hierarchy: Arc::clone(hierarchy), directory })
        };
        PathGroup { tree: Tree { places: self.hierarchies.iter().filter_map(place).collect() } }
    }
}

impl Hierarchy {
    /// What runc's `state.json` has its paths under: each controller, `name=systemd`, and nothing for the unified one.
    fn words(&self) -> Vec<String> {
        match &self.kind {
            Kind::Unified => vec![String::new()],
            Kind::V1 { name: Some(name) } => vec![format!("name={name}")],
            Kind::V1 { name: None } => self.controllers.clone(),
        }
    }
}

/// A path's names, without what leads nowhere or up.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

impl PathGroup {
    /// Makes it, empty of processes, with these resources. What cannot be had on this version is left undone and named.
    /// What an earlier one left empty is used again. On failure what was made is removed.
    ///
    /// # Errors
    /// [`CgroupError::InUse`] where there are processes in it, [`CgroupError::Frozen`]; what is asked for and not to be had;
    /// the kernel's refusals.
    pub fn create(&self, resources: &Resources) -> Result<Vec<&'static str>, CgroupError> {
        let plan = plan::plan(resources, &On(&self.tree))?;
        let mut made = Vec::new();
        let result = self.create_places(&plan, &mut made).and_then(|()| self.update(resources));
        if result.is_err() {
            // best effort: the reason is worth more than what clearing up says
            let _ = remove::trees(made.into_iter().rev(), Instant::now());
        }
        result
    }

    fn create_places(&self, plan: &Plan, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        let alone = On(&self.tree).unified_alone();
        for place in &self.places {
            let hierarchy = &place.hierarchy;
            // on a hybrid, what is left for version 2 is nobody's business unless it is asked for
            let wanted =
                |controller: &&String| alone || plan.writes.iter().any(|write| write.controller == *controller);
            let handed_down: Vec<&String> = match hierarchy.is_unified() {
                true => hierarchy.controllers.iter().filter(wanted).collect(),
                false => Vec::new(),
            };
            let below = place.directory.strip_prefix(&hierarchy.mount).unwrap_or(Path::new(""));
            let mut directory = hierarchy.mount.clone();
            for name in below.components() {
                hand_down(&handed_down, &directory);
                let above = directory.clone();
                directory.push(name);
                if file::make(&directory)? {
                    made.push(directory.clone());
                } else if directory == place.directory && self.is_frozen()? {
                    // who joined it would stand still before its first step
                    return Err(CgroupError::Frozen(directory));
                }
                if place.has("cpuset") && !hierarchy.is_unified() {
                    // a v1 cpuset begins empty, and nobody can join it until it is filled
                    for name in ["cpuset.cpus", "cpuset.mems"] {
                        if file::read(&directory.join(name))?.is_empty() {
                            file::write(&directory.join(name), &file::read(&above.join(name))?)?;
                        }
                    }
                }
            }
            if alone {
                check_type(&place.directory, plan)?;
            }
        }
        match self.pids()? {
            pids if pids.is_empty() => Ok(()),
            pids => Err(CgroupError::InUse { path: self.directories().next().unwrap_or_default(), pids }),
        }
    }

    /// Sets resources, those that are given. What cannot be had on this version is left undone and named.
    ///
    /// # Errors
    /// What is asked for and not to be had; the kernel's refusals. What was set before the refusal stays.
    pub fn update(&self, resources: &Resources) -> Result<Vec<&'static str>, CgroupError> {
        let devices = resources.devices.as_deref().map(Set::of).transpose()?;
        let plan = plan::plan(resources, &On(&self.tree))?;
        plan::carry_out(&plan, &self.tree)?;
        if let Some(devices) = devices {
            self.tree.set_devices(&devices)?;
        }
        Ok(plan.ignored)
    }

    /// Whether it is there, in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories().any(|directory| directory.exists())
    }

    /// The files to write `0` into to join it, one a hierarchy, the unified one's last. On version 1 they move the writing
    /// thread alone: the process must have no other.
    pub fn files(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.hierarchy.join_file(&place.directory)).collect()
    }

    /// As [`Self::files`], without the unified hierarchy's: for a process that began its life in that
    /// ([`Self::open_unified`]).
    pub fn v1_files(&self) -> Vec<PathBuf> {
        let v1 = self.places.iter().filter(|place| !place.hierarchy.is_unified());
        v1.map(|place| place.hierarchy.join_file(&place.directory)).collect()
    }

    /// Its directory in the unified hierarchy; `None` on version 1 alone.
    pub fn unified(&self) -> Option<&Path> {
        self.tree.unified().map(|place| place.directory.as_path())
    }

    /// That directory, held, for [`clone`](crate::clone::clone)'s `cgroup`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.unified().map(open).transpose()
    }

    /// Where it is, by the words that runc's `state.json` and `/proc/PID/cgroup` have for each hierarchy: every controller
    /// of its own, `name=systemd`, and the empty one for the unified hierarchy.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let words = |place: &Place| {
            let directory = place.directory.clone();
            place.hierarchy.words().into_iter().map(move |word| (word, directory.clone()))
        };
        self.places.iter().flat_map(words).collect()
    }
}

impl Tree {
    /// Sets the device rules of this cgroup, and of none above.
    pub(super) fn set_devices(&self, devices: &Set) -> Result<(), CgroupError> {
        if let Some(place) = self.home("devices") {
            return devices::set_v1(&place.directory, devices);
        }
        let Some(place) = self.unified() else {
            return Err(CgroupError::NoController { controller: "devices", resource: "devices" });
        };
        let wrap = |source| CgroupError::DeviceProgram { path: place.directory.clone(), source };
        let program = devices::bpf::Program::load(devices).map_err(wrap)?;
        program.attach(open(&place.directory)?.as_fd()).map_err(wrap)
    }
}

pub(super) fn open(directory: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|errno| CgroupError::Read { path: directory.into(), source: errno.into() })
}

/// Below a cgroup that has processes of its own there can be threads only, and no controller that knows processes alone
/// (cgroup-v2.rst, "Threads").
fn check_type(directory: &Path, plan: &Plan) -> Result<(), CgroupError> {
    const DOMAIN: &[&str] = &["memory", "io", "hugetlb"];
    let path = directory.join("cgroup.type");
    let kind = file::read(&path)?;
    if kind == "domain" || kind == "domain threaded" {
        return Ok(());
    }
    match plan.writes.iter().find(|write| DOMAIN.contains(&write.controller)) {
        Some(write) => Err(CgroupError::Threads { path: directory.into(), controller: write.controller }),
        None if kind == "threaded" => Ok(()),
        None => file::write(&path, "threaded"),
    }
}

/// Lets the children of a v2 cgroup have controllers; those it may not hand down are missed when they are used.
fn hand_down(controllers: &[&String], directory: &Path) {
    let path = directory.join("cgroup.subtree_control");
    let all: Vec<String> = controllers.iter().map(|controller| format!("+{controller}")).collect();
    if all.is_empty() || file::write(&path, &all.join(" ")).is_ok() {
        return;
    }
    for one in &all {
        let _ = file::write(&path, one);
    }
}

#[cfg(test)]
mod tests;
