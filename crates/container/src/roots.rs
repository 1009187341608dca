//! Containers' root file systems: an image's layers between a layer of places that every container has and a directory
//! that takes what is written.
//!
//! **Places.** What is mounted in every container needs something to be mounted on, and few images have all of it. Made
//! in the container's own directory it would be a dozen files and directories made and removed with each; so there is one
//! layer of them, read-only, over those of the image, for all containers. (Docker calls it the init layer, and makes one
//! a container.)
//!
//! **Spares.** A root file system is mounted in 0.3 ms and leaves ten inodes to be made and removed, which on a busy disk is
//! most of what a short container costs. One that nothing was written to is as it was mounted: where its container is
//! removed soon after its end, it is kept for the next of the same image, the same user and the same ids, for a moment.
//! Only where nothing of it can have been handed to anybody else ([`may_serve_again`]).
//!
//! ```text
//! containers/ID ── ended, removed, untouched ──▶ roots/spare/ID ── the next ──▶ containers/NEXT
//!                                                     └── ten seconds in which none came: removed
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sampan_model::{IdRange, Mount, MountSource};
use sampan_runtime::mounts;
use tokio::sync::Notify;

use crate::containers::{Container, Inner, lock};
use crate::disk::Upper;
use crate::server::Server;
use crate::{ContainerError, ContainerRecord, Containers, confine, tree};

/// The layer of places.
const PLACES: &str = "places";
/// What waits.
const SPARE: &str = "spare";
/// The directories there.
const DIRECTORIES: [&str; 4] = ["dev", "proc", "sys", "etc"];
/// The files there: what resolves names is mounted on them.
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// How many wait at most.
const MOST: usize = 64;
/// For how long.
const KEPT: Duration = Duration::from_secs(10);

pub(crate) struct Roots {
    directory: PathBuf,
    spares: Mutex<Vec<Spare>>,
    kept: Notify,
}

/// A root file system that may serve again.
pub(crate) struct Spare {
    /// The directory's name: the id of the first container that it was made for, or of the last.
    name: String,
    mount: OwnedFd,
    of: Of,
    untouched: Mark,
    since: Instant,
}

/// What must be the same for it.
#[derive(Debug, PartialEq, Eq)]
struct Of {
    ids: IdRange,
    /// Users' containers share nothing.
    uid: u32,
    /// The layers themselves, whatever has their paths by now.
    layers: Vec<(u64, u64)>,
}

/// How a directory is that nobody has changed: what is made, removed or renamed in it tells in its times, and so does who
/// may do what with it.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl Mark {
    fn of(directory: &Path) -> io::Result<Self> {
        let status = fs::symlink_metadata(directory)?;
        Ok(Self {
            changed: (status.ctime(), status.ctime_nsec()),
            mode: status.mode(),
            owner: (status.uid(), status.gid()),
        })
    }
}

impl Of {
    fn new(ids: IdRange, uid: u32, layers: &[&Path]) -> io::Result<Self> {
        let layers = layers.iter().map(|layer| fs::metadata(layer).map(|status| (status.dev(), status.ino())));
        Ok(Self { ids, uid, layers: layers.collect::<io::Result<_>>()? })
    }
}

