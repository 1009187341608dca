//! Which blobs and unpacked layers are still of use, and the end of the others.
//!
//! An image is of use while a name, a container or a service has it. A blob that was just uploaded, or that its
//! uploader was told is here, belongs to no image yet: it is *leased* until the image is named, or until the lease
//! runs out.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use sampan_image::{Image, Layers};
use sampan_model::Digest;
use sampan_store::Blobs;

use crate::ContainerError;

/// How long an uploader may take from one blob to the image's name.
const LEASE: Duration = Duration::from_secs(600);

/// What must not be collected, beside what records say.
#[derive(Default)]
pub(crate) struct Kept {
    /// Held for reading while an image that was looked up comes to be of use, for writing while garbage is collected.
    gate: RwLock<()>,
    leases: Mutex<HashMap<Digest, Vec<Instant>>>,
}

impl Kept {
    /// Keeps everything as it is until the guard is dropped.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases a blob to one uploader.
    pub(crate) fn lease(&self, blob: &Digest) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.entry(blob.clone()).or_default().push(Instant::now());
    }

    /// One uploader has named the image that these blobs are of.
    pub(crate) fn release<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            if let Some(times) = leases.get_mut(blob) {
                times.pop();
                if times.is_empty() {
                    leases.remove(blob);
                }
            }
        }
    }

    /// Removes every blob, and sets every unpacked layer aside, that none of the images of use has and nobody has a lease
    /// on. Others wait meanwhile: what takes long, deleting the layers, comes later.
    ///
    /// # Errors
    /// One of them cannot be removed, or an image cannot be read: nothing is then taken for garbage.
    pub(crate) fn collect(
        &self,
        blobs: &Blobs,
        layers: &Layers,
        of_use: impl FnOnce() -> Result<HashSet<Digest>, ContainerError>,
    ) -> Result<(), ContainerError> {
        let _nobody_else = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut keep_blobs = HashSet::new();
        let mut keep_layers = HashSet::new();
        for manifest in of_use()? {
            // an image that is of use and not whole keeps what there is of it
            let image = match Image::read(blobs, &manifest) {
                Ok(image) => image,
                Err(error) if !blobs.has(&manifest) => {
                    tracing::warn!(%manifest, %error, "an image that is of use is not here");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            keep_blobs.extend(of_image(&image).cloned());
            keep_layers.extend(image.layers.iter().map(|layer| layer.diff_id.clone()));
        }
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, times| {
            times.retain(|since| since.elapsed() < LEASE);
            !times.is_empty()
        });
        keep_blobs.extend(leases.keys().cloned());
        drop(leases);
        for blob in blobs.list()?.iter().filter(|blob| !keep_blobs.contains(blob)) {
            blobs.remove(blob)?;
        }
        for layer in layers.list()?.iter().filter(|layer| !keep_layers.contains(layer)) {
            layers.set_aside(layer)?;
        }
        Ok(())
    }
}

/// Every blob of an image.
pub(crate) fn of_image(image: &Image) -> impl Iterator<Item = &Digest> {
    [&image.manifest, &image.config_digest].into_iter().chain(image.layers.iter().map(|layer| &layer.digest))
}
