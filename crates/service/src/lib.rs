//! Services: what is intended and what is observed make a plan, and the plan is carried out.
//!
//! [`plan`](plan::plan) is pure: it decides everything. [`Services`] keeps what is intended, runs one task a service
//! that observes, plans and executes until there is nothing left to do, and runs again whenever something changes. A
//! daemon that was killed in the middle is no special case: the next one observes what there is, and plans.
//!
//! Vocabulary: a *replica* is one container of a service, of one *version* of its spec; a *deploy* is the way from one
//! version to the next, which ends ready or failed, and a failed one leaves what was before as it was.

#![forbid(unsafe_code)]

mod deploy;
mod error;
mod placement;
pub mod plan;
mod probe;
mod record;
mod replica;
mod restart;
mod services;
mod task;

pub use error::ServiceError;
pub use record::{DeployRecord, ServiceRecord};
pub use services::Services;
