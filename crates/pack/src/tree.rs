//! The files of a layer before they are written: paths with what is there, in an order that does not depend on the
//! machine.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Files by their absolute path in the image. The parents of everything are there, too, as directories of mode 0755
/// unless they were put in otherwise; they come before what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

/// What is at a path. Everything is root's: an app that cannot change its own code is harder to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Its permissions.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Its permissions.
        mode: u32,
        /// What is in it.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as it is written.
        target: PathBuf,
    },
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this file of the machine holds.
    Of(PathBuf),
}

/// As many as the kernel follows (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

impl Tree {
    /// Puts a directory in.
    pub fn directory(&mut self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), Entry::Directory { mode });
    }

    /// Puts a file with these bytes in.
    pub fn bytes(&mut self, path: impl AsRef<Path>, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.put(path.as_ref(), Entry::File { mode, content: Content::Bytes(bytes.into()) });
    }

    /// Puts a file with the content of one of the machine's in.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, from: impl Into<PathBuf>) {
        self.put(path.as_ref(), Entry::File { mode, content: Content::Of(from.into()) });
    }

    /// Puts a symbolic link in.
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.put(path.as_ref(), Entry::Symlink { target: target.into() });
    }

    /// Puts a file of the machine in, at its own path, with each symbolic link on the way to it: whoever opens `path`
    /// in the image comes by the same ways to the same file. Answers where the file itself is.
    ///
    /// # Errors
    /// Those of looking at the path and what is on the way.
    pub fn same_path(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        prepend(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(name);
            if !next.symlink_metadata()?.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            let target = next.read_link()?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            prepend(&mut ahead, &target);
            self.symlink(&next, target);
        }
        self.file(&at, 0o755, &at);
        Ok(at)
    }

    /// Whether something is at `path`.
    pub fn contains(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// All there is, parents first, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        debug_assert!(path.is_absolute() && path.components().all(|part| part != Component::ParentDir));
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.entries.entry(parent.into()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path.into(), entry);
    }
}

/// Puts the names of a path before those that are still ahead.
fn prepend(ahead: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push_front(name.into()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().canonicalize().expect("canonical");
        std::fs::create_dir_all(root.join("usr/lib/x")).expect("directories");
        std::fs::write(root.join("usr/lib/libz.so.1.2"), "z").expect("file");
        symlink("usr/lib", root.join("lib")).expect("link");
        symlink("../libz.so.1", root.join("usr/lib/x/libz.so.1")).expect("link");
        symlink(root.join("lib/libz.so.1.2"), root.join("usr/lib/libz.so.1")).expect("link");

        let mut tree = Tree::default();
        let real = tree.same_path(&root.join("lib/x/libz.so.1")).expect("collect");
        assert_eq!(real, root.join("usr/lib/libz.so.1.2"));
        let links: Vec<_> = tree
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Symlink { .. }))
            .map(|(path, _)| path.strip_prefix(&root).expect("below").to_str().expect("text").to_owned())
            .collect();
        assert_eq!(links, ["lib", "usr/lib/libz.so.1", "usr/lib/x/libz.so.1"]);
    }

    #[test]
    fn a_ring_of_links_ends() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let ring = directory.path().join("ring");
        symlink("ring", &ring).expect("link");
        let error = Tree::default().same_path(&ring).expect_err("a ring");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn parents_come_first() {
        let mut tree = Tree::default();
        tree.bytes("/etc/a/b", 0o644, "x");
        tree.directory("/etc/a", 0o700);
        tree.directory("/etc-a", 0o755);
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_str().expect("text")).collect();
        assert_eq!(paths, ["/etc", "/etc/a", "/etc/a/b", "/etc-a"]);
    }
}
