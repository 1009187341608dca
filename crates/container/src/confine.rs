//! What a container is kept from, and what is opened to it: checked when it is asked for, carried out at each start.
//!
//! Trust follows the caller. What stays in a container's own user namespace is anybody's to ask for: its capabilities are
//! worth nothing outside. What reaches beyond is root's alone: the host's user namespace, its devices, being spared when
//! memory runs out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sampan_image::user::User;
use sampan_model::capability::tweak;
use sampan_model::{Capability, Confinement, ContainerSpec, IdRange, SeccompChoice};
use sampan_runtime::wire::{Capabilities, ProcessSpec};
use sampan_runtime::{defaults, seccomp};

use crate::ContainerRecord;
use crate::containers::{Inner, lock};
use crate::devices::{self, DeviceError};

/// What is asked for cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Root's alone to ask for.
    #[error("{0} is for root alone: it reaches beyond the container's own user namespace")]
    ForRoot(&'static str),
    /// A server with a name has a user namespace, which its containers share.
    #[error("{what} and --server contradict one another: the server {server:?} has a user namespace of its own")]
    Shared {
        /// What was asked for.
        what: &'static str,
        /// The server.
        server: String,
    },
    /// The daemon has not got it.
    #[error("this daemon has no {0} itself, and cannot give it to a container in the host's user namespace")]
    NotHeld(String),
    /// Parameters that are not a container's.
    #[error("the parameter {0:?} is the whole machine's: a container has its own of net.*, fs.mqueue.* and kernel.{own}", own = IPC.join(", kernel."))]
    Sysctl(String),
    /// They would be its neighbours' too.
    #[error("the parameter {name:?} would be that of all containers on the server {server:?}")]
    SharedSysctl {
        /// The parameter.
        name: String,
        /// The server.
        server: String,
    },
    /// A score that there is not.
    #[error("{0} is no oom_score_adj: they go from -1000 to 1000")]
    Score(i32),
    /// A limit whose parts contradict one another.
    #[error("the limit {0}: what holds is above what it may be raised to")]
    Limit(sampan_model::Resource),
    /// Too much of something.
    #[error("{count} {what}: at most {most} are possible")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A profile.
    #[error("the seccomp profile cannot be used")]
    Profile(#[from] seccomp::ProfileError),
}

impl ConfineError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ForRoot(_) => Some("as root of its own user namespace a container may do most of it without"),
            Self::Shared { .. } => Some("run it on a server of its own: leave --server out"),
            Self::Sysctl(_) => Some("set it on the machine itself: sysctl -w"),
            Self::SharedSysctl { .. } => Some("run it on a server of its own: leave --server out"),
            Self::NotHeld(_) => Some("leave --userns host out: in a user namespace of its own a container can have it"),
            _ => None,
        }
    }
}

/// The parameters of an ipc namespace, below `kernel.`.
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
const MOST: usize = 256;

/// Whether it could be, for all that the words tell.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), ConfineError> {
    let asked = &spec.confinement;
    let is_root = spec.owner.uid == 0;
    let counts = [
        ("devices", asked.devices.len()),
        ("kernel parameters", asked.sysctls.len()),
        ("further groups", asked.groups.len()),
        ("limits", asked.limits.len()),
    ];
    if let Some(&(what, count)) = counts.iter().find(|(_, count)| *count > MOST) {
        return Err(ConfineError::TooMany { what, count, most: MOST });
    }
    let outward = [
        ("--privileged", asked.privileged),
        ("--userns host", asked.host_users),
        ("--device", !asked.devices.is_empty()),
        ("an oom_score_adj below 0", asked.oom_score_adj.is_some_and(|score| score < 0)),
    ];
    if let Some((what, _)) = outward.iter().find(|(_, asked)| *asked && !is_root) {
        return Err(ConfineError::ForRoot(what));
    }
    if let Some(score) = asked.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(ConfineError::Score(score));
    }
    if let Some(server) = &spec.server {
        if let Some((what, _)) = outward[..2].iter().find(|(_, asked)| *asked) {
            return Err(ConfineError::Shared { what, server: server.to_string() });
        }
        if let Some(name) = asked.sysctls.keys().next() {
            return Err(ConfineError::SharedSysctl { name: name.clone(), server: server.to_string() });
        }
    }
    for name in asked.sysctls.keys() {
        parameter(name)?;
    }
    for limit in &asked.limits {
        // no limit at all is above every one
        if limit.hard.is_some_and(|hard| limit.soft.is_none_or(|soft| soft > hard)) {
            return Err(ConfineError::Limit(limit.resource));
        }
    }
    if asked.has_host_users() && !asked.privileged {
        let wanted = asked.cap_add.iter().filter(|one| **one != Capability::ALL);
        let held = defaults::held();
        if let Some(capability) = wanted.copied().find(|one| one.bits() & held == 0) {
            return Err(ConfineError::NotHeld(capability.to_string()));
        }
    }
    asked.devices.iter().try_for_each(devices::check)?;
    if let SeccompChoice::Profile { json } = &asked.seccomp {
        seccomp::profile(json, capabilities(asked))?;
    }
    Ok(())
}

