//! Images by name: records under `default/image/NAME:TAG`; their bytes are blobs, and layers unpacked from them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLockReadGuard};

use jiff::Timestamp;
use sampan_image::{Image, Layers};
use sampan_model::view::{HistoryView, ImageConfigView, ImageDetails, ImageView, LayerView, PruneView};
use sampan_model::{Digest, ImageName, Owner};
use sampan_store::{Blobs, Durability, Records};
use serde::{Deserialize, Serialize};

use crate::containers::lock;
use crate::garbage::{Freed, Kept, of_image};
use crate::record::CONTAINERS;
use crate::{ContainerError, ContainerRecord, failpoint};

pub(crate) const IMAGES: &str = "default/image/";

/// How many images' configs are kept in memory.
const MOST_READ: usize = 64;

/// What is kept of an image's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest.
    pub manifest: Digest,
    /// Config and layers together, in bytes.
    pub size_bytes: u64,
    /// When it was named.
    pub created_at: Timestamp,
    /// Whose the name is.
    #[serde(default)]
    pub owner: Owner,
}

/// The images that have names. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    pub(crate) records: Arc<Records>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) layers: Arc<Layers>,
    pub(crate) kept: Arc<Kept>,
    /// What was read of them last: manifest and config, which a digest names for good.
    read: Arc<Mutex<HashMap<Digest, Arc<Image>>>>,
    /// The names as they were read last.
    names: Arc<Mutex<Option<Arc<Names>>>>,
    /// For whom they are looked at: others' names are not there.
    viewer: Owner,
}

/// Everybody's names.
struct Names {
    /// When they were read.
    revision: u64,
    by_key: BTreeMap<String, ImageRecord>,
}

impl Images {
    /// The images of these records, blobs and layers.
    pub fn new(records: Arc<Records>, blobs: Arc<Blobs>, layers: Arc<Layers>) -> Self {
        let (kept, read, names) = (Arc::default(), Arc::default(), Arc::default());
        Self { records, blobs, layers, kept, read, names, viewer: Owner::default() }
    }

    /// The images as they are to this user: all of them to root, their own to others.
    pub fn of(&self, viewer: &Owner) -> Self {
        Self { viewer: viewer.clone(), ..self.clone() }
    }

