//! `sampan build --verify IMAGE`: whether this source, compiled anew, comes to that image.

use std::path::Path;

use sampan_client::Client;
use sampan_client::pack::{Environment, Packed};
use sampan_image::compare::{Side, first_difference};
use sampan_image::{BlobFiles, Image, Manifest};
use sampan_model::{Digest, ImageName};
use serde::Serialize;

use super::with_sampan;
use crate::cli::args::Globals;
use crate::cli::connect::connect;
use crate::cli::failure::Failure;
use crate::cli::image::save::{file, small};
use crate::cli::output;

/// The verdict, for programs.
#[derive(Serialize)]
struct Verdict {
    image: ImageName,
    same: bool,
    /// The digest of the image that was there.
    expected: Digest,
    /// The digest of what was built.
    built: Digest,
    /// Where they first differ.
    difference: Option<String>,
}

/// The caller's environment, with the compilers' own output and caches in another place, below this directory.
pub fn fresh_environment(directory: &Path) -> Environment {
    let own_directory = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let elsewhere = [("CARGO_TARGET_DIR", "target"), ("GOCACHE", "go-cache")];
    let elsewhere = elsewhere.map(|(name, sub)| (name.into(), directory.join(sub).into_os_string()));
    with_sampan(Environment::scrubbed(std::env::vars_os().chain(elsewhere), own_directory.as_deref()))
}

/// Compares what was packed with an image; 1 where they differ.
pub async fn verify(globals: &Globals, name: &ImageName, packed: &Packed, blobs: &Path) -> Result<u8, Failure> {
    let client = connect(globals).await?;
    let expected = client.image(name).await?.image.digest;
    let same = expected == packed.manifest;
    let difference = if same { None } else { difference(&client, name, &expected, packed, blobs).await? };
    let verdict = Verdict { image: name.clone(), same, expected, built: packed.manifest.clone(), difference };
    if globals.json {
        output::print_json(&verdict)?;
    } else if same {
        output::print_lines([format!("{name} is what this source makes: {}", verdict.built)])?;
    } else {
        let first = verdict.difference.as_deref().unwrap_or("nothing in them");
        let lines = [
            format!("{name} is not what this source makes"),
            format!("  image  {}", verdict.expected),
            format!("  built  {}", verdict.built),
            format!("  first difference (first the image, then what was built): {first}"),
        ];
        output::print_lines(lines)?;
    }
    Ok(u8::from(!same))
}

/// Fetches what the two do not share, beside what was packed, and compares it.
async fn difference(
    client: &Client,
    name: &ImageName,
    expected: &Digest,
    packed: &Packed,
    blobs: &Path,
) -> Result<Option<String>, Failure> {
    let about = format!("compare with {name}");
    let unusable = |error: sampan_image::ImageError| Failure::of(&error).about(&about);
    let manifest = Manifest::parse(&small(client, expected).await?).map_err(unusable)?;
    let theirs = manifest.image(&small(client, manifest.config()).await?).map_err(unusable)?;
    let files = BlobFiles::new(blobs);
    for (digest, _) in manifest.blobs() {
        if !files.path(digest).exists() {
            file(client, digest, blobs).await?;
        }
    }
    let ours = Image::read(&files, &packed.manifest).map_err(unusable)?;
    let compare = move || {
        let [theirs, ours] = [&theirs, &ours].map(|image| Side { image, blobs: &files });
        first_difference(theirs, ours).map(|found| found.map(|difference| difference.to_string()))
    };
    let compared = tokio::task::spawn_blocking(compare).await;
    let compared = compared.map_err(|error| Failure::new(format!("{about}: {error}")))?;
    compared.map_err(|error| Failure::of(&error).about(&about))
}
