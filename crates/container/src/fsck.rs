//! Whether every image is whole: record → manifest → config → layers, as blobs and unpacked.
//!
//! Everything is read: each blob is hashed, each unpacked layer compared with its blob. Nobody is held up by it; what
//! comes or goes meanwhile is looked at again before it is called a fault.
//!
//! Repairing never deletes what may be somebody's last copy: a damaged blob is moved to `blobs/broken/`, a damaged tree
//! is unpacked anew from its blob at the next start, and the name of an image that nothing uses and that cannot be made
//! whole is taken away. What is merely of no use any more is no fault: that is [`Images::prune`]'s.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use sampan_image::{Image, Layer, Manifest};
use sampan_model::view::{FsckProblem, FsckView};
use sampan_model::{ContainerStatus, Digest};
use sampan_store::BlobError;

use crate::garbage::of_image;
use crate::images::{IMAGES, unescape};
use crate::record::CONTAINERS;
use crate::{ContainerError, ContainerRecord, ImageRecord, Images};

const LOAD_AGAIN: &str = "build, import or load the image again";

/// What has an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum User {
    /// A record's key and the name in it.
    Name(String, String),
    Container(String),
    Service(String),
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(_, name) => write!(f, "image {name:?}"),
            Self::Container(name) => write!(f, "container {name:?}"),
            Self::Service(name) => write!(f, "{name}"),
        }
    }
}

/// One examination.
struct Examination<'a> {
    images: &'a Images,
    repair: bool,
    view: FsckView,
    /// Blobs that were read, and whether they are sound.
    read: HashMap<Digest, bool>,
}

impl Images {
    /// Examines every image that has a name, a container, or is among `services` (by manifest, with the service's name
    /// in words), and with `repair` mends what can be. Blocks for as long as it takes to read everything.
    ///
    /// # Errors
    /// The records or the directories cannot be read; what is wrong with images is in the view.
    pub fn fsck(&self, repair: bool, services: &HashMap<Digest, String>) -> Result<FsckView, ContainerError> {
        let mut examination = Examination { images: self, repair, view: FsckView::default(), read: HashMap::new() };
        let unused = examination.unused(services)?;
        let users = examination.users(services)?;
        examination.view.unused_bytes = unused;
        for (manifest, users) in &users {
            examination.image(manifest, users)?;
        }
        examination.strays()?;
        Ok(examination.view)
    }
}

