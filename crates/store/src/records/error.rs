//! Why records could not be opened, read or written.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::{LARGEST_VALUE, key};

/// Why records could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The key has another form.
    #[error("the key {0:?} {rule}", rule = key::RULE)]
    Key(String),
    /// The value is too large.
    #[error("the value of {key} has {size} bytes; the limit is {LARGEST_VALUE}")]
    TooLarge {
        /// Whose value.
        key: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The value cannot be written as JSON, or the JSON is not that of the type asked for.
    #[error("the record {key} is not what this version of Sampan takes it for")]
    Value {
        /// Whose value.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else has written the record since it was read.
    #[error("the record {key} was changed meanwhile (its revision is {}, not {})", revision(*.found), revision(*.expected))]
    Conflict {
        /// Which record.
        key: String,
        /// The revision that the caller had read; `None`: no record.
        expected: Option<u64>,
        /// The revision it has.
        found: Option<u64>,
    },
    /// The file was written by a later Sampan.
    #[error("{} has format {found}, this Sampan knows up to {ours}: use the newer Sampan that wrote it", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i32,
        /// The newest format that is known here.
        ours: i32,
    },
    /// The file is something else.
    #[error("{} is not a file of Sampan's records: move it away, or use another root", .0.display())]
    Foreign(PathBuf),
    /// The file is damaged.
    #[error("{} is damaged: restore it from a backup, or move it away to start with no records", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk is full, or its owner's quota is.
    #[error("no space is left on the disk of {}", .path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file could not be used.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite could not do it.
    #[error("{action} {}", .path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl RecordsError {
    pub(super) fn from_sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { path, source: source.into() },
            Some(ErrorCode::DiskFull) => Self::NoSpace { path, source },
            _ => Self::Sqlite { action, path, source },
        }
    }
}

fn revision(revision: Option<u64>) -> String {
    revision.map_or_else(|| "none".to_owned(), |revision| revision.to_string())
}
