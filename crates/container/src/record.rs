//! A container's record: what is kept of it, under `default/container/ID`.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use sampan_model::view::{ContainerView, ServerBrief, TimingStep};
use sampan_model::{ContainerId, ContainerSpec, ContainerState, ContainerStatus};
use serde::{Deserialize, Serialize};

/// The key that all containers' records start with.
pub const CONTAINERS: &str = "default/container/";

/// What is kept of a container.
///
/// ```json
/// {"id": "3f…", "spec": {"name": "hello.1", …}, "server_index": 0, "address": "10.200.16.2",
///  "command": ["/app/hello"], "env": ["PATH=…"], "state": {"status": "running", …}, "boot_id": "6a…",
///  "resume": false, "created_at": "2026-11-20T19:00:00Z"}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// The server that it shares. `None`: it has one of its own, under its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ContainerId>,
    /// Its server's index in the instance's block: address and ids derive from it.
    pub server_index: u32,
    /// Its server's address.
    pub address: Ipv4Addr,
    /// The command line, the image's and the spec's put together.
    pub command: Vec<String>,
    /// The environment, `NAME=value`, complete.
    pub env: Vec<String>,
    /// What has become of it.
    pub state: ContainerState,
    /// The boot in which `state` was seen.
    pub boot_id: String,
    /// Ran when the daemon was stopped: the next daemon starts it again.
    #[serde(default)]
    pub resume: bool,
    /// Somebody wanted it to end, and it was not started since: its restart policy leaves it so.
    #[serde(default)]
    pub stopped: bool,
    /// Created for whoever wants to start it later: it stays until it is.
    #[serde(default)]
    pub for_later: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where the time of its start went, for whoever asked for it: it is not kept.
    #[serde(skip)]
    pub timing: Vec<TimingStep>,
}

impl ContainerRecord {
    /// The record's key.
    pub fn key(&self) -> String {
        format!("{CONTAINERS}{}", self.id)
    }

    /// As people and programs see it.
    pub fn view(&self, ready: Option<bool>) -> ContainerView {
        let size = self.spec.size;
        let running = self.state.status == ContainerStatus::Running;
        ContainerView {
            kind: "container".to_owned(),
            id: self.id.clone(),
            name: self.spec.name.clone(),
            image: self.spec.image_name.clone(),
            server: ServerBrief {
                name: self.spec.server.as_ref().map_or_else(|| self.spec.name.to_string(), ToString::to_string),
                cpus: size.cpus,
                memory_bytes: size.memory_bytes,
                address: running.then_some(self.address),
            },
            state: self.state.clone(),
            ready,
            command: self.command.clone(),
            user: self.spec.user.clone(),
            mounts: self.spec.mounts.clone(),
            env: self.env.clone(),
            confinement: self.spec.confinement.without_profile(),
            ports: self.spec.ports.clone(),
            labels: self.spec.labels.clone(),
            terminal: self.spec.terminal,
            stdin: self.spec.stdin,
            runtime: self.spec.runtime.clone(),
            restart: self.spec.restart,
            owner: self.spec.owner.clone(),
            created_at: self.created_at,
            timing: self.timing.clone(),
        }
    }
}
