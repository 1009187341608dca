//! A container's cgroup, and what it sees of cgroups.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use sampan_sys::cgroup::{Cgroups, Mounts, PathGroup};
use sampan_sys::mount::{self, Attributes as MountAttributes, Builder};

use super::config::{Config, Resources};
use super::error::OciError;
use super::options::READ_ONLY;
use super::resources;
use crate::child::Step as _;
use crate::wire::Failure;

/// A container's cgroup, in every hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Hierarchies {
    group: PathGroup,
    /// What a container mounts of them.
    mounts: Mounts,
    /// The files by which it joins those of version 1.
    files: Vec<PathBuf>,
}

impl Hierarchies {
    fn of(all: &Cgroups, group: PathGroup) -> Self {
        Self { mounts: all.mounts(), files: group.v1_files(), group }
    }

    /// Makes it, with what the configuration allows. What cannot be had on this machine's version is left out.
    pub fn make(id: &str, config: &Config) -> Result<Self, OciError> {
        let all = Cgroups::detect()?;
        let path = &config.linux.cgroups_path;
        let path = if path.is_empty() { Path::new(id) } else { Path::new(path) };
        let group = all.at(path)?;
        let default = Resources::default();
        let asked = config.linux.resources.as_ref().unwrap_or(&default);
        group.create(&resources::of_container(asked)?)?;
        Ok(Self::of(&all, group))
    }

    /// The one that was made before.
    pub fn find(paths: &BTreeMap<String, PathBuf>) -> Result<Self, OciError> {
        let all = Cgroups::detect()?;
        let group = all.of_paths(paths);
        Ok(Self::of(&all, group))
    }

    /// One that is below it, by a path.
    pub fn below(self, path: Option<&str>) -> Result<Self, OciError> {
        let Some(path) = path else { return Ok(self) };
        let path = path.trim_start_matches('/');
        if path.split('/').any(|name| name == "..") {
            return Err(OciError::config("--cgroup", "it must be below the container's own"));
        }
        let paths = self.group.paths().into_iter().map(|(word, directory)| (word, directory.join(path))).collect();
        Self::find(&paths)
    }

    /// Where it is: what [`Self::find`] finds it by.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.group.paths()
    }

    /// Its directory of version 2, for a process that is born in it.
    pub fn unified(&self) -> Result<Option<OwnedFd>, OciError> {
        Ok(self.group.open_unified()?)
    }

    /// Moves this process, which has one thread, into those of version 1.
    pub fn join(&self) -> Result<(), Failure> {
        for file in &self.files {
            let step = || format!("join cgroup {}", file.display());
            let open = rustix::fs::openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            // a process that writes "0" moves itself, which on v1 spares it the wait for a grace period
            open.and_then(|file| rustix::io::write(file, b"0")).step(&step())?;
        }
        Ok(())
    }

    pub fn pids(&self) -> Result<Vec<u32>, OciError> {
        Ok(self.group.pids()?)
    }

    pub fn kill(&self) -> Result<(), OciError> {
        Ok(self.group.kill()?)
    }

    pub fn remove(&self) -> Result<(), OciError> {
        Ok(self.group.remove()?)
    }

    pub fn freeze(&self) -> Result<(), OciError> {
        Ok(self.group.freeze()?)
    }

    pub fn thaw(&self) -> Result<(), OciError> {
        Ok(self.group.thaw()?)
    }

    pub fn is_frozen(&self) -> Result<bool, OciError> {
        Ok(self.group.exists() && self.group.is_frozen()?)
    }

    pub fn update(&self, asked: &Resources) -> Result<(), OciError> {
        self.group.update(&resources::of_update(asked)?)?;
        Ok(())
    }

    pub fn stats(&self) -> Result<sampan_sys::cgroup::Stats, OciError> {
        Ok(self.group.stats()?)
    }
}

/// How cgroups are mounted for a container.
pub(super) struct CgroupMount<'a> {
    /// Attributes of each mount.
    pub set: u32,
    pub config: &'a Config,
}

impl CgroupMount<'_> {
    /// Whether what it sees as `/` is its own cgroup.
    fn has_own(&self) -> bool {
        self.config.linux.namespaces.iter().any(|namespace| namespace.kind == "cgroup")
    }
}

impl Hierarchies {
    /// Mounts them on a place of the container's. Without a cgroup namespace it sees its own cgroup alone, as a bind.
    pub fn mount(&self, place: BorrowedFd<'_>, asked: &CgroupMount<'_>, step: &str) -> Result<(), Failure> {
        let paths = self.group.paths();
        let Mounts::V1 { hierarchies, unified } = &self.mounts else {
            let all = self.make_unified(asked, &paths, step)?;
            return mount::attach_to(all.as_fd(), place).step(step);
        };
        let plain = MountAttributes::from_bits_retain(asked.set & !READ_ONLY);
        let directory = Builder::open("tmpfs")?.set("mode", "755")?.set("size", "64k")?.mount(plain)?;
        mount::attach_to(directory.as_fd(), place).step(step)?;
        for (name, options) in hierarchies {
            let made = if asked.has_own() {
                make_v1(options, asked.set)?
            } else {
                let word = options.split(',').next().unwrap_or_default();
                let own = paths.get(word).ok_or_else(|| Failure::because(step, format!("no cgroup of {word}")))?;
                bind(own, asked.set, step)?
            };
            put(directory.as_fd(), name, made.as_fd(), step)?;
            // each controller by its own name too: `cpu` is found in `cpu,cpuacct`
            for word in options.split(',').filter(|word| word != name && !word.contains('=')) {
                rustix::fs::symlinkat(name.as_str(), &directory, word).step(step)?;
            }
        }
        if *unified {
            let made = self.make_unified(asked, &paths, step)?;
            put(directory.as_fd(), "unified", made.as_fd(), step)?;
        }
        mount::restrict(directory.as_fd(), MountAttributes::from_bits_retain(asked.set & READ_ONLY)).step(step)
    }

    fn make_unified(
        &self,
        asked: &CgroupMount<'_>,
        paths: &BTreeMap<String, PathBuf>,
        step: &str,
    ) -> Result<OwnedFd, Failure> {
        if !asked.has_own()
            && let Some(own) = paths.get("")
        {
            return bind(own, asked.set, step);
        }
        Ok(Builder::open("cgroup2")?.mount(MountAttributes::from_bits_retain(asked.set))?)
    }
}

fn make_v1(options: &str, set: u32) -> Result<OwnedFd, Failure> {
    let mut builder = Builder::open("cgroup")?;
    for option in options.split(',') {
        builder = match option.split_once('=') {
            Some((key, value)) => builder.set(key, value)?,
            None => builder.flag(option)?,
        };
    }
    Ok(builder.mount(MountAttributes::from_bits_retain(set))?)
}

fn bind(own: &Path, set: u32, step: &str) -> Result<OwnedFd, Failure> {
    let path = CString::new(own.as_os_str().as_encoded_bytes()).map_err(|_| Failure::because(step, "a zero byte"))?;
    let tree = mount::clone_of(CWD, &path).step(step)?;
    mount::restrict(tree.as_fd(), MountAttributes::from_bits_retain(set)).step(step)?;
    Ok(tree)
}

fn put(directory: BorrowedFd<'_>, name: &str, made: BorrowedFd<'_>, step: &str) -> Result<(), Failure> {
    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)).step(step)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(directory, name, flags, Mode::empty()).step(step)?;
    mount::attach_to(made, place.as_fd()).step(step)
}
