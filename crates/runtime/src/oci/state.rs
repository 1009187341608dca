//! What is known of a container between one command and the next: a directory each, mode 0700.
//!
//! ```text
//! ROOT/ID/
//!   state.json    Record: written whole to another name and renamed
//!   config.json   the bundle's, as it was when the container was made: exec, poststart and poststop go by it
//!   start         FIFO on which the created container waits; it is there until it is started
//!   failure       what went wrong after that, said by the container's first process before it was its program
//! ```
//!
//! `state.json`, version 1:
//! `{"version":1,"id":"web","pid":4711,"start_time":90210,"bundle":"/b","rootfs":"/b/rootfs","created":"…Z",…}`.
//! A pid is given to the next process some day: `start_time`, in ticks since the machine's start, says whether it is
//! still the same (proc(5), field 22).
//!
//! Nothing is synced: after a crash of the machine there is no container.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sampan_sys::pidfd;
use serde::{Deserialize, Serialize};

use super::config::{self, Config, Status};
use super::error::{OciError, When as _};

const VERSION: u32 = 1;
pub(super) const FIFO: &str = "start";
pub(super) const FAILURE: &str = "failure";
const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";

/// What is written down of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Of this form.
    pub version: u32,
    /// Of the specification, as the bundle has it.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// When that began, in ticks since the machine's start.
    pub start_time: u64,
    /// The directory it was made from.
    pub bundle: String,
    /// The root file system in it.
    pub rootfs: String,
    /// When it was made.
    pub created: Timestamp,
    /// The user who made it.
    pub owner: u32,
    /// Its cgroups: a controller, `name=…`, or nothing for version 2, and the directory.
    pub cgroups: BTreeMap<String, PathBuf>,
    /// Anybody's notes.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(
        id: &str,
        bundle: &str,
        rootfs: &str,
        cgroups: BTreeMap<String, PathBuf>,
        config: &Config,
    ) -> Self {
        Self {
            version: VERSION,
            oci_version: config.oci_version.clone(),
            id: id.to_owned(),
            pid: 0,
            start_time: 0,
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: Timestamp::now(),
            owner: rustix::process::getuid().as_raw(),
            cgroups,
            annotations: config.annotations.clone(),
        }
    }

    /// As hooks are told it. `pid`: as they see it.
    pub(super) fn state(&self, status: Status, pid: Option<u32>) -> config::State<'_> {
        config::State {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    /// Its first process, where it is still the same and has not ended.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        // the process first and then whether it is the one: what is held cannot be given to another any more
        let process = pidfd::open(self.pid).ok()?;
        let (state, start) = stat(self.pid).ok()?;
        (start == self.start_time && !matches!(state, b'Z' | b'X')).then_some(process)
    }
}

/// The state and the time of the start of a process.
pub(super) fn stat(pid: u32) -> io::Result<(u8, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a line of /proc that is not understood");
    // its name may have any character in it, and is between the first and the last bracket
    let end = text.iter().rposition(|&byte| byte == b')').ok_or_else(malformed)?;
    let mut words = text[end + 1..].split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let state = words.next().and_then(|word| word.first().copied()).ok_or_else(malformed)?;
    // field 22, the state being field 3
    let start = words.nth(18).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).ok_or_else(malformed)?;
    Ok((state, start))
}

/// The directory that all containers' are in.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

/// One container's directory.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    id: String,
}

impl Root {
    /// The one at that path; it is made when the first container is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// A container's directory.
    ///
    /// # Errors
    /// [`OciError::Id`].
    pub fn directory(&self, id: &str) -> Result<Directory, OciError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        // 1024 as runc; a file's name has 255
        if id.is_empty() || id.len() > 255 || !id.chars().all(allowed) || matches!(id, "." | "..") {
            return Err(OciError::Id(id.chars().take(80).collect()));
        }
        Ok(Directory { path: self.0.join(id), id: id.to_owned() })
    }

    /// The names of all containers, sorted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ids(&self) -> Result<Vec<String>, OciError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).when(format!("list {}", self.0.display())),
        };
        let names = entries.flatten().filter(|entry| entry.path().join(RECORD).exists());
        let mut ids: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Directory {
    /// Makes it.
    pub(super) fn make(&self) -> Result<(), OciError> {
        let make = || DirBuilder::new().mode(0o700).create(&self.path);
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let root = self.path.parent().unwrap_or(Path::new("/"));
                DirBuilder::new().mode(0o700).recursive(true).create(root).when(format!("make {}", root.display()))?;
                make()
            }
            made => made,
        }
        .or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(OciError::Exists(self.id.clone())),
            _ => Err(error).when(format!("make {}", self.path.display())),
        })
    }

    /// The container's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether it is there, whatever is in it.
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), OciError> {
        let path = self.file("state.json.new");
        let text = serde_json::to_vec(record).map_err(io::Error::from).when("write the state")?;
        create(&path, &text)
            .and_then(|()| fs::rename(&path, self.file(RECORD)))
            .when(format!("write {}", self.file(RECORD).display()))
    }

    pub(super) fn write_config(&self, text: &[u8]) -> Result<(), OciError> {
        create(&self.file(CONFIG), text).when(format!("write {}", self.file(CONFIG).display()))
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`OciError::NotFound`]; the kernel's.
    pub fn read(&self) -> Result<Record, OciError> {
        let path = self.file(RECORD);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OciError::NotFound(self.id.clone()),
            _ => OciError::Read { path: path.display().to_string(), source },
        })?;
        serde_json::from_slice(&text).map_err(|source| OciError::Parse { path: path.display().to_string(), source })
    }

    /// The configuration it was made from.
    pub(super) fn read_config(&self) -> Result<Config, OciError> {
        parse_config(&read(&self.file(CONFIG))?, &self.file(CONFIG))
    }

    pub(super) fn make_fifo(&self) -> Result<OwnedFd, OciError> {
        use rustix::fs::{CWD, FileType, Mode, OFlags};
        let path = self.file(FIFO);
        let step = || format!("make {}", path.display());
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).when(step())?;
        // both ways: it is then never without a writer, and reading it waits
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).when(step())
    }

    pub(super) fn make_failure(&self) -> Result<File, OciError> {
        let path = self.file(FAILURE);
        File::options().write(true).create_new(true).mode(0o600).open(&path).when(format!("make {}", path.display()))
    }

    /// Whether its program was not let go yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.file(FIFO).exists()
    }

    /// Removes it and all that is known of the container.
    pub(super) fn remove(&self) -> Result<(), OciError> {
        // by name: it is quicker than to list, and there is nothing else
        for name in [FIFO, FAILURE, CONFIG, "state.json.new", RECORD] {
            match fs::remove_file(self.file(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).when(format!("remove {}", self.file(name).display()));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).when(format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// A file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, OciError> {
    fs::read(path).map_err(|source| OciError::Read { path: path.display().to_string(), source })
}

pub(super) fn parse_config(text: &[u8], path: &Path) -> Result<Config, OciError> {
    serde_json::from_slice(text).map_err(|source| OciError::Parse { path: path.display().to_string(), source })
}

fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told() {
        let (state, start) = stat(std::process::id()).unwrap();
        assert!(matches!(state, b'R' | b'S') && start > 0, "{state} {start}");
        assert!(stat(0).is_err());
    }

    #[test]
    fn names() {
        let root = Root::new("/nowhere");
        for id in ["a", "A_b+c-d.e", "0", "..a"] {
            assert!(root.directory(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(matches!(root.directory(id), Err(OciError::Id(_))), "{id}");
        }
        assert_eq!(root.ids().unwrap(), [""; 0]);
    }
}
