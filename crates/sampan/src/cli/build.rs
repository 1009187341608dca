//! `sampan build`: from a directory of source to an image, in the daemon or in files.
//!
//! ```text
//! prepare ─▶ pack          as the caller, as `up` does
//!   ─▶ -o …                written here; no daemon is asked for anything
//!   ─▶ upload, name        with -t, or where nothing is written out
//!   ─▶ --verify            or compared with an image that is there
//! ```
//!
//! The layers of an archive are plain tars, as they are everywhere in Sampan: the digest in the archive is the one that
//! `up` runs and `--verify` compares, and who wants it smaller compresses the whole (`-o type=oci,dest=- | zstd`).

mod output;
mod verify;

use std::path::Path;

use sampan_client::pack::{self, Environment, Interrupt, Options, PackError, Packed, Prepared, Selection};
use sampan_model::view::ImageView;
use sampan_model::{Digest, ImageName};
use serde::Serialize;

use super::age::bytes;
use super::args::{BuildArgs, Globals, Output};
use super::connect::{check_possible, connect};
use super::failure::Failure;
use super::image::upload::{Blob, put_image};
use super::interrupt::{INTERRUPTED, Interrupts};
use super::progress::{PackSteps, Steps};

/// What was built, for programs.
#[derive(Serialize)]
struct Built {
    digest: Digest,
    /// The images in the daemon.
    images: Vec<ImageView>,
    /// Where it was written.
    outputs: Vec<std::path::PathBuf>,
}

/// The exit code comes back.
pub async fn build(globals: &Globals, args: BuildArgs) -> Result<u8, Failure> {
    let BuildArgs { source, tags, outputs, verify, bin, package } = args;
    let is_loaded = !tags.is_empty() || outputs.is_empty();
    for one in &outputs {
        output::check(one)?;
    }
    if is_loaded {
        check_possible(globals).await?;
    }
    let mut interrupts = Interrupts::listen()?;
    let mut steps = Steps::new(globals.quiet);
    // removed when it is dropped, on whichever way out
    let directory = tempfile::Builder::new()
        .prefix("sampan-build-")
        .tempdir()
        .map_err(|error| Failure::new(format!("make a directory for temporary files: {error}")))?;
    let blobs_dir = directory.path().join("blobs");
    std::fs::create_dir(&blobs_dir).map_err(|error| Failure::new(format!("make {}: {error}", blobs_dir.display())))?;
    let environment = match &verify {
        // compiled in another place, and nothing taken from a cache: what differs then would show
        Some(_) => verify::fresh_environment(directory.path()),
        None => environment(),
    };
    let options = Options { selection: Selection { bin, package }, ..Options::default() };
    let (prepared, packed) = pack(globals, &source, options, environment, &blobs_dir, &mut interrupts).await?;
    let size = packed.blobs.iter().map(|blob| blob.size).sum();
    steps.done(&format!("packed {}, {}", packed.manifest, bytes(size)));
    if let Some(image) = verify {
        return verify::verify(globals, &image, &packed, &blobs_dir).await;
    }
    let default = ImageName::parse(prepared.settings.name.as_str()).map_err(|error| Failure::of(&error))?;
    let names = if tags.is_empty() { vec![default] } else { tags };
    let written = write_out(&outputs, &packed, &blobs_dir, &names, &mut interrupts).await?;
    let mut images = Vec::new();
    if is_loaded {
        let client = connect(globals).await?;
        let blob = |blob: &pack::Blob| Blob { digest: blob.digest.clone(), path: blob.path.clone(), size: blob.size };
        let blobs: Vec<Blob> = packed.blobs.iter().map(blob).collect();
        images = tokio::select! {
            images = put_image(&client, &blobs, &packed.manifest, &names, &mut steps) => images?,
            // blobs that nothing names are the daemon's to collect
            () = interrupts.first() => return Err(Failure::silent(INTERRUPTED)),
        };
    }
    steps.end();
    report(globals, Built { digest: packed.manifest, images, outputs: written }, &outputs)?;
    Ok(0)
}

fn report(globals: &Globals, built: Built, outputs: &[Output]) -> Result<(), Failure> {
    if outputs.iter().any(|one| one.dest == Path::new("-")) {
        return Ok(()); // on standard output is the archive
    }
    if globals.json {
        super::output::print_json(&built)
    } else if globals.quiet {
        super::output::print_lines([&built.digest])
    } else {
        let paths = built.outputs.iter().map(|path| path.display().to_string());
        super::output::print_lines(built.images.into_iter().map(|image| image.name).chain(paths))
    }
}

/// Writes every output; says where.
async fn write_out(
    outputs: &[Output],
    packed: &Packed,
    blobs: &Path,
    names: &[ImageName],
    interrupts: &mut Interrupts,
) -> Result<Vec<std::path::PathBuf>, Failure> {
    let mut written = Vec::with_capacity(outputs.len());
    for one in outputs {
        let (one, manifest, blobs, names) = (one.clone(), packed.manifest.clone(), blobs.to_owned(), names.to_vec());
        let dest = one.dest.clone();
        let writing = tokio::task::spawn_blocking(move || output::write(&one, &manifest, &blobs, &names));
        // what is half-written has a passing name, which goes with the second interrupt as well
        let done = interrupts.hold(writing).await?;
        done.map_err(|error| Failure::new(format!("write {}: {error}", dest.display())))??;
        written.push(dest);
    }
    Ok(written)
}

/// The caller's environment, with this very binary for images that need a file server.
fn environment() -> Environment {
    with_sampan(Environment::of_caller())
}

fn with_sampan(environment: Environment) -> Environment {
    match crate::process::own_path() {
        Ok(Some(path)) => environment.with_sampan(path),
        _ => environment,
    }
}

/// Makes the image's files as the caller, with the compiler's own words on standard error.
async fn pack(
    globals: &Globals,
    source: &Path,
    options: Options,
    environment: Environment,
    into: &Path,
    interrupts: &mut Interrupts,
) -> Result<(Prepared, Packed), Failure> {
    let (path, known) = (source.to_owned(), environment.clone());
    // cargo is asked what the source is: on a thread, so that Ctrl-C is heard meanwhile
    let preparing = tokio::task::spawn_blocking(move || pack::prepare(&path, &options, &known));
    let prepared = tokio::select! {
        prepared = preparing => finished(prepared)?,
        () = interrupts.first() => return Err(Failure::silent(INTERRUPTED)),
    };
    let interrupt = Interrupt::default();
    let packing = {
        let (prepared, interrupt, into) = (prepared.clone(), interrupt.clone(), into.to_owned());
        let mut voice = PackSteps { quiet: globals.quiet };
        tokio::task::spawn_blocking(move || prepared.pack(&environment, &into, &mut voice, Some(&interrupt)))
    };
    tokio::pin!(packing);
    tokio::select! {
        packed = &mut packing => Ok((prepared, finished(packed)?)),
        () = interrupts.first() => {
            interrupt.raise();
            // the compiler gives up its locks and half-written files; who does not want to wait insists
            let _ = interrupts.hold(packing).await?;
            Err(Failure::silent(INTERRUPTED))
        }
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