impl Examination<'_> {
    /// Who has which image.
    fn users(
        &mut self,
        services: &HashMap<Digest, String>,
    ) -> Result<BTreeMap<Digest, BTreeSet<User>>, ContainerError> {
        let mut users: BTreeMap<Digest, BTreeSet<User>> = BTreeMap::new();
        for (key, record) in self.images.records.list::<ImageRecord>(IMAGES)? {
            let name = unescape(key.trim_start_matches(IMAGES));
            users.entry(record.value.manifest).or_default().insert(User::Name(key, name));
        }
        for (_, record) in self.images.records.list::<ContainerRecord>(CONTAINERS)? {
            let record = record.value;
            let manifest = record.spec.image.clone();
            users.entry(manifest).or_default().insert(User::Container(record.spec.name.to_string()));
        }
        for (manifest, service) in services {
            users.entry(manifest.clone()).or_default().insert(User::Service(service.clone()));
        }
        Ok(users)
    }

    /// Bytes that nothing needs. In this order: a blob is leased before it comes, and let go after its image is
    /// recorded.
    fn unused(&self, services: &HashMap<Digest, String>) -> Result<u64, ContainerError> {
        let images = self.images;
        let _nothing_is_collected = images.hold();
        let (blobs, layers) = (images.blobs.list()?, images.layers.list()?);
        let mut blobs_of_use = images.kept.leased();
        let mut layers_of_use = HashSet::new();
        let named = images.records.list::<ImageRecord>(IMAGES)?;
        let contained = images.records.list::<ContainerRecord>(CONTAINERS)?;
        let manifests = named.into_iter().map(|(_, record)| record.value.manifest);
        let manifests = manifests.chain(contained.into_iter().map(|(_, record)| record.value.spec.image));
        for manifest in manifests.chain(services.keys().cloned()) {
            if let Ok(image) = Image::read(&*images.blobs, &manifest) {
                blobs_of_use.extend(of_image(&image).cloned());
                layers_of_use.extend(image.layers.into_iter().map(|layer| layer.diff_id));
            }
        }
        let of_blobs =
            blobs.iter().filter(|blob| !blobs_of_use.contains(blob)).filter_map(|b| images.blobs.size(b).ok());
        let of_layers = layers.iter().filter(|layer| !layers_of_use.contains(layer));
        Ok(of_blobs.sum::<u64>() + of_layers.filter_map(|layer| images.layers.size(layer)).sum::<u64>())
    }

    fn image(&mut self, manifest: &Digest, users: &BTreeSet<User>) -> Result<(), ContainerError> {
        self.view.images += 1;
        let image = match Image::read(&*self.images.blobs, manifest) {
            Ok(image) => image,
            Err(error) => {
                if self.still_wanted(manifest, users)? {
                    // parts that are there and damaged are in the way of the same image's return
                    if self.blob(manifest)?
                        && let Ok(bytes) = fs::read(self.images.blobs.path(manifest))
                        && let Ok(manifest) = Manifest::parse(&bytes)
                    {
                        for (blob, _) in manifest.blobs() {
                            self.blob(blob)?;
                        }
                    }
                    self.broken(manifest, users, &in_full(&error))?;
                }
                return Ok(());
            }
        };
        let mut sound = true;
        for blob in of_image(&image) {
            sound &= self.blob(blob)?;
        }
        if !sound {
            if self.still_wanted(manifest, users)? {
                self.broken(manifest, users, "one of its blobs is damaged")?;
            }
            return Ok(());
        }
        for layer in &image.layers {
            self.layer(layer)?;
        }
        Ok(())
    }

    /// Whether what had the image still does: it may have been removed while it was read.
    fn still_wanted(&self, manifest: &Digest, users: &BTreeSet<User>) -> Result<bool, ContainerError> {
        for user in users {
            let is_there = match user {
                User::Name(key, _) => {
                    let record = self.images.records.get::<ImageRecord>(key)?;
                    record.is_some_and(|record| record.value.manifest == *manifest)
                }
                User::Container(_) => self.images.containers_by_image()?.contains_key(manifest),
                User::Service(_) => true,
            };
            if is_there {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a blob; whether it is what its digest says.
    fn blob(&mut self, digest: &Digest) -> Result<bool, ContainerError> {
        if let Some(sound) = self.read.get(digest) {
            return Ok(*sound);
        }
        let blobs = &self.images.blobs;
        let fault = match blobs.read_digest(digest) {
            // the image's own words say so
            Err(BlobError::Missing(_)) => return Ok(false),
            Ok(actual) if actual == *digest => None,
            Ok(actual) => Some(format!("its bytes have the digest {actual}")),
            Err(error) => Some(in_full(&error)),
        };
        self.view.blobs += 1;
        self.read.insert(digest.clone(), fault.is_none());
        let Some(message) = fault else { return Ok(true) };
        let repaired = match self.repair {
            true => Some(format!("moved to {}", blobs.set_aside(digest)?.display())),
            false => None,
        };
        self.problem("blob", digest.to_string(), message, repaired, LOAD_AGAIN);
        Ok(false)
    }

    /// An image that is not whole: names that nothing stands behind are taken away.
    fn broken(&mut self, manifest: &Digest, users: &BTreeSet<User>, message: &str) -> Result<(), ContainerError> {
        let in_use = users.iter().any(|user| !matches!(user, User::Name(..)));
        for user in users {
            let mut repaired = None;
            let hint = match user {
                User::Name(key, _) if self.repair && !in_use => {
                    self.images.records.delete(key)?;
                    repaired = Some("its name was taken away".to_owned());
                    LOAD_AGAIN
                }
                User::Name(..) => LOAD_AGAIN,
                User::Container(_) => {
                    "it cannot be started again: build or load the same image, or remove it with `sampan rm`"
                }
                User::Service(_) => "it cannot be started again: run `sampan up` for it once more",
            };
            self.problem(
                "image",
                user.to_string(),
                format!("the image {manifest} is not whole: {message}"),
                repaired,
                hint,
            );
        }
        Ok(())
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), ContainerError> {
        let layers = &self.images.layers;
        if layers.size(&layer.diff_id).is_none() && !layers.list()?.contains(&layer.diff_id) {
            return Ok(()); // not unpacked
        }
        self.view.layers += 1;
        let message = match layers.check(layer, &*self.images.blobs) {
            Ok(None) => return Ok(()),
            Ok(Some(fault)) => format!("in its unpacked tree, {}: {}", fault.path, fault.what),
            Err(error) => in_full(&error),
        };
        let is_mounted = self.is_mounted(layer)?;
        let repaired = match self.repair && !is_mounted {
            true => {
                layers.set_aside(&layer.diff_id)?;
                Some("the next start of a container unpacks it anew".to_owned())
            }
            false => None,
        };
        let hint = match is_mounted {
            true => "stop the containers and services on it, then run `sampan image fsck --repair`",
            false => "run `sampan image fsck --repair`",
        };
        self.problem("layer", layer.diff_id.to_string(), message, repaired, hint);
        Ok(())
    }

    /// Whether a container is on a layer, or about to be: its tree must stay then. Asked in the moment before it goes.
    fn is_mounted(&self, layer: &Layer) -> Result<bool, ContainerError> {
        let records = self.images.records.list::<ContainerRecord>(CONTAINERS)?;
        let mut up = records.into_iter().map(|(_, record)| record.value);
        Ok(up.any(|record| {
            record.state.status != ContainerStatus::Exited
                && Image::read(&*self.images.blobs, &record.spec.image)
                    .is_ok_and(|image| image.layers.iter().any(|one| one.diff_id == layer.diff_id))
        }))
    }

    /// Files that are none of ours among the blobs and layers.
    fn strays(&mut self) -> Result<(), ContainerError> {
        let found = [self.images.blobs.strays()?, self.images.layers.strays()?].concat();
        for path in found {
            let repaired = match self.repair {
                true => Some(remove(&path).map(|()| "it was removed".to_owned())?),
                false => None,
            };
            let message = "a file that Sampan did not put there".to_owned();
            self.problem("stray", path.display().to_string(), message, repaired, "run `sampan image fsck --repair`");
        }
        if self.repair {
            self.images.layers.sweep()?;
        }
        Ok(())
    }

    fn problem(&mut self, kind: &str, subject: String, message: String, repaired: Option<String>, hint: &str) {
        let hint = repaired.is_none().then(|| hint.to_owned());
        self.view.problems.push(FsckProblem { kind: kind.to_owned(), subject, message, repaired, hint });
    }
}

fn remove(path: &Path) -> Result<(), ContainerError> {
    let failed = |source| ContainerError::Io { what: format!("remove {}", path.display()), source };
    let is_directory = fs::symlink_metadata(path).map_err(failed)?.is_dir();
    if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(failed)
}

/// An error's words with its causes'.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