impl Roots {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, spares: Mutex::default(), kept: Notify::new() }
    }

    /// Makes what is missing, and removes what an earlier daemon kept.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let places = self.places();
        for directory in DIRECTORIES {
            DirBuilder::new().recursive(true).mode(0o755).create(places.join(directory))?;
        }
        for file in FILES {
            File::options().write(true).create(true).truncate(false).open(places.join(file))?;
        }
        tree::remove(&self.spare())?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.spare())
    }

    /// The layer that lies over an image's.
    pub(crate) fn places(&self) -> PathBuf {
        self.directory.join(PLACES)
    }

    fn spare(&self) -> PathBuf {
        self.directory.join(SPARE)
    }

    fn take(&self, of: &Of) -> Option<Spare> {
        let mut spares = lock(&self.spares);
        let at = spares.iter().rposition(|spare| spare.of == *of)?;
        Some(spares.remove(at))
    }

    /// Keeps one, and gives those that are too many or too old.
    fn put(&self, spare: Spare) -> Vec<Spare> {
        let mut spares = lock(&self.spares);
        spares.push(spare);
        let too_many = spares.len().saturating_sub(MOST);
        self.kept.notify_one();
        spares.drain(..too_many).collect()
    }

    /// Those that have waited for `age`.
    fn older(&self, age: Duration) -> Vec<Spare> {
        lock(&self.spares).extract_if(.., |spare| spare.since.elapsed() >= age).collect()
    }

    fn remove(&self, spares: Vec<Spare>) {
        for Spare { name, mount, .. } in spares {
            drop(mount);
            let path = self.spare().join(name);
            if let Err(error) = tree::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a root file system that waited could not be removed");
            }
        }
    }

    /// Removes all that wait.
    pub(crate) fn clear(&self) {
        self.remove(self.older(Duration::ZERO));
    }
}

impl Containers {
    /// Removes root file systems that wait for nobody, and lets go of those of containers that ended and stay, until the
    /// daemon stops.
    pub async fn clear_roots(self) {
        loop {
            self.inner.roots.kept.notified().await;
            let mut are_left = true;
            while are_left {
                tokio::time::sleep(KEPT).await;
                let cleared = self.blocking("removing root file systems", |inner| Ok(inner.clear_roots()));
                are_left = match cleared.await {
                    Ok(are_left) => are_left,
                    Err(_) => return,
                };
            }
        }
    }
}

impl Inner {
    /// Mounts a container's root file system: `layers` are its image's, the topmost first. Detached.
    pub(crate) fn mount_root(
        &self,
        container: &Container,
        record: &ContainerRecord,
        layers: &[&Path],
        (userns, ids): (BorrowedFd<'_>, IdRange),
    ) -> Result<OwnedFd, ContainerError> {
        // of an earlier start
        drop(lock(&container.root).take());
        let places = self.roots.places();
        let upper = self.open_upper(record)?;
        let Upper::Directory(directory) = &upper else { return Ok(upper.mount(&places, layers, userns, ids)?) };
        let untouched = directory.join("u");
        if !may_serve_again(record) || untouched.exists() {
            return Ok(upper.mount(&places, layers, userns, ids)?);
        }
        let of = Of::new(ids, record.spec.owner.uid, layers);
        let of = of.map_err(|source| ContainerError::Io { what: "look at the image's layers".to_owned(), source })?;
        if let Some(spare) = self.roots.take(&of) {
            let home = self.foundation.containers_dir.join(record.id.as_str());
            let again = mounts::clone_at(spare.mount.as_fd())
                .and_then(|root| fs::rename(self.roots.spare().join(&spare.name), home).map(|()| root));
            match again {
                Ok(root) => {
                    *lock(&container.root) = Some(spare);
                    return Ok(root);
                }
                Err(error) => {
                    tracing::debug!(%error, "a root file system that waited was not to be had");
                    self.roots.remove(vec![spare]);
                }
            }
        }
        let root = upper.mount(&places, layers, userns, ids)?;
        // a kernel before 6.15 cannot, and keeps none
        let kept = mounts::clone_at(root.as_fd()).and_then(|mount| Ok((mount, Mark::of(&untouched)?)));
        *lock(&container.root) = kept.ok().map(|(mount, untouched)| Spare {
            name: record.id.to_string(),
            mount,
            of,
            untouched,
            since: Instant::now(),
        });
        Ok(root)
    }

    /// Whether more may have to be cleared later.
    fn clear_roots(&self) -> bool {
        self.roots.remove(self.roots.older(KEPT));
        let mut are_left = !lock(&self.roots.spares).is_empty();
        for container in self.all() {
            let ended = container.state().borrow().finished_at;
            let Some(ended) = ended.filter(|_| container.running_pid().is_err()) else { continue };
            let is_old = Timestamp::now().duration_since(ended) >= SignedDuration::try_from(KEPT).unwrap_or_default();
            let mut root = lock(&container.root);
            let old = root.take_if(|_| is_old);
            are_left |= root.is_some();
            // unmounting may wait, and whoever starts or removes it is not to
            drop(root);
            drop(old);
        }
        are_left
    }

    /// A container has ended: its root file system may have to be let go of.
    pub(crate) fn root_ended(&self, container: &Container) {
        if lock(&container.root).is_some() {
            self.roots.kept.notify_one();
        }
    }

    /// Removes what a container has written, or keeps its root file system where that is nothing.
    pub(crate) fn remove_root(&self, container: &Container) -> io::Result<()> {
        let home = self.foundation.containers_dir.join(container.id.as_str());
        let Some(root) = lock(&container.root).take() else { return tree::remove(&home) };
        match self.keep_root(container, root, &home) {
            Ok(true) => Ok(()),
            Ok(false) => tree::remove(&home),
            Err(error) => {
                tracing::debug!(%error, "a root file system is not kept");
                tree::remove(&home)
            }
        }
    }

    /// Whether it was kept.
    fn keep_root(&self, container: &Container, root: Spare, home: &Path) -> io::Result<bool> {
        // what is left of its processes, if anything, could write to it yet
        let is_over = self.server_group(&Server::of(&container.record())).is_ok_and(|group| group.is_removed());
        let written = home.join("upper/u");
        let is_untouched = Mark::of(&written)? == root.untouched && fs::read_dir(written)?.next().is_none();
        if !is_over || !is_untouched || self.stopping.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let name = container.id.to_string();
        fs::rename(home, self.roots.spare().join(&name))?;
        self.roots.remove(self.roots.put(Spare { name, since: Instant::now(), ..root }));
        Ok(true)
    }
}

/// Whether nobody can hold on to a container's root file system when it has ended. A descriptor of a directory could be
/// handed to another container over a socket in what both have mounted, and lead into whoever comes next; the host's root
/// may change a mount as a whole; another runtime does what it likes.
fn may_serve_again(record: &ContainerRecord) -> bool {
    let is_its_own = |mount: &Mount| matches!(mount.source, MountSource::Tmpfs { .. });
    let spec = &record.spec;
    record.server_id.is_none()
        && spec.runtime.is_none()
        && confine::is_usual(&spec.confinement)
        && spec.mounts.iter().all(is_its_own)
}

#[cfg(test)]
mod tests {
    use sampan_testkit::wait_until;

