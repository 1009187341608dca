//! JSON values by key, with one sequence of revisions, a watch, and durability by choice.
//!
//! Any number of threads read and write; one process at a time opens the file. One connection writes and one reads, so
//! that a read never waits for somebody else's sync. Values are whole: there are no queries into them and no indexes.
//!
//! Limits: a value of [`LARGEST_VALUE`] bytes; the last [`CHANGES_KEPT`] changes, or [`CHANGE_BYTES_KEPT`] of them, can
//! be watched from.

mod error;
mod format;
mod key;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::RecordsError;
pub use watch::{Change, RevisionTooOld, Watch, WatchError};

/// The largest value, in bytes of JSON.
pub const LARGEST_VALUE: usize = 1 << 20;
/// How many changes the log keeps, at least.
pub const CHANGES_KEPT: u64 = 10_000;
/// How many bytes of values the log keeps where that is fewer changes.
pub const CHANGE_BYTES_KEPT: u64 = 64 << 20;

/// The revisions before the log's first and of its last. Each in a query of its own is a step down the tree; both in one
/// are a walk through every change there is.
const LOG_BOUNDS: &str = "SELECT ifnull((SELECT min(revision) FROM changes) - 1, 0),
    ifnull((SELECT max(revision) FROM changes), 0)";

/// The log is compacted after so many changes, or so many bytes of them.
const COMPACT_EVERY: (u64, u64) = (1_000, 16 << 20);

/// The records of one root. Cheap to clone: clones share one file.
#[derive(Debug, Clone)]
pub struct Records {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    // closed first: the last to close folds the log into the file, which one that only reads cannot
    reader: Mutex<Connection>,
    writer: Mutex<Writer>,
    newest: tokio::sync::watch::Sender<u64>,
    recent: Mutex<Recent>,
    /// The last change of each kind, by `TENANT/KIND/`; none: not since the file was opened.
    kinds: Mutex<HashMap<String, u64>>,
}

/// The last changes, without gaps: who watches is rarely further behind.
#[derive(Debug, Default)]
struct Recent {
    changes: VecDeque<Change>,
    bytes: usize,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    revision: u64,
    /// The changes and bytes that were written since the log was compacted.
    uncompacted: (u64, u64),
    durability: Durability,
}

/// What a write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: what somebody was told is so. One sync of the disk.
    Intent,
    /// A kill of every process: what was observed, and could be observed again. No sync but one in some 4 MiB, when the
    /// log is folded into the file. A later write of intent makes it durable too.
    RunState,
}

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// The revision of its last change.
    pub revision: u64,
    /// The value.
    pub value: T,
}

