//! The supervisor's journal: which containers there are, who their first processes are and how they ended. The
//! authority for pids and exits, and all that a supervisor that was killed leaves to the next one.
//!
//! Lines of JSON, appended as things happen and never synced: it has to outlive the supervisor, not the machine
//! (a machine that goes down takes every process with it; the boot's id in the head tells). A last line that was cut
//! short is left out. It is rewritten with what still counts when a supervisor starts, and whenever it has grown
//! [`LONGEST`] bytes beyond that.
//!
//! ```text
//! {"head":{"version":2,"boot":"2d7c…"}}
//! {"created":{"id":"ab12…","pid":4711,"started":88123,"ids":{"start":1000000000,"length":65536}}}
//! {"going":{"id":"ab12…","pipes":[5501,5502]}}
//! {"replaced":{"id":"ab12…","pid":4718,"started":88150}}
//! {"started":{"id":"ab12…","at":"2026-11-20T18:40:00.1Z"}}
//! {"exited":{"id":"ab12…","ended":{"exit_code":0,"at":"2026-11-20T18:41:07.9Z"}}}
//! {"forgotten":{"id":"ab12…"}}
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sampan_model::{ContainerId, IdRange};
use serde::{Deserialize, Serialize};

use crate::wire::Ended;

const VERSION: u32 = 2;
/// How many bytes are appended before it is rewritten.
const LONGEST: usize = 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// The first line.
    Head { version: u32, boot: String },
    /// A child was made.
    Created {
        id: ContainerId,
        pid: u32,
        /// When the kernel made it, in ticks since the boot: with the pid, the process and no other.
        started: u64,
        /// What the ids inside are on the host.
        ids: IdRange,
        /// The server that it shares with others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<ContainerId>,
    },
    /// It is told what it is to run.
    Going {
        id: ContainerId,
        /// The inodes of the pipes of its output; 0 where it has a terminal.
        pipes: [u64; 2],
        /// The inode of the pipe of its input, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stdin: Option<u64>,
    },
    /// Its first process is another one: a runtime that is not ours has made it.
    Replaced {
        id: ContainerId,
        pid: u32,
        /// As in `created`.
        started: u64,
    },
    /// Its program was executed.
    Started { id: ContainerId, at: Timestamp },
    /// It ended.
    Exited { id: ContainerId, ended: Ended },
    /// Its end is recorded elsewhere.
    Forgotten { id: ContainerId },
}

/// What the journal says of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub pid: u32,
    pub started_ticks: u64,
    pub ids: IdRange,
    pub pipes: [u64; 2],
    pub stdin: Option<u64>,
    pub server: Option<ContainerId>,
    pub started: Option<Timestamp>,
    pub ended: Option<Ended>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    boot: String,
    file: File,
    known: BTreeMap<ContainerId, Known>,
    appended: usize,
}

/// The journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} the journal {path}")]
pub(crate) struct JournalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Journal {
    /// Reads what is there, and goes on with it. Processes of an earlier `boot` are gone, whoever has their pids now.
    pub fn open(path: &Path, boot: &str) -> Result<Self, JournalError> {
        let error = |action| move |source| JournalError { action, path: path.into(), source };
        let text = match std::fs::read(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(error("read"))?,
        };
        let (of_boot, mut known) = replay(&text);
        if of_boot.as_deref() != Some(boot) {
            let lost = Ended { exit_code: None, at: Timestamp::now() };
            known.values_mut().for_each(|known| known.ended = known.ended.take().or(Some(lost.clone())));
        }
        let file = rewrite(path, boot, &known).map_err(error("write"))?;
        Ok(Self { path: path.into(), boot: boot.into(), file, known, appended: 0 })
    }

    /// Every container that is not forgotten.
    pub fn known(&self) -> &BTreeMap<ContainerId, Known> {
        &self.known
    }

    /// Appends a line.
    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        let error = |source| JournalError { action: "write", path: self.path.clone(), source };
        let line = line_of(&entry);
        apply(&mut self.known, entry);
        self.file.write_all(&line).map_err(error)?;
        self.appended += line.len();
        if self.appended > LONGEST {
            self.file = rewrite(&self.path, &self.boot, &self.known).map_err(error)?;
            self.appended = 0;
        }
        Ok(())
    }
}

/// The boot it was written in, and what it says.
fn replay(text: &[u8]) -> (Option<String>, BTreeMap<ContainerId, Known>) {
    let (mut boot, mut known) = (None, BTreeMap::new());
    for line in text.split(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Entry::Head { boot: of, .. }) => boot = Some(of),
            Ok(entry) => apply(&mut known, entry),
            // empty, cut short, or of a version after this one
            Err(_) => {}
        }
    }
    (boot, known)
}

