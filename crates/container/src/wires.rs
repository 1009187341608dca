//! Servers' wires on their way out.
//!
//! A wire ends with the network namespace that one of its ends is in, and that with the server's last process and the
//! sockets of its name service. The kernel takes such namespaces down many at a time, some dozens of milliseconds later;
//! asked to remove one wire, it waits for grace periods that are as long, and works for each. So nobody asks: it is looked
//! whether the wire has gone. Whoever needs it gone at once (the next server of that index, a removal that promises to
//! leave nothing) has it removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_network::Network;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);
/// When a wire that has not gone by itself is removed: something else holds on to its namespace.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Wires {
    network: Arc<Network>,
    /// By index.
    going: watch::Sender<BTreeMap<u32, Going>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Going {
    since: Instant,
    /// Somebody removes it: it is that one's to say that it is gone, and nobody else's.
    is_removed: bool,
}

impl Wires {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        Self { network, going: watch::Sender::new(BTreeMap::new()) }
    }

    /// A server's wire, where there is one, is not needed any more. To be called on a thread of the runtime's.
    pub(crate) fn take_down(self: &Arc<Self>, index: u32) {
        let mut is_first = false;
        self.going.send_modify(|going| {
            is_first = going.is_empty();
            going.entry(index).or_insert_with(|| Going { since: Instant::now(), is_removed: false });
        });
        if is_first {
            tokio::spawn(Arc::clone(self).look_after());
        }
    }

    /// Until none is going.
    async fn look_after(self: Arc<Self>) {
        let mut is_done = false;
        while !is_done {
            tokio::time::sleep(LOOK).await;
            let mut gone = self.going.borrow().clone();
            gone.retain(|_, one| !one.is_removed);
            let (late, mut gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
                gone.into_iter().partition(|(_, one)| one.since.elapsed() >= PATIENCE);
            gone.retain(|&index, _| !self.network.is_attached(index));
            for index in late.into_keys() {
                self.gone(index).await;
            }
            self.going.send_if_modified(|going| {
                let before = going.len();
                going.retain(|index, one| gone.get(index) != Some(one));
                is_done = going.is_empty();
                going.len() != before
            });
        }
    }

    /// Whether a server's wire is on its way out.
    pub(crate) fn is_going(&self, index: u32) -> bool {
        self.going.borrow().contains_key(&index)
    }

    /// Returns when a server's wire has gone.
    pub(crate) async fn gone(self: &Arc<Self>, index: u32) {
        let is_ours = self.going.send_if_modified(|going| match going.get_mut(&index) {
            Some(one) if !one.is_removed => {
                one.is_removed = true;
                true
            }
            _ => false,
        });
        if !is_ours {
            // the sender lives as long as this
            let _ = self.going.subscribe().wait_for(|going| !going.contains_key(&index)).await;
            return;
        }
        // to its end, also where whoever asked for it goes away
        let wires = Arc::clone(self);
        let removal = tokio::task::spawn_blocking(move || {
            if let Err(error) = wires.network.detach(index) {
                tracing::warn!(index, %error, "a server's wire could not be removed");
            }
            wires.going.send_modify(|going| {
                going.remove(&index);
            });
        });
        let _ = removal.await;
    }

    /// The same, on a blocking thread of the runtime's.
    pub(crate) fn wait_until_gone(self: &Arc<Self>, index: u32) {
        if self.is_going(index) {
            Handle::current().block_on(self.gone(index));
        }
    }

    /// Returns when no wire is on its way out: many go at once by themselves, and one after the other if asked to.
    pub(crate) async fn all_gone(&self) {
        // the sender lives as long as this
        let _ = self.going.subscribe().wait_for(BTreeMap::is_empty).await;
    }
}
