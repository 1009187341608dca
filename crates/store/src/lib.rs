//! What must outlive a process: bytes by digest, records by key with a revision and a watch, and the lock that keeps
//! a root to one daemon.
//!
//! This crate owns durability. A thing is written to a temporary name, synced, renamed, and its directory synced:
//! what is half written is invisible, and what was answered for survives a power cut. It knows nothing of what the
//! bytes and records mean, deletes nothing on its own, and reaches no network.
//!
//! Words: a **blob** is bytes named by their digest; a **record** is a JSON value with a key and a **revision**, the
//! number of the change that wrote it; one sequence of revisions runs through all records.
//!
//! Everything here but [`Watch::next`] is synchronous, and blocks on the disk at most for one sync.

#![forbid(unsafe_code)]

pub mod blobs;
mod boot;
pub mod lock;
pub mod records;

pub use blobs::{BlobError, BlobWriter, Blobs};
pub use boot::boot_id;
pub use lock::{LockError, RootLock};
pub use records::{Change, Durability, Record, Records, RecordsError, RevisionTooOld, Transaction, Watch, WatchError};
