//! Whether an unpacked layer is still what was unpacked: its tree against the tar of its blob.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Layers, LayersError, read_state};
use crate::archive::{Data, Entry, Kind};
use crate::entry_path::EntryPath;
use crate::tree::{is_whiteout, open_below};
use crate::unpack::{UnpackStats, check_entry, count, io_error, read_layer};
use crate::{BlobSource, Layer};

/// How many paths that are not as they should be are remembered until one of the tar's later entries explains them.
const MOST_FAULTS: usize = 1000;

/// What is wrong with a layer's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFault {
    /// The path in it.
    pub path: String,
    /// What of it.
    pub what: &'static str,
}

impl Layers {
    /// Compares a layer's tree with its blob. A layer that has none, or one that the next start of a container unpacks
    /// anew, has no fault. Reads both to their ends; what happens to the layer meanwhile is not held up, and no fault.
    ///
    /// # Errors
    /// The blob is not what the layer says, or something cannot be read.
    pub fn check(&self, layer: &Layer, blobs: &dyn BlobSource) -> Result<Option<LayerFault>, LayersError> {
        let home = self.dir.join(layer.diff_id.hex());
        let fs_dir = home.join("fs");
        let Some(identity) = identity(&home) else { return Ok(None) };
        if read_state(&home).is_none() {
            return Ok(Some(LayerFault { path: "/".to_owned(), what: "what was noted of it cannot be read" }));
        }
        let root = rustix::fs::open(&fs_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = match root {
            Ok(root) => root,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Ok(Some(LayerFault { path: "/".to_owned(), what: "the whole tree is missing" }));
            }
            Err(errno) => return Err(LayersError::io("open", &fs_dir)(errno.into())),
        };
        let blob = blobs.open_blob(&layer.digest);
        let blob = blob.map_err(|source| LayersError::Blob { layer: layer.digest.clone(), source })?;
        let mut faults: Vec<LayerFault> = Vec::new();
        let checked = read_layer(blob, layer.media_type, &layer.diff_id, |tar| {
            let mut stats = UnpackStats::default();
            while let Some(entry) = tar.next()? {
                count(&mut stats)?;
                check_entry(&entry)?;
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                // of two entries of one path, the later one counts
                faults.retain(|fault| fault.path != path);
                let what = fault(&root, &entry, &mut tar.data());
                if let Some(what) = what.map_err(|source| io_error(&path, &fs_dir, source))?
                    && faults.len() < MOST_FAULTS
                {
                    faults.push(LayerFault { path, what });
                }
            }
            Ok(stats)
        });
        let unpacked = |source| LayersError::Unpack { layer: layer.digest.clone(), source: Box::new(source) };
        checked.map_err(unpacked)?;
        // one that was set aside meanwhile had its files taken away
        Ok(faults.into_iter().next().filter(|_| self::identity(&home) == Some(identity)))
    }
}

/// Which tree is there: another one has another inode.
fn identity(home: &Path) -> Option<(u64, u64)> {
    fs::metadata(home).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// What is wrong with the thing that an entry made.
fn fault(root: &OwnedFd, entry: &Entry, data: &mut Data<'_, impl Read>) -> io::Result<Option<&'static str>> {
    let Ok(path) = EntryPath::parse(&entry.path) else { return Ok(None) };
    let Some((parent, name)) = path.split() else { return Ok(None) };
    if entry.kind == Kind::Device {
        return Ok(None); // none is made
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match open_below(root, parent, flags) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Some("the directory it is in is missing")),
        Err(errno) => return Err(errno.into()),
    };
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        if hidden.starts_with(b".wh.") {
            return Ok(None);
        }
        return Ok(match rustix::fs::statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // a thing of this layer's own hides it as well
            Ok(_) => None,
            Err(_) => Some("its whiteout is missing"),
        });
    }
    let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Some("it is missing")),
        Err(errno) => return Err(errno.into()),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_right = match &entry.kind {
        Kind::File => kind == FileType::RegularFile,
        Kind::Directory => kind == FileType::Directory,
        Kind::Symlink(_) => kind == FileType::Symlink,
        Kind::HardLink(_) => !is_whiteout(&stat),
        Kind::Fifo => kind == FileType::Fifo,
        Kind::Device => true,
    };
    if !is_right {
        return Ok(Some("it is of another kind"));
    }
    let mode_of_links = matches!(entry.kind, Kind::Symlink(_) | Kind::HardLink(_));
    if !mode_of_links && (u64::from(stat.st_uid), u64::from(stat.st_gid)) != (entry.uid, entry.gid) {
        return Ok(Some("it has another owner"));
    }
    if !mode_of_links && stat.st_mode & 0o7777 != entry.mode {
        return Ok(Some("it has another mode"));
    }
    match &entry.kind {
        Kind::File if stat.st_size.cast_unsigned() != entry.size => Ok(Some("it has another size")),
        Kind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            let same = crate::compare::in_bytes(&mut File::from(file), data)?.is_none();
            Ok((!same).then_some("it has another content"))
        }
        Kind::Symlink(target) => {
            let found = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            Ok((found.as_bytes() != target).then_some("it links elsewhere"))
        }
        _ => Ok(None),
    }
}
