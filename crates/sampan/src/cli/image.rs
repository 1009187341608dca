//! `sampan image import|ls|rm`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sampan_image::{ImageConfig, Imported, import_rootfs};
use sampan_model::view::ImageView;
use sampan_model::{Digest, ImageName};
use serde_json::json;

use super::age::{age, bytes};
use super::args::{Globals, ImageCommand};
use super::connect::{check_possible, connect};
use super::failure::Failure;
use super::output;
use super::table::table;

pub async fn image(globals: &Globals, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Import { file, name } => import(globals, file, &name).await,
        ImageCommand::Ls => list(globals).await,
        ImageCommand::Rm { names } => remove(globals, &names).await,
    }
}

/// Makes the image's files here, as the caller, and sends them as any others.
async fn import(globals: &Globals, file: PathBuf, name: &ImageName) -> Result<(), Failure> {
    check_possible(globals).await?;
    let directory = tempfile::Builder::new()
        .prefix("sampan-import-")
        .tempdir()
        .map_err(|error| Failure::new(format!("make a directory for temporary files: {error}")))?;
    let into = directory.path().to_owned();
    let files = tokio::task::spawn_blocking(move || write_files(&file, &into))
        .await
        .map_err(|error| Failure::new(format!("import the archive: {error}")))??;
    let client = connect(globals).await?;
    for (digest, path) in &files.blobs {
        client.upload_blob(digest, path, |_| {}).await?;
    }
    let image = client.put_image(name, &files.manifest).await?;
    if globals.json {
        output::print_json(&image)
    } else if globals.quiet {
        output::print_lines([&image.digest])
    } else {
        output::print_lines([&image.name])
    }
}

/// An imported image's files.
struct Files {
    manifest: Digest,
    blobs: Vec<(Digest, PathBuf)>,
}

fn write_files(archive: &Path, into: &Path) -> Result<Files, Failure> {
    let cannot =
        |what: &str, path: &Path, error: io::Error| Failure::new(format!("{what} {}: {error}", path.display()));
    let reader: Box<dyn Read> = if archive == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(archive).map_err(|error| cannot("open", archive, error))?)
    };
    let layer = into.join("layer");
    let mut out = BufWriter::new(File::create(&layer).map_err(|error| cannot("write", &layer, error))?);
    let imported = import_rootfs(reader, &mut out, &ImageConfig::default())
        .map_err(|error| Failure::of(&error).about(&format!("import {}", archive.display())))?;
    out.flush().map_err(|error| cannot("write", &layer, error))?;
    let Imported { layer: described, composed } = imported;
    let mut blobs = vec![(described.digest, layer)];
    for (name, digest, content) in
        [("config", composed.config_digest, composed.config), ("manifest", composed.digest.clone(), composed.manifest)]
    {
        let path = into.join(name);
        std::fs::write(&path, content).map_err(|error| cannot("write", &path, error))?;
        blobs.push((digest, path));
    }
    Ok(Files { manifest: composed.digest, blobs })
}

async fn list(globals: &Globals) -> Result<(), Failure> {
    let mut images = connect(globals).await?.images().await?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    if globals.json {
        output::print_json(&images)
    } else if globals.quiet {
        output::print_lines(images.iter().map(|image| &image.digest))
    } else {
        output::print(&render(&images, Timestamp::now()))
    }
}

fn render(images: &[ImageView], now: Timestamp) -> String {
    let row = |image: &ImageView| {
        let created = format!("{} ago", age(now, image.created_at));
        [image.name.clone(), image.digest.short().into(), bytes(image.size_bytes), created]
    };
    table(["NAME", "DIGEST", "SIZE", "CREATED"], &images.iter().map(row).collect::<Vec<_>>())
}

async fn remove(globals: &Globals, names: &[ImageName]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in names {
        client.delete_image(name).await?;
    }
    if globals.json { output::print_json(&json!({ "removed": names })) } else { output::print_lines(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let image = ImageView {
            kind: "image".into(),
            name: "box:latest".into(),
            digest: Digest::from_sha256([0xab; 32]),
            size_bytes: 3 << 20,
            created_at: Timestamp::from_second(0).unwrap(),
        };
        let expected = "\
NAME         DIGEST         SIZE      CREATED
box:latest   abababababab   3.0 MiB   2 minutes ago
";
        assert_eq!(render(&[image], Timestamp::from_second(150).unwrap()), expected);
    }

    #[test]
    fn an_archive_becomes_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("rootfs.tar");
        // a directory `bin/`, as tar(5) has it: name, mode, owners, size, time, checksum, type
        let mut block = [0u8; 1536];
        for (at, text) in [(0, "bin/"), (100, "0000755"), (108, "0000000"), (116, "0000000"), (124, "00000000000")] {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        block[136..147].copy_from_slice(b"00000000000");
        block[148..156].fill(b' ');
        block[156] = b'5';
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block[..512].iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        std::fs::write(&archive, block).unwrap();
        let files = write_files(&archive, dir.path()).unwrap();
        assert_eq!(files.blobs.len(), 3);
        assert_eq!(files.blobs[2].0, files.manifest);
        let missing = write_files(&dir.path().join("none"), dir.path()).err().unwrap();
        assert!(missing.parts().0.ends_with("none: No such file or directory (os error 2)"), "{missing:?}");
    }
}
