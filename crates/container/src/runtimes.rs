//! Other OCI runtimes that execute a container where its caller asks for one: by a name that this daemon finds, or, of
//! user 0 alone, by a path. (A program at a path of somebody's choice runs as root.)
//!
//! A container that has one is Sampan's in all but its first process: server, root file system, mounts, streams and
//! further processes are as everybody's ([`sampan_runtime::external`]). What it is slower by is that runtime's.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sampan_model::{ContainerSpec, SeccompChoice};
use sampan_runtime::cgroup::{Access, DOCKER_DEVICES, DeviceKind, DeviceRule, Mounts};
use sampan_runtime::external::Runtime;
use sampan_runtime::wire::External;
use sampan_runtime::{defaults, seccomp};

use crate::containers::Inner;
use crate::server::Server;
use crate::{ContainerError, ContainerRecord, confine};

/// The name that is none: Sampan itself.
const OWN: &str = "sampan";

/// A runtime that is asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No program of that name.
    #[error("there is no runtime {name:?}: it is none of the daemon's own ({}) and not in its PATH ({path})", words(.known))]
    Unknown {
        /// The name.
        name: String,
        /// The names that the daemon was given.
        known: Vec<String>,
        /// Where it looked.
        path: String,
    },
    /// A path that is no program.
    #[error("the runtime {} cannot be run", .path.display())]
    Program {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path, of somebody who is not root.
    #[error("a runtime by its path ({0}) is root's to ask for: it is run as root")]
    Path(String),
    /// Something that only Sampan itself does.
    #[error("{0} is what Sampan itself does: a container of another runtime cannot have it")]
    Own(&'static str),
    /// A setting that is none.
    #[error("{0:?} is no NAME=/PATH of a runtime")]
    Setting(String),
}

impl RuntimeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } => {
                Some("install it, or tell the daemon where it is: SAMPAN_RUNTIMES=NAME=/PATH, several parted by colons")
            }
            Self::Path(_) => Some("ask for it by a name that the daemon knows"),
            Self::Own(_) => Some("leave that out, or --runtime"),
            Self::Program { .. } | Self::Setting(_) => None,
        }
    }
}

fn words(known: &[String]) -> String {
    if known.is_empty() { "it has none".to_owned() } else { known.join(", ") }
}

/// The runtimes that the daemon knows.
#[derive(Debug, Clone, Default)]
pub struct Runtimes {
    named: BTreeMap<String, PathBuf>,
    path: String,
}

impl Runtimes {
    /// Those of `setting` (`NAME=/PATH`, parted by colons), and whatever is in `path` as a `PATH` has it.
    ///
    /// # Errors
    /// [`RuntimeError::Setting`].
    pub fn new(setting: &str, path: &str) -> Result<Self, RuntimeError> {
        let mut named = BTreeMap::new();
        for word in setting.split(':').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some((name, program)) if !name.is_empty() && !name.contains('/') && program.starts_with('/') => {
                    named.insert(name.to_owned(), PathBuf::from(program));
                }
                _ => return Err(RuntimeError::Setting(word.to_owned())),
            }
        }
        Ok(Self { named, path: path.to_owned() })
    }

    /// Whether a new container's can be had; Sampan's own name is dropped.
    pub(crate) fn check(&self, spec: &mut ContainerSpec) -> Result<(), RuntimeError> {
        spec.runtime.take_if(|name| name == OWN);
        let Some(runtime) = &spec.runtime else { return Ok(()) };
        if runtime.contains('/') && spec.owner.uid != 0 {
            return Err(RuntimeError::Path(runtime.clone()));
        }
        let asked = &spec.confinement;
        let own = [
            ("--init", spec.init),
            ("--privileged", asked.privileged),
            ("--userns host", asked.has_host_users()),
            ("--device", !asked.devices.is_empty()),
            ("a seccomp profile of one's own", matches!(asked.seccomp, SeccompChoice::Profile { .. })),
        ];
        if let Some((what, _)) = own.into_iter().find(|(_, asked)| *asked) {
            return Err(RuntimeError::Own(what));
        }
        self.program(runtime).map(drop)
    }

    fn program(&self, runtime: &str) -> Result<PathBuf, RuntimeError> {
        if runtime.contains('/') {
            let path = PathBuf::from(runtime);
            return match is_program(&path) {
                Ok(()) if path.is_absolute() => Ok(path),
                Ok(()) => Err(RuntimeError::Program { path, source: io::Error::other("it is no absolute path") }),
                Err(source) => Err(RuntimeError::Program { path, source }),
            };
        }
        if let Some(path) = self.named.get(runtime) {
            return match is_program(path) {
                Ok(()) => Ok(path.clone()),
                Err(source) => Err(RuntimeError::Program { path: path.clone(), source }),
            };
        }
        let dirs = self.path.split(':').filter(|dir| dir.starts_with('/'));
        let found = dirs.map(|dir| Path::new(dir).join(runtime)).find(|path| is_program(path).is_ok());
        found.ok_or_else(|| RuntimeError::Unknown {
            name: runtime.to_owned(),
            known: self.named.keys().cloned().collect(),
            path: self.path.clone(),
        })
    }
}

