//! Following the changes from a revision on.
//!
//! A watch holds no queue: it remembers the revision it has come to and reads on from the changes log when it is asked,
//! or from the last few changes, which are in memory, where it has come as far as that.
//! A slow watcher therefore costs nothing, and a watcher that has gone away can go on where it was, in another process
//! too. One that falls behind the log is told so, and has to list again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Inner, RecordsError};

/// How many changes are read at once.
const BATCH: u32 = 64;

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The records' revision with this change.
    pub revision: u64,
    /// The record's key.
    pub key: Arc<str>,
    /// Its new value, in JSON; `None` where it was deleted.
    pub json: Option<Arc<str>>,
}

impl Change {
    /// Its new value; `None` where it was deleted.
    ///
    /// # Errors
    /// [`RecordsError::Value`] where it is not a `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>, RecordsError> {
        self.json.as_deref().map(|json| super::parse(&self.key, json)).transpose()
    }
}

/// A revision that the changes log no longer reaches back to, or that has not been yet. List, and watch from the
/// present revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} cannot be watched from: the log reaches from {oldest} to {newest}")]
pub struct RevisionTooOld {
    /// The revision that was asked for.
    pub asked: u64,
    /// The oldest that can be watched from.
    pub oldest: u64,
    /// The newest there is.
    pub newest: u64,
}

/// Why a watch could not be begun, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The log does not reach back to the revision.
    #[error(transparent)]
    TooOld(#[from] RevisionTooOld),
    /// The log cannot be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// The changes after a revision, in order, without gaps, without end.
#[derive(Debug)]
pub struct Watch {
    records: Arc<Inner>,
    /// The revision of the last change that was given out.
    at: u64,
    ahead: VecDeque<Change>,
    newest: tokio::sync::watch::Receiver<u64>,
}

impl Watch {
    pub(super) fn new(records: Arc<Inner>, from: u64) -> Result<Self, WatchError> {
        let newest = records.newest.subscribe();
        let mut watch = Self { records, at: from, ahead: VecDeque::new(), newest };
        watch.read()?;
        Ok(watch)
    }

    /// The next change; waits for it. Cancel-safe: a call that is dropped has taken nothing. Reads the file in between,
    /// for well under a millisecond.
    ///
    /// # Errors
    /// [`WatchError::TooOld`] where this watcher was slower than the log is long; each further call says so again.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            // marked as seen before the log is read: a change that comes in between ends the wait below at once
            self.newest.borrow_and_update();
            if let Some(change) = self.try_next()? {
                return Ok(change);
            }
            // the sender lives in `records`, which this holds
            let _ = self.newest.changed().await;
        }
    }

    /// The next change, if there is one already.
    ///
    /// # Errors
    /// As of [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<Change>, WatchError> {
        if self.ahead.is_empty() {
            self.read()?;
        }
        let change = self.ahead.pop_front();
        if let Some(change) = &change {
            self.at = change.revision;
        }
        Ok(change)
    }

    /// The revision to watch from to go on after the last change that was given out.
    pub fn revision(&self) -> u64 {
        self.at
    }

    fn read(&mut self) -> Result<(), WatchError> {
        self.ahead = self.records.changes_after(self.at, BATCH)?;
        Ok(())
    }
}
