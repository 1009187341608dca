//! Images by name: records under `default/image/NAME:TAG`; their bytes are blobs, and layers unpacked from them.

use std::collections::HashSet;
use std::sync::{Arc, RwLockReadGuard};

use jiff::Timestamp;
use sampan_image::{Image, Layers};
use sampan_model::view::ImageView;
use sampan_model::{Digest, ImageName};
use sampan_store::{Blobs, Durability, Records};
use serde::{Deserialize, Serialize};

use crate::garbage::{Kept, of_image};
use crate::record::CONTAINERS;
use crate::{ContainerError, ContainerRecord, failpoint};

const IMAGES: &str = "default/image/";

/// What is kept of an image's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest.
    pub manifest: Digest,
    /// Config and layers together, in bytes.
    pub size_bytes: u64,
    /// When it was named.
    pub created_at: Timestamp,
}

/// The images that have names. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    records: Arc<Records>,
    blobs: Arc<Blobs>,
    layers: Arc<Layers>,
    kept: Arc<Kept>,
}

impl Images {
    /// The images of these records, blobs and layers.
    pub fn new(records: Arc<Records>, blobs: Arc<Blobs>, layers: Arc<Layers>) -> Self {
        Self { records, blobs, layers, kept: Arc::default() }
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
            self.kept.lease(blob);
        }
        has
    }

    /// A blob is about to come: once here, it stays until its uploader has had the time to name its image.
    pub fn expect_upload(&self, blob: &Digest) {
        self.kept.lease(blob);
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
        self.kept.collect(&self.blobs, &self.layers, || {
            let mut of_use = also;
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
        let record = ImageRecord { manifest: manifest.clone(), size_bytes: image.size, created_at: Timestamp::now() };
        self.records.put(&format!("{IMAGES}{}", escape(name)), &record, Durability::Intent)?;
        self.kept.release(of_image(&image));
        failpoint::reach("image_named");
        Ok(view(name.as_str(), &record))
    }

    /// An uploader gave up: nobody is going to name what it uploaded.
    pub fn give_up_upload(&self, manifest: &Digest) {
        if let Ok(image) = Image::read(&*self.blobs, manifest) {
            self.kept.release(of_image(&image));
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

    /// All images, by name. Blocks.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn list(&self) -> Result<Vec<ImageView>, ContainerError> {
        let records = self.records.list::<ImageRecord>(IMAGES)?;
        Ok(records
            .into_iter()
            .map(|(key, record)| view(&unescape(key.trim_start_matches(IMAGES)), &record.value))
            .collect())
    }

    /// The image of a name. Blocks.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &ImageName) -> Result<ImageView, ContainerError> {
        let record = self.records.get::<ImageRecord>(&format!("{IMAGES}{}", escape(name)))?;
        let record = record.ok_or_else(|| ContainerError::NoImage(name.to_string()))?;
        Ok(view(name.as_str(), &record.value))
    }

    /// Takes a name away. Blocks.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn forget(&self, name: &ImageName) -> Result<(), ContainerError> {
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

/// Record keys have three parts between slashes; an image's name may have more of them.
fn escape(name: &ImageName) -> String {
    name.as_str().replace('/', "|")
}

fn unescape(key: &str) -> String {
    key.replace('|', "/")
}
