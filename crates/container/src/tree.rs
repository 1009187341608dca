//! Removing a directory that a stranger filled.
//!
//! It may be deeper than any path is long, than any stack and than any limit on descriptors: an app makes such a tree
//! with `mkdir d; cd d` in a loop, and std's `remove_dir_all` recurses. So nothing recurses here: a directory that is
//! not empty is moved up to the top, under a name of ours, and emptied when its turn comes. Every step is taken by
//! descriptor and through no symbolic link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory and everything in it; one that is not there is removed already.
///
/// # Errors
/// What could not be opened, listed, moved or removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let top = match openat(CWD, path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0;
    // each round empties what lies at the top, and moves there what lies one floor below
    while !empty(&top, &top, &mut moved)? {
        for name in names(&top)? {
            let directory = openat(&top, &name, DIRECTORY, Mode::empty())?;
            empty(&directory, &top, &mut moved)?;
            drop(directory);
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    std::fs::remove_dir(path)
}

/// How many bytes a directory's files take on the disk, without those below its 200th floor.
///
/// # Errors
/// What could not be opened or listed.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    let mut open = vec![openat(CWD, path, DIRECTORY, Mode::empty())?];
    let mut pending = vec![names(&open[0])?];
    let mut bytes = 0;
    while let (Some(directory), Some(entries)) = (open.last(), pending.last_mut()) {
        let Some(name) = entries.pop() else {
            open.pop();
            pending.pop();
            continue;
        };
        let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        bytes += stat.st_blocks.unsigned_abs() * 512;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && open.len() < DEEPEST {
            let below = openat(directory, &name, DIRECTORY, Mode::empty())?;
            pending.push(names(&below)?);
            open.push(below);
        }
    }
    Ok(bytes)
}

/// How many directories are open at once.
const DEEPEST: usize = 200;

/// Removes what a directory holds; whether nothing is left in it. Directories that are not empty are moved to the top;
/// those that are at the top stay.
fn empty(directory: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
    let is_top = std::ptr::eq(directory, top);
    let mut is_empty = true;
    for name in names(directory)? {
        match unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        match unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_top => is_empty = false,
            Err(Errno::NOTEMPTY | Errno::EXIST) => renameat(directory, &name, top, free_name(top, moved)?)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(is_empty)
}

/// A name that nothing at the top has: a stranger may have thought of ours.
fn free_name(top: &OwnedFd, moved: &mut u64) -> io::Result<String> {
    loop {
        *moved += 1;
        let name = format!(".sampan-gone-{moved}");
        match statat(top, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(name),
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
    }
}

fn names(directory: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let home = tempfile::tempdir().expect("temporary directory");
        let outside = home.path().join("outside");
        std::fs::create_dir(&outside).expect("outside");
        std::fs::write(outside.join("sentinel"), "").expect("sentinel");
        let path = home.path().join("tree");
        std::fs::create_dir_all(path.join("a/b")).expect("a, b");
        std::fs::create_dir_all(path.join("a/.sampan-gone-1/x")).expect("our own name");
        std::os::unix::fs::symlink(&outside, path.join("a/link")).expect("link");
        let mut directory = openat(CWD, &path, DIRECTORY, Mode::empty()).expect("open");
        for _ in 0..10_000 {
            rustix::fs::mkdirat(&directory, "directory", Mode::from_raw_mode(0o700)).expect("make");
            let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(openat(&directory, "file", file, Mode::from_raw_mode(0o600)).expect("file"));
            directory = openat(&directory, "directory", DIRECTORY, Mode::empty()).expect("enter");
        }
        remove(&path).expect("it goes");
        assert!(!path.exists() && outside.join("sentinel").exists());
        remove(&path).expect("what is gone is gone");
    }
}
