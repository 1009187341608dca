//! Containers on their way out: those that are removed at their end, which has been told to whoever waited for it.
//!
//! Their removal takes longer than they may have lived: cgroups, a directory tree, a record. Nobody waits for it: whoever
//! was told the end is done, and finds the container gone from every list at once. What it still has that somebody may
//! ask for again (a published port, a name) is waited for by whoever asks for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use sampan_model::ContainerId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::Containers;
use crate::containers::Container;

/// How many are removed at once: more would only be in each other's way.
const AT_ONCE: usize = 2;

pub(crate) struct Going {
    ids: watch::Sender<BTreeSet<ContainerId>>,
    turns: Semaphore,
}

impl Default for Going {
    fn default() -> Self {
        Self { ids: watch::Sender::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Going {
    /// Whether a container is on its way out.
    pub(crate) fn is(&self, id: &ContainerId) -> bool {
        self.ids.borrow().contains(id)
    }

    /// Waits until none is, on a blocking thread of the runtime's.
    pub(crate) fn wait_until_gone(&self) {
        let mut ids = self.ids.subscribe();
        if !ids.borrow_and_update().is_empty() {
            // the sender lives as long as this
            let _ = Handle::current().block_on(ids.wait_for(BTreeSet::is_empty));
        }
    }
}

impl Containers {
    /// Removes a container whose end was told, when all that it wrote is in its log.
    pub(crate) fn remove_soon(&self, container: &Arc<Container>) {
        let (containers, container) = (self.clone(), Arc::clone(container));
        if !self.inner.going.ids.send_if_modified(|ids| ids.insert(container.id.clone())) {
            return;
        }
        tokio::spawn(async move {
            let going = &containers.inner.going;
            // it is never closed
            let _turn = going.turns.acquire().await;
            containers.remove_when_logged(&container).await;
            // one that was started again, or could not be removed, is seen again
            going.ids.send_modify(|ids| {
                ids.remove(&container.id);
            });
        });
    }
}
