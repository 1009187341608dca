//! The native API's socket: whose it is, who may connect, and how the next daemon comes by it.
//!
//! | whose | made by | its file | kept over a restart by |
//! |---|---|---|---|
//! | the daemon's | the first daemon | removed when the daemon ends | its descriptor, [`FD`] |
//! | systemd's | `sampan.socket`, with its owner and mode | systemd's | the same; after an end, systemd |

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::net::sockopt;
use sampan_api::Access;

use super::layout::{self, Layout};

/// The variable in which a restarting daemon hands its API socket to the next one.
const FD: &str = "SAMPAN_NATIVE_FD";
/// And the one in which it says whose that is, where it is not its own.
const OF: &str = "SAMPAN_NATIVE_OF";
const SYSTEMD: &str = "systemd";

/// Whose the socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The daemon's own.
    Daemon,
    /// systemd's, which listens on it when there is no daemon.
    Systemd,
}

/// The socket.
#[derive(Debug)]
pub struct NativeSocket {
    listener: UnixListener,
    whose: Whose,
}

impl NativeSocket {
    /// The one that a restarting daemon left, else the one that systemd hands over, else a new one.
    ///
    /// # Errors
    /// A new one cannot be bound.
    pub fn open(layout: &Layout, passed: Option<OwnedFd>) -> anyhow::Result<Self> {
        if let Some(left) = left_by_the_last() {
            return Ok(left);
        }
        match passed {
            Some(socket) => Ok(Self { listener: socket.into(), whose: Whose::Systemd }),
            None => Ok(Self { listener: bind(&layout.run_dir)?, whose: Whose::Daemon }),
        }
    }

    /// Whose it is.
    pub fn whose(&self) -> Whose {
        self.whose
    }

    /// Opens it to those who may speak to the daemon, and says who they are. A socket of systemd's is open to whom its
    /// unit says; its owner is the user that Sampan was installed for.
    pub fn admit(&self, layout: &Layout) -> Access {
        let group = layout::group();
        let owner = match self.whose {
            Whose::Daemon => layout::owner(),
            Whose::Systemd => std::fs::metadata(layout.socket()).map(|file| file.uid()).ok().filter(|&uid| uid != 0),
        };
        if self.whose == Whose::Daemon {
            layout.open_socket_to(owner, group.as_ref().map(|(gid, _)| *gid));
        }
        Access { owner, group }
    }

    /// For the daemon's own use; the other end of it is [`keep`](Self::keep).
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn listener(&self) -> anyhow::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone().context("use the API's socket")?;
        listener.set_nonblocking(true).context("use the API's socket")?;
        tokio::net::UnixListener::from_std(listener).context("use the API's socket")
    }

    /// Leaves it open, under its number, to the daemon that this process becomes by `command`.
    pub fn keep(&self, command: &mut Command) {
        if let Err(error) = rustix::io::fcntl_setfd(self.listener.as_fd(), rustix::io::FdFlags::empty()) {
            tracing::warn!(%error, "the API's socket could not be kept");
        }
        command.env(FD, self.listener.as_raw_fd().to_string());
        match self.whose {
            Whose::Daemon => command.env_remove(OF),
            Whose::Systemd => command.env(OF, SYSTEMD),
        };
    }
}

fn left_by_the_last() -> Option<NativeSocket> {
    let number = std::env::var(FD).ok()?.parse().ok()?;
    let socket = sampan_sys::process::inherited(number).ok()?;
    let whose = if std::env::var(OF).is_ok_and(|of| of == SYSTEMD) { Whose::Systemd } else { Whose::Daemon };
    (sockopt::socket_acceptconn(&socket) == Ok(true)).then(|| NativeSocket { listener: socket.into(), whose })
}

fn bind(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = run_dir.join("sampan.sock");
    // whoever left it is dead: the lock is ours
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", path.display()));
        }
        _ => {}
    }
    let directory = std::fs::File::open(run_dir).context("open the run directory")?;
    // through the directory's descriptor: a socket's path ends at 107 bytes, a root's need not
    let short = format!("/proc/self/fd/{}/sampan.sock", directory.as_raw_fd());
    UnixListener::bind(short).with_context(|| format!("listen on {}", path.display()))
}
