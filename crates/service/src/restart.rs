//! Restart policies of containers that are no service's replicas.
//!
//! ```text
//! it ends ─▶ its policy wants it to run ─▶ after a pause ─▶ started again
//!                 │ no, or somebody wanted it to end
//!                 └─▶ nothing
//! ```
//!
//! The pause is 100 ms, doubled at each end that comes within 10 s of the start, 1 min at most. Ends are read from the
//! records' changes, so that one that nobody saw, with the daemon dead or slow, is not lost: it is in the record.
//!
//! However many end at once, few are started at a time: a machine that has just lost everything has better to do than to
//! start 500 containers in one breath.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_container::{ContainerError, ContainerRecord};
use sampan_model::{ContainerId, ContainerStatus, RestartPolicy, ServerStatus};
use sampan_store::{Change, Watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::services::Inner;

/// The first pause, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that ran so long has recovered: its next end is the first again.
const RECOVERED: Duration = Duration::from_secs(10);
/// How many are started at a time.
const AT_A_TIME: usize = 4;

/// The beginning of the keys of containers' records.
const CONTAINERS: &str = "default/container/";
/// The beginning of those of servers' with names.
const SERVERS: &str = "default/server/";

/// Starts containers again until the daemon stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut stopping = inner.stopping();
    let mut keeper = Keeper { inner, known: HashMap::new(), due: BTreeSet::new(), starts: JoinSet::new() };
    tokio::select! {
        () = keeper.keep() => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    // those that are being started are the daemon's to stop
    while keeper.starts.join_next().await.is_some() {}
}

struct Keeper {
    inner: Arc<Inner>,
    known: HashMap<ContainerId, Known>,
    /// What is to be started, by when.
    due: BTreeSet<(Instant, ContainerId, Cause)>,
    starts: JoinSet<(ContainerId, Result<Arc<ContainerRecord>, ContainerError>)>,
}

/// Why something is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// It has ended.
    End,
    /// The daemon has begun, which its policy wants it to run with.
    Daemon,
}

/// What is known of a container.
#[derive(Debug)]
struct Known {
    /// The end that was looked at last.
    end: Option<Timestamp>,
    /// How many ends in a row came soon after the start.
    row: u32,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut watch = self.look_at_all(true);
        loop {
            let next_due = self.due.first().map(|(at, ..)| *at).filter(|_| self.starts.len() < AT_A_TIME);
            tokio::select! {
                change = watch.next() => match change {
                    Ok(change) => self.changed(&change),
                    // more has changed than the log is long
                    Err(error) => {
                        tracing::warn!(%error, "containers are looked at anew for their restart policies");
                        watch = self.look_at_all(false);
                    }
                },
                () = sleep_until(next_due) => self.start_next(),
                Some(started) = self.starts.join_next() => if let Ok((id, Err(error))) = started {
                    self.was_refused(&id, &error);
                },
            }
        }
    }

    /// Looks at every container; with `is_first`, as a daemon that has just begun. What changes from then on is told by
    /// the watch.
    fn look_at_all(&mut self, is_first: bool) -> Watch {
        let watch = loop {
            // refused only where the log has moved on in between
            match self.inner.records.watch(self.inner.records.revision()) {
                Ok(watch) => break watch,
                Err(error) => tracing::warn!(%error, "the records' changes cannot be followed"),
            }
        };
        for record in self.inner.containers.list() {
            if is_first && starts_with_the_daemon(&record) {
                self.know(&record);
                self.due.insert((Instant::now(), record.id.clone(), Cause::Daemon));
            } else {
                self.look_at(&record);
            }
        }
        watch
    }

    /// One that waits for its server is looked at again when that changes.
    fn was_refused(&mut self, id: &ContainerId, error: &ContainerError) {
        let ContainerError::ServerStopped(_) = error else {
            tracing::warn!(%id, %error, "a container could not be started again");
            return;
        };
        if let Some(known) = self.known.get_mut(id) {
            (known.end, known.row) = (None, known.row.saturating_sub(1));
        }
        // it may have been started meanwhile
        let Ok(record) = self.inner.containers.record(id) else { return };
        let server = record.spec.server.as_ref().and_then(|name| self.inner.containers.server(name).ok());
        if server.is_some_and(|server| server.status == ServerStatus::Running) {
            self.look_at(&record);
        }
    }

    fn changed(&mut self, change: &Change) {
        if let Some(server) = change.key.strip_prefix(SERVERS) {
            let is_on = |record: &ContainerRecord| record.spec.server.as_ref().is_some_and(|on| on.as_str() == server);
            self.inner.containers.list().iter().filter(|record| is_on(record)).for_each(|record| self.look_at(record));
        }
        let Some(id) = change.key.strip_prefix(CONTAINERS).and_then(|id| ContainerId::parse(id).ok()) else { return };
        match self.inner.containers.record(&id) {
            // one whose record is gone may be known for a moment yet
            Ok(record) if change.json.is_some() => self.look_at(&record),
            _ => drop(self.known.remove(&id)),
        }
    }

    fn know(&mut self, record: &ContainerRecord) -> &mut Known {
        let new = || Known { end: None, row: record.state.restarts };
        self.known.entry(record.id.clone()).or_insert_with(new)
    }

    /// Plans a start where the container has ended since it was looked at last.
    fn look_at(&mut self, record: &ContainerRecord) {
        if record.spec.restart == RestartPolicy::No || record.state.status != ContainerStatus::Exited {
            return;
        }
        let known = self.know(record);
        if known.end == record.state.finished_at {
            return;
        }
        known.end = record.state.finished_at;
        // started by hand since, or well for a while
        if record.state.restarts == 0 || has_recovered(record) {
            known.row = 0;
        }
        if wants_to_run(record, known.row) {
            let at = Instant::now() + pause(known.row);
            known.row = known.row.saturating_add(1);
            self.due.insert((at, record.id.clone(), Cause::End));
        }
    }

    /// Starts what is due first, if it is still wanted.
    fn start_next(&mut self) {
        let Some((_, id, cause)) = self.due.pop_first() else { return };
        let Ok(record) = self.inner.containers.record(&id) else { return };
        // somebody was quicker, or has changed their mind; the end was counted when it was planned
        let is_wanted = match cause {
            Cause::End => wants_to_run(&record, 0),
            Cause::Daemon => starts_with_the_daemon(&record),
        };
        if is_wanted {
            let containers = self.inner.containers.clone();
            self.starts.spawn(async move {
                let started = async {
                    if cause == Cause::Daemon {
                        containers.want_running(&id).await?;
                    }
                    containers.start_again(&id).await
                };
                let started = started.await;
                (id, started)
            });
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn pause(row: u32) -> Duration {
    PAUSE.saturating_mul(1 << row.min(16)).min(LONGEST_PAUSE)
}

fn has_recovered(record: &ContainerRecord) -> bool {
    match (record.state.started_at, record.state.finished_at) {
        (Some(start), Some(end)) if record.state.error.is_none() => {
            Duration::try_from(end.duration_since(start)).is_ok_and(|ran| ran >= RECOVERED)
        }
        _ => false,
    }
}

/// Whether a container that has ended is to run by its policy, after so many ends in a row.
fn wants_to_run(record: &ContainerRecord, row: u32) -> bool {
    let has_ended = record.state.status == ContainerStatus::Exited && record.state.started_at.is_some();
    // one that is to be resumed is somebody else's to start, unless they have tried; a replica is its service's
    let is_to_resume = record.resume && record.state.error.is_none();
    let is_left = record.stopped || is_to_resume || record.spec.remove_at_exit || record.spec.service.is_some();
    has_ended
        && !is_left
        && match record.spec.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max_retries } => {
                // one that could not be started, or of whose end nothing is known, has not succeeded
                let has_failed = record.state.exit_code != Some(0) || record.state.error.is_some();
                has_failed && max_retries.is_none_or(|most| row < most)
            }
        }
}

