//! The pool: servers that wait ready, each with a sealed child in it that has everything but what it is to run.
//!
//! A server is made in some milliseconds, most of them the kernel's: namespaces, a cgroup in each hierarchy, a wire, the
//! kernel's file systems. None of that depends on what runs there, so it is done ahead, when nobody waits; a container
//! that is created takes one out and is it: its id, its index and so its address.
//!
//! ```text
//! fill ─▶ park ─▶ ready ─▶ take (a container is created) ─▶ start: root file system, go
//!                   └─────▶ let go (it ended by itself, the daemon stops)
//! ```
//!
//! A server is parked in the default size; another size is written to its cgroup when it is taken. It has no record: a
//! daemon that was killed leaves its children to the next one, which finds that they belong to nobody and ends them.
//!
//! What has just been taken is being started by somebody who is not to wait for the next being made: the pool is filled
//! again after a moment of calm, or when it is empty.

use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sampan_model::{Confinement, ContainerId, ServerSize};
use tokio::sync::Notify;

use crate::child::Child;
use crate::containers::{Inner, lock};
use crate::create::new_id;
use crate::end::KILLED_WITHIN;
use crate::server::Server;
use crate::{ContainerError, Containers, failpoint};

/// How many servers wait where nobody says another number: some 0.6 MiB of the kernel's memory each.
pub const POOL_SIZE: usize = 4;
/// The most that may be asked for.
pub const LARGEST_POOL: usize = 256;

/// How long nobody must have taken one before it is filled again.
const CALM: Duration = Duration::from_millis(8);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// One that was made ahead.
pub(crate) struct Parked {
    /// Its container's id.
    pub id: ContainerId,
    /// Its server's index.
    pub index: u32,
    /// It.
    pub child: Child,
}

/// Those that wait.
pub(crate) struct Pool {
    size: usize,
    ready: Mutex<Vec<Parked>>,
    /// Held while one is made.
    filling: Mutex<()>,
    changed: Notify,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size: size.min(LARGEST_POOL),
            ready: Mutex::default(),
            filling: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// One, where one is ready.
    pub(crate) fn take(&self) -> Option<Parked> {
        let taken = lock(&self.ready).pop();
        if taken.is_some() {
            self.changed.notify_one();
        }
        taken
    }

    fn remove(&self, id: &ContainerId) -> Option<Parked> {
        let mut ready = lock(&self.ready);
        let at = ready.iter().position(|parked| parked.id == *id)?;
        self.changed.notify_one();
        Some(ready.swap_remove(at))
    }

    fn len(&self) -> usize {
        lock(&self.ready).len()
    }
}

impl Containers {
    /// The ids of the servers that wait ready.
    pub fn parked(&self) -> Vec<ContainerId> {
        lock(&self.inner.pool.ready).iter().map(|parked| parked.id.clone()).collect()
    }

    /// Keeps the pool filled, until the daemon stops.
    pub async fn keep_ready(self) {
        let pool = &self.inner.pool;
        loop {
            match pool.len() {
                ready if ready >= pool.size => {
                    pool.changed.notified().await;
                    continue;
                }
                0 => {}
                _ => {
                    if tokio::time::timeout(CALM, pool.changed.notified()).await.is_ok() {
                        continue;
                    }
                }
            }
            match self.blocking("making a server ahead", Inner::fill).await {
                Ok(()) => {}
                Err(ContainerError::Stopping(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "no server could be made ahead");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

impl Inner {
    /// Makes one more.
    fn fill(&self) -> Result<(), ContainerError> {
        let _turn = lock(&self.pool.filling);
        self.refuse_while_stopping("making a server ahead")?;
        self.refuse_without_descriptors()?;
        let id = new_id()?;
        let index = {
            let mut taken = self.index();
            let index = self.free_index(&taken)?;
            taken.servers.insert(index);
            index
        };
        let server = Server { id: id.clone(), index, size: ServerSize::default(), shared: false };
        let made = self.begin_child(&id, &server, &Confinement::default());
        let parked = match made.and_then(|begun| self.finish_child(begun, &server)) {
            Ok(mut child) => {
                self.foundation.edge.add_server(&server.id, child.name_service.take());
                Parked { id, index, child }
            }
            Err(error) => {
                self.forget(&id);
                self.let_go(&id, index);
                return Err(error);
            }
        };
        failpoint::reach("server_parked");
        lock(&self.pool.ready).push(parked);
        Ok(())
    }

    /// One that waited has ended by itself.
    pub(crate) fn unpark(&self, id: &ContainerId) {
        if let Some(parked) = self.pool.remove(id) {
            self.forget(id);
            self.let_go(&parked.id, parked.index);
        }
    }

    /// Ends all that wait. No more are made: the daemon stops.
    pub(crate) fn close_pool(&self) {
        let _turn = lock(&self.pool.filling);
        let parked = std::mem::take(&mut *lock(&self.pool.ready));
        parked.iter().for_each(|parked| self.forget(&parked.id));
        for Parked { id, index, child } in parked {
            // the supervisor ends when all its children have
            let limit = Timespec { tv_sec: KILLED_WITHIN.as_secs().cast_signed(), tv_nsec: 0 };
            if !matches!(poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&limit)), Ok(1)) {
                tracing::warn!(%id, "a server that waited ready does not end");
            }
            self.let_go(&id, index);
        }
    }

    fn let_go(&self, id: &ContainerId, index: u32) {
        self.take_server_down(&Server { id: id.clone(), index, size: ServerSize::default(), shared: false });
        self.index().servers.remove(&index);
    }
}
