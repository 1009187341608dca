//! A container's end, its own or one that is asked for, and its removal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sampan_model::{ContainerId, ContainerState, ContainerStatus};
use sampan_runtime::logs;
use sampan_runtime::wire::{Ended, Request};
use tokio::runtime::Handle;

use crate::containers::{Container, Inner, lock};
use crate::servers::whole;
use crate::{ContainerError, ContainerRecord, Containers, failpoint};

/// How long a container that is removed at its end is kept for those who wait for its end or read its log.
const KEPT_AFTER_EXIT: Duration = Duration::from_secs(10);

/// How long a container may take to end when it was killed: the kernel's business alone.
pub(crate) const KILLED_WITHIN: Duration = Duration::from_secs(30);

const TERMINATE: i32 = 15;
pub(crate) const KILL: i32 = 9;

impl Containers {
    /// Asks a container to end, and ends it after `grace`. It stays, `exited`. One that does not run is left as it is.
    ///
    /// # Errors
    /// There is no such container, or the supervisor is gone.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        let mut state = container.state();
        let has_ended = |state: &ContainerState| state.status != ContainerStatus::Running;
        if has_ended(&state.borrow_and_update()) {
            return Ok(());
        }
        let thawed = Arc::clone(&container);
        self.blocking("unpausing a container", move |inner| inner.thaw(&thawed)).await?;
        let pid = container.running_pid().unwrap_or(0);
        let signal = container.record().spec.stop_signal.unwrap_or(TERMINATE);
        if !grace.is_zero() && heeds(pid, signal) {
            self.signal(&container, signal).await?;
            if tokio::time::timeout(grace, state.wait_for(has_ended)).await.is_ok() {
                return Ok(());
            }
        }
        let killed = Arc::clone(&container);
        self.blocking("killing a container", move |inner| inner.kill(&killed)).await?;
        match tokio::time::timeout(KILLED_WITHIN, state.wait_for(has_ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ContainerError::Stuck(container.record().spec.name.to_string())),
        }
    }

    /// Removes a container and everything of it; one that runs is killed first where `force` says so.
    ///
    /// # Errors
    /// It runs, or something of it cannot be removed: its record then stays, `removing`.
    pub async fn remove(&self, id: &ContainerId, force: bool) -> Result<(), ContainerError> {
        let container = self.inner.get(id)?;
        let containers = self.clone();
        // one that was killed for it is not to stay since whoever asked went away
        whole("removing a container", async move { containers.remove_one(&container, force).await }).await
    }

    async fn remove_one(&self, container: &Arc<Container>, force: bool) -> Result<(), ContainerError> {
        let index = container.record().server_index;
        loop {
            if force {
                self.stop(&container.id, Duration::ZERO).await?;
            }
            let removed = Arc::clone(container);
            match self.blocking("removing a container", move |inner| inner.remove(&removed)).await {
                // it was just being started
                Err(ContainerError::Running(_)) if force => {}
                other => break other?,
            }
        }
        self.inner.wires.gone(index).await;
        Ok(())
    }

    /// Ends every container, and lets no other start. What ran is marked to be started again by the next daemon.
    pub async fn stop_all(&self, grace: Duration) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        loop {
            // one that is just being started, or taken down, has its turn first
            let settled = self.blocking("waiting for containers' turns", |inner| {
                for container in inner.all() {
                    drop(lock(&container.turn));
                }
                Ok(())
            });
            let _ = settled.await;
            let mut running = self.inner.all();
            running.retain(|container| container.state().borrow().status == ContainerStatus::Running);
            if running.is_empty() {
                let down = self.blocking("taking servers down", |inner| {
                    inner.close_pool();
                    inner.roots.clear();
                    inner.all_named().iter().for_each(|named| inner.unmake(named));
                    Ok(())
                });
                let _ = down.await;
                self.inner.wires.all_gone().await;
                return;
            }
            let stops: Vec<_> =
                running.into_iter().map(|one| tokio::spawn(self.clone().stop_one(one, grace))).collect();
            for stop in stops {
                if !matches!(stop.await, Ok(true)) {
                    return;
                }
            }
        }
    }

    /// Whether it was stopped.
    pub(crate) async fn stop_one(self, container: Arc<Container>, grace: Duration) -> bool {
        container.change(&self.inner, |record| record.resume = true);
        let stopped = self.stop(&container.id, grace).await;
        if let Err(error) = &stopped {
            tracing::warn!(id = %container.id, %error, "a container could not be stopped");
        }
        stopped.is_ok()
    }

    /// Removes a container that is to be removed at its end, when those who might still read it had their time.
    pub(crate) fn remove_later(&self, container: Arc<Container>) {
        if !container.record().spec.remove_at_exit {
            return;
        }
        let containers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_AFTER_EXIT).await;
            containers.remove_when_logged(&container).await;
        });
    }

    pub(crate) async fn remove_when_logged(&self, container: &Arc<Container>) {
        let mut logged = container.logged.subscribe();
        let _ = tokio::time::timeout(KEPT_AFTER_EXIT, logged.wait_for(|logged| *logged)).await;
        // it was started again since, or is about to be
        if container.is_kept.load(Ordering::SeqCst) > 0 || container.running_pid().is_ok() {
            return;
        }
        let removed = Arc::clone(container);
        // its wire may be on its way out yet: nobody waits for that
        match self.blocking("removing a container", move |inner| inner.remove(&removed)).await {
            Ok(()) | Err(ContainerError::NotFound(_)) => {}
            Err(error) => tracing::warn!(id = %container.id, %error, "an ended container could not be removed"),
        }
    }

    async fn signal(&self, container: &Arc<Container>, signal: i32) -> Result<(), ContainerError> {
        let container = Arc::clone(container);
        self.blocking("sending a signal", move |inner| inner.signal(&container, signal)).await
    }
}

