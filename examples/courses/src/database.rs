//! The embedded database: one file, one connection, one thread that owns it.
//!
//! SQLite writes one thing at a time whatever is done about it, so all work goes through one bounded queue to one
//! thread: no lock is waited for, no pool is exhausted, and a write is never overtaken by the next. Whoever waits too
//! long is waited for no longer by the platform in front; what was begun is finished all the same.
//!
//! Answered means kept: WAL with `synchronous=FULL` is on the disk when a transaction has ended.

use std::path::{Path, PathBuf};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::seed;

/// Requests that wait for the thread; the next one waits before it.
const QUEUE: usize = 64;

/// The file's name in its directory.
const FILE: &str = "courses.db";

/// Every version of the tables, each made from the one before. What has been in use is not changed any more: what comes
/// later is added below.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE courses (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        version      INTEGER NOT NULL DEFAULT 1,
        name         TEXT    NOT NULL CHECK (name <> ''),
        description  TEXT    NOT NULL CHECK (description <> ''),
        -- in the currency's smallest units
        amount_minor INTEGER NOT NULL CHECK (amount_minor >= 0),
        currency     TEXT    NOT NULL CHECK (length(currency) = 3),
        start_day    TEXT    NOT NULL,
        end_day      TEXT    NOT NULL CHECK (end_day >= start_day),
        -- name and description in lower case: SQLite itself knows the case of ASCII only
        search       TEXT    NOT NULL
    ) STRICT;
    -- the same course does not start twice on one day
    CREATE UNIQUE INDEX courses_once ON courses (name COLLATE NOCASE, start_day);
    CREATE INDEX courses_by_start ON courses (start_day, id);
"];

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A way to the database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    jobs: mpsc::Sender<Job>,
}

/// The thread. It ends when every [`Database`] is gone, and closes the file.
pub struct Keeper(thread::JoinHandle<()>);

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory could not be made.
    #[error("make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its file could not be opened or brought up to date.
    #[error("open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("the database {} has version {found}, and this program knows versions up to {}", path.display(), MIGRATIONS.len())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is no thread to be had.
    #[error("start the database's thread")]
    Thread(#[source] std::io::Error),
}

/// Why the database did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is closed already.
    #[error("the database is closed")]
    Closed,
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl Database {
    /// Opens the database in a directory, both made where they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(directory: &Path) -> Result<(Self, Keeper), OpenError> {
        std::fs::create_dir_all(directory).map_err(|source| OpenError::Directory { path: directory.into(), source })?;
        let path = directory.join(FILE);
        let mut connection = connect(&path).map_err(|source| OpenError::Open { path: path.clone(), source })?;
        migrate(&mut connection, &path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
            // what is learned of the tables' sizes is for the next start; nothing depends on it
            connection.execute_batch("PRAGMA optimize").ok();
        };
        let thread = thread::Builder::new().name("database".into()).spawn(work).map_err(OpenError::Thread)?;
        Ok((Self { jobs }, Keeper(thread)))
    }

    /// Has work done on the connection. Dropping the future does not stop work that has been handed over.
    ///
    /// # Errors
    /// Those of the work, and [`DatabaseError::Closed`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // whoever asked may be gone
            answer.send(work(connection)).ok();
        });
        self.jobs.send(job).await.map_err(|_| DatabaseError::Closed)?;
        Ok(answered.await.map_err(|_| DatabaseError::Closed)??)
    }
}

impl Keeper {
    /// Waits until the file is closed.
    pub fn join(self) {
        // a panic of its own was written to the log when it happened
        self.0.join().ok();
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // during an update the old and the new replica have it open for a moment
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Makes the tables that are missing, in one transaction; a new database gets its first courses with them, so that
/// they do not come back when somebody has deleted them.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let missing = MIGRATIONS.get(found as usize..).ok_or_else(|| OpenError::Newer { path: path.to_owned(), found })?;
    if missing.is_empty() {
        return Ok(());
    }
    for migration in missing {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    if found == 0 {
        seed::plant(&transaction).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn count(database: &Database) -> i64 {
        let work =
            |connection: &mut Connection| connection.query_row("SELECT count(*) FROM courses", [], |row| row.get(0));
        database.run(work).await.expect("a count")
    }

    #[tokio::test]
    async fn the_first_courses_come_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().join("a/b");
        let (database, keeper) = Database::open(&directory).expect("a new database");
        assert!(count(&database).await > 8);
        database.run(|connection| connection.execute("DELETE FROM courses", [])).await.expect("deleted");
        drop(database);
        keeper.join();
        let (database, _keeper) = Database::open(&directory).expect("the same database");
        assert_eq!(count(&database).await, 0);
    }

    #[tokio::test]
    async fn newer_databases_are_refused_and_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (database, keeper) = Database::open(directory.path()).expect("a new database");
        database.run(|connection| connection.pragma_update(None, "user_version", 1000)).await.expect("a newer one");
        drop(database);
        keeper.join();
        let error = Database::open(directory.path()).err().expect("refused");
        assert!(matches!(error, OpenError::Newer { found: 1000, .. }), "{error}");
    }
}
