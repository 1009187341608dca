//! How the daemon is started, and how it tells whoever started it in the background that it is ready, or why not.
//!
//! The other side is `sampan_client::start`: a pipe as standard output, named by `SAMPAN_READY_FD=1`, on which one
//! line is written: `ready`, or an [`ErrorView`] as JSON.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use sampan_client::{Listen, Root};
use sampan_model::view::ErrorView;

/// What the daemon is started with.
#[derive(Debug)]
pub struct DaemonArgs {
    /// Its root.
    pub root: Root,
    /// Where services are to be reached, where that was asked for; else the default port or the next free one.
    pub http: Option<Listen>,
    /// Who waits for it to be ready.
    pub ready: Ready,
}

/// Whoever waits for the daemon; nobody where it runs in the foreground. Dropped without a word, it tells that the
/// daemon died.
#[derive(Debug)]
pub struct Ready(Option<OwnedFd>);

impl Ready {
    /// Takes the pipe off standard output and leaves `/dev/null` there, so that no child inherits it; and leaves the
    /// session of whoever started us. Where nobody waits, does nothing.
    ///
    /// # Errors
    /// Where descriptors have run out or there is no `/dev/null`.
    pub fn take() -> std::io::Result<Self> {
        if std::env::var_os("SAMPAN_READY_FD").is_none_or(|fd| fd != "1") {
            return Ok(Self(None));
        }
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdout(&null)?;
        // refused for a session's leader, which is what is wanted already
        let _ = rustix::process::setsid();
        Ok(Self(Some(pipe)))
    }

    /// The daemon listens.
    pub fn tell_ready(self) {
        self.tell(b"ready\n");
    }

    /// The daemon cannot run. Where nobody waits, it is said on standard error.
    pub fn tell_error(self, error: &ErrorView) {
        if self.0.is_none() {
            crate::cli::print_error(&error.message, error.hint.as_deref());
        }
        let mut line = serde_json::to_vec(error).expect("an error view has string keys only");
        line.push(b'\n');
        self.tell(&line);
    }

    fn tell(self, line: &[u8]) {
        if let Some(pipe) = self.0 {
            // whoever waited may have been interrupted: the daemon goes on without
            let _ = std::fs::File::from(pipe).write_all(line);
        }
    }
}
