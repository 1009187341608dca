//! Which blobs and unpacked layers are still of use, and the end of the others.
//!
//! An image is of use while a name, a container or a service has it. A blob that was just uploaded, or that its
//! uploader was told is here, belongs to no image yet: it is *leased* until the image is named, or until the lease
//! runs out.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use sampan_image::{Image, Layers, Manifest};
use sampan_model::Digest;
use sampan_store::Blobs;

use crate::{ContainerError, failpoint};

/// How long an uploader may take from one blob to the image's name.
const LEASE: Duration = Duration::from_secs(600);

/// What must not be collected, beside what records say.
#[derive(Default)]
pub(crate) struct Kept {
    /// Held for reading while an image that was looked up comes to be of use, for writing while garbage is collected.
    gate: RwLock<()>,
    leases: Mutex<HashMap<Digest, Vec<Lease>>>,
}

/// One uploader's wish that a blob stay.
struct Lease {
    /// Whose it is, to give up: another user's stays.
    uid: u32,
    since: Instant,
}

impl Lease {
    fn is_alive(&self) -> bool {
        self.since.elapsed() < LEASE
    }
}

/// The leases that one user has on one blob: one more takes the place of the oldest.
const LEASES_OF_ONE: usize = 64;

impl Kept {
    /// Keeps everything as it is until the guard is dropped.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases a blob to one uploader, of this user.
    pub(crate) fn lease(&self, blob: &Digest, uid: u32) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let held = leases.entry(blob.clone()).or_default();
        if held.iter().filter(|lease| lease.uid == uid).count() >= LEASES_OF_ONE
            && let Some(oldest) = held.iter().position(|lease| lease.uid == uid)
        {
            held.remove(oldest);
        }
        held.push(Lease { uid, since: Instant::now() });
    }

    /// One uploader of this user has named the image that these blobs are of, or gave it up.
    pub(crate) fn release<'a>(&self, blobs: impl Iterator<Item = &'a Digest>, uid: u32) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            let Some(held) = leases.get_mut(blob) else { continue };
            if let Some(own) = held.iter().rposition(|lease| lease.uid == uid) {
                held.remove(own);
            }
            if held.is_empty() {
                leases.remove(blob);
            }
        }
    }

    /// The blobs that somebody has a lease on.
    pub(crate) fn leased(&self) -> HashSet<Digest> {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter().filter(|(_, held)| held.iter().any(Lease::is_alive)).map(|(blob, _)| blob.clone()).collect()
    }

    /// Removes every blob, and sets every unpacked layer aside, that none of the images of use has and nobody has a lease
    /// on; says what that was. Others wait meanwhile: what takes long, deleting the layers, comes later.
    ///
    /// An image that is of use and not whole keeps what can be told to be its own; where its layers cannot be told, every
    /// layer stays.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub(crate) fn collect(
        &self,
        blobs: &Blobs,
        layers: &Layers,
        of_use: impl FnOnce() -> Result<HashSet<Digest>, ContainerError>,
    ) -> Result<Freed, ContainerError> {
        let _nobody_else = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut keep_blobs = HashSet::new();
        let mut keep_layers = HashSet::new();
        let mut keep_every_layer = false;
        for manifest in of_use()? {
            let kept = Parts::of(blobs, &manifest);
            keep_blobs.extend(kept.blobs);
            match kept.layers {
                Some(layers) => keep_layers.extend(layers),
                // a container may run on some of them
                None => keep_every_layer = true,
            }
        }
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, held| {
            held.retain(Lease::is_alive);
            !held.is_empty()
        });
        keep_blobs.extend(leases.keys().cloned());
        drop(leases);
        let mut freed = Freed::default();
        for blob in blobs.list()?.iter().filter(|blob| !keep_blobs.contains(blob)) {
            freed.bytes += blobs.size(blob).unwrap_or_default();
            blobs.remove(blob)?;
            freed.blobs += 1;
            failpoint::reach("garbage_blob_removed");
        }
        let unused = |layer: &&Digest| !keep_every_layer && !keep_layers.contains(*layer);
        for layer in layers.list()?.iter().filter(unused) {
            freed.bytes += layers.size(layer).unwrap_or_default();
            layers.set_aside(layer)?;
            freed.layers += 1;
            failpoint::reach("garbage_layer_set_aside");
        }
        Ok(freed)
    }
}

