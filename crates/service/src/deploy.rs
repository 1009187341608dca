//! One service's desk: what is intended of it and how its last deploy stands, for everyone who asks or waits.
//!
//! Both are written to the records before anyone is told.

use std::sync::{Arc, Mutex, PoisonError};

use sampan_model::view::{DeployEvent, ErrorView};
use sampan_model::{Label, ServiceSpec};
use sampan_store::{Durability, Records};
use tokio::sync::{Notify, watch};

use crate::ServiceError;
use crate::record::{DeployRecord, Previous, ServiceRecord, deploy_key, service_key};

pub(crate) struct Desk {
    pub(crate) name: Label,
    /// Rung when what is intended has changed.
    pub(crate) wake: Notify,
    records: Arc<Records>,
    intent: Mutex<Option<ServiceRecord>>,
    deploy: watch::Sender<DeployRecord>,
    /// How a deploy that was given up ends, and its version: told when its replicas are gone.
    given_up: Mutex<Option<DeployRecord>>,
    /// Whether nothing of the service is left.
    pub(crate) gone: watch::Sender<bool>,
}

impl Desk {
    pub(crate) fn new(name: Label, records: Arc<Records>, intent: Option<ServiceRecord>, deploy: DeployRecord) -> Self {
        Self {
            name,
            wake: Notify::new(),
            records,
            intent: Mutex::new(intent),
            deploy: watch::Sender::new(deploy),
            given_up: Mutex::new(None),
            gone: watch::Sender::new(false),
        }
    }

    pub(crate) fn intent(&self) -> Option<ServiceRecord> {
        self.intent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn deploy(&self) -> DeployRecord {
        self.deploy.borrow().clone()
    }

    pub(crate) fn watch_deploy(&self) -> watch::Receiver<DeployRecord> {
        self.deploy.subscribe()
    }

    /// Intends this from now on; nothing where it is `None`.
    pub(crate) fn intend(&self, record: Option<ServiceRecord>) -> Result<(), ServiceError> {
        let key = service_key(&self.name);
        match &record {
            Some(record) => self.records.put(&key, record, Durability::Intent).map(|_| ())?,
            None => self.records.delete(&key).map(|_| ())?,
        }
        *self.intent.lock().unwrap_or_else(PoisonError::into_inner) = record;
        self.wake.notify_one();
        Ok(())
    }

    /// The deploy of `version` stands like this.
    pub(crate) fn tell(&self, version: u64, event: DeployEvent) {
        let record = DeployRecord { version, event };
        if *self.deploy.borrow() == record {
            return;
        }
        // what is waited for changes often, and matters to nobody after a restart
        if (record.event.is_end() || self.deploy.borrow().version != version)
            && let Err(error) = self.records.put(&deploy_key(&self.name), &record, Durability::Intent)
        {
            tracing::error!(service = %self.name, %error, "a deploy's record could not be written");
        }
        self.deploy.send_replace(record);
    }

    /// Whether the deploy of this version is under way.
    pub(crate) fn is_deploying(&self, version: u64) -> bool {
        let deploy = self.deploy.borrow();
        deploy.version == version && !deploy.event.is_end()
    }

    /// The intended version is ready, and routed to.
    pub(crate) fn succeed(&self, version: u64, event: DeployEvent) -> Result<(), ServiceError> {
        if let Some(mut record) = self.intent()
            && record.version == version
            && (!record.deployed || record.previous.is_some())
        {
            record.deployed = true;
            record.previous = None;
            self.intend(Some(record))?;
        }
        self.tell(version, event);
        Ok(())
    }

    /// The deploy of `version` is given up. What was before is intended again; a version that was ready once stays.
    /// The spec that is intended no more comes back.
    pub(crate) fn fail(
        &self,
        version: u64,
        error: ErrorView,
        log_tail: Vec<String>,
    ) -> Result<Option<ServiceSpec>, ServiceError> {
        if !self.is_deploying(version) || self.given_up().is_some_and(|end| end.version == version) {
            return Ok(None);
        }
        let mut given_up = None;
        if let Some(record) = self.intent()
            && record.version == version
            && !record.deployed
        {
            let before = record.previous.clone().map(|Previous { spec, version }| ServiceRecord {
                spec,
                version,
                deployed: true,
                previous: None,
                ..record.clone()
            });
            self.intend(before)?;
            given_up = Some(record.spec);
        }
        let end = DeployRecord { version, event: DeployEvent::Failed { error, log_tail } };
        // kept at once: a daemon that is killed now leaves no deploy that never ends
        self.records.put(&deploy_key(&self.name), &end, Durability::Intent)?;
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.wake.notify_one();
        Ok(given_up)
    }

    /// The deploy that was given up and is not told as ended yet.
    pub(crate) fn given_up(&self) -> Option<DeployRecord> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The replicas of the version that was given up are gone: its deploy has ended.
    pub(crate) fn tell_given_up(&self) {
        let end = self.given_up.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end
            && self.deploy.borrow().version == end.version
        {
            self.deploy.send_replace(end);
        }
    }

    /// Nothing of the service is left, and nothing is intended. The record of a deploy that failed stays, so that it
    /// can be asked for; any other goes.
    pub(crate) fn close(&self, forget_deploy: bool) {
        if forget_deploy && let Err(error) = self.records.delete(&deploy_key(&self.name)) {
            tracing::error!(service = %self.name, %error, "a deploy's record could not be removed");
        }
        self.gone.send_replace(true);
    }
}
