//! What the roles need to know of their own process, and set up for it first.

use std::io;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

/// What is logged: what `SAMPAN_LOG` says, else `info`.
pub fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("SAMPAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Logs to standard error, which the supervisor has appended to a file.
pub fn log_to_stderr() {
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_ansi(false).with_writer(std::io::stderr).init();
}

/// Allows as many descriptors as may be had without asking for more: the soft limit is often 1,024, and a connection
/// that is passed on takes two.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit on descriptors stays as it is");
    }
}

/// Sampan's own binary, to be executed again: the one at its path, which after an upgrade is the new one; this very one
/// where there is none any more.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own_binary() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    if path.exists() {
        return Ok(path);
    }
    // the kernel's mark on a file that was replaced or removed
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into()))
}
