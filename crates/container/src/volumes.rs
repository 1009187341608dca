//! Volumes: directories that outlive the containers they are mounted in. Records under `default/volume/NAME`.
//!
//! ```text
//! volumes/NAME/data/      what containers wrote; owners on the disk are 0, 5, 6…, as in a container
//! volumes/NAME/.new/      a copy of what the image has there, until it is whole and becomes `data`
//! volumes/.gone-NAME-N/   one that is being removed
//! ```
//!
//! All of it is closed to everybody but root (0700): container root's setuid files are really setuid root on the disk.
//! What was half made or half removed when a daemon was killed is removed when the next one opens this. A directory whose
//! record is lost is somebody's data, and gets a record of root's.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use sampan_model::view::VolumeView;
use sampan_model::{Label, Owner};
use sampan_store::{Durability, Records};
use serde::{Deserialize, Serialize};

use crate::containers::lock;
use crate::failpoint;
pub(crate) use crate::seed::Seed;
use crate::seed::SeedError;

mod requests;

pub use requests::{VolumeUsers, volumes_of};

const VOLUMES: &str = "default/volume/";
const DATA: &str = "data";
const NEW: &str = ".new";
const GONE: &str = ".gone-";
/// `POST /v1/volumes/prune` is no volume.
const RESERVED: &str = "prune";

/// What is kept of a volume.
///
/// ```json
/// {"owner": {"uid": 1000, "gid": 1000, "groups": []}, "labels": {}, "created_at": "2026-11-20T19:00:00Z"}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Whose it is.
    pub owner: Owner,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Something cannot be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of that name that the caller may see.
    #[error("there is no volume {0:?}")]
    NotFound(String),
    /// Somebody else has one of that name.
    #[error("the volume name {0:?} is in use")]
    NameTaken(String),
    /// A name that none may have.
    #[error("a volume cannot be called {RESERVED:?}, which is a word of the API")]
    Reserved,
    /// Containers or services need it.
    #[error("the volume {name:?} is in use by {}", .by.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Who needs it.
        by: Vec<String>,
    },
    /// What the image has at its place could not be copied.
    #[error("fill the volume {name:?}")]
    Fill {
        /// The volume.
        name: String,
        /// Why not.
        #[source]
        source: SeedError,
    },
    /// A file or directory of it could not be used.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The records.
    #[error(transparent)]
    Records(#[from] sampan_store::RecordsError),
}

impl VolumeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some("`sampan volume ls` lists the volumes".to_owned()),
            Self::NameTaken(_) | Self::Reserved => Some("choose another name".to_owned()),
            Self::InUse { .. } => {
                Some("remove those first (`sampan rm NAME`, `sampan down NAME`); volumes stay when they go".to_owned())
            }
            _ => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The volumes of an instance. Everything here blocks.
pub struct Volumes {
    records: Arc<Records>,
    dir: PathBuf,
    /// Held while one is made or removed.
    turn: Mutex<()>,
}

impl Volumes {
    /// Opens them, in a directory that is made (0700) where it is missing, and removes what a daemon before this one left
    /// half done.
    ///
    /// # Errors
    /// The directory or the records cannot be used.
    pub fn open(records: Arc<Records>, dir: &Path) -> Result<Self, VolumeError> {
        make_directory(dir)?;
        let volumes = Self { records, dir: dir.to_owned(), turn: Mutex::default() };
        for entry in std::fs::read_dir(dir).map_err(VolumeError::io("read", dir))? {
            let entry = entry.map_err(VolumeError::io("read", dir))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with(GONE) {
                remove_tree(&path)?;
                continue;
            }
            remove_tree(&path.join(NEW))?;
            match Label::parse(&name) {
                Ok(name) if volumes.record(&name)?.is_none() => {
                    tracing::warn!(%name, "a volume was without a record: it is root's from here on");
                    volumes.put(&name, &VolumeRecord::of(&Owner::default(), BTreeMap::new()))?;
                }
                _ => {}
            }
        }
        Ok(volumes)
    }

    /// Makes a volume; one of that name that is the owner's already is left as it is.
    ///
    /// # Errors
    /// The name is somebody else's, or it cannot be kept.
    pub fn create(
        &self,
        name: &Label,
        labels: BTreeMap<String, String>,
        owner: &Owner,
    ) -> Result<VolumeRecord, VolumeError> {
        let _turn = lock(&self.turn);
        self.make(name, labels, owner)
    }