impl Records {
    /// Opens the records, made (mode 0600) where they are not there. Checks every page, once. The caller holds the
    /// root's lock.
    ///
    /// # Errors
    /// The file is damaged, somebody else's, or a later Sampan's; it is left as it is.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let connection = format::open_writer(path)?;
        let reader = format::open_reader(path)?;
        let error = |source| RecordsError::from_sqlite("read", path, source);
        let revision = connection.query_row("SELECT ifnull(max(revision), 0) FROM changes", [], |row| row.get(0));
        let revision = revision.map_err(error)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(error)?;
        // compacted soon after opening: what was written since the last time, in another process, is not known
        let uncompacted = (COMPACT_EVERY.0 - 1, 0);
        let writer = Writer { connection, revision, uncompacted, durability: Durability::Intent };
        let inner = Inner {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            newest: tokio::sync::watch::Sender::new(revision),
            recent: Mutex::default(),
            kinds: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The revision of the newest change; 0 before the first.
    pub fn revision(&self) -> u64 {
        *self.inner.newest.borrow()
    }

    /// The revision of the last change of a record whose key starts with `TENANT/KIND/`; 0 before the first since the file
    /// was opened. What was read after it was told is as it was read for as long as it stays.
    pub fn revision_of(&self, kind: &str) -> u64 {
        lock(&self.inner.kinds).get(kind).copied().unwrap_or(0)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordsError::Value`] where it is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Record<T>>, RecordsError> {
        get(&lock(&self.inner.reader), &self.inner.path, key)
    }

    /// Reads all records whose keys start with `prefix`, by key, as of one moment.
    ///
    /// # Errors
    /// [`RecordsError::Value`] where one of them is not a `T`.
    pub fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, Record<T>)>, RecordsError> {
        list(&lock(&self.inner.reader), &self.inner.path, prefix)
    }

    /// Writes a record, whatever was there, and says the revision it has now.
    ///
    /// # Errors
    /// The key or the value is not a valid one, or the disk does not take it.
    pub fn put(&self, key: &str, value: &impl Serialize, durability: Durability) -> Result<u64, RecordsError> {
        self.transaction(durability, |transaction| transaction.put(key, value))
    }

    /// Writes a record if its revision is still `expected` (`None`: if there is none), and says the one it has now.
    ///
    /// # Errors
    /// [`RecordsError::Conflict`] where it was changed meanwhile.
    pub fn put_if(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &impl Serialize,
        durability: Durability,
    ) -> Result<u64, RecordsError> {
        self.transaction(durability, |transaction| transaction.put_if(key, expected, value))
    }

    /// Deletes a record, durably, and says the revision of that; `None` where there was none.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn delete(&self, key: &str) -> Result<Option<u64>, RecordsError> {
        self.transaction(Durability::Intent, |transaction| transaction.delete(key))
    }

    /// Does several reads and writes as one: all of them happen, or, where `body` returns an error, none. No other
    /// write comes in between; watchers see the changes when it has ended.
    ///
    /// # Errors
    /// What `body` returns, or that the disk does not take it.
    pub fn transaction<T, E: From<RecordsError>>(
        &self,
        durability: Durability,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = &self.inner.path;
        let error = |source| RecordsError::from_sqlite("write", path, source);
        let mut writer = lock(&self.inner.writer);
        let writer = &mut *writer;
        writer.sync_as(durability).map_err(error)?;
        let begun = Begun::new(&writer.connection).map_err(error)?;
        let changes = Vec::new();
        let mut transaction = Transaction { sqlite: begun.0, path, revision: writer.revision, bytes: 0, changes };
        let result = body(&mut transaction)?; // dropped on an error: rolled back
        let Transaction { revision, bytes, changes, .. } = transaction;
        let uncompacted = (writer.uncompacted.0 + revision - writer.revision, writer.uncompacted.1 + bytes);
        let compacts = uncompacted.0 >= COMPACT_EVERY.0 || uncompacted.1 >= COMPACT_EVERY.1;
        if compacts {
            compact(begun.0).map_err(error)?;
        }
        begun.commit().map_err(error)?;
        writer.uncompacted = if compacts { (0, 0) } else { uncompacted };
        if revision != writer.revision {
            writer.revision = revision;
            self.note_kinds(&changes);
            lock(&self.inner.recent).add(changes);
            self.inner.newest.send_replace(revision);
        }
        Ok(result)
    }

    fn note_kinds(&self, changes: &[Change]) {
        let mut kinds = lock(&self.inner.kinds);
        for change in changes {
            let kind = key::kind(&change.key);
            match kinds.get_mut(kind) {
                Some(last) => *last = change.revision,
                None => drop(kinds.insert(kind.to_owned(), change.revision)),
            }
        }
    }

    /// Follows the changes after the revision `from`: that of a list or of the last change that was seen.
    ///
    /// # Errors
    /// [`WatchError::TooOld`] where the log does not reach back that far.
    pub fn watch(&self, from: u64) -> Result<Watch, WatchError> {
        Watch::new(self.inner.clone(), from)
    }
}

/// Reads and writes that happen as one; see [`Records::transaction`].
pub struct Transaction<'a> {
    sqlite: &'a Connection,
    path: &'a Path,
    revision: u64,
    bytes: u64,
    changes: Vec<Change>,
}

/// A transaction that has begun, rolled back where it is dropped. (rusqlite's has its words parsed each time.)
struct Begun<'a>(&'a Connection);

impl<'a> Begun<'a> {
    fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        say(connection, "BEGIN IMMEDIATE")?;
        Ok(Self(connection))
    }

    fn commit(self) -> rusqlite::Result<()> {
        // one that failed leaves the transaction open, and the drop ends it
        say(self.0, "COMMIT")
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // the next one to begin would say it again
            let _ = say(self.0, "ROLLBACK");
        }
    }
}

fn say(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

impl Recent {
    /// How many changes, and how many bytes of them, but one.
    const MOST: (usize, usize) = (256, 1 << 20);

    fn add(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.bytes += Self::bytes(&change);
            self.changes.push_back(change);
        }
        while self.changes.len() > 1 && (self.changes.len() > Self::MOST.0 || self.bytes > Self::MOST.1) {
            self.bytes -= self.changes.pop_front().as_ref().map_or(0, Self::bytes);
        }
    }

    fn bytes(change: &Change) -> usize {
        change.json.as_ref().map_or(0, |json| json.len())
    }

    /// Up to `limit` changes after a revision, where all of them are here.
    fn after(&self, from: u64, limit: usize) -> Option<VecDeque<Change>> {
        let (first, last) = (self.changes.front()?.revision, self.changes.back()?.revision);
        if !(first - 1..=last).contains(&from) {
            return None;
        }
        let skipped = usize::try_from(from + 1 - first).ok()?;
        Some(self.changes.iter().skip(skipped).take(limit).cloned().collect())
    }
}

impl Transaction<'_> {
    /// As [`Records::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Record<T>>, RecordsError> {
        get(self.sqlite, self.path, key)
    }

    /// As [`Records::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, Record<T>)>, RecordsError> {
        list(self.sqlite, self.path, prefix)
    }

    /// As [`Records::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(&mut self, key: &str, value: &impl Serialize) -> Result<u64, RecordsError> {
        if !key::is_key(key) {
            return Err(RecordsError::Key(key.chars().take(100).collect()));
        }
        let json =
            serde_json::to_string(value).map_err(|source| RecordsError::Value { key: key.to_owned(), source })?;
        if json.len() > LARGEST_VALUE {
            return Err(RecordsError::TooLarge { key: key.to_owned(), size: json.len() });
        }
        let json: Arc<str> = json.into();
        let revision = self.log(key, Some(&json))?;
        self.execute(
            "INSERT INTO records (key, revision, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE SET revision = ?2, value = ?3",
            params![key, revision, &*json],
        )?;
        Ok(revision)
    }

