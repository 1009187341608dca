//! Images on their way to the daemon.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampan_client::Client;
use sampan_model::view::ImageView;
use sampan_model::{Digest, ImageName};

use crate::cli::age::bytes;
use crate::cli::failure::Failure;
use crate::cli::progress::Steps;

/// A file to send.
pub struct Blob {
    pub digest: Digest,
    pub path: PathBuf,
    pub size: u64,
}

/// Sends an image's blobs, those that the daemon does not have, and names it.
pub async fn put_image(
    client: &Client,
    blobs: &[Blob],
    manifest: &Digest,
    names: &[ImageName],
    steps: &mut Steps,
) -> Result<Vec<ImageView>, Failure> {
    send(client, blobs, steps).await?;
    let mut named = Vec::with_capacity(names.len());
    for name in names {
        named.push(match client.put_image(name, manifest).await {
            // collected in the moment before it had a name: the daemon was started anew in between
            Err(error) if error.is("blob_missing") => {
                send(client, blobs, steps).await?;
                client.put_image(name, manifest).await?
            }
            other => other?,
        });
    }
    Ok(named)
}

async fn send(client: &Client, blobs: &[Blob], steps: &mut Steps) -> Result<(), Failure> {
    let total: u64 = blobs.iter().map(|blob| blob.size).sum();
    let sent = Arc::new(AtomicU64::new(0));
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    tick.tick().await;
    for blob in blobs {
        let counter = Arc::clone(&sent);
        let sending = client.upload_blob(&blob.digest, &blob.path, move |count| {
            counter.fetch_add(count, Ordering::Relaxed);
        });
        tokio::pin!(sending);
        loop {
            tokio::select! {
                done = &mut sending => {
                    done?;
                    break;
                }
                // where it is no spinner it is a line, and one is enough
                _ = tick.tick() => steps.waiting(&match std::io::stderr().is_terminal() {
                    true => format!("uploading: {} of {}", bytes(sent.load(Ordering::Relaxed).min(total)), bytes(total)),
                    false => format!("uploading {}", bytes(total)),
                }),
            }
        }
    }
    Ok(())
}
