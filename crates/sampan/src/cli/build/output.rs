//! `-o type=oci|docker|dir,dest=…`: what was packed as an archive or a bundle.

use std::path::Path;

use sampan_image::bundle::write_bundle;
use sampan_image::save::{ArchiveKind, ArchiveWriter, SaveError, SavedImage};
use sampan_image::{BlobFiles, Image, Manifest};
use sampan_model::{Digest, ImageName};

use crate::cli::args::{Output, OutputKind};
use crate::cli::destination::{Destination, check_directory, write_directory};
use crate::cli::failure::Failure;

/// Fails where it could not be written in the end: before minutes of compiling, not after them.
pub fn check(output: &Output) -> Result<(), Failure> {
    match output.kind {
        OutputKind::Dir => check_directory(&output.dest),
        OutputKind::Oci | OutputKind::Docker => Destination::check(&output.dest),
    }
}

/// Writes it. Blocks.
pub fn write(output: &Output, manifest: &Digest, blobs: &Path, names: &[ImageName]) -> Result<(), Failure> {
    let files = BlobFiles::new(blobs);
    let about = format!("write {}", output.dest.display());
    match output.kind {
        OutputKind::Dir => write_directory(&output.dest, |into| {
            let image = Image::read(&files, manifest).map_err(|error| Failure::of(&error).about(&about))?;
            write_bundle(&image, &files, into).map_err(|error| Failure::of(&error).about(&about))
        }),
        OutputKind::Oci => archive(output, ArchiveKind::Oci, &files, manifest, names),
        OutputKind::Docker => archive(output, ArchiveKind::Docker, &files, manifest, names),
    }
}

fn archive(
    output: &Output,
    kind: ArchiveKind,
    files: &BlobFiles,
    manifest: &Digest,
    names: &[ImageName],
) -> Result<(), Failure> {
    let failure = |error| match error {
        // who has read enough of our output is no error
        SaveError::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Failure::from(error),
        error => Failure::of(&error).about(&format!("write {}", output.dest.display())),
    };
    let read = |digest: &Digest| {
        let path = files.path(digest);
        std::fs::read(&path).map_err(|error| Failure::new(format!("read {}: {error}", path.display())))
    };
    let manifest = Manifest::parse(&read(manifest)?).map_err(|error| Failure::of(&error))?;
    let image = manifest.image(&read(manifest.config())?).map_err(|error| Failure::of(&error))?;
    let names = output.name.as_ref().map_or(names, std::slice::from_ref).to_vec();
    let saved = SavedImage { manifest, image, names };
    let mut out = Destination::open(Some(&output.dest))?;
    let mut archive = ArchiveWriter::new(&mut out);
    archive.image(files, &saved).map_err(failure)?;
    archive.finish(kind, &[saved]).map_err(failure)?;
    out.finish()
}
