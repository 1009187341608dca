//! What the daemon makes outside its root, and how all of it goes again.

use std::sync::Arc;
use std::time::Duration;

use sampan_container::Supervisor;
use sampan_network::Network;
use sampan_runtime::cgroup::Group;

/// How long the supervisor may take to end when nothing runs any more.
const SUPERVISOR_WITHIN: Duration = Duration::from_secs(5);

/// The network, the cgroups and the supervisor, each once it is there.
#[derive(Clone, Default)]
pub struct Outside {
    /// The block, the gateway, the firewall's table, the servers' wires.
    pub network: Option<Arc<Network>>,
    /// The instance's cgroups.
    pub cgroups: Option<Arc<Group>>,
    /// The supervisor, with the logger and the edge.
    pub supervisor: Option<Arc<Supervisor>>,
}

/// Whether anything is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing is.
    Nothing,
    /// Something is, and the log says what.
    Something,
}

impl Outside {
    /// Ends whatever still runs in the instance's servers, then the supervisor, and removes the network and the
    /// cgroups. Goes on past failures. Blocks.
    pub fn take_down(&self) -> Left {
        let mut left = Left::Nothing;
        let mut failed = |what: &str, error: &dyn std::fmt::Display| {
            tracing::error!("{what}: {error}");
            left = Left::Something;
        };
        if let Some(cgroups) = &self.cgroups {
            // all has been ended properly, unless the supervisor died in the middle of it
            for server in cgroups.servers().unwrap_or_default() {
                let group = cgroups.server(&server);
                if let Err(error) = group.and_then(|group| group.kill()) {
                    failed("what is left in a server could not be ended", &error);
                }
            }
        }
        if let Some(supervisor) = &self.supervisor
            && let Err(error) = supervisor.shut_down(SUPERVISOR_WITHIN)
        {
            failed("the supervisor could not be ended", &error);
        }
        for error in self.network.iter().flat_map(|network| network.close()) {
            failed("a part of the network could not be removed", &error);
        }
        if let Some(cgroups) = &self.cgroups
            && let Err(error) = cgroups.remove()
        {
            failed("the cgroups could not be removed", &error);
        }
        left
    }
}
