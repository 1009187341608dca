//! `sampan image load` and `import`: archives are read here, as the caller, and what is in them is sent as any image.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sampan_image::load::{LoadError, Loaded, LoadedImage, load as read_archive};
use sampan_image::{ImageConfig, Imported, import_rootfs};
use sampan_model::view::ImageView;
use sampan_model::{Digest, ImageName};

use super::upload::{Blob, put_image};
use crate::cli::args::{Globals, LoadArgs};
use crate::cli::connect::{check_possible, connect};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::progress::Steps;

pub async fn load(globals: &Globals, args: LoadArgs) -> Result<(), Failure> {
    let (source, name) = open(args.input.as_deref())?;
    check_possible(globals).await?;
    let directory = temporary()?;
    let into = directory.path().to_owned();
    let (source, _stops_when_dropped) = stoppable(source);
    let read = tokio::task::spawn_blocking(move || read_archive(source, &into)).await;
    let about = format!("load {name}");
    let read = read.map_err(|error| Failure::new(format!("{about}: {error}")))?;
    let Loaded { images, notes } = read.map_err(|error| explained(&error).about(&about))?;
    let named = names(images, args.tag, args.input.as_deref()).map_err(|failure| failure.about(&about))?;
    let mut steps = Steps::new(globals.quiet);
    for note in notes {
        steps.done(&format!("{name}: {note}"));
    }
    let client = connect(globals).await?;
    let mut loaded: Vec<ImageView> = Vec::new();
    for image in named {
        let blob =
            |blob: sampan_image::load::LoadedBlob| Blob { digest: blob.digest, path: blob.path, size: blob.size };
        let blobs: Vec<Blob> = image.blobs.into_iter().map(blob).collect();
        loaded.extend(put_image(&client, &blobs, &image.manifest, &image.names, &mut steps).await?);
    }
    steps.end();
    report(globals, &loaded)
}

/// Sees to it that every image has a name: without one it would be nobody's, and collected.
fn names(
    mut images: Vec<LoadedImage>,
    tag: Option<ImageName>,
    file: Option<&Path>,
) -> Result<Vec<LoadedImage>, Failure> {
    if let Some(tag) = tag {
        return match images.as_mut_slice() {
            [image] => {
                image.names = vec![tag];
                Ok(images)
            }
            several => {
                let message = format!("there are {} images in it, and one name for them was given", several.len());
                Err(Failure::new(message)
                    .with_hint("leave --tag out, and give them other names with `sampan image tag`"))
            }
        };
    }
    let nameless = images.iter().filter(|image| image.names.is_empty()).count();
    // hello.tar.gz → hello
    let stem = file.and_then(Path::file_name).and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
    let stem = stem.and_then(|stem| ImageName::parse(&stem.to_ascii_lowercase()).ok());
    match (nameless, stem) {
        (0, _) => Ok(images),
        (1, Some(name)) if !images.iter().any(|image| image.names.contains(&name)) => {
            for image in images.iter_mut().filter(|image| image.names.is_empty()) {
                image.names.push(name.clone());
            }
            Ok(images)
        }
        (1, _) if images.len() == 1 => {
            Err(Failure::new("the image in it has no name").with_hint("give it one: `sampan image load -t NAME`"))
        }
        (count, _) => {
            let hint = "write the archive with names, or with one image alone and load it with -t NAME";
            Err(Failure::new(format!("{count} of the images in it have no name")).with_hint(hint))
        }
    }
}

/// Says what to do about an archive that is refused.
fn explained(error: &LoadError) -> Failure {
    let failure = Failure::of(error);
    match error {
        LoadError::NoImages => {
            failure.with_hint("the tar of a root file system becomes an image with `sampan image import FILE NAME`")
        }
        LoadError::Platform(_) => failure
            .with_hint("write the archive for this machine: `docker pull --platform`, `skopeo copy --override-arch`"),
        LoadError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            failure.with_hint("make room for temporary files, or set TMPDIR to a directory that has some")
        }
        LoadError::Archive(_) | LoadError::Digest { .. } | LoadError::Missing(_) | LoadError::Layer(..) => {
            failure.with_hint("write or fetch the archive again")
        }
        _ => failure,
    }
}

pub async fn import(globals: &Globals, file: PathBuf, name: &ImageName) -> Result<(), Failure> {
    let input = Some(file.as_path()).filter(|file| *file != Path::new("-"));
    let (source, shown) = open(input)?;
    check_possible(globals).await?;
    let directory = temporary()?;
    let into = directory.path().to_owned();
    let (source, _stops_when_dropped) = stoppable(source);
    let files = tokio::task::spawn_blocking(move || {
        write_files(source, &into).map_err(|f| f.about(&format!("import {shown}")))
    })
    .await
    .map_err(|error| Failure::new(format!("import the archive: {error}")))??;
    let client = connect(globals).await?;
    let mut steps = Steps::new(globals.quiet);
    let image = put_image(&client, &files.blobs, &files.manifest, std::slice::from_ref(name), &mut steps).await?;
    steps.end();
    match image.as_slice() {
        [image] if globals.json => output::print_json(image),
        images => report(globals, images),
    }
}