/// Whether a container's first process would do anything about a signal. The kernel delivers to the first process of a
/// pid namespace only what it catches or takes from its blocked signals: one that does neither would be waited for in
/// vain, for the whole grace period.
fn heeds(pid: u32, signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        mask & (1_u64 << (signal - 1)) != 0
    };
    has("SigCgt:") || has("SigBlk:")
}

impl Inner {
    pub(crate) fn signal(&self, container: &Container, signal: i32) -> Result<(), ContainerError> {
        let id = container.id.clone();
        let sent = self.foundation.supervisor.call(Request::Signal { id, signal }, &[]);
        failpoint::reach("container_signalled");
        match sent {
            Ok(_) => Ok(()),
            // ESRCH: it ended in between, and its end is on the way
            Err(sampan_runtime::link::LinkError::Refused(failure)) if failure.errno == 3 => Ok(()),
            // or is known here already, and forgotten there
            Err(sampan_runtime::link::LinkError::Refused(_))
                if container.state().borrow().status != ContainerStatus::Running =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a container's first process, and with it all others. They are not to wait for processor time to die.
    pub(crate) fn kill(&self, container: &Container) -> Result<(), ContainerError> {
        let record = container.record();
        if let Err(error) = self.lift_limit(&record) {
            tracing::warn!(id = %container.id, %error, "a container is killed within its limit on processor time");
        }
        let killed = self.signal(container, KILL);
        if killed.is_err() {
            self.limit_again(&record);
        }
        failpoint::reach("container_killed");
        killed
    }

    /// A container's process has ended: its record says how, and everything of its server goes. In this order, so that
    /// nobody who waits for the end waits for that too; a daemon that is killed in between finds the leftovers by the
    /// record.
    pub(crate) fn ended(&self, container: &Container, ended: &Ended) {
        if container.state().borrow().status != ContainerStatus::Running {
            return;
        }
        let oom_killed = self.cgroup_oom_kills(container) > 0;
        // the supervisor knows of the end until it is told to forget it
        container.change_told_first(self, |record| {
            record.state.status = ContainerStatus::Exited;
            record.state.exit_code = ended.exit_code;
            record.state.oom_killed = oom_killed;
            record.state.finished_at = Some(ended.at);
            record.state.pid = None;
            record.state.paused = false;
        });
        failpoint::reach("container_ended");
        self.limit_again(&container.record());
        self.take_down(container);
        self.forget(&container.id);
        self.root_ended(container);
    }

    fn cgroup_oom_kills(&self, container: &Container) -> u64 {
        let group = self.container_group(&container.record());
        group.and_then(|group| group.oom_kills()).unwrap_or_else(|error| {
            tracing::warn!(id = %container.id, %error, "the memory kills cannot be read");
            0
        })
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        if let Err(error) = self.foundation.supervisor.call(Request::Forget { id: id.clone() }, &[]) {
            tracing::warn!(%id, %error, "the supervisor could not be told to forget a container");
        }
    }

    pub(crate) fn remove(&self, container: &Container) -> Result<(), ContainerError> {
        let _turn = lock(&container.turn);
        if self.get(&container.id).is_err() {
            return Err(ContainerError::NotFound(container.id.short().to_owned()));
        }
        if container.state().borrow().status == ContainerStatus::Running {
            return Err(ContainerError::Running(container.record().spec.name.to_string()));
        }
        let removing = |record: &mut ContainerRecord| record.state.status = ContainerStatus::Removing;
        if container.record().spec.remove_at_exit {
            // the next daemon removes what has ended
            container.change_unkept(removing);
        } else {
            container.change(self, removing);
        }
        failpoint::reach("container_removing");
        if self.take_down(container) {
            self.forget(&container.id);
        }
        failpoint::reach("container_down");
        self.remove_from_disk(&container.record())?;
        self.remove_root(container)
            .map_err(|source| ContainerError::Io { what: format!("remove the files of {}", container.id), source })?;
        // what it writes after that would be a file of nobody's
        Handle::current().block_on(container.all_logged());
        logs::remove(&self.foundation.logs_dir, &container.id)
            .map_err(|source| ContainerError::Io { what: format!("remove the log of {}", container.id), source })?;
        failpoint::reach("container_files_removed");
        let record = container.delete_record(self)?;
        let mut index = self.index();
        index.remove(container);
        if record.server_id.is_none() {
            index.servers.remove(&record.server_index);
        }
        Ok(())
    }
}
