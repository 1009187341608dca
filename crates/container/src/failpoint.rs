//! Named points at which a test interferes with the daemon: `SAMPAN_FAILPOINT=NAME:FILE`.
//!
//! When the daemon comes to the point NAME while FILE exists, it does what FILE says; the file goes first, so that this
//! happens once, also where the next daemon inherits the variable. Without the variable a point costs one atomic load.
//!
//! | FILE says | the daemon |
//! |---|---|
//! | nothing | aborts |
//! | `hold` | makes FILE.held and waits until that is removed, a minute at most: whoever made the file may kill others |

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static ARMED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();

const HELD_AT_MOST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// The daemon is at the point `name`.
pub fn reach(name: &str) {
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("SAMPAN_FAILPOINT").ok()?;
        let (name, file) = text.split_once(':')?;
        Some((name.to_owned(), PathBuf::from(file)))
    });
    if let Some((armed, file)) = armed
        && armed == name
        && let Ok(order) = fs::read_to_string(file)
        && fs::remove_file(file).is_ok()
    {
        match order.trim() {
            "hold" => hold(file),
            _ => std::process::abort(),
        }
    }
}

fn hold(file: &Path) {
    let held = file.with_extension("held");
    if fs::write(&held, "").is_err() {
        return;
    }
    let until = Instant::now() + HELD_AT_MOST;
    while held.exists() && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
}