/// A parameter's path below `/proc/sys`, where it is one of a container's own namespaces.
fn parameter(name: &str) -> Result<String, ConfineError> {
    let path = name.replace('.', "/");
    let plain = path.split('/').all(|part| !part.is_empty() && part != "..");
    let own = path.starts_with("net/")
        || path.starts_with("fs/mqueue/")
        || path.strip_prefix("kernel/").is_some_and(|name| IPC.contains(&name));
    if plain && own { Ok(path) } else { Err(ConfineError::Sysctl(name.to_owned())) }
}

/// The capabilities of a container's root.
pub(crate) fn capabilities(asked: &Confinement) -> u64 {
    if asked.privileged {
        return defaults::held();
    }
    let all = tweak(defaults::DEFAULT_CAPABILITIES, &asked.cap_add, &asked.cap_drop);
    if asked.has_host_users() { all & defaults::held() } else { all }
}

/// Filters by capabilities, in hex as the supervisor takes them: one takes a millisecond to make.
#[derive(Default)]
pub(crate) struct Filters(Mutex<HashMap<u64, Arc<str>>>);

/// How many are kept, some 20 kB each.
const MOST_FILTERS: usize = 64;

impl Filters {
    fn default_of(&self, capabilities: u64) -> Arc<str> {
        let mut made = lock(&self.0);
        if let Some(filter) = made.get(&capabilities) {
            return Arc::clone(filter);
        }
        if made.len() >= MOST_FILTERS {
            made.clear();
        }
        let filter: Arc<str> = seccomp::docker_default(capabilities).to_hex().into();
        made.insert(capabilities, Arc::clone(&filter));
        filter
    }
}

impl Inner {
    /// What a container's ids are on the host.
    pub(crate) fn ids_of(&self, record: &ContainerRecord) -> IdRange {
        if record.spec.confinement.has_host_users() {
            IdRange::HOST
        } else {
            self.block().server_ids(record.server_index)
        }
    }

    /// A process of a container, as this user; what it runs is to be said yet.
    pub(crate) fn process_spec(&self, asked: &Confinement, user: &User) -> Result<ProcessSpec, ConfineError> {
        let capabilities = capabilities(asked);
        let seccomp = match &asked.seccomp {
            _ if asked.privileged && asked.seccomp == SeccompChoice::Default => None,
            SeccompChoice::Unconfined => None,
            SeccompChoice::Default => Some(self.filters.default_of(capabilities).to_string()),
            SeccompChoice::Profile { json } => {
                seccomp::profile(json, capabilities)?.map(|compiled| compiled.program.to_hex())
            }
        };
        Ok(ProcessSpec {
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            umask: defaults::UMASK,
            capabilities: Capabilities::of_user(user.uid, capabilities),
            no_new_privileges: !asked.privileged && !asked.new_privileges,
            seccomp,
            limits: asked.limits.clone(),
            oom_score_adj: asked.oom_score_adj,
        })
    }

    /// Every capability that there is to be had in a container's user namespace, for one more process of it.
    pub(crate) fn privilege(&self, asked: &Confinement, process: &mut ProcessSpec) {
        let all = if asked.has_host_users() { defaults::held() } else { sampan_model::capability::ALL_CAPABILITIES };
        process.capabilities = Capabilities { effective: all, permitted: all, ..Capabilities::of_user(0, all) };
    }
}

/// Whether what a child is made with is as in most containers: one that waits ready will do.
pub(crate) fn is_usual(asked: &Confinement) -> bool {
    !asked.has_host_users()
        && !asked.open_system_paths
        && asked.devices.is_empty()
        && asked.sysctls.is_empty()
        && asked.shm_bytes.is_none()
}

/// The parameters that are asked for, by their paths.
pub(crate) fn parameters(asked: &Confinement) -> Result<Vec<(String, String)>, ConfineError> {
    asked.sysctls.iter().map(|(name, value)| Ok((parameter(name)?, value.clone()))).collect()
}

/// What is hidden in it, and what is read-only.
pub(crate) fn closed_paths(asked: &Confinement) -> (Vec<String>, Vec<String>) {
    if asked.privileged || asked.open_system_paths {
        return (Vec::new(), Vec::new());
    }
    (defaults::masked_paths(), defaults::readonly_paths())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_its_own_namespaces_alone() {
        for (name, path) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("kernel.shmmax", "kernel/shmmax"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(parameter(name).unwrap(), path);
        }
        for name in [
            "kernel.panic",
            "vm.swappiness",
            "net",
            "net..x",
            "net/../kernel/panic",
            "fs.file-max",
            "kernel.shmmaxx",
            "",
        ] {
            assert!(parameter(name).is_err(), "{name}");
        }
    }
}
