//! The writing end of one container's log: append, rotate, go on when the disk is full.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sampan_model::ContainerId;

use super::format::{self, Stamp, Stream};
use super::{ROTATED_AT, live_name, rotated_name};

/// A batch this long is written before more is added, in bytes.
const BATCH_MAX: usize = 128 * 1024;
/// Readable for the group, which the daemon may give to those who look after the machine.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Entries on their way to one file. One buffer serves all containers, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<u8>);

/// One container's log.
///
/// Writing never fails: what cannot be written, for want of space most likely, is dropped, so that the application does
/// not wait on a full pipe for as long as the disk is full; the next entry that can be written is preceded by one that
/// says how much is missing and why. Whole entries only: what was written of one is taken back.
#[derive(Debug)]
pub(crate) struct Writer<'dir> {
    directory: BorrowedFd<'dir>,
    id: ContainerId,
    file: Option<OwnedFd>,
    length: u64,
    rotated_at: u64,
    /// The bytes of entries dropped since the last that was written, and why.
    lost: Option<(u64, Errno)>,
}

impl<'dir> Writer<'dir> {
    /// Goes on after what is in the file. It is opened with the first entry.
    pub fn new(directory: BorrowedFd<'dir>, id: ContainerId) -> Self {
        Self { directory, id, file: None, length: 0, rotated_at: ROTATED_AT, lost: None }
    }

    /// Add an entry to the batch, which is written when it is full.
    pub fn put(&mut self, batch: &mut Batch, stamp: &Stamp, stream: Stream, partial: bool, text: &[u8]) {
        format::put(&mut batch.0, stamp, stream, partial, text);
        if batch.0.len() >= BATCH_MAX {
            self.write(batch);
        }
    }

    /// Write the batch, and empty it.
    pub fn write(&mut self, batch: &mut Batch) {
        if batch.0.is_empty() {
            return;
        }
        let result = match self.lost {
            None => self.append(&batch.0),
            Some((bytes, errno)) => self.append(&[&notice(bytes, errno), &batch.0[..]].concat()),
        };
        self.lost = match (result, self.lost) {
            (Ok(()), _) => None,
            (Err(errno), before) => Some((before.map_or(0, |(bytes, _)| bytes) + batch.0.len() as u64, errno)),
        };
        batch.0.clear();
        // a flood of short lines makes it large, and it serves everyone
        batch.0.shrink_to(BATCH_MAX);
    }

    fn append(&mut self, records: &[u8]) -> Result<(), Errno> {
        if self.file.is_none() {
            self.open()?;
        }
        if self.length > 0 && self.length + records.len() as u64 > self.rotated_at {
            self.rotate()?;
        }
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let mut rest = records;
        while !rest.is_empty() {
            match rustix::io::write(file, rest) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(errno) => {
                    // nothing is left of the batch; should this fail too, readers skip the torn entry
                    let _ = rustix::fs::ftruncate(file, self.length);
                    return Err(errno);
                }
            }
        }
        self.length += records.len() as u64;
        Ok(())
    }

    fn open(&mut self) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, live_name(&self.id), flags, MODE)?;
        let mut length = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        // a logger that was killed within an entry: readers skip it, if it is a line of its own
        let mut last = [b'\n'];
        if length > 0 && rustix::io::pread(&file, &mut last, length - 1)? == 1 && last != [b'\n'] {
            length += rustix::io::write(&file, b"\n")? as u64;
        }
        self.length = length;
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Errno> {
        rustix::fs::renameat(self.directory, live_name(&self.id), self.directory, rotated_name(&self.id))?;
        self.file = None;
        self.open()
    }
}

fn notice(bytes: u64, errno: Errno) -> Vec<u8> {
    let mut record = Vec::new();
    let text = format!("sampan: {bytes} bytes of log are missing here: {errno}");
    format::put(&mut record, &Stamp::now(), Stream::Stderr, false, text.as_bytes());
    record
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::logs::{Reader, open_directory};

    fn id() -> ContainerId {
        ContainerId::from_bytes([7; 32])
    }

    fn texts(dir: &std::path::Path) -> Vec<String> {
        let mut reader = Reader::open(dir, &id(), None).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).map(|entry| String::from_utf8(entry.text).unwrap()).collect()
    }

    #[test]
    fn rotates_and_keeps_one() {
        let dir = tempfile::tempdir().unwrap();
        let directory = open_directory(dir.path()).unwrap();
        let mut writer = Writer { rotated_at: 1000, ..Writer::new(directory.as_fd(), id()) };
        let mut batch = Batch::default();
        for number in 0..100 {
            writer.put(&mut batch, &Stamp::now(), Stream::Stdout, false, format!("{number:03}").as_bytes());
            writer.write(&mut batch);
            for name in [live_name(&id()), rotated_name(&id())] {
                assert!(fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len()) <= 1000);
            }
        }
        // 44 bytes an entry, 22 a file
        let expected: Vec<String> = (66..100).map(|number| format!("{number:03}")).collect();
        assert_eq!(texts(dir.path()), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn goes_on_after_what_is_there_and_after_a_torn_entry() {
        let dir = tempfile::tempdir().unwrap();
        let directory = open_directory(dir.path()).unwrap();
        let mut batch = Batch::default();
        for text in ["one", "two"] {
            let mut writer = Writer::new(directory.as_fd(), id());
            writer.put(&mut batch, &Stamp::now(), Stream::Stdout, false, text.as_bytes());
            writer.write(&mut batch);
            let path = dir.path().join(live_name(&id()));
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend_from_slice(b"2026-01-02T03:");
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(texts(dir.path()), ["one", "two"]);
    }

    /// A file system of 64 KiB in a mount namespace of one thread.
    #[test]
    fn a_full_disk_costs_entries_and_says_so() {
        std::thread::spawn(|| {
            let dir = tempfile::tempdir().unwrap();
            mount_64_kib(dir.path());
            let directory = open_directory(dir.path()).unwrap();
            let mut writer = Writer::new(directory.as_fd(), id());
            let mut batch = Batch::default();
            let line = |writer: &mut Writer<'_>, batch: &mut Batch, text: &[u8]| {
                writer.put(batch, &Stamp::now(), Stream::Stdout, false, text);
                writer.write(batch);
            };
            for _ in 0..10 {
                line(&mut writer, &mut batch, &[b'x'; 10_000]);
            }
            assert!(writer.lost.is_some());
            let before = texts(dir.path());
            assert!(!before.is_empty() && before.iter().all(|text| text.len() == 10_000));
            fs::write(dir.path().join(live_name(&id())), "").unwrap();
            writer.length = 0;
            line(&mut writer, &mut batch, b"again");
            let after = texts(dir.path());
            assert_eq!(after.len(), 2);
            assert!(after[0].starts_with("sampan: ") && after[0].contains("No space left"), "{}", after[0]);
            assert_eq!(after[1], "again");
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        })
        .join()
        .unwrap();
    }

    #[expect(deprecated, reason = "unsharing mounts from a thread of its own is sound; the new name is unsafe")]
    fn mount_64_kib(at: &std::path::Path) {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        use rustix::thread::{UnshareFlags, unshare};
        unshare(UnshareFlags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
    }
}
