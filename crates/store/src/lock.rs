//! One daemon a root: an flock(2) on a file that says who holds it.
//!
//! The kernel lets the lock go with the process, however that ends; the pid in the file is for people and is never
//! trusted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A root's lock, held until it is dropped. Closed by `execve`, so that a daemon that replaces itself takes it anew.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

/// Why a root could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another daemon{} already runs on this root (it holds {})", holder(*.pid), .path.display())]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// Who has it, where the file says so.
        pid: Option<u32>,
    },
    /// The file could not be opened, locked or written.
    #[error("lock {}", .path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RootLock {
    /// Takes the lock, without waiting. The file is made with mode 0600 where it is not there, and never removed: to
    /// remove a lock's file is to let two processes lock two files of one name.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // not before the lock is ours: it holds its holder's pid
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // a holder that has not yet written its pid, or a file of another kind, only costs the message its pid
                let pid = (&file).take(16).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { path: path.to_owned(), pid });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.lock");
        let first = RootLock::acquire(&path).unwrap();
        let error = RootLock::acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(first);
        RootLock::acquire(&path).unwrap();
    }
}
