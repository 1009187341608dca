//! From a packed image to a ready service: uploaded, asked for, followed to the deploy's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampan_client::model::view::{Deploy, DeployEvent, ErrorView};
use sampan_client::model::{Label, ServiceSpec};
use sampan_client::pack::Packed;
use sampan_client::{Client, ClientError};

use crate::cli::age::bytes;
use crate::cli::failure::Failure;
use crate::cli::interrupt::{INTERRUPTED, Interrupts};
use crate::cli::progress::Steps;

/// How often in a row a deploy is asked for again whose telling broke off.
const LOSSES: u32 = 5;

/// Sends what the daemon does not have.
pub(super) async fn upload(client: &Client, packed: &Packed, steps: &mut Steps) -> Result<(), ClientError> {
    let total: u64 = packed.blobs.iter().map(|blob| blob.size).sum();
    let sent = Arc::new(AtomicU64::new(0));
    let mut new = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    tick.tick().await;
    for blob in &packed.blobs {
        let counter = Arc::clone(&sent);
        let sending = client.upload_blob(&blob.digest, &blob.path, move |count| {
            counter.fetch_add(count, Ordering::Relaxed);
        });
        tokio::pin!(sending);
        loop {
            tokio::select! {
                was_sent = &mut sending => {
                    new += if was_sent? { blob.size } else { 0 };
                    break;
                }
                _ = tick.tick() => {
                    let sent = sent.load(Ordering::Relaxed).min(total);
                    steps.waiting(&format!("uploading: {} of {}", bytes(sent), bytes(total)));
                }
            }
        }
    }
    steps.done(&match new {
        0 => "uploaded nothing: the daemon has it all".into(),
        new => format!("uploaded {}", bytes(new)),
    });
    Ok(())
}

/// Asks for the service.
pub(super) async fn commit(
    client: &Client,
    packed: &Packed,
    spec: &ServiceSpec,
    steps: &mut Steps,
) -> Result<Deploy, ClientError> {
    match client.put_service(spec).await {
        // collected in the moment before it was of use
        Err(error) if error.is("blob_missing") => {
            upload(client, packed, steps).await?;
            client.put_service(spec).await
        }
        other => other,
    }
}

/// Follows a deploy to its end; the service's URL.
pub(super) async fn follow(
    client: &Client,
    deploy: Deploy,
    interrupts: &mut Interrupts,
    steps: &mut Steps,
) -> Result<String, Failure> {
    let Deploy { name, version } = deploy;
    let mut followed = Followed { client, name: &name, version };
    let end = tokio::select! {
        end = followed.end(steps) => Some(end?),
        () = interrupts.first() => None,
    };
    match end {
        Some(DeployEvent::Ready { url, port, port_source }) => {
            steps.done(&match port {
                0 => format!("ready: {port_source}"),
                port => format!("ready: port {port} ({port_source})"),
            });
            Ok(url)
        }
        Some(DeployEvent::Failed { error, log_tail }) => {
            steps.end();
            Err(failed(&name, error, &log_tail))
        }
        Some(DeployEvent::Waiting { .. } | DeployEvent::Superseded { .. }) => {
            unreachable!("neither is where following ends")
        }
        None => {
            steps.end();
            // it does nothing to a version that is ready, or that another one took the place of
            interrupts.hold(client.give_up_deploy(&name, version)).await??;
            match interrupts.hold(followed.now()).await?? {
                // the interrupt came too late
                Some(DeployEvent::Ready { url, .. }) => Ok(url),
                Some(DeployEvent::Failed { .. }) => {
                    eprintln!("interrupted: {name} is as it was");
                    Err(Failure::silent(INTERRUPTED))
                }
                _ => Err(Failure::silent(INTERRUPTED)),
            }
        }
    }
}

struct Followed<'a> {
    client: &'a Client,
    name: &'a Label,
    /// The version that is followed: ours, then whichever takes its place.
    version: u64,
}

impl Followed<'_> {
    /// How the deploy stands now.
    async fn now(&self) -> Result<Option<DeployEvent>, ClientError> {
        self.client.deploy_events(self.name, self.version).await?.next().await.transpose()
    }

    /// The event that ends the deploy, or the one of the version that took its place.
    async fn end(&mut self, steps: &mut Steps) -> Result<DeployEvent, ClientError> {
        let mut losses = 0;
        loop {
            let mut events = self.client.deploy_events(self.name, self.version).await?;
            let lost = loop {
                match events.next().await {
                    Some(Ok(DeployEvent::Waiting { on })) => {
                        losses = 0;
                        steps.waiting(&format!("waiting for {on}"));
                    }
                    Some(Ok(DeployEvent::Superseded { by })) => {
                        steps.done(&format!("version {by} took the place of version {}", self.version));
                        self.version = by;
                        break None;
                    }
                    Some(Ok(end)) => return Ok(end),
                    Some(Err(error)) => break Some(error),
                    // a daemon that stops ends its answers properly; the next one knows more
                    None => {
                        break Some(ClientError::Answer {
                            request: format!("the deploy of {}", self.name),
                            reason: "it ends before the deploy has".into(),
                        });
                    }
                }
            };
            match lost {
                Some(error) if losses == LOSSES => return Err(error),
                Some(error @ (ClientError::Lost { .. } | ClientError::Answer { .. })) => {
                    losses += 1;
                    drop(error);
                }
                Some(error) => return Err(error),
                None => {}
            }
        }
    }
}

/// Says what the app said last; why it was given up is for the end.
fn failed(name: &Label, error: ErrorView, log_tail: &[String]) -> Failure {
    if !log_tail.is_empty() {
        eprint!("{}", render_tail(name, log_tail));
    }
    let failure = Failure::new(error.message);
    match error.hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn render_tail(name: &Label, log_tail: &[String]) -> String {
    let mut text = format!("the last lines of {name}:\n");
    for line in log_tail {
        text.push_str(&format!("  | {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines() {
        let name = Label::parse("hello").unwrap();
        let text = render_tail(&name, &["one".into(), "two".into()]);
        assert_eq!(text, "the last lines of hello:\n  | one\n  | two\n");
    }
}