    /// An image by its manifest.
    ///
    /// # Errors
    /// It is not here, or not for this machine.
    pub fn image(&self, manifest: &Digest) -> Result<Arc<Image>, ContainerError> {
        if let Some(image) = lock(&self.read).get(manifest) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Image::read(&*self.blobs, manifest)?);
        let mut read = lock(&self.read);
        if read.len() >= MOST_READ {
            read.clear();
        }
        read.insert(manifest.clone(), Arc::clone(&image));
        Ok(image)
    }

    /// The bytes of images.
    pub fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    /// The layers of images, unpacked.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Whether a blob is here. It then stays until its uploader has had the time to name the image that it is for.
    pub fn has_for_upload(&self, blob: &Digest) -> bool {
        let _as_it_is = self.hold();
        let has = self.blobs.has(blob);
        if has {
            self.kept.lease(blob, self.viewer.uid);
        }
        has
    }

    /// A blob is about to come: once here, it stays until its uploader has had the time to name its image.
    pub fn expect_upload(&self, blob: &Digest) {
        self.kept.lease(blob, self.viewer.uid);
    }

    /// A blob that was expected did not come.
    pub fn expect_no_more(&self, blob: &Digest) {
        self.kept.release(std::iter::once(blob), self.viewer.uid);
    }

    /// Keeps every image until the guard is dropped: while one that was looked up comes to be of use.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.kept.hold()
    }

    /// Takes away the bytes of images that no name, no container and none of `also` has; [`sweep`](Self::sweep) gives
    /// all of their room back. Blocks, and holds up whoever is about to use an image.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn collect_garbage(&self, also: HashSet<Digest>) -> Result<(), ContainerError> {
        self.collect(also).map(drop)
    }

    /// Takes away what [`collect_garbage`](Self::collect_garbage) does, and with `all` before that the names of images
    /// that no container and none of `also` has. Blocks.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn prune(&self, all: bool, also: HashSet<Digest>) -> Result<PruneView, ContainerError> {
        let mut removed = Vec::new();
        if all {
            let users = self.containers_by_image()?;
            for (key, record) in self.records.list::<ImageRecord>(IMAGES)? {
                let manifest = &record.value.manifest;
                if self.viewer.may_touch(&record.value.owner)
                    && !also.contains(manifest)
                    && !users.contains_key(manifest)
                {
                    self.records.delete(&key)?;
                    removed.push(unescape(key.trim_start_matches(IMAGES)));
                    failpoint::reach("prune_name_removed");
                }
            }
        }
        let Freed { blobs, layers, bytes } = self.collect(also)?;
        failpoint::reach("prune_collected");
        Ok(PruneView { removed, blobs, layers, freed_bytes: bytes })
    }

    fn collect(&self, also: HashSet<Digest>) -> Result<Freed, ContainerError> {
        let freed = self.collect_unread(also);
        // one that is gone is not to be found any more
        lock(&self.read).clear();
        freed
    }

    fn collect_unread(&self, also: HashSet<Digest>) -> Result<Freed, ContainerError> {
        self.kept.collect(&self.blobs, &self.layers, || {
            let mut of_use = also;
            // as they are written, not as they were read last: what is taken away is gone
            let images = self.records.list::<ImageRecord>(IMAGES)?;
            of_use.extend(images.into_iter().map(|(_, record)| record.value.manifest));
            let containers = self.records.list::<ContainerRecord>(CONTAINERS)?;
            of_use.extend(containers.into_iter().map(|(_, record)| record.value.spec.image));
            Ok(of_use)
        })
    }

    /// Names a manifest whose blobs are all here. Blocks.
    ///
    /// # Errors
    /// The image is not complete or not for this machine.
    pub fn name(&self, name: &ImageName, manifest: &Digest) -> Result<ImageView, ContainerError> {
        let _as_it_is = self.hold();
        let image = Image::read(&*self.blobs, manifest)?;
        let key = format!("{IMAGES}{}", escape(name));
        let before = self.records.get::<ImageRecord>(&key)?.map(|record| record.value.owner);
        if before.as_ref().is_some_and(|before| !self.viewer.may_touch(before)) {
            return Err(ContainerError::Strangers(name.to_string()));
        }
        let record = ImageRecord {
            manifest: manifest.clone(),
            size_bytes: image.size,
            created_at: Timestamp::now(),
            owner: before.unwrap_or_else(|| self.viewer.clone()),
        };
        self.records.put(&key, &record, Durability::Intent)?;
        self.kept.release(of_image(&image), self.viewer.uid);
        failpoint::reach("image_named");
        Ok(view(name.as_str(), &record))
    }

    /// The viewer's uploader gave up: nobody is going to name what it uploaded.
    pub fn give_up_upload(&self, manifest: &Digest) {
        if let Ok(image) = Image::read(&*self.blobs, manifest) {
            self.kept.release(of_image(&image), self.viewer.uid);
        }
    }

    /// Deletes what [`collect_garbage`](Self::collect_garbage) took away. Blocks for as long as that takes, and holds up
    /// nobody.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn sweep(&self) -> Result<(), ContainerError> {
        Ok(self.layers.sweep()?)
    }

    /// The names: read again when one has changed.
    fn names(&self) -> Result<Arc<Names>, ContainerError> {
        let revision = self.records.revision_of(IMAGES);
        if let Some(names) = &*lock(&self.names)
            && names.revision == revision
        {
            return Ok(Arc::clone(names));
        }
        let records = self.records.list::<ImageRecord>(IMAGES)?;
        let by_key = records.into_iter().map(|(key, record)| (key, record.value)).collect();
        let names = Arc::new(Names { revision, by_key });
        *lock(&self.names) = Some(Arc::clone(&names));
        Ok(names)
    }

    /// All images, by name. Blocks.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn list(&self) -> Result<Vec<ImageView>, ContainerError> {
        let names = self.names()?;
        let own = names.by_key.iter().filter(|(_, record)| self.viewer.may_touch(&record.owner));
        Ok(own.map(|(key, record)| view(&unescape(key.trim_start_matches(IMAGES)), record)).collect())
    }

    /// The image of a name. Blocks.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &ImageName) -> Result<ImageView, ContainerError> {
        let names = self.names()?;
        let record = names.by_key.get(&format!("{IMAGES}{}", escape(name)));
        let record = record.filter(|record| self.viewer.may_touch(&record.owner));
        let record = record.ok_or_else(|| ContainerError::NoImage(name.to_string()))?;
        Ok(view(name.as_str(), record))
    }

    /// Whether anybody has a name for this image. Blocks.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn is_named(&self, manifest: &Digest) -> Result<bool, ContainerError> {
        Ok(self.names()?.by_key.values().any(|record| record.manifest == *manifest))
    }

    /// All that there is to say of the image of a name. Blocks.
    ///
    /// # Errors
    /// There is none of that name, or it is not whole.
    pub fn details(&self, name: &ImageName) -> Result<ImageDetails, ContainerError> {
        let view = self.get(name)?;
        let image = Image::read(&*self.blobs, &view.digest)?;
        Ok(details(view, image))
    }

    /// Whether a blob is one of an image that the viewer has a name for: to others it is not there. Blocks.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn may_read(&self, blob: &Digest) -> Result<bool, ContainerError> {
        if self.viewer.uid == 0 {
            return Ok(true);
        }
        let own = self.records.list::<ImageRecord>(IMAGES)?.into_iter().map(|(_, record)| record.value);
        let manifests = own.filter(|record| self.viewer.may_touch(&record.owner)).map(|record| record.manifest);
        let mut images = manifests.filter_map(|manifest| Image::read(&*self.blobs, &manifest).ok());
        Ok(images.any(|image| of_image(&image).any(|one| one == blob)))
    }

    /// Takes the name of an image away that no container and none of `also` has, or that has another name. Blocks.
    ///
    /// # Errors
    /// There is none of that name; [`ContainerError::ImageInUse`].
    pub fn remove(&self, name: &ImageName, also: &HashMap<Digest, String>) -> Result<(), ContainerError> {
        let manifest = self.get(name)?.digest;
        let others = self.records.list::<ImageRecord>(IMAGES)?;
        let own = format!("{IMAGES}{}", escape(name));
        let is_only_name = !others.iter().any(|(key, record)| record.value.manifest == manifest && *key != own);
        if is_only_name {
            let containers = self.containers_by_image()?;
            let of_container = containers.get(&manifest).map(|(words, owner)| match self.viewer.may_touch(owner) {
                true => words.clone(),
                false => "another user's container".to_owned(),
            });
            if let Some(by) = also.get(&manifest).cloned().or(of_container) {
                return Err(ContainerError::ImageInUse { name: name.to_string(), by });
            }
        }
        self.forget(name)
    }

    /// One container of each image that has any: the words for it, and whose it is.
    pub(crate) fn containers_by_image(&self) -> Result<BTreeMap<Digest, (String, Owner)>, ContainerError> {
        let containers = self.records.list::<ContainerRecord>(CONTAINERS)?;
        let named = containers.into_iter().map(|(_, record)| {
            let spec = record.value.spec;
            (spec.image, (format!("container {:?}", spec.name.as_str()), spec.owner))
        });
        Ok(named.collect())
    }

    /// Takes a name away, whatever uses the image. Blocks.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn forget(&self, name: &ImageName) -> Result<(), ContainerError> {
        self.get(name)?;
        match self.records.delete(&format!("{IMAGES}{}", escape(name)))? {
            Some(_) => Ok(()),
            None => Err(ContainerError::NoImage(name.to_string())),
        }
    }

    /// Takes a name away where it is this manifest's. Blocks.
    ///
    /// # Errors
    /// The records cannot be read or written.
    pub fn forget_if(&self, name: &ImageName, manifest: &Digest) -> Result<(), ContainerError> {
        match self.get(name) {
            Ok(view) if view.digest == *manifest => self.forget(name),
            Ok(_) | Err(ContainerError::NoImage(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The manifest that a text means: a name, or a manifest's digest. Blocks.
    ///
    /// # Errors
    /// It means none that is here.
    pub fn resolve(&self, text: &str) -> Result<Digest, ContainerError> {
        if let Ok(digest) = Digest::parse(text) {
            return if self.blobs.has(&digest) { Ok(digest) } else { Err(ContainerError::NoImage(text.to_owned())) };
        }
        let name = ImageName::parse(text).map_err(ContainerError::Name)?;
        self.get(&name).map(|view| view.digest)
    }
}

fn view(name: &str, record: &ImageRecord) -> ImageView {
    ImageView {
        kind: "image".to_owned(),
        name: name.to_owned(),
        digest: record.manifest.clone(),
        size_bytes: record.size_bytes,
        created_at: record.created_at,
    }
}

fn details(view: ImageView, image: Image) -> ImageDetails {
    let config = image.config;
    let mut layers = image.layers.iter();
    let history = image.history.into_iter().map(|step| {
        let layer = if step.empty_layer { None } else { layers.next() };
        HistoryView {
            created: step.created,
            created_by: step.created_by,
            comment: step.comment,
            layer: layer.map(|layer| layer.digest.clone()),
            size_bytes: layer.map_or(0, |layer| layer.size),
        }
    });
    let history = history.collect();
    let layer = |layer: sampan_image::Layer| LayerView {
        digest: layer.digest,
        diff_id: layer.diff_id,
        size_bytes: layer.size,
        media_type: layer.media_type.as_str().to_owned(),
    };
    ImageDetails {
        image: view,
        config_digest: image.config_digest,
        architecture: config.architecture,
        os: config.os,
        made_at: image.created,
        config: ImageConfigView {
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            working_dir: config.working_dir,
            user: config.user,
            ports: config.exposed_ports,
            labels: config.labels,
            stop_signal: config.stop_signal,
        },
        layers: image.layers.into_iter().map(layer).collect(),
        history,
    }
}

/// Record keys have three parts between slashes; an image's name may have more of them.
fn escape(name: &ImageName) -> String {
    name.as_str().replace('/', "|")
}

pub(crate) fn unescape(key: &str) -> String {
    key.replace('|', "/")
}