    use super::*;

    #[test]
    fn a_directory_that_was_changed_is_known() {
        let directory = tempfile::tempdir().expect("a directory");
        let untouched = Mark::of(directory.path()).expect("a mark");
        assert_eq!(Mark::of(directory.path()).expect("a mark"), untouched);
        let clock = tempfile::NamedTempFile::new_in(directory.path().parent().expect("above it")).expect("a file");
        let changed = |what: &str, change: &dyn Fn(&Path) -> io::Result<()>| {
            let before = Mark::of(directory.path()).expect("a mark");
            // where the kernel tells times in ticks, the next one is waited for
            wait_until("the clock of files to go on", Duration::from_secs(5), || {
                fs::write(clock.path(), "x").expect("written");
                Mark::of(clock.path()).expect("a mark").changed > before.changed
            });
            change(directory.path()).expect(what);
            assert_ne!(Mark::of(directory.path()).expect("a mark"), before, "{what}");
        };
        changed("a file is made", &|path| fs::write(path.join("x"), ""));
        changed("and removed", &|path| fs::remove_file(path.join("x")));
        changed("its mode", &|path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)));
    }

    #[test]
    fn the_places_are_there_and_nothing_waits_that_an_earlier_one_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots::new(directory.path().join("roots"));
        roots.prepare().expect("places");
        fs::create_dir_all(roots.spare().join("left/upper")).expect("a directory");
        fs::write(roots.places().join("etc/hosts"), "").expect("a file");
        roots.prepare().expect("places again");
        assert_eq!(fs::read_dir(roots.spare()).expect("a directory").count(), 0);
        for place in DIRECTORIES.iter().chain(&FILES) {
            assert!(roots.places().join(place).exists(), "{place}");
        }
    }
}
