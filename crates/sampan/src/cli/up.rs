//! `sampan up`: from a directory of source to a URL; from one of several services to all of theirs.
//!
//! ```text
//! project ─▶ pack each       as the caller; Ctrl-C stops the compiler and what it started
//!   then for each, in the order of what depends on what
//!   ─▶ upload                nothing has a name yet: Ctrl-C leaves blobs, which the daemon collects
//!   ─▶ put the service       goes on to its end despite a Ctrl-C, so that it is known what to take back
//!   ─▶ follow ─▶ URL         Ctrl-C gives the deploy up
//! ```
//!
//! Every request of it may be made twice, so a daemon that dies at any moment is started again and the work goes on.
//! Where one of several services fails, those before it stay up, and those after it are not begun.

mod follow;

use std::path::Path;

use sampan_client::Client;
use sampan_client::model::view::ServiceView;
use sampan_client::model::{Label, ServiceSpec};
use sampan_client::pack::{self, Environment, Interrupt, Options, PackError, Packed, Prepared, Project, Selection};

use super::age::bytes;
use super::args::{Globals, UpArgs};
use super::connect::{check_possible, connect};
use super::failure::Failure;
use super::interrupt::{INTERRUPTED, Interrupts};
use super::output;
use super::progress::{PackSteps, Steps};
use follow::{commit, follow, upload};

/// Which file server goes into the image of a static site: the one of this very program, be it replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

pub async fn up(globals: &Globals, args: UpArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let mut steps = Steps::new(globals.quiet);
    // removed when it is dropped, on whichever way out
    let directory = tempfile::Builder::new()
        .prefix("sampan-up-")
        .tempdir()
        .map_err(|error| Failure::new(format!("make a directory for temporary files: {error}")))?;
    let server = args.server.clone();
    let (project, environment) = prepare(args, &mut interrupts).await?;
    check_possible(globals).await?;
    let mut packed = Vec::new();
    for (index, service) in project.services.iter().enumerate() {
        let into = directory.path().join(index.to_string());
        std::fs::create_dir(&into).map_err(|error| Failure::new(format!("make {}: {error}", into.display())))?;
        say_whose(&project, &service.settings.name, &mut steps);
        let image = pack(globals, service, &environment, &into, &mut interrupts).await?;
        steps.done(&describe(&image));
        packed.push(image);
    }
    let client = connect(globals).await?;
    let mut urls: Vec<(Label, String)> = Vec::new();
    for (service, image) in project.services.iter().zip(packed) {
        let name = &service.settings.name;
        say_whose(&project, name, &mut steps);
        let spec = ServiceSpec { server: server.clone(), ..service.settings.clone().into_spec(image.manifest.clone()) };
        match deploy(&client, &spec, &image, &mut interrupts, &mut steps).await {
            Ok(url) => urls.push((name.clone(), url)),
            Err(failure) => {
                steps.end();
                say_what_is_up(&project, urls.len());
                return Err(failure);
            }
        }
    }
    steps.end();
    report(globals, &client, &project, &urls).await?;
    Ok(0)
}

/// Prints where the service is, alone and last; of several, each with its name.
async fn report(
    globals: &Globals,
    client: &Client,
    project: &Project,
    urls: &[(Label, String)],
) -> Result<(), Failure> {
    if globals.json {
        let mut views: Vec<ServiceView> = Vec::new();
        for (name, _) in urls {
            views.push(client.service(name).await?);
        }
        return match (project.is_several, &views[..]) {
            (false, [view]) => output::print_json(view),
            _ => output::print_json(&views),
        };
    }
    output::print_lines(urls.iter().map(|(name, url)| match (project.is_several, url.as_str()) {
        (false, url) => url.to_owned(),
        (true, "") => name.to_string(),
        (true, url) => format!("{name} {url}"),
    }))
}

fn say_whose(project: &Project, name: &Label, steps: &mut Steps) {
    if project.is_several {
        steps.done(&format!("-- {name}"));
    }
}

/// Where one of several failed: which are up, and which were not begun.
fn say_what_is_up(project: &Project, done: usize) {
    if !project.is_several {
        return;
    }
    let names: Vec<&str> = project.services.iter().map(|service| service.settings.name.as_str()).collect();
    let (up, rest) = names.split_at(done);
    let (failed, later) = rest.split_first().expect("one failed");
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    eprintln!("{failed} is not up. Up and left so: {}. Not begun: {}.", list(up), list(later));
    eprintln!("Mend {failed} and run `sampan up` again, which leaves alone what has not changed; or `sampan down`.");
}

/// Finds out what is to be brought up.
async fn prepare(args: UpArgs, interrupts: &mut Interrupts) -> Result<(Project, Environment), Failure> {
    let (path, only) = (args.source.clone(), args.only.clone());
    let options = options(args);
    // cargo is asked what the source is: on a thread, so that Ctrl-C is heard meanwhile
    let preparing = tokio::task::spawn_blocking(move || {
        let environment = Environment::of_caller().with_sampan(OURSELVES);
        pack::project(&path, &options, &only, &environment).map(|project| (project, environment))
    });
    tokio::select! {
        prepared = preparing => finished(prepared),
        () = interrupts.first() => Err(Failure::silent(INTERRUPTED)),
    }
}

/// Makes an image's files as the caller, with the compiler's own words on standard error.
async fn pack(
    globals: &Globals,
    service: &Prepared,
    environment: &Environment,
    into: &Path,
    interrupts: &mut Interrupts,
) -> Result<Packed, Failure> {
    let interrupt = Interrupt::default();
    let packing = {
        let (service, environment) = (service.clone(), environment.clone());
        let (interrupt, into) = (interrupt.clone(), into.to_owned());
        let mut voice = PackSteps { quiet: globals.quiet };
        tokio::task::spawn_blocking(move || service.pack(&environment, &into, &mut voice, Some(&interrupt)))
    };
    tokio::pin!(packing);
    tokio::select! {
        packed = &mut packing => finished(packed),
        () = interrupts.first() => {
            interrupt.raise();
            // the compiler gives up its locks and half-written files; who does not want to wait insists
            let _ = interrupts.hold(packing).await?;
            Err(Failure::silent(INTERRUPTED))
        }
    }
}

/// Uploads an image, asks for its service, and waits until that is ready; its URL.
async fn deploy(
    client: &Client,
    spec: &ServiceSpec,
    packed: &Packed,
    interrupts: &mut Interrupts,
    steps: &mut Steps,
) -> Result<String, Failure> {
    tokio::select! {
        uploaded = upload(client, packed, steps) => uploaded?,
        // blobs that nothing names are the daemon's to collect
        () = interrupts.first() => return Err(Failure::silent(INTERRUPTED)),
    }
    let deploy = interrupts.hold(commit(client, packed, spec, steps)).await??;
    follow(client, deploy, interrupts, steps).await
}

fn options(args: UpArgs) -> Options {
    let UpArgs {
        source: _,
        only: _,
        name,
        bin,
        package,
        cpus,
        memory,
        server: _,
        port,
        replicas,
        env,
        health,
        timeout,
    } = args;
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
}
