//! `sampan image save`: the daemon's blobs into an archive, piece by piece.

use std::io::Write as _;

use sampan_client::Client;
use sampan_image::Manifest;
use sampan_image::save::{ArchiveKind, ArchiveWriter, SaveError, SavedImage};
use sampan_model::{Digest, ImageName};
use serde_json::json;

use crate::cli::args::{Globals, SaveArgs};
use crate::cli::connect::connect;
use crate::cli::destination::Destination;
use crate::cli::failure::Failure;
use crate::cli::output;

/// The largest manifest or config that is held in memory; the daemon keeps none that is larger.
const LARGEST: u64 = sampan_image::LARGEST_JSON;

pub async fn save(globals: &Globals, args: &SaveArgs) -> Result<(), Failure> {
    // a terminal is refused before anything is asked for
    let mut out = Destination::open(args.output.as_deref())?;
    let client = connect(globals).await?;
    let mut images: Vec<SavedImage> = Vec::new();
    let mut archive = ArchiveWriter::new(&mut out);
    for name in &args.names {
        let digest = client.image(name).await?.image.digest;
        match images.iter_mut().find(|saved| saved.image.manifest == digest) {
            Some(saved) if saved.names.contains(name) => {}
            Some(saved) => saved.names.push(name.clone()),
            None => images.push(fetch(&client, &mut archive, &digest, name).await?),
        }
    }
    archive.finish(ArchiveKind::Docker, &images).map_err(failure)?;
    out.finish()?;
    match &args.output {
        Some(path) if globals.json => output::print_json(&json!({ "path": path, "images": args.names })),
        // on standard output is the archive
        _ => Ok(()),
    }
}

/// Writes an image's blobs that are not in the archive yet.
async fn fetch<W: std::io::Write>(
    client: &Client,
    archive: &mut ArchiveWriter<W>,
    digest: &Digest,
    name: &ImageName,
) -> Result<SavedImage, Failure> {
    let unusable = |error: sampan_image::ImageError| Failure::of(&error).about(&format!("save {name}"));
    let manifest = Manifest::parse(&small(client, digest).await?).map_err(unusable)?;
    let image = manifest.image(&small(client, manifest.config()).await?).map_err(unusable)?;
    for (digest, size) in manifest.blobs() {
        if archive.has(digest) {
            continue;
        }
        let mut blob = archive.blob(digest, size).map_err(failure)?;
        let mut pieces = client.blob(digest).await?;
        while let Some(piece) = pieces.next().await {
            blob.write(&piece?).map_err(failure)?;
        }
        blob.finish().map_err(failure)?;
    }
    Ok(SavedImage { manifest, image, names: vec![name.clone()] })
}

/// A manifest or config, in memory.
pub async fn small(client: &Client, digest: &Digest) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut pieces = client.blob(digest).await?;
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > LARGEST {
            return Err(Failure::new(format!("the blob {digest} is larger than any manifest or config")));
        }
    }
    Ok(bytes)
}

/// A blob, into a file of the directory, named by its digest.
pub async fn file(client: &Client, digest: &Digest, into: &std::path::Path) -> Result<(), Failure> {
    let path = into.join(digest.hex());
    let failed = |error| Failure::new(format!("write {}: {error}", path.display()));
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    let mut pieces = client.blob(digest).await?;
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece?).map_err(failed)?;
    }
    Ok(())
}

/// A reader of our output that has had enough is no error.
fn failure(error: SaveError) -> Failure {
    match error {
        SaveError::Write(error) => Failure::from(error),
        error => Failure::of(&error),
    }
}
