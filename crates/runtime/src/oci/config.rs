//! `config.json`: the OCI runtime specification, version 1.2, as far as it is Linux's
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>).
//!
//! Types of our own: a bundle is read at every start, what is read of it is what is used, and an unknown word (a
//! capability of a newer kernel) is told by the one who meets it, with its name, and not by a parser as the byte at which
//! it gave up. Members that nobody has heard of are passed over, as the specification demands; `null` is nothing.

mod hooks;
mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use hooks::{Hook, Hooks};
pub use linux::{Device, IdMapping, Linux, Namespace, Personality, TimeOffset};
pub use process::{Affinity, CapabilityNames, ConsoleSize, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugePages, InterfacePriority, Memory, Network, Pids, Rdma, Resources, Throttle, Weight,
};
pub use seccomp::{Argument, Seccomp, SystemCalls};

/// The newest version of the specification that is understood.
pub const VERSION: &str = "1.2.0";

/// A bundle's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version it is written for.
    #[serde(default)]
    pub oci_version: String,
    /// The root file system.
    #[serde(default)]
    pub root: Option<Root>,
    /// What is mounted in it, in this order.
    #[serde(default, deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    /// What is executed. Only `create` can do without; `start` cannot.
    #[serde(default)]
    pub process: Option<Process>,
    /// The name of the machine that it sees.
    #[serde(default, deserialize_with = "nullable")]
    pub hostname: String,
    /// The NIS domain that it sees.
    #[serde(default, deserialize_with = "nullable")]
    pub domainname: String,
    /// Programs that are run beside its life.
    #[serde(default, deserialize_with = "nullable")]
    pub hooks: Hooks,
    /// Anybody's notes.
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// All that is Linux's.
    #[serde(default, deserialize_with = "nullable")]
    pub linux: Linux,
}

/// The root file system.
#[derive(Debug, Default, Deserialize)]
pub struct Root {
    /// Where it is; relative to the bundle.
    pub path: String,
    /// Whether it may be written to.
    #[serde(default, deserialize_with = "nullable")]
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, in the container.
    pub destination: String,
    /// The kind of file system; `bind` or nothing for what is there already.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Of what.
    #[serde(default, deserialize_with = "nullable")]
    pub source: String,
    /// How: mount(8)'s words.
    #[serde(default, deserialize_with = "nullable")]
    pub options: Vec<String>,
    /// Whose files its users' are.
    #[serde(default, deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    /// Whose files its groups' are.
    #[serde(default, deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `null` is the type's nothing: what Go writes for an empty list.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a container is doing: the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It is made; its program has not been executed.
    Created,
    /// Its program runs.
    Running,
    /// It runs, frozen (runc's word, which is not the specification's).
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The state of a container, as hooks and seccomp agents are told it (runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// The version of the specification.
    pub oci_version: &'a str,
    /// Its name.
    pub id: &'a str,
    /// What it is doing.
    pub status: Status,
    /// Its first process, as whoever is told sees it. None where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its bundle.
    pub bundle: &'a str,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read() {
        let config: Config = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"mounts":null,"hostname":null,"hooks":null,
               "process":{"user":{"uid":1,"gid":2,"additionalGids":null},"args":null,"cwd":"/","capabilities":null},
               "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"}],"resources":{
               "devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":7}},"unheardOf":{"a":[1]}}}"#,
        )
        .unwrap();
        assert_eq!(config.linux.namespaces.len(), 2);
        assert_eq!(config.linux.namespaces[1].path.as_deref(), Some("/proc/1/ns/net"));
        let resources = config.linux.resources.unwrap();
        assert_eq!(resources.pids.unwrap().limit, Some(7));
        assert!(!resources.devices[0].allow);
        assert_eq!(config.process.unwrap().user.gid, 2);
    }
}