    /// As [`Records::put_if`].
    ///
    /// # Errors
    /// As there.
    pub fn put_if(&mut self, key: &str, expected: Option<u64>, value: &impl Serialize) -> Result<u64, RecordsError> {
        let sql = "SELECT revision FROM records WHERE key = ?1";
        let found = self
            .sqlite
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional());
        let found = found.map_err(|source| RecordsError::from_sqlite("read", self.path, source))?;
        if found == expected {
            self.put(key, value)
        } else {
            Err(RecordsError::Conflict { key: key.to_owned(), expected, found })
        }
    }

    /// As [`Records::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&mut self, key: &str) -> Result<Option<u64>, RecordsError> {
        match self.execute("DELETE FROM records WHERE key = ?1", params![key])? {
            0 => Ok(None),
            _ => self.log(key, None).map(Some),
        }
    }

    fn log(&mut self, key: &str, json: Option<&Arc<str>>) -> Result<u64, RecordsError> {
        self.revision += 1;
        self.bytes += json.map_or(0, |json| json.len()) as u64;
        let sql = "INSERT INTO changes (revision, key, value) VALUES (?1, ?2, ?3)";
        self.execute(sql, params![self.revision, key, json.map(|json| &**json)])?;
        self.changes.push(Change { revision: self.revision, key: key.into(), json: json.cloned() });
        Ok(self.revision)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, RecordsError> {
        let done = self.sqlite.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map_err(|source| RecordsError::from_sqlite("write", self.path, source))
    }
}

