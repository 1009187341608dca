//! `sampan up`: from a directory of source to a URL.
//!
//! ```text
//! prepare ─▶ pack          as the caller; Ctrl-C stops the compiler and what it started
//!   ─▶ upload              nothing has a name yet: Ctrl-C leaves blobs, which the daemon collects
//!   ─▶ put the service     goes on to its end despite a Ctrl-C, so that it is known what to take back
//!   ─▶ follow ─▶ URL       Ctrl-C gives the deploy up
//! ```
//!
//! Every request of it may be made twice, so a daemon that dies at any moment is started again and the work goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampan_client::model::view::{Deploy, DeployEvent, ErrorView, ServiceView};
use sampan_client::model::{Label, ServiceSpec};
use sampan_client::pack::{self, Environment, Interrupt, Options, PackError, Packed, Prepared, Selection, Settings};
use sampan_client::{Client, ClientError};

use super::age::bytes;
use super::args::{Globals, UpArgs};
use super::connect::{check_possible, connect};
use super::failure::{Failure, print_error};
use super::interrupt::{INTERRUPTED, Interrupts};
use super::output;
use super::progress::{PackSteps, Steps};

/// How often in a row a deploy is asked for again whose telling broke off.
const LOSSES: u32 = 5;

pub async fn up(globals: &Globals, args: UpArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let mut steps = Steps::new(globals.quiet);
    // removed when it is dropped, on whichever way out
    let directory = tempfile::Builder::new()
        .prefix("sampan-up-")
        .tempdir()
        .map_err(|error| Failure::new(format!("make a directory for temporary files: {error}")))?;
    let (settings, packed) = pack(globals, args, directory.path(), &mut interrupts).await?;
    steps.done(&describe(&packed));
    let client = connect(globals).await?;
    tokio::select! {
        uploaded = upload(&client, &packed, &mut steps) => uploaded?,
        // blobs that nothing names are the daemon's to collect
        () = interrupts.first() => return Err(Failure::silent(INTERRUPTED)),
    }
    let name = settings.name.clone();
    let spec = settings.into_spec(packed.manifest.clone());
    let deploy = interrupts.hold(commit(&client, &packed, &spec, &mut steps)).await??;
    let url = follow(&client, deploy, &mut interrupts, &mut steps).await?;
    steps.end();
    report(globals, &client, &name, &url).await?;
    Ok(0)
}

/// Prints where the service is, alone and last.
async fn report(globals: &Globals, client: &Client, name: &Label, url: &str) -> Result<(), Failure> {
    if globals.json {
        let service: ServiceView = client.service(name).await?;
        return output::print_json(&service);
    }
    output::print_lines([url])
}

/// Makes the image's files as the caller, with the compiler's own words on standard error.
async fn pack(
    globals: &Globals,
    args: UpArgs,
    into: &std::path::Path,
    interrupts: &mut Interrupts,
) -> Result<(Settings, Packed), Failure> {
    let path = args.source.clone();
    let options = options(args);
    // cargo is asked what the source is: on a thread, so that Ctrl-C is heard meanwhile
    let preparing = tokio::task::spawn_blocking(move || {
        let environment = Environment::of_caller();
        pack::prepare(&path, &options, &environment).map(|prepared| (prepared, environment))
    });
    let (prepared, environment): (Prepared, Environment) = tokio::select! {
        prepared = preparing => finished(prepared)?,
        () = interrupts.first() => return Err(Failure::silent(INTERRUPTED)),
    };
    check_possible(globals).await?;
    let interrupt = Interrupt::default();
    let packing = {
        let (prepared, interrupt, into) = (prepared.clone(), interrupt.clone(), into.to_owned());
        let mut voice = PackSteps { quiet: globals.quiet };
        tokio::task::spawn_blocking(move || prepared.pack(&environment, &into, &mut voice, Some(&interrupt)))
    };
    tokio::pin!(packing);
    let packed = tokio::select! {
        packed = &mut packing => finished(packed)?,
        () = interrupts.first() => {
            interrupt.raise();
            // the compiler gives up its locks and half-written files; who does not want to wait insists
            let _ = interrupts.hold(packing).await?;
            return Err(Failure::silent(INTERRUPTED));
        }
    };
    Ok((prepared.settings, packed))
}

fn options(args: UpArgs) -> Options {
    let UpArgs { source: _, name, bin, package, cpus, memory, port, replicas, env, health, timeout } = args;
    Options {
        name,
        selection: Selection { bin, package },
        cpus,
        memory,
        replicas,
        env,
        port,
        health_path: health,
        start_timeout: timeout,
    }
}

/// What came of work on a thread.
fn finished<T>(joined: Result<Result<T, PackError>, tokio::task::JoinError>) -> Result<T, Failure> {
    match joined {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(PackError::Compile(pack::CompileError::Interrupted))) => Err(Failure::silent(INTERRUPTED)),
        Ok(Err(error)) => Err(Failure::of(&error)),
        Err(error) => Err(Failure::new(format!("pack the source: {error}"))),
    }
}

/// "packed 2 layers, 3.1 MiB"
fn describe(packed: &Packed) -> String {
    // the config and the manifest are no layers
    let layers = packed.blobs.len().saturating_sub(2);
    let size = packed.blobs.iter().map(|blob| blob.size).sum();
    format!("packed {layers} layer{}, {}", if layers == 1 { "" } else { "s" }, bytes(size))
}

/// Sends what the daemon does not have.
async fn upload(client: &Client, packed: &Packed, steps: &mut Steps) -> Result<(), ClientError> {
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
async fn commit(
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
async fn follow(
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
            steps.done(&format!("ready: port {port} ({port_source})"));
            Ok(url)
        }
        Some(DeployEvent::Failed { error, log_tail }) => {
            steps.end();
            Err(failed(&name, &error, &log_tail))
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

/// Says what the app said last, then why it was given up.
fn failed(name: &Label, error: &ErrorView, log_tail: &[String]) -> Failure {
    if !log_tail.is_empty() {
        eprint!("{}", render_tail(name, log_tail));
    }
    print_error(&error.message, error.hint.as_deref());
    Failure::silent(1)
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
    use sampan_client::model::Digest;
    use sampan_client::pack::Blob;

    use super::*;

    #[test]
    fn what_was_packed() {
        let blob = |size| Blob { digest: Digest::from_sha256([1; 32]), path: "/x".into(), size };
        let packed = Packed {
            manifest: Digest::from_sha256([1; 32]),
            blobs: vec![blob(1 << 20), blob(2 << 20), blob(500), blob(600)],
            port: None,
        };
        assert_eq!(describe(&packed), "packed 2 layers, 3.0 MiB");
    }

    #[test]
    fn last_lines() {
        let name = Label::parse("hello").unwrap();
        let text = render_tail(&name, &["one".into(), "two".into()]);
        assert_eq!(text, "the last lines of hello:\n  | one\n  | two\n");
    }
}
