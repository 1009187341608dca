//! The records' file: SQLite 3 in WAL mode, application id `Samp`, `user_version` [`VERSION`].
//!
//! ```text
//! records(key, revision, value)     what is: one row a record
//! changes(revision, key, value)     what was: one row a change, NULL for a deletion, the last 10,000
//!
//! records  default/service/hello │ 8 │ {"image":"sha256:…","replicas":2}
//! changes  7 │ default/service/hello │ {"image":"sha256:…","replicas":1}
//!          8 │ default/service/hello │ {"image":"sha256:…","replicas":2}
//!          9 │ default/container/ab12 │ NULL
//! ```
//!
//! The newest change is never compacted away, so the records' revision is the largest in `changes`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::RecordsError;

/// The format that this program writes. A format that differs gets the next number and a step in [`open_writer`] that
/// turns the one before into it.
pub(super) const VERSION: i32 = 1;

/// `Samp`: what file(1) and we tell our files by.
const APPLICATION_ID: i32 = 0x5361_6d70;

const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

const TABLES: &str = "
    CREATE TABLE records (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;
    CREATE TABLE changes (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT) STRICT;
";

/// Opens the file for writing, makes it where it is not there, and checks that it is ours, whole, and not from a later
/// Sampan. A file that fails a check is left as it is.
pub(super) fn open_writer(path: &Path) -> Result<Connection, RecordsError> {
    check_magic(path)?;
    let error = |source| RecordsError::from_sqlite("open", path, source);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found: i32 = pragma(&connection, "user_version").map_err(error)?;
    let tables: i32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(error)?;
    let ours: i32 = pragma(&connection, "application_id").map_err(error)?;
    match (found, tables) {
        (0, 0) => {}
        _ if ours != APPLICATION_ID => return Err(RecordsError::Foreign(path.to_owned())),
        (VERSION, _) => check_whole(&connection, path)?,
        _ => return Err(RecordsError::Version { path: path.to_owned(), found, ours: VERSION }),
    }
    // the first write comes after the checks; the mode stays with the file
    connection.pragma_update(None, "journal_mode", "WAL").map_err(error)?;
    // where the daemon is killed the log is replayed at the next open; 1 MiB of it at most stays on the disk
    connection.pragma_update(None, "journal_size_limit", 1 << 20).map_err(error)?;
    if tables == 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error)?;
        transaction.execute_batch(TABLES).map_err(error)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(error)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(error)?;
        transaction.commit().map_err(error)?;
    }
    Ok(connection)
}

/// Opens a file that [`open_writer`] has checked for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, RecordsError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, RecordsError> {
    let error = |source| RecordsError::from_sqlite("open", path, source);
    // each connection is behind a mutex of ours; a symbolic link in the place of the file is not followed
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.set_prepared_statement_cache_capacity(16);
    // an idle daemon is small: 256 KiB of pages a connection, nothing mapped
    for (name, value) in [("cache_size", -256), ("mmap_size", 0), ("temp_store", 2), ("busy_timeout", 5000)] {
        connection.pragma_update(None, name, value).map_err(error)?;
    }
    Ok(connection)
}

/// Makes the file with mode 0600 where it is not there, and refuses one that SQLite would take for something else.
fn check_magic(path: &Path) -> Result<(), RecordsError> {
    let io = |source| RecordsError::Io { action: "open", path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut head = Vec::with_capacity(SQLITE_MAGIC.len());
    file.map_err(io)?.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut head).map_err(io)?;
    if head.is_empty() || head == SQLITE_MAGIC { Ok(()) } else { Err(RecordsError::Foreign(path.to_owned())) }
}

fn check_whole(connection: &Connection, path: &Path) -> Result<(), RecordsError> {
    let result: Result<String, _> = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    match result.map_err(|source| RecordsError::from_sqlite("check", path, source))?.as_str() {
        "ok" => Ok(()),
        found => Err(RecordsError::Corrupt {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, found.replace('\n', " ")).into(),
        }),
    }
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