    /// One volume, as far as `owner` may see it.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &Label, owner: &Owner) -> Result<VolumeRecord, VolumeError> {
        let found = self.record(name)?.filter(|record| owner.may_touch(&record.owner));
        found.ok_or_else(|| VolumeError::NotFound(name.to_string()))
    }

    /// Refuses a name that is somebody else's. One that nobody has yet may be used.
    ///
    /// # Errors
    /// [`VolumeError::NameTaken`].
    pub(crate) fn refuse_taken(&self, name: &Label, owner: &Owner) -> Result<(), VolumeError> {
        match self.record(name)? {
            Some(record) if !owner.may_touch(&record.owner) => Err(VolumeError::NameTaken(name.to_string())),
            _ => Ok(()),
        }
    }

    /// Those that `owner` may see, by name.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn list(&self, owner: &Owner) -> Result<Vec<(Label, VolumeRecord)>, VolumeError> {
        let all = self.records.list::<VolumeRecord>(VOLUMES)?.into_iter();
        let named =
            all.filter_map(|(key, record)| Some((Label::parse(key.strip_prefix(VOLUMES)?).ok()?, record.value)));
        Ok(named.filter(|(_, record)| owner.may_touch(&record.owner)).collect())
    }

    /// Removes a volume and what is in it, unless `users`, which is told whose it is, knows any; says how much space it
    /// took.
    ///
    /// # Errors
    /// There is none, it is in use, or it cannot be removed: it is then empty, or the rest goes at the next start.
    pub fn remove(
        &self,
        name: &Label,
        owner: &Owner,
        users: impl FnOnce(&Owner) -> Vec<String>,
    ) -> Result<u64, VolumeError> {
        let _turn = lock(&self.turn);
        let by = users(&self.get(name, owner)?.owner);
        if !by.is_empty() {
            return Err(VolumeError::InUse { name: name.to_string(), by });
        }
        // out of sight in one step: a volume is there as a whole or not at all
        let home = self.home(name);
        let gone = self.dir.join(format!("{GONE}{name}-{}", Timestamp::now().as_nanosecond()));
        match std::fs::rename(&home, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(VolumeError::io("rename", &home))?,
        }
        failpoint::reach("volume_set_aside");
        self.records.delete(&format!("{VOLUMES}{name}"))?;
        let size = crate::tree::size(&gone).unwrap_or_default();
        remove_tree(&gone)?;
        Ok(size)
    }

    /// The directory of a volume's files, made now where there is none; a new one begins as `seed` says.
    ///
    /// # Errors
    /// The name is somebody else's, or it cannot be made.
    pub(crate) fn ready(&self, name: &Label, owner: &Owner, seed: &Seed<'_>) -> Result<PathBuf, VolumeError> {
        let _turn = lock(&self.turn);
        self.make(name, BTreeMap::new(), owner)?;
        let home = self.home(name);
        let data = home.join(DATA);
        if data.is_dir() {
            return Ok(data);
        }
        let new = home.join(NEW);
        make_directory(&home)?;
        remove_tree(&new)?;
        std::fs::create_dir(&new).map_err(VolumeError::io("make", &new))?;
        failpoint::reach("volume_new");
        seed.fill(&new).map_err(|source| VolumeError::Fill { name: name.to_string(), source })?;
        std::fs::rename(&new, &data).map_err(VolumeError::io("rename", &new))?;
        for directory in [&home, &self.dir] {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(VolumeError::io("sync", directory))?;
        }
        Ok(data)
    }

    /// Where the files of a volume are, be it that there are none yet.
    pub fn path(&self, name: &Label) -> PathBuf {
        self.home(name).join(DATA)
    }

    /// As people and programs see it.
    pub fn view(&self, name: &Label, record: VolumeRecord, used_by: Vec<String>) -> VolumeView {
        VolumeView {
            kind: "volume".to_owned(),
            name: name.clone(),
            path: self.path(name),
            labels: record.labels,
            used_by,
            owner: record.owner,
            created_at: record.created_at,
        }
    }

    fn make(&self, name: &Label, labels: BTreeMap<String, String>, owner: &Owner) -> Result<VolumeRecord, VolumeError> {
        if name.as_str() == RESERVED {
            return Err(VolumeError::Reserved);
        }
        match self.record(name)? {
            Some(record) if owner.may_touch(&record.owner) => Ok(record),
            Some(_) => Err(VolumeError::NameTaken(name.to_string())),
            None => {
                let record = VolumeRecord::of(owner, labels);
                self.put(name, &record)?;
                Ok(record)
            }
        }
    }

    fn record(&self, name: &Label) -> Result<Option<VolumeRecord>, VolumeError> {
        Ok(self.records.get::<VolumeRecord>(&format!("{VOLUMES}{name}"))?.map(|record| record.value))
    }

    fn put(&self, name: &Label, record: &VolumeRecord) -> Result<(), VolumeError> {
        self.records.put(&format!("{VOLUMES}{name}"), record, Durability::Intent)?;
        Ok(())
    }

    fn home(&self, name: &Label) -> PathBuf {
        self.dir.join(name.as_str())
    }
}

impl VolumeRecord {
    fn of(owner: &Owner, labels: BTreeMap<String, String>) -> Self {
        Self { owner: owner.clone(), labels, created_at: Timestamp::now() }
    }
}

fn make_directory(path: &Path) -> Result<(), VolumeError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(VolumeError::io("make", path)),
    }
}

fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    crate::tree::remove(path).map_err(VolumeError::io("remove", path))
}
