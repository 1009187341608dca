//! Whose things are: a caller other than root sees and changes their own, and to everything else there is no answer but
//! that it is not there.
//!
//! Each thing is marked with its owner when it is made ([`Owner`]). Here a name becomes the caller's thing or "not found",
//! and the records' changes are sifted for whoever follows them. Volumes and images are sifted where they are looked up,
//! servers in `servers`. `docs/design/owners.md` has the whole.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::StatusCode;
use sampan_container::ContainerRecord;
use sampan_model::view::{Change, ServiceView};
use sampan_model::{Label, Owner};
use sampan_service::ServiceError;
use serde_json::Value;

use crate::{Action, ApiError, Caller, Core};

impl Core {
    /// The caller's container that a name means; a service's name means its first replica that runs.
    ///
    /// # Errors
    /// There is none, or several begin like that.
    pub(crate) fn one(&self, caller: &Caller, name: &str) -> Result<Arc<ContainerRecord>, ApiError> {
        self.containers.find_of(&caller.owner(), name).or_else(|error| {
            let of_service = |record: &Arc<ContainerRecord>| {
                record.state.pid.is_some()
                    && record.spec.service.as_ref().is_some_and(|service| service.name.as_str() == name)
            };
            let found = self.containers.list_of(&caller.owner()).into_iter().find(of_service);
            found.ok_or_else(|| error.into())
        })
    }

    /// The caller's container that a name means.
    ///
    /// # Errors
    /// There is none, or several begin like that.
    pub(crate) fn own_container(&self, caller: &Caller, name: &str) -> Result<Arc<ContainerRecord>, ApiError> {
        Ok(self.containers.find_of(&caller.owner(), name)?)
    }

    /// Refuses a service's name that is not the caller's.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn own_service(&self, caller: &Caller, name: &Label) -> Result<(), ApiError> {
        match self.services.owner(name) {
            Some(owner) if !caller.owner().may_touch(&owner) => Err(ServiceError::NotFound(name.to_string()).into()),
            _ => Ok(()),
        }
    }

    /// The caller's services.
    pub(crate) fn own_services(&self, caller: &Caller) -> Vec<ServiceView> {
        let mut services = self.services.list();
        services.retain(|service| self.own_service(caller, &service.name).is_ok());
        services
    }
}

/// Whether an action is for those alone who govern the daemon.
pub(crate) fn is_for_governors(action: &Action) -> bool {
    matches!(
        action,
        Action::ShowMetrics | Action::StopDaemon | Action::RestartDaemon | Action::Purge | Action::ExamineImages(_)
    )
}

/// The refusal of what only those may ask for who govern the daemon.
pub(crate) fn only_governors() -> ApiError {
    let hint = "run it with sudo, or as the user that the daemon was started for";
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", "this concerns every user of this daemon", Some(hint))
}

/// What of a record's key tells whose it is: `KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Mark(String);

/// Sifts the records' changes for one caller: their own pass, and the deletion of what was their own.
pub(crate) struct Sieve {
    owner: Owner,
    own: HashSet<Mark>,
}

impl Sieve {
    /// For a caller, who has these things now.
    pub(crate) fn new(caller: &Caller, core: &Core) -> Self {
        let owner = caller.owner();
        let containers = core.containers.list_of(&owner);
        let services = core.own_services(caller);
        let own = containers
            .iter()
            .map(|record| Mark(format!("container/{}", record.id)))
            .chain(services.iter().map(|service| Mark(format!("service/{}", service.name))));
        Self { own: own.collect(), owner }
    }

    /// Whether the caller is told of a change.
    pub(crate) fn passes(&mut self, change: &Change) -> bool {
        if self.owner.uid == 0 {
            return true;
        }
        let Some((_tenant, mark)) = change.key.split_once('/') else { return false };
        // what is said of another record is its owner's
        let mark = match mark.split_once('/') {
            Some(("ready", id)) => Mark(format!("container/{id}")),
            Some(("deploy", name)) => Mark(format!("service/{name}")),
            _ => Mark(mark.to_owned()),
        };
        match &change.value {
            None => self.own.contains(&mark),
            Some(value) => match owner_of(value) {
                Some(uid) if uid == u64::from(self.owner.uid) => {
                    self.own.insert(mark);
                    true
                }
                // a record that had another owner once
                Some(_) => {
                    self.own.remove(&mark);
                    false
                }
                None => self.own.contains(&mark),
            },
        }
    }
}

/// The uid of a record's owner, where it says one.
fn owner_of(value: &Value) -> Option<u64> {
    let own = &value["owner"]["uid"];
    if own.is_null() { value["spec"]["owner"]["uid"].as_u64() } else { own.as_u64() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strangers_changes_do_not_pass() {
        let mut sieve = Sieve { owner: Owner { uid: 1000, ..Owner::default() }, own: HashSet::new() };
        let mut passes = |key: &str, value: Option<Value>| {
            sieve.passes(&Change { revision: 1, key: format!("default/{key}"), value })
        };
        let of = |uid: u32| Some(json!({ "spec": { "owner": { "uid": uid } } }));
        assert!(passes("container/a", of(1000)));
        assert!(!passes("container/b", of(1001)));
        assert!(!passes("container/c", Some(json!({ "spec": {} }))), "root's, from before there were owners");
        assert!(passes("ready/a", Some(json!({ "address": "10.0.0.1:80" }))));
        assert!(!passes("ready/b", Some(json!({ "address": "10.0.0.1:80" }))));
        assert!(passes("container/a", None));
        assert!(!passes("container/b", None));
        assert!(passes("service/web", Some(json!({ "owner": { "uid": 1000 }, "spec": {} }))));
        assert!(passes("deploy/web", Some(json!({ "version": 1 }))));
        assert!(!passes("deploy/shop", Some(json!({ "version": 1, "owner": { "uid": 0 } }))));
        assert!(!passes("daemon/block", Some(json!({ "first": 1 }))));
        // a name that goes to somebody else
        assert!(!passes("service/web", Some(json!({ "owner": { "uid": 1001 } }))));
        assert!(!passes("service/web", None));
        sieve.owner = Owner::default();
        assert!(sieve.passes(&Change { revision: 1, key: "default/daemon/block".into(), value: None }));
    }
}
