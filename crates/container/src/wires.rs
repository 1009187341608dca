//! Servers' wires on their way out.
//!
//! Taking one down waits for grace periods of the kernel's, 10–50 ms, which nobody else should wait for: it is done in
//! the background, and whoever needs it done (the next server of that index, a removal that promises to leave nothing)
//! waits for that index alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use sampan_network::Network;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(crate) struct Wires {
    network: Arc<Network>,
    going: watch::Sender<BTreeSet<u32>>,
}

impl Wires {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        Self { network, going: watch::Sender::new(BTreeSet::new()) }
    }

    /// Begins to take a server's wire down, where there is one. To be called on a thread of the runtime's.
    pub(crate) fn take_down(self: &Arc<Self>, index: u32) {
        if !self.going.send_if_modified(|going| going.insert(index)) {
            return;
        }
        let wires = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = wires.network.detach(index) {
                tracing::warn!(index, %error, "a server's wire could not be removed");
            }
            wires.going.send_modify(|going| {
                going.remove(&index);
            });
        });
    }

    /// Whether a server's wire is being taken down.
    pub(crate) fn is_going(&self, index: u32) -> bool {
        self.going.borrow().contains(&index)
    }

    /// Waits until a server's wire is not being taken down.
    pub(crate) async fn gone(&self, index: u32) {
        let mut going = self.going.subscribe();
        // the sender lives as long as this
        let _ = going.wait_for(|going| !going.contains(&index)).await;
    }

    /// The same, on a blocking thread of the runtime's.
    pub(crate) fn wait_until_gone(&self, index: u32) {
        if self.is_going(index) {
            Handle::current().block_on(self.gone(index));
        }
    }

    /// Waits until no wire is being taken down.
    pub(crate) async fn all_gone(&self) {
        let mut going = self.going.subscribe();
        let _ = going.wait_for(BTreeSet::is_empty).await;
    }
}
