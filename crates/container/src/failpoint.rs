//! Named points at which a test has the daemon killed: `SAMPAN_FAILPOINT=NAME:FILE`.
//!
//! The daemon aborts when it comes to the point NAME while FILE exists; the file goes first, so that the next daemon,
//! which inherits the variable, passes. Without the variable a point costs one atomic load.

use std::path::PathBuf;
use std::sync::OnceLock;

static ARMED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();

/// The daemon is at the point `name`.
pub fn reach(name: &str) {
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("SAMPAN_FAILPOINT").ok()?;
        let (name, file) = text.split_once(':')?;
        Some((name.to_owned(), PathBuf::from(file)))
    });
    if let Some((armed, file)) = armed
        && armed == name
        && std::fs::remove_file(file).is_ok()
    {
        std::process::abort();
    }
}
