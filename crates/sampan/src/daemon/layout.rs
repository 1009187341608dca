//! The directories below the root, made with the modes that keep strangers out.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sampan_api::Access;
use sampan_client::Root;
use sampan_model::view::ErrorView;

/// Where everything is.
pub struct Layout {
    /// The root, canonical.
    pub root: PathBuf,
    /// Sockets and the journal.
    pub run_dir: PathBuf,
    /// The daemon's own log.
    pub daemon_log: PathBuf,
    socket: PathBuf,
    /// Whether there was no root before.
    is_new: bool,
}

/// Everything below the root that is not in `run`.
const PARTS: [&str; 4] = ["blobs", "layers", "containers", "logs"];
/// The files there.
const FILES: [&str; 5] = ["records.db", "records.db-wal", "records.db-shm", "daemon.log", "supervisor.log"];

impl Layout {
    /// Makes what is missing. The root itself can be passed through (sockets are below it) but not listed; all else is
    /// root's alone: container root's setuid files are real ones (`kernel.md` 3).
    pub fn prepare(root: &Root) -> anyhow::Result<Self> {
        let is_new = !root.path().exists();
        make(root.path(), 0o711)?;
        let path = root.path().canonicalize().with_context(|| format!("find {}", root.path().display()))?;
        for part in PARTS {
            make(&path.join(part), 0o700)?;
        }
        let run_dir = root.run_dir();
        make(&run_dir, 0o711)?;
        Ok(Self { daemon_log: path.join("daemon.log"), root: path, run_dir, socket: root.socket(), is_new })
    }

    /// The logs' directory is the logger's, which is nobody else.
    pub fn give_logs_to(&self, id: u32) -> anyhow::Result<()> {
        let logs = self.root.join("logs");
        std::os::unix::fs::chown(&logs, Some(id), Some(id)).with_context(|| format!("give {} away", logs.display()))
    }

    /// Opens the API's socket to root and a group.
    pub fn open_socket_to(&self, group: Option<u32>) {
        let opened = std::os::unix::fs::chown(&self.socket, None, Some(group.unwrap_or(0)))
            .and_then(|()| fs::set_permissions(&self.socket, Permissions::from_mode(0o660)));
        if let Err(error) = opened {
            tracing::warn!(%error, "the API's socket could not be opened to its group");
        }
    }

    /// Removes what only a running daemon and supervisor need.
    pub fn remove_run_files(&self) {
        for name in ["sampan.sock", "supervisor.sock", "supervisor.lock", "journal"] {
            remove(&self.run_dir.join(name));
        }
    }

    /// Removes everything but the lock, which whoever purges removes with the root.
    pub fn remove_everything(&self) {
        for part in PARTS {
            remove(&self.root.join(part));
        }
        for file in FILES {
            remove(&self.root.join(file));
        }
    }
}

impl Layout {
    /// Removes a root that was made for a daemon that could not start.
    pub fn remove_what_is_new(&self) {
        if self.is_new {
            self.remove_run_files();
            self.remove_everything();
            remove(&self.run_dir);
            remove(&self.root);
        }
    }
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

fn make(path: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).with_context(|| format!("make {}", path.display()))?;
    // one that was there already, or that the umask narrowed
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

/// The daemon is root's, so far.
pub fn refuse_without_root() -> Result<(), ErrorView> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(ErrorView {
        code: "needs_root".to_owned(),
        message: "the daemon needs root: it makes namespaces, mounts and wires".to_owned(),
        hint: Some("start it with `sudo sampan daemon start`".to_owned()),
    })
}

/// The user that the daemon was started for, by sudo.
pub fn owner() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok()
}

/// The group `sampan`, where this machine has one.
pub fn group() -> Option<(u32, Vec<u32>)> {
    let group = fs::read_to_string("/etc/group").ok()?;
    Access::group_of(&group, &fs::read_to_string("/etc/passwd").unwrap_or_default())
}