fn is_program(path: &Path) -> io::Result<()> {
    let found = path.metadata()?;
    match found.is_file() && found.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no file that may be executed")),
    }
}

impl Inner {
    fn state_dir(&self, record: &ContainerRecord) -> PathBuf {
        self.foundation.containers_dir.join(record.id.as_str()).join("runtime")
    }

    /// What a container's own runtime is told, where it has one.
    pub(crate) fn external(
        &self,
        record: &ContainerRecord,
        server: &Server,
    ) -> Result<Option<Box<External>>, ContainerError> {
        let Some(runtime) = &record.spec.runtime else { return Ok(None) };
        let program = self.foundation.runtimes.program(runtime)?;
        let group = self.group_of(&record.id, server)?;
        if let Mounts::V1 { .. } = group.mounts() {
            // runtimes allow it, of which no container has a node (runc's `AllowedDevices`), and the cgroups above, where
            // it is denied, would refuse them
            let tun = DeviceRule::allow(DeviceKind::Character, Some(10), Some(200), Access::ALL);
            group.set_devices(&[DOCKER_DEVICES, &[tun]].concat())?;
        }
        let asked = &record.spec.confinement;
        let (masked_paths, readonly_paths) = confine::closed_paths(asked);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Some(Box::new(External {
            program: text(&program),
            state_dir: text(&self.state_dir(record)),
            cgroup_path: text(&group.path()),
            cgroup_files: group.files().iter().map(|file| text(file)).collect(),
            masked_paths,
            readonly_paths,
            sysctls: confine::parameters(asked)?,
            shm_bytes: asked.shm_bytes.map_or(defaults::SHM_BYTES, |size| size.0),
            seccomp: seccomp::docker_default_profile(confine::capabilities(asked)),
        })))
    }

    /// Has a container's runtime forget it, where it has one that was told of it.
    pub(crate) fn delete_external(&self, record: &ContainerRecord) {
        let Some(runtime) = &record.spec.runtime else { return };
        let state_dir = self.state_dir(record);
        if !state_dir.exists() {
            return;
        }
        let deleted = self.foundation.runtimes.program(runtime).map_err(ContainerError::from).and_then(|program| {
            Runtime::new(program, state_dir.clone()).delete(record.id.as_str()).map_err(ContainerError::from)
        });
        if let Err(error) = deleted {
            let error = crate::start::with_sources(&error);
            tracing::warn!(id = %record.id, error, "a container's runtime could not be told to forget it");
        }
        // what it kept is of no use any more, and in the way of its next start
        if let Err(error) = crate::tree::remove(&state_dir) {
            tracing::warn!(id = %record.id, %error, "what a container's runtime kept could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_by_name_and_by_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("runx");
        std::fs::write(&program, "#!/bin/sh\n").expect("a file");
        let runtimes = |setting: &str| Runtimes::new(setting, dir.path().to_str().expect("UTF-8"));
        let of = |runtimes: &Runtimes, name: &str| runtimes.program(name).map_err(|error| error.to_string());
        let none = runtimes("").expect("settings");
        assert!(of(&none, "runx").unwrap_err().contains("there is no runtime \"runx\""), "not executable");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        assert_eq!(of(&none, "runx"), Ok(program.clone()));
        assert_eq!(of(&none, program.to_str().expect("UTF-8")), Ok(program.clone()));
        assert!(of(&none, "./runx").is_err() && of(&none, "/no/such").is_err());
        let known = runtimes(&format!("x={}:y=/no/such", program.display())).expect("settings");
        assert_eq!(of(&known, "x"), Ok(program));
        assert!(of(&known, "y").unwrap_err().contains("/no/such cannot be run"));
        assert!(of(&known, "z").unwrap_err().contains("(x, y)"));
        for wrong in ["x", "=/x", "x=y", "a/b=/x"] {
            assert!(runtimes(wrong).is_err(), "{wrong}");
        }
    }
}
