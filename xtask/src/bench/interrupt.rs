//! Ctrl-C ends a benchmark between two measurements, so that what it made is taken down.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are only noted. What is run meanwhile is in process groups of its own, and
/// hears nothing of them.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("listen for signals")?;
    let guard = runtime.enter();
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("listen for signals")?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals[..] else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            ASKED.store(true, Ordering::SeqCst);
            eprintln!("xtask: ending; what was made is taken down first");
            // the streams stay: a further signal changes nothing
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

/// Fails once somebody has asked for the end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}
