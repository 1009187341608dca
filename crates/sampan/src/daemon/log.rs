//! The daemon's own log: `daemon.log` in its root where it runs in the background, standard error else.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use crate::process;

/// A log that has grown beyond this is begun anew when a daemon starts.
const LONGEST_LOG: u64 = 16 << 20;

/// Begins to log.
pub fn begin(path: &Path) {
    let builder = tracing_subscriber::fmt().with_env_filter(process::log_filter()).with_target(false);
    let too_long = std::fs::metadata(path).is_ok_and(|meta| meta.len() > LONGEST_LOG);
    let in_foreground = std::io::stderr().is_terminal() || std::env::var_os("INVOCATION_ID").is_some();
    match open(path, too_long) {
        Ok(file) if !in_foreground => builder.with_ansi(false).with_writer(Mutex::new(file)).init(),
        _ => builder.with_writer(std::io::stderr).init(),
    }
}

/// Root's alone, an older one too: it tells what runs here, and with what.
fn open(path: &Path, begin_anew: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(!begin_anew).write(true).truncate(begin_anew).mode(0o600);
    let file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
