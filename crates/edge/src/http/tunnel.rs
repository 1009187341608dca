//! Upgraded connections (WebSocket): bytes both ways until both ends are done, with no limit on silence. They count
//! as one connection and one flight until then.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::table::Flight;

/// Passes bytes between two connections that are being upgraded.
pub(super) async fn pass(client: OnUpgrade, upstream: OnUpgrade, flight: Flight) {
    // Either end can vanish before or after; the other is closed by being dropped, and nobody is left to be told.
    if let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) {
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
    }
    drop(flight);
}