fn report(globals: &Globals, images: &[ImageView]) -> Result<(), Failure> {
    if globals.json {
        output::print_json(&images)
    } else if globals.quiet {
        output::print_lines(images.iter().map(|image| &image.digest))
    } else {
        output::print_lines(images.iter().map(|image| &image.name))
    }
}

/// The archive, and what it is called in messages.
fn open(path: Option<&Path>) -> Result<(Box<dyn Read + Send>, String), Failure> {
    match path {
        None if io::stdin().is_terminal() => {
            let hint = "name it with -i FILE, or send it here with '|' or '<'";
            Err(Failure::new("an archive is not read from a terminal").with_hint(hint).with_code(2))
        }
        None => Ok((Box::new(io::stdin()), "standard input".to_owned())),
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
            Ok((Box::new(file), path.display().to_string()))
        }
    }
}

/// A reader that is at its end, by an error, once somebody has lost interest: what it is read into is about to go.
struct Stoppable<R> {
    reader: R,
    is_stopped: Arc<AtomicBool>,
}

/// Stops a reader when it is dropped.
struct Stop(Arc<AtomicBool>);

fn stoppable<R: Read>(reader: R) -> (Stoppable<R>, Stop) {
    let is_stopped = Arc::new(AtomicBool::new(false));
    (Stoppable { reader, is_stopped: Arc::clone(&is_stopped) }, Stop(is_stopped))
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.is_stopped.load(Ordering::Relaxed) {
            true => Err(io::Error::other("it was interrupted")),
            false => self.reader.read(bytes),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn temporary() -> Result<tempfile::TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("sampan-image-").tempdir();
    made.map_err(|error| Failure::new(format!("make a directory for temporary files: {error}")))
}

/// An imported image's files.
struct Files {
    manifest: Digest,
    blobs: Vec<Blob>,
}

fn write_files(archive: impl Read, into: &Path) -> Result<Files, Failure> {
    let cannot = |path: &Path, error: io::Error| Failure::new(format!("write {}: {error}", path.display()));
    let layer = into.join("layer");
    let mut out = BufWriter::new(File::create(&layer).map_err(|error| cannot(&layer, error))?);
    let imported = import_rootfs(archive, &mut out, &ImageConfig::default()).map_err(|error| Failure::of(&error))?;
    out.flush().map_err(|error| cannot(&layer, error))?;
    let Imported { layer: described, composed } = imported;
    let mut blobs = vec![Blob { digest: described.digest, path: layer, size: described.size }];
    for (name, digest, content) in
        [("config", composed.config_digest, composed.config), ("manifest", composed.digest.clone(), composed.manifest)]
    {
        let path = into.join(name);
        std::fs::write(&path, &content).map_err(|error| cannot(&path, error))?;
        blobs.push(Blob { digest, path, size: content.len() as u64 });
    }
    Ok(Files { manifest: composed.digest, blobs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_becomes_three_files() {
        let dir = tempfile::tempdir().unwrap();
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
        let files = write_files(block.as_slice(), dir.path()).unwrap();
        assert_eq!(files.blobs.len(), 3);
        assert_eq!(files.blobs[2].digest, files.manifest);
        let missing = open(Some(&dir.path().join("none"))).err().unwrap();
        assert!(missing.parts().0.ends_with("none: No such file or directory (os error 2)"), "{missing:?}");
    }

    #[test]
    fn every_image_gets_a_name() {
        let image = |byte, names: &[&str]| LoadedImage {
            manifest: Digest::from_sha256([byte; 32]),
            names: names.iter().map(|name| ImageName::parse(name).unwrap()).collect(),
            blobs: Vec::new(),
        };
        let check = |images: &[LoadedImage], tag: Option<&str>, file: Option<&str>, expected: Result<&[&str], &str>| {
            let tag = tag.map(|tag| ImageName::parse(tag).unwrap());
            let named = names(images.to_vec(), tag, file.map(Path::new));
            let found =
                named.map(|images| images.into_iter().flat_map(|image| image.names).map(String::from).collect());
            match (found, expected) {
                (Ok::<Vec<String>, _>(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(failure), Err(words)) => assert!(failure.parts().0.contains(words), "{failure:?}"),
                (found, _) => panic!("{found:?}"),
            }
        };
        let (one, two) = (image(1, &["a:1", "b"]), image(2, &[]));
        check(std::slice::from_ref(&one), None, None, Ok(&["a:1", "b:latest"]));
        check(std::slice::from_ref(&one), Some("c"), None, Ok(&["c:latest"]));
        check(std::slice::from_ref(&two), None, Some("/tmp/Hello.tar.gz"), Ok(&["hello:latest"]));
        check(std::slice::from_ref(&two), None, None, Err("has no name"));
        check(&[one.clone(), two.clone()], None, Some("x.tar"), Ok(&["a:1", "b:latest", "x:latest"]));
        check(&[one, two.clone()], Some("c"), None, Err("there are 2 images"));
        check(&[two.clone(), two], None, Some("x.tar"), Err("2 of the images"));
    }
}
