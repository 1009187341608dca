//! Layers, unpacked: `HEX/fs` below the store's directory, `HEX` being the layer's diff id.
//!
//! A layer is unpacked once, whatever images and however many containers it is under, and never changed after that. It
//! is there under its name only when it is whole. Syncing each file of it would cost more than unpacking it, so a fresh
//! layer is good for this boot only, which its `state` file says; [`Layers::sync`] makes it good for ever, when there is
//! time. A machine that goes down before that unpacks it again from its blob.
//!
//! ```text
//! HEX/fs/…      the tree, a lower layer for overlayfs
//! HEX/state     {"format":1,"boot":"6f1c…","synced":false,"entries":812,"bytes":9216000}
//! .partial-N/   one that is being unpacked, or was when the daemon was killed
//! .gone-N/      one that is being removed
//! ```

mod check;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_model::Digest;
use sampan_store::{BlobError, boot_id};
use serde::{Deserialize, Serialize};

use crate::{BlobSource, Layer, UnpackError, unpack_layer};

pub use check::LayerFault;

const FORMAT: u32 = 1;

/// The unpacked layers of one root. Any number of threads may use it; one process at a time may open it.
#[derive(Debug)]
pub struct Layers {
    dir: PathBuf,
    boot: String,
    next: AtomicU64,
    /// One slot a layer: the lock under which it is unpacked or removed, and what is known of it.
    slots: Mutex<HashMap<Digest, Arc<Mutex<Slot>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Slot {
    /// Nobody has looked, or it is not there.
    #[default]
    Unknown,
    /// It is there for this boot. The number tells it from one that is unpacked in its place later.
    Unpacked(u64),
    /// It is there for ever.
    Synced,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    boot: String,
    synced: bool,
    entries: u64,
    bytes: u64,
}

/// Why a layer could not be had, or the store not be used.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The layer's blob cannot be opened.
    #[error("open the layer {layer}")]
    Blob {
        /// The layer's blob.
        layer: Digest,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// It cannot be unpacked.
    #[error("unpack the layer {layer}")]
    Unpack {
        /// The layer's blob.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<UnpackError>,
    },
    /// A file or directory could not be used.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LayersError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What the names of trees begin with that were set aside.
const GONE: &str = ".gone-";
/// What those of trees that are being unpacked begin with.
const PARTIAL: &str = ".partial-";

impl Layers {
    /// Opens the store, made (0700) where it is not there, and removes what was being unpacked or removed when its last
    /// process ended. The caller holds the root's lock.
    ///
    /// # Errors
    /// The directory cannot be made or read, or a leftover not be removed.
    pub fn open(dir: &Path) -> Result<Self, LayersError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(LayersError::io("make", dir))?;
        let boot = boot_id().map_err(LayersError::io("read", Path::new("/proc/sys/kernel/random/boot_id")))?;
        let layers = Self { dir: dir.to_owned(), boot, next: AtomicU64::new(0), slots: Mutex::default() };
        for name in layers.names()? {
            if name.starts_with('.') {
                let path = dir.join(name);
                fs::remove_dir_all(&path).map_err(LayersError::io("remove the leftover", &path))?;
            }
        }
        // those of this boot that are still to be synced are known from the start
        for diff_id in layers.list()? {
            let state = layers.look(&dir.join(diff_id.hex()));
            *lock(&layers.slot(&diff_id)) = state;
        }
        Ok(layers)
    }

    /// Where the layer's tree is, unpacked now where it is not there yet. Blocks for as long as that takes; callers for
    /// one layer wait for one another, callers for several do not.
    ///
    /// # Errors
    /// The blob is missing, is not a layer, or the disk does not take it. Nothing is left then.
    pub fn ensure(&self, layer: &Layer, blobs: &dyn BlobSource) -> Result<PathBuf, LayersError> {
        let home = self.dir.join(layer.diff_id.hex());
        let slot = self.slot(&layer.diff_id);
        let mut slot = lock(&slot);
        if *slot == Slot::Unknown {
            *slot = self.look(&home);
        }
        if *slot == Slot::Unknown {
            // there, but of another boot and perhaps not whole on the disk; or not there
            self.discard(&home)?;
            self.unpack(layer, blobs, &home)?;
            *slot = Slot::Unpacked(self.number());
        }
        Ok(home.join("fs"))
    }

    /// Makes the layers that were unpacked since the last time survive a power cut. Costs what syncing the whole file
    /// system costs: call it in the background. Says how many there were.
    ///
    /// # Errors
    /// The disk does not take it; the layers stay as good as they were.
    pub fn sync(&self) -> Result<usize, LayersError> {
        let slots: Vec<_> = lock(&self.slots).iter().map(|(diff_id, slot)| (diff_id.clone(), slot.clone())).collect();
        let mut due = Vec::new();
        for (diff_id, slot) in slots {
            // one that is locked is being unpacked or removed: next time
            let state = slot.try_lock().map_or(Slot::Unknown, |state| *state);
            if matches!(state, Slot::Unpacked(_)) {
                due.push((diff_id, slot, state));
            }
        }
        if due.is_empty() {
            return Ok(0);
        }
        let dir = File::open(&self.dir).map_err(LayersError::io("open", &self.dir))?;
        rustix::fs::syncfs(&dir).map_err(|errno| LayersError::io("sync", &self.dir)(errno.into()))?;
        let mut synced = 0;
        for (diff_id, slot, state) in due {
            let mut slot = lock(&slot);
            if *slot != state {
                continue; // removed since, or unpacked anew, which the sync did not cover
            }
            let home = self.dir.join(diff_id.hex());
            if let Some(state) = read_state(&home) {
                write_state(&home, &State { synced: true, ..state })?;
                *slot = Slot::Synced;
                synced += 1;
            }
        }
        Ok(synced)
    }

    /// Takes a layer's tree, which no container may be using, out of sight; one that is not there is so already. Costs a
    /// rename: [`sweep`](Self::sweep) deletes it.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self, diff_id: &Digest) -> Result<(), LayersError> {
        let slot = self.slot(diff_id);
        let mut slot = lock(&slot);
        *slot = Slot::Unknown;
        self.hide(&self.dir.join(diff_id.hex())).map(drop)
    }

