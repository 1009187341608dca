//! The daemon's own log: `daemon.log` in its root where it runs in the background, standard error else.

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
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
    let file = OpenOptions::new().create(true).append(!too_long).write(true).truncate(too_long).open(path);
    match file {
        Ok(file) if !in_foreground => builder.with_ansi(false).with_writer(Mutex::new(file)).init(),
        _ => builder.with_writer(std::io::stderr).init(),
    }
}
