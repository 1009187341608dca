//! One service's desk: what is intended of it and how its last deploy stands, for everyone who asks or waits.
//!
//! Both change together, under one lock and in one transaction of the records, before anyone is told: a put, a
//! removal, a deploy's success and its failure never see or leave a half of each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sampan_model::view::{DeployEvent, ErrorView};
use sampan_model::{Label, Owner, ServiceSpec};
use sampan_store::{Durability, Records, RecordsError};
use tokio::sync::{Notify, watch};

use crate::ServiceError;
use crate::error::owner;
use crate::record::{DeployRecord, Previous, ServiceRecord, deploy_key, service_key};

pub(crate) struct Desk {
    pub(crate) name: Label,
    /// Rung when what is intended has changed.
    pub(crate) wake: Notify,
    records: Arc<Records>,
    state: Mutex<State>,
    /// The deploy as it is told.
    told: watch::Sender<DeployRecord>,
    /// Whether nothing of the service is left.
    pub(crate) gone: watch::Sender<bool>,
    /// What is in the way of a replica's next try is gone: it is not to wait for its time.
    may_try_now: AtomicBool,
    /// Why a replica was not ready the last time that one was not.
    reason: Mutex<Option<String>>,
}

#[derive(Clone)]
struct State {
    intent: Option<ServiceRecord>,
    deploy: DeployRecord,
    /// The deploy was given up, which is told when its replicas are gone.
    is_held_back: bool,
}

impl State {
    fn is_deploying(&self, version: u64) -> bool {
        self.deploy.version == version && !self.deploy.event.is_end()
    }
}

/// A deploy that has just begun.
pub(crate) fn starting(version: u64, owner: Owner) -> DeployRecord {
    DeployRecord { version, owner, event: DeployEvent::Waiting { on: "a server".to_owned() } }
}