    /// Deletes what was set aside. Takes as long as that takes; nobody waits for it.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub fn sweep(&self) -> Result<(), LayersError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(GONE)) {
            let path = self.dir.join(name);
            match fs::remove_dir_all(&path) {
                // another sweep was faster
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(LayersError::io("remove", &path))?,
            }
        }
        Ok(())
    }

    /// The diff ids of all layers that have a tree, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, LayersError> {
        let digests = self.names()?.into_iter().filter_map(|name| Digest::parse(&format!("sha256:{name}")).ok());
        Ok(digests.collect())
    }

    /// What one gains by [`set_aside`](Self::set_aside) and [`sweep`](Self::sweep): the bytes of a layer's tar, which
    /// are about those of its tree. `None` where there is no tree.
    pub fn size(&self, diff_id: &Digest) -> Option<u64> {
        read_state(&self.dir.join(diff_id.hex())).map(|state| state.bytes)
    }

    /// The names in the store's directory that are none of its own. Trees that are being unpacked or removed are.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn strays(&self) -> Result<Vec<PathBuf>, LayersError> {
        let is_own = |name: &String| {
            name.starts_with(GONE) || name.starts_with(PARTIAL) || Digest::parse(&format!("sha256:{name}")).is_ok()
        };
        Ok(self.names()?.into_iter().filter(|name| !is_own(name)).map(|name| self.dir.join(name)).collect())
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn slot(&self, diff_id: &Digest) -> Arc<Mutex<Slot>> {
        lock(&self.slots).entry(diff_id.clone()).or_default().clone()
    }

    fn look(&self, home: &Path) -> Slot {
        match read_state(home) {
            Some(State { format: FORMAT, synced: true, .. }) => Slot::Synced,
            Some(State { format: FORMAT, boot, .. }) if boot == self.boot => Slot::Unpacked(self.number()),
            _ => Slot::Unknown,
        }
    }

    fn unpack(&self, layer: &Layer, blobs: &dyn BlobSource, home: &Path) -> Result<(), LayersError> {
        let partial = self.dir.join(format!("{PARTIAL}{}", self.number()));
        let result = self
            .unpack_into(layer, blobs, &partial)
            .and_then(|()| fs::rename(&partial, home).map_err(LayersError::io("rename to", home)));
        if result.is_err() {
            // what cannot be removed now is a leftover for the next open; the first error is the one to tell
            let _ = fs::remove_dir_all(&partial);
        }
        result
    }

    fn unpack_into(&self, layer: &Layer, blobs: &dyn BlobSource, partial: &Path) -> Result<(), LayersError> {
        let blob = blobs.open_blob(&layer.digest);
        let blob = blob.map_err(|source| LayersError::Blob { layer: layer.digest.clone(), source })?;
        let fs_dir = partial.join("fs");
        DirBuilder::new().mode(0o700).create(partial).map_err(LayersError::io("make", partial))?;
        DirBuilder::new().mode(0o755).create(&fs_dir).map_err(LayersError::io("make", &fs_dir))?;
        // whatever the umask is: this is the container's root directory
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&fs_dir, mode).map_err(LayersError::io("set the mode of", &fs_dir))?;
        let stats = unpack_layer(blob, layer.media_type, &layer.diff_id, &fs_dir)
            .map_err(|source| LayersError::Unpack { layer: layer.digest.clone(), source: Box::new(source) })?;
        let state = State {
            format: FORMAT,
            boot: self.boot.clone(),
            synced: false,
            entries: stats.entries,
            bytes: stats.bytes,
        };
        write_state(partial, &state)
    }

    /// Takes a tree away under its name at once, and then piece by piece.
    fn discard(&self, home: &Path) -> Result<(), LayersError> {
        match self.hide(home)? {
            Some(gone) => fs::remove_dir_all(&gone).map_err(LayersError::io("remove", &gone)),
            None => Ok(()),
        }
    }

    /// Takes a tree away under its name; where it is then, if there was one.
    fn hide(&self, home: &Path) -> Result<Option<PathBuf>, LayersError> {
        let gone = self.dir.join(format!("{GONE}{}", self.number()));
        match fs::rename(home, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(|()| Some(gone)).map_err(LayersError::io("rename", home)),
        }
    }

    fn names(&self) -> Result<Vec<String>, LayersError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(LayersError::io("read", &self.dir))? {
            names.extend(entry.map_err(LayersError::io("read", &self.dir))?.file_name().into_string());
        }
        Ok(names)
    }
}

/// A state that is not there, or not whole, is that of a layer to be unpacked again.
fn read_state(home: &Path) -> Option<State> {
    serde_json::from_slice(&fs::read(home.join("state")).ok()?).ok()
}

fn write_state(home: &Path, state: &State) -> Result<(), LayersError> {
    let (path, next) = (home.join("state"), home.join("state.next"));
    let json = serde_json::to_vec(state).expect("text and numbers are JSON");
    let written = fs::write(&next, json).and_then(|()| fs::rename(&next, &path));
    written.map_err(LayersError::io("write", &path))
}

/// A panic under a lock leaves a slot as it was, and that is looked at anew.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