/// What an image keeps.
struct Parts {
    blobs: Vec<Digest>,
    /// By diff id; `None` where they cannot be told.
    layers: Option<Vec<Digest>>,
}

impl Parts {
    fn of(blobs: &Blobs, manifest: &Digest) -> Self {
        let image = match Image::read(blobs, manifest) {
            Ok(image) => image,
            Err(error) => {
                tracing::warn!(%manifest, %error, "an image that is of use is not whole");
                return Self::of_broken(blobs, manifest);
            }
        };
        Self { blobs: of_image(&image).cloned().collect(), layers: Some(diff_ids(image)) }
    }

    fn of_broken(blobs: &Blobs, manifest: &Digest) -> Self {
        let read = |digest: &Digest| std::fs::read(blobs.path(digest)).ok();
        let parsed = read(manifest).and_then(|bytes| Manifest::parse(&bytes).ok());
        let Some(parsed) = parsed else { return Self { blobs: vec![manifest.clone()], layers: None } };
        let image = read(parsed.config()).and_then(|config| parsed.image(&config).ok());
        let named = parsed.blobs().map(|(digest, _)| digest.clone());
        // as it is stored under, whatever its bytes have become
        Self { blobs: named.chain([manifest.clone()]).collect(), layers: image.map(diff_ids) }
    }
}

fn diff_ids(image: Image) -> Vec<Digest> {
    image.layers.into_iter().map(|layer| layer.diff_id).collect()
}

/// What was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Freed {
    pub blobs: u64,
    pub layers: u64,
    /// What they take on the disk; unpacked layers by the size of their tars.
    pub bytes: u64,
}

/// Every blob of an image.
pub(crate) fn of_image(image: &Image) -> impl Iterator<Item = &Digest> {
    [&image.manifest, &image.config_digest].into_iter().chain(image.layers.iter().map(|layer| &layer.digest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sampan_image::{ImageConfig, LayerWriter, compose};

    use super::*;

    #[test]
    fn an_image_that_is_not_whole_keeps_what_there_is_of_it() {
        let check = |spoil: &dyn Fn(&Blobs, &Image), blobs_left: usize| {
            let dir = tempfile::tempdir().unwrap();
            let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
            let layers = Layers::open(&dir.path().join("layers")).unwrap();
            let mut writer = LayerWriter::new(Vec::new());
            writer.file("a", 0o644, 1, &b"x"[..]).unwrap();
            let (layer, tar) = writer.finish().unwrap();
            let composed = compose(&ImageConfig::default(), std::slice::from_ref(&layer));
            for bytes in [&tar, &composed.config, &composed.manifest] {
                blobs.put(bytes).unwrap();
            }
            let image = Image::read(&blobs, &composed.digest).unwrap();
            layers.ensure(&layer, &blobs).unwrap();
            blobs.put(b"nobody's").unwrap();
            spoil(&blobs, &image);
            Kept::default().collect(&blobs, &layers, || Ok(HashSet::from([composed.digest.clone()]))).unwrap();
            assert_eq!(layers.list().unwrap(), [layer.diff_id], "its tree may be under a container");
            assert_eq!(blobs.list().unwrap().len(), blobs_left);
        };
        check(&|_, _| {}, 3);
        check(&|blobs, image| blobs.remove(&image.layers[0].digest).unwrap(), 2);
        check(&|blobs, image| blobs.remove(&image.config_digest).unwrap(), 2);
        check(&|blobs, image| fs::write(blobs.path(&image.config_digest), "{").unwrap(), 3);
        // what it named cannot be told any more
        check(&|blobs, image| blobs.remove(&image.manifest).unwrap(), 0);
        check(&|blobs, image| fs::write(blobs.path(&image.manifest), "{").unwrap(), 1);
    }
}