impl Desk {
    pub(crate) fn new(name: Label, records: Arc<Records>, intent: Option<ServiceRecord>, deploy: DeployRecord) -> Self {
        Self {
            name,
            wake: Notify::new(),
            records,
            told: watch::Sender::new(deploy.clone()),
            state: Mutex::new(State { intent, deploy, is_held_back: false }),
            gone: watch::Sender::new(false),
            may_try_now: AtomicBool::new(false),
            reason: Mutex::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next try begin now.
    pub(crate) fn try_now(&self) {
        self.may_try_now.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Whether the next try is to begin now; asked once.
    pub(crate) fn takes_try(&self) -> bool {
        self.may_try_now.swap(false, Ordering::SeqCst)
    }

    /// A replica is not ready, or all is well again.
    pub(crate) fn set_reason(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why a replica is not ready, as far as that is known.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn intent(&self) -> Option<ServiceRecord> {
        self.state().intent.clone()
    }

    /// Whether nothing is intended any more, or soon will not be.
    pub(crate) fn is_leaving(&self) -> bool {
        self.state().intent.as_ref().is_none_or(|record| record.removing)
    }

    pub(crate) fn watch_deploy(&self) -> watch::Receiver<DeployRecord> {
        self.told.subscribe()
    }

    /// Whether the deploy of this version is under way.
    pub(crate) fn is_deploying(&self, version: u64) -> bool {
        self.state().is_deploying(version)
    }

    /// Records `next` in one transaction, makes it what is so, and tells.
    fn commit(&self, state: &mut State, next: State) -> Result<(), ServiceError> {
        self.records.transaction(Durability::Intent, |transaction| {
            let key = service_key(&self.name);
            match &next.intent {
                Some(record) if state.intent.as_ref() != Some(record) => {
                    transaction.put(&key, record)?;
                }
                None if state.intent.is_some() => {
                    transaction.delete(&key)?;
                }
                _ => {}
            }
            if next.deploy != state.deploy || state.intent.is_none() {
                transaction.put(&deploy_key(&self.name), &next.deploy)?;
            }
            Ok::<_, RecordsError>(())
        })?;
        *state = next;
        if !state.is_held_back {
            self.told.send_replace(state.deploy.clone());
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Intends a spec; its version. The same again is the same version, which is deployed once more where `all_ready`
    /// does not say that it is all there.
    pub(crate) fn put(&self, spec: ServiceSpec, asker: &Owner, all_ready: bool) -> Result<u64, ServiceError> {
        let mut state = self.state();
        let mut next = state.clone();
        let version = match state.intent.clone() {
            None => {
                let version = state.deploy.version + 1;
                next.intent = Some(ServiceRecord {
                    spec,
                    owner: asker.clone(),
                    version,
                    latest: version,
                    deployed: false,
                    previous: None,
                    removing: false,
                    created_at: Timestamp::now(),
                });
                next.deploy = starting(version, asker.clone());
                version
            }
            Some(record) if !asker.may_touch(&record.owner) => {
                return Err(ServiceError::Strangers(self.name.to_string()));
            }
            Some(record) if record.removing => return Err(ServiceError::Removing(self.name.to_string())),
            Some(record) if record.spec.source != spec.source => {
                let owner = owner(record.spec.source.as_ref());
                return Err(ServiceError::NameTaken { name: self.name.to_string(), owner });
            }
            Some(record) if record.spec == spec => {
                let is_told = state.deploy.version == record.version
                    && match state.deploy.event {
                        DeployEvent::Ready { .. } => all_ready,
                        DeployEvent::Waiting { .. } => true,
                        DeployEvent::Failed { .. } | DeployEvent::Superseded { .. } => false,
                    };
                if is_told {
                    return Ok(record.version);
                }
                next.deploy = starting(record.version, record.owner);
                record.version
            }
            Some(record) => {
                let version = record.latest.max(record.version).max(state.deploy.version) + 1;
                let previous = if record.deployed {
                    Some(Previous { spec: record.spec.clone(), version: record.version })
                } else {
                    record.previous.clone()
                };
                next.deploy = starting(version, record.owner.clone());
                next.intent =
                    Some(ServiceRecord { spec, version, latest: version, deployed: false, previous, ..record });
                version
            }
        };
        next.is_held_back = false;
        self.commit(&mut state, next)?;
        Ok(version)
    }

    /// Intends to have nothing.
    pub(crate) fn remove(&self) -> Result<(), ServiceError> {
        let mut state = self.state();
        let mut next = state.clone();
        if let Some(record) = &mut next.intent {
            record.removing = true;
            self.commit(&mut state, next)?;
            sampan_container::failpoint::reach("service_removing");
        }
        Ok(())
    }

    /// The deploy of `version` waits for this. Nobody needs that after a restart: it is not kept.
    pub(crate) fn wait_for(&self, version: u64, on: String) {
        let mut state = self.state();
        if state.is_deploying(version) {
            state.deploy.event = DeployEvent::Waiting { on };
            self.told.send_replace(state.deploy.clone());
        }
    }

    /// The intended version is ready, and routed to. Nothing happens where that was overtaken by a put, a removal or a
    /// failure.
    pub(crate) fn succeed(&self, version: u64, event: DeployEvent) -> Result<(), ServiceError> {
        let mut state = self.state();
        let mut next = state.clone();
        match &mut next.intent {
            Some(record) if record.version == version && !record.removing && state.is_deploying(version) => {
                record.deployed = true;
                record.previous = None;
            }
            _ => return Ok(()),
        }
        next.deploy = DeployRecord { version, event, ..next.deploy };
        self.commit(&mut state, next)
    }

    /// The deploy of `version` is given up. What was before is intended again; a version that was ready once stays.
    /// The spec that is intended no more comes back. It is recorded at once, and told by
    /// [`tell_given_up`](Self::tell_given_up).
    pub(crate) fn fail(&self, version: u64, error: ErrorView, log_tail: Vec<String>) -> Option<ServiceSpec> {
        let mut state = self.state();
        if !state.is_deploying(version) {
            return None;
        }
        let mut next = state.clone();
        let mut given_up = None;
        if let Some(record) = state.intent.clone()
            && record.version == version
            && !record.deployed
        {
            next.intent = record.previous.clone().map(|Previous { spec, version }| ServiceRecord {
                spec,
                version,
                deployed: true,
                previous: None,
                ..record.clone()
            });
            given_up = Some(record.spec);
        }
        next.deploy = DeployRecord { version, event: DeployEvent::Failed { error, log_tail }, ..next.deploy };
        next.is_held_back = true;
        if let Err(error) = self.commit(&mut state, next.clone()) {
            // a full disk, most likely the reason of the failure itself: whoever waits is told all the same
            tracing::error!(service = %self.name, %error, "a deploy's failure could not be recorded");
            *state = next;
            self.wake.notify_one();
        }
        given_up
    }

    /// The version whose deploy was given up and is not told as ended yet.
    pub(crate) fn given_up(&self) -> Option<u64> {
        let state = self.state();
        state.is_held_back.then_some(state.deploy.version)
    }

    /// The replicas of the version that was given up are gone: its deploy has ended.
    pub(crate) fn tell_given_up(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_held_back) {
            self.told.send_replace(state.deploy.clone());
        }
    }

    /// Nothing of the service is left, and nothing is intended. The record of a deploy that failed stays, so that it
    /// can be asked for; with a service that was removed it goes.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        let was_removed = state.intent.take().is_some();
        let removed = self.records.transaction(Durability::Intent, |transaction| {
            transaction.delete(&service_key(&self.name))?;
            if was_removed {
                transaction.delete(&deploy_key(&self.name))?;
            }
            Ok::<_, RecordsError>(())
        });
        if let Err(error) = removed {
            tracing::error!(service = %self.name, %error, "a service's record could not be removed");
        }
    }
}