impl Writer {
    /// In WAL mode FULL syncs the log with each commit and NORMAL only when it is folded into the file
    /// (sqlite.org/pragma.html#pragma_synchronous). Switching one connection costs some microseconds; two writing
    /// connections would each hold a cache, and could wait for one another.
    fn sync_as(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability != durability {
            let level = match durability {
                Durability::Intent => "FULL",
                Durability::RunState => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = durability;
        }
        Ok(())
    }
}

impl Inner {
    /// Up to `limit` changes after a revision, and whether the log reaches back to it, as of one moment.
    fn changes_after(&self, from: u64, limit: u32) -> Result<VecDeque<Change>, WatchError> {
        if let Some(changes) = lock(&self.recent).after(from, limit as usize) {
            return Ok(changes);
        }
        let error = |source| RecordsError::from_sqlite("read", &self.path, source);
        let mut reader = lock(&self.reader);
        let snapshot = reader.transaction().map_err(error)?;
        let (oldest, newest) = snapshot
            .prepare_cached(LOG_BOUNDS)
            .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(error)?;
        if !(oldest..=newest).contains(&from) {
            return Err(RevisionTooOld { asked: from, oldest, newest }.into());
        }
        let sql = "SELECT revision, key, value FROM changes WHERE revision > ?1 ORDER BY revision LIMIT ?2";
        let mut statement = snapshot.prepare_cached(sql).map_err(error)?;
        let rows = statement
            .query_map(params![from, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(error)?;
        let mut changes = VecDeque::new();
        for row in rows {
            let (revision, key, json): (u64, String, Option<String>) = row.map_err(error)?;
            changes.push_back(Change { revision, key: key.into(), json: json.map(Into::into) });
        }
        Ok(changes)
    }
}

/// A panic while a lock was held has rolled its transaction back: there is nothing half done to be afraid of.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get<T: DeserializeOwned>(
    connection: &Connection,
    path: &Path,
    key: &str,
) -> Result<Option<Record<T>>, RecordsError> {
    let sql = "SELECT revision, value FROM records WHERE key = ?1";
    let row = connection.prepare_cached(sql).and_then(|mut statement| {
        statement.query_row([key], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()
    });
    let row = row.map_err(|source| RecordsError::from_sqlite("read", path, source))?;
    row.map(|(revision, json)| Ok(Record { revision, value: parse(key, &json)? })).transpose()
}

fn list<T: DeserializeOwned>(
    connection: &Connection,
    path: &Path,
    prefix: &str,
) -> Result<Vec<(String, Record<T>)>, RecordsError> {
    let error = |source| RecordsError::from_sqlite("read", path, source);
    let sql = "SELECT key, revision, value FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map([prefix, &key::past(prefix)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(error)?;
    let mut records = Vec::new();
    for row in rows {
        let (key, revision, json): (String, u64, String) = row.map_err(error)?;
        let value = parse(&key, &json)?;
        records.push((key, Record { revision, value }));
    }
    Ok(records)
}

fn parse<T: DeserializeOwned>(key: &str, json: &str) -> Result<T, RecordsError> {
    serde_json::from_str(json).map_err(|source| RecordsError::Value { key: key.to_owned(), source })
}

/// Cuts the log to what is kept; the newest change always is.
fn compact(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT revision, ifnull(octet_length(value), 0) FROM changes ORDER BY revision DESC LIMIT ?1",
    )?;
    let mut rows = statement.query([CHANGES_KEPT])?;
    let (mut oldest, mut bytes) = (None, 0);
    while let Some(row) = rows.next()? {
        bytes += row.get::<_, u64>(1)?;
        if oldest.is_some() && bytes > CHANGE_BYTES_KEPT {
            break;
        }
        oldest = Some(row.get::<_, u64>(0)?);
    }
    connection.prepare_cached("DELETE FROM changes WHERE revision < ?1")?.execute([oldest.unwrap_or(0)])?;
    Ok(())
}

#[cfg(test)]
mod tests;