fn apply(known: &mut BTreeMap<ContainerId, Known>, entry: Entry) {
    match entry {
        Entry::Head { .. } => {}
        Entry::Created { id, pid, started: started_ticks, ids, server } => {
            let (pipes, stdin, started, ended) = ([0, 0], None, None, None);
            known.insert(id, Known { pid, started_ticks, ids, pipes, stdin, server, started, ended });
        }
        Entry::Going { id, pipes, stdin } => {
            if let Some(container) = known.get_mut(&id) {
                (container.pipes, container.stdin) = (pipes, stdin);
            }
        }
        Entry::Replaced { id, pid, started } => {
            if let Some(container) = known.get_mut(&id) {
                (container.pid, container.started_ticks) = (pid, started);
            }
        }
        Entry::Started { id, at } => {
            if let Some(container) = known.get_mut(&id) {
                container.started = Some(at);
            }
        }
        Entry::Exited { id, ended } => {
            if let Some(container) = known.get_mut(&id) {
                container.ended = Some(ended);
            }
        }
        Entry::Forgotten { id } => {
            known.remove(&id);
        }
    }
}

fn line_of(entry: &Entry) -> Vec<u8> {
    let mut line = serde_json::to_vec(entry).expect("texts and numbers are always JSON");
    line.push(b'\n');
    line
}

/// Under another name first: a reader finds the old one or the new one, never half of one.
fn rewrite(path: &Path, boot: &str, known: &BTreeMap<ContainerId, Known>) -> io::Result<File> {
    let mut text = line_of(&Entry::Head { version: VERSION, boot: boot.into() });
    for (id, container) in known {
        let Known { pid, started_ticks, ids, pipes, stdin, server, started, ended } = container.clone();
        text.extend(line_of(&Entry::Created { id: id.clone(), pid, started: started_ticks, ids, server }));
        text.extend(line_of(&Entry::Going { id: id.clone(), pipes, stdin }));
        text.extend(started.into_iter().flat_map(|at| line_of(&Entry::Started { id: id.clone(), at })));
        text.extend(ended.into_iter().flat_map(|ended| line_of(&Entry::Exited { id: id.clone(), ended })));
    }
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().create_new(true).append(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_bytes([byte; 32])
    }

    fn created(byte: u8) -> Entry {
        let server = (byte == 1).then(|| id(9));
        let ids = IdRange { start: 1_000_000, length: 65_536 };
        Entry::Created { id: id(byte), pid: u32::from(byte), started: 7, ids, server }
    }

    fn exited(byte: u8) -> Entry {
        Entry::Exited { id: id(byte), ended: Ended { exit_code: Some(3), at: Timestamp::UNIX_EPOCH } }
    }

    #[test]
    fn the_next_supervisor_finds_what_counts() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("journal");
        let mut journal = Journal::open(&path, "boot 1").unwrap();
        for byte in 1..=3 {
            journal.append(created(byte)).unwrap();
        }
        journal.append(Entry::Going { id: id(1), pipes: [1, 2], stdin: Some(3) }).unwrap();
        journal.append(Entry::Started { id: id(1), at: Timestamp::UNIX_EPOCH }).unwrap();
        journal.append(exited(2)).unwrap();
        journal.append(Entry::Forgotten { id: id(3) }).unwrap();
        let known = journal.known().clone();
        assert_eq!(known.len(), 2);
        drop(journal);

        // killed while it wrote
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"forgotten\":{\"id\":\"01")
            .unwrap();
        assert_eq!(Journal::open(&path, "boot 1").unwrap().known(), &known);
        assert_eq!(Journal::open(&path, "boot 1").unwrap().known(), &known, "as rewritten");

        let journal = Journal::open(&path, "boot 2").unwrap();
        let codes: Vec<_> = journal.known().values().map(|known| known.ended.as_ref().map(|e| e.exit_code)).collect();
        assert_eq!(codes, [Some(None), Some(Some(3))]);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("journal");
        let mut journal = Journal::open(&path, "boot").unwrap();
        for _ in 0..5000 {
            for entry in [created(1), exited(1), Entry::Forgotten { id: id(1) }] {
                journal.append(entry).unwrap();
            }
        }
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length < 2 * LONGEST as u64, "{length}");
        assert!(Journal::open(&path, "boot").unwrap().known().is_empty());
    }
}
