//! A program and what it needs as the files of an OCI image.
//!
//! ```text
//! layer 1   libraries, certificates, users, /tmp     the same for all programs with the same libraries
//! layer 2   /app/NAME                                the program
//! layer 3   /srv/…                                   a static site's files; the program is our file server then
//! config    entrypoint ["/app/NAME", ARGS…], user, /app, PATH, port, labels
//! ```
//!
//! Nothing in it tells when or where it was made: times are fixed and entries sorted by
//! [`LayerWriter`], and there is no `created`. The environment in `sampan.toml` is not in
//! the image but in the service's settings: images travel, and secrets should not travel with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use sampan_image::{ImageConfig, Layer, LayerWriter, WriteError, compose};
use sampan_model::Digest;

use crate::collect::{CERTIFICATES, USER_ID};
use crate::compile::Binary;
use crate::detect::{Source, SourceKind};
use crate::tree::{Content, Entry, Tree};

/// Where the program is in the image, at the same path for whatever source: `/app/NAME`.
pub const APP: &str = "/app";

/// An image as files, each of them named by its digest's 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The image: the digest of its manifest.
    pub manifest: Digest,
    /// All its files in the order to upload them: the layers, the config, and last the manifest, which names the
    /// others.
    pub blobs: Vec<Blob>,
    /// The port that the image declares, from `sampan.toml`.
    pub port: Option<u16>,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// Why an image could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Something that is to be in the image cannot be read.
    #[error("cannot read {} to put it into the image", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layer cannot be written.
    #[error("cannot write a layer of the image in {}", directory.display())]
    Layer {
        /// Where it was to be.
        directory: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// Another of the image's files cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the image of `binary`, and of the `site` that it serves, into the directory `out`.
///
/// # Errors
/// [`LayoutError`]. What was written until then stays in `out`.
pub fn layout(
    source: &Source,
    binary: &Binary,
    surroundings: &Tree,
    site: Option<&Tree>,
    out: &Path,
) -> Result<Packed, LayoutError> {
    let program = Path::new(APP).join(&binary.name);
    let mut app = Tree::default();
    app.file(&program, 0o755, &binary.path);

    let (mut layers, mut blobs) = (Vec::new(), Vec::new());
    for tree in [Some(surroundings), Some(&app), site].into_iter().flatten() {
        let (layer, blob) = write_layer(tree, out)?;
        layers.push(layer);
        blobs.push(blob);
    }
    let config = config(source, &program, surroundings.contains(Path::new(CERTIFICATES)));
    let image = compose(&config, &layers);
    blobs.push(write_blob(out, image.config_digest, &image.config)?);
    blobs.push(write_blob(out, image.digest.clone(), &image.manifest)?);
    Ok(Packed { manifest: image.digest, blobs, port: source.manifest.port.map(Into::into) })
}

fn config(source: &Source, program: &Path, certificates: bool) -> ImageConfig {
    let manifest = &source.manifest;
    // names of programs come from text (manifests, directories shown to people), so this loses nothing
    let mut entrypoint = vec![program.to_string_lossy().into_owned()];
    if source.kind == SourceKind::Site {
        entrypoint.push("file-server".into());
    }
    let mut env = vec![format!("PATH={APP}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];
    if certificates {
        // an OpenSSL that was built elsewhere than Debian would look elsewhere
        env.push(format!("SSL_CERT_FILE={CERTIFICATES}"));
    }
    ImageConfig {
        entrypoint,
        cmd: manifest.args.clone(),
        env,
        working_dir: APP.into(),
        // by number: whoever checks that an app is not root need not read its passwd
        user: format!("{USER_ID}:{USER_ID}"),
        exposed_ports: manifest.port.map(|port| format!("{port}/tcp")).into_iter().collect(),
        labels: labels(source),
        ..ImageConfig::default()
    }
}

/// The pre-defined annotation keys of image-spec 1.1 (`annotations.md`), as far as the source answers them.
fn labels(source: &Source) -> BTreeMap<String, String> {
    let title = match source.kind {
        SourceKind::Site => source.manifest.name.as_ref().map(ToString::to_string),
        _ => Some(source.program()),
    };
    let mut labels = BTreeMap::from([("title", title)]);
    if let SourceKind::Cargo(package) = &source.kind {
        labels.insert("version", Some(package.version.clone()));
        labels.insert("description", package.description.clone());
        labels.insert("licenses", package.license.clone());
        labels.insert("source", package.repository.clone());
    }
    let said = labels.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)));
    said.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}

/// Writes a layer under a passing name, for its own is known only then.
fn write_layer(tree: &Tree, out: &Path) -> Result<(Layer, Blob), LayoutError> {
    let partial = out.join("layer.partial");
    let file = File::create(&partial).map_err(|source| LayoutError::Write { path: partial.clone(), source })?;
    let failed = |source| LayoutError::Layer { directory: out.into(), source };
    let mut writer = LayerWriter::new(BufWriter::with_capacity(256 << 10, file));
    for (path, entry) in tree.iter() {
        match entry {
            Entry::Directory { mode } => writer.directory(path, *mode).map_err(failed)?,
            Entry::Symlink { target } => writer.symlink(path, target).map_err(failed)?,
            Entry::File { mode, content: Content::Bytes(bytes) } => {
                writer.file(path, *mode, bytes.len() as u64, bytes.as_slice()).map_err(failed)?;
            }
            Entry::File { mode, content: Content::Of(from) } => {
                let unreadable = |source| LayoutError::Read { path: from.clone(), source };
                let file = File::open(from).map_err(unreadable)?;
                let size = file.metadata().map_err(unreadable)?.len();
                writer.file(path, *mode, size, file).map_err(failed)?;
            }
        }
    }
    let (layer, _) = writer.finish().map_err(failed)?;
    let path = out.join(layer.digest.hex());
    std::fs::rename(&partial, &path).map_err(|source| LayoutError::Write { path: path.clone(), source })?;
    let blob = Blob { digest: layer.digest.clone(), path, size: layer.size };
    Ok((layer, blob))
}

fn write_blob(out: &Path, digest: Digest, bytes: &[u8]) -> Result<Blob, LayoutError> {
    let path = out.join(digest.hex());
    std::fs::write(&path, bytes).map_err(|source| LayoutError::Write { path: path.clone(), source })?;
    Ok(Blob { digest, path, size: bytes.len() as u64 })
}