/// Whether a daemon that begins starts a container that somebody has stopped.
fn starts_with_the_daemon(record: &ContainerRecord) -> bool {
    record.spec.restart == RestartPolicy::Always
        && record.stopped
        && record.state.status == ContainerStatus::Exited
        && record.state.started_at.is_some()
        && record.spec.service.is_none()
}

#[cfg(test)]
mod tests {
    use sampan_model::{ContainerName, ContainerSpec, ContainerState, Digest};

    use super::*;

    fn ended(policy: RestartPolicy, exit_code: Option<u8>, ran: Duration) -> ContainerRecord {
        let start = Timestamp::from_second(1000).unwrap();
        let name = ContainerName::parse("job").unwrap();
        ContainerRecord {
            id: ContainerId::from_bytes([1; 32]),
            spec: ContainerSpec { restart: policy, ..ContainerSpec::new(name, Digest::from_sha256([1; 32]), "box") },
            state: ContainerState {
                status: ContainerStatus::Exited,
                exit_code,
                started_at: Some(start),
                finished_at: Some(start.checked_add(ran).unwrap()),
                ..ContainerState::created()
            },
            server_id: None,
            server_index: 0,
            address: std::net::Ipv4Addr::LOCALHOST,
            command: Vec::new(),
            env: Vec::new(),
            boot_id: String::new(),
            resume: false,
            stopped: false,
            for_later: false,
            created_at: start,
            timing: Vec::new(),
        }
    }

    #[test]
    fn who_is_started_again() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        let twice = OnFailure { max_retries: Some(2) };
        for (policy, code, row, expected) in [
            (No, Some(1), 0, false),
            (Always, Some(0), 99, true),
            (UnlessStopped, Some(0), 0, true),
            (OnFailure { max_retries: None }, Some(0), 0, false),
            (OnFailure { max_retries: None }, Some(1), 99, true),
            (OnFailure { max_retries: None }, None, 0, true),
            (twice, Some(1), 1, true),
            (twice, Some(1), 2, false),
        ] {
            let record = ended(policy, code, Duration::ZERO);
            assert_eq!(wants_to_run(&record, row), expected, "{policy:?} {code:?} {row}");
            for unwanted in [
                ContainerRecord { stopped: true, ..record.clone() },
                ContainerRecord { resume: true, ..record.clone() },
                ContainerRecord { state: ContainerState::created(), ..record },
            ] {
                assert!(!wants_to_run(&unwanted, row));
            }
        }
    }

    #[test]
    fn who_starts_with_the_daemon() {
        for (policy, stopped, expected) in [
            (RestartPolicy::Always, true, true),
            (RestartPolicy::Always, false, false),
            (RestartPolicy::UnlessStopped, true, false),
            (RestartPolicy::No, true, false),
        ] {
            let record = ContainerRecord { stopped, ..ended(policy, Some(137), Duration::ZERO) };
            assert_eq!(starts_with_the_daemon(&record), expected, "{policy:?} {stopped}");
        }
    }

    #[test]
    fn pauses_grow_until_it_has_recovered() {
        let pauses: Vec<_> = [0, 1, 2, 9, 10, 40, u32::MAX].into_iter().map(|row| pause(row).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 51_200, 60_000, 60_000, 60_000]);
        let after = |seconds| has_recovered(&ended(RestartPolicy::Always, Some(1), Duration::from_secs(seconds)));
        assert!(!after(9) && after(10));
    }
}
