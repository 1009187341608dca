//! The directories below the root, made with the modes that keep strangers out.
//!
//! All of them are reached from `/` directory by directory, through descriptors and never through a symbolic link, and
//! each one on the way is root's alone: else whoever may write there could swap what root is about to use.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sampan_api::Access;
use sampan_client::Root;
use sampan_model::view::ErrorView;

use super::socket::Whose;
use crate::process::only_root_changes;

/// Where everything is.
pub struct Layout {
    /// The root, free of symbolic links.
    pub root: PathBuf,
    /// Sockets and the journal.
    pub run_dir: PathBuf,
    /// The daemon's own log.
    pub daemon_log: PathBuf,
    socket: PathBuf,
    /// Whether there was no root before.
    is_new: bool,
}

/// Everything below the root that is not in `run`.
const PARTS: [&str; 6] = ["blobs", "layers", "containers", "roots", "volumes", LOGS];
const LOGS: &str = "logs";
/// The files there.
const FILES: [&str; 5] = ["records.db", "records.db-wal", "records.db-shm", "daemon.log", "supervisor.log"];
/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Layout {
    /// Makes what is missing. The root itself can be passed through (sockets are below it) but not listed; all else is
    /// root's alone: container root's setuid files are real ones (`kernel.md` 3).
    ///
    /// # Errors
    /// [`UnsafeDirectory`], before anything is made in it; or one could not be made.
    pub fn prepare(root: &Root) -> anyhow::Result<Self> {
        let path = root.path().to_path_buf();
        let run_dir = root.run_dir();
        let opened = Directory::reach(&path)?;
        opened.set_mode(0o711)?;
        for part in PARTS {
            let part = opened.enter(part.as_ref(), 0o700)?;
            // the logs' is the logger's, from one start to the next
            if !part.path.ends_with(LOGS) {
                part.check(false)?;
            }
            part.set_mode(0o700)?;
        }
        let run = Directory::reach(&run_dir)?;
        run.set_mode(0o711)?;
        let is_new = opened.is_new;
        Ok(Self { daemon_log: path.join("daemon.log"), root: path, run_dir, socket: root.socket(), is_new })
    }

    /// The logs' directory and what is in it are the logger's, which is nobody else; nor who it was, before the block
    /// of addresses and ids changed.
    pub fn give_logs_to(&self, id: u32) -> anyhow::Result<()> {
        let logs = Directory::reach(&self.root)?.enter(LOGS.as_ref(), 0o700)?;
        logs.give_to(id).with_context(|| format!("give {} to the logger", logs.path.display()))
    }

    /// Opens the API's socket to root, to the user that the daemon was started for, and to a group.
    pub fn open_socket_to(&self, owner: Option<u32>, group: Option<u32>) {
        let opened = std::os::unix::fs::chown(&self.socket, Some(owner.unwrap_or(0)), Some(group.unwrap_or(0)))
            .and_then(|()| fs::set_permissions(&self.socket, Permissions::from_mode(0o660)));
        if let Err(error) = opened {
            tracing::warn!(%error, "the API's socket could not be opened to its owner and its group");
        }
    }

    /// The API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Removes what only a running daemon and supervisor need; a socket that is systemd's stays.
    pub fn remove_run_files(&self, socket: Whose) {
        for name in ["supervisor.sock", "supervisor.lock", "journal"] {
            remove(&self.run_dir.join(name));
        }
        if socket == Whose::Daemon {
            remove(&self.socket);
        }
    }

    /// Removes everything but the lock, which whoever purges removes with the root.
    pub fn remove_everything(&self) {
        for part in PARTS {
            remove(&self.root.join(part));
        }
        for file in FILES {
            remove(&self.root.join(file));
        }
    }
}

impl Layout {
    /// Removes a root that was made for a daemon that could not start.
    pub fn remove_what_is_new(&self, socket: Whose) {
        if self.is_new {
            self.remove_run_files(socket);
            self.remove_everything();
            if socket == Whose::Daemon {
                remove(&self.run_dir);
            }
            remove(&self.root);
        }
    }
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { sampan_container::remove_tree(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

/// A directory that others than root can change, or replace what is in it.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.what(), UNSAFE_HINT)]
pub struct UnsafeDirectory {
    path: PathBuf,
    owner: u32,
    mode: u32,
}

const UNSAFE_HINT: &str =
    "choose a root below a directory that root alone can write to, such as --root /var/lib/sampan";

impl UnsafeDirectory {
    fn what(&self) -> String {
        let Self { path, owner, mode } = self;
        let path = path.display();
        format!("others than root can change {path}, which user {owner} owns with mode {mode:04o}")
    }

    /// As the command line shows it.
    pub fn view(&self) -> ErrorView {
        let message = format!("the daemon cannot use its directories: {}", self.what());
        ErrorView { code: "unsafe_root".to_owned(), message, hint: Some(UNSAFE_HINT.to_owned()) }
    }
}

/// An open directory.
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Whether it was made just now.
    is_new: bool,
}

impl Directory {
    /// Opens the directory at an absolute path, which is made where it is missing, and whose every ancestor is checked
    /// before the next one is opened or made.
    fn reach(path: &Path) -> anyhow::Result<Self> {
        let top = rustix::fs::open("/", DIRECTORY, Mode::empty()).context("open /")?;
        let mut reached = Self { fd: top, path: "/".into(), is_new: false };
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    reached.check(true)?;
                    reached = reached.enter(name, 0o755)?;
                }
                _ => anyhow::bail!("the path {} is not a plain absolute one", path.display()),
            }
        }
        reached.check(false)?;
        Ok(reached)
    }

    /// Opens what is in it under this name, made where it is missing; a symbolic link is refused.
    fn enter(&self, name: &OsStr, mode: u32) -> anyhow::Result<Self> {
        let path = self.path.join(name);
        let is_new = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
        };
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())
            .with_context(|| format!("open {}, which has to be a directory and no symbolic link", path.display()))?;
        Ok(Self { fd, path, is_new })
    }

    fn check(&self, passed_through: bool) -> anyhow::Result<()> {
        let stat = rustix::fs::fstat(&self.fd).with_context(|| format!("look at {}", self.path.display()))?;
        if only_root_changes(stat.st_uid, stat.st_mode, passed_through) {
            return Ok(());
        }
        Err(UnsafeDirectory { path: self.path.clone(), owner: stat.st_uid, mode: stat.st_mode & 0o7777 }.into())
    }

    /// Sets the mode: of one that was there already, or that the umask narrowed.
    fn set_mode(&self, mode: u32) -> anyhow::Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .with_context(|| format!("set the mode of {}", self.path.display()))
    }

    /// Changes the owner, and that of every file in it.
    fn give_to(&self, id: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&self.fd, entry.file_name(), flags, Mode::empty()) {
                Err(Errno::NOENT) => continue, // a logger that lives on has just begun another
                file => file?,
            };
            let stat = rustix::fs::fstat(&file)?;
            // a second name may be a stranger's file that whoever was the logger has linked here
            let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
            if is_plain && (stat.st_uid, stat.st_gid) != (id, id) {
                rustix::fs::chownat(&file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        rustix::fs::fchown(&self.fd, uid, gid)
    }
}

/// The daemon is root's, so far.
pub fn refuse_without_root() -> Result<(), ErrorView> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(ErrorView {
        code: "needs_root".to_owned(),
        message: "the daemon needs root: it makes namespaces, mounts and wires".to_owned(),
        hint: Some("start it with `sudo sampan daemon start`".to_owned()),
    })
}

/// The user that the daemon was started for, by sudo.
pub fn owner() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok()
}

/// The group `sampan`, where this machine has one.
pub fn group() -> Option<(u32, Vec<u32>)> {
    let group = fs::read_to_string("/etc/group").ok()?;
    Access::group_of(&group, &fs::read_to_string("/etc/passwd").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    /// What becomes of a root `a/root` after a change to where it is to be: nothing wrong, or a part of what is said.
    fn check(change: impl Fn(&Path), expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().canonicalize().unwrap().join("a");
        fs::create_dir(&above).unwrap();
        change(&above);
        let root = Root::at(&above.join("root")).unwrap();
        let before = mode(&above);
        match (Layout::prepare(&root), expected) {
            (Ok(layout), None) => {
                assert_eq!(layout.root, above.join("root"));
                assert_eq!((mode(&layout.root), mode(&layout.run_dir)), (0o711, 0o711));
                for part in PARTS {
                    assert_eq!(mode(&layout.root.join(part)), 0o700, "{part}");
                }
            }
            (Err(error), Some(expected)) => {
                let text = format!("{error:#}");
                assert!(text.contains(expected), "{text}");
            }
            (result, _) => panic!("{expected:?}: {:?}", result.map(|layout| layout.root)),
        }
        assert_eq!(mode(&above), before);
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Needs root, whose directories these are.
    #[test]
    fn a_root_is_used_only_where_nobody_else_can_replace_it() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: needs root");
        }
        let make = |path: &Path, mode| {
            fs::create_dir(path).unwrap();
            set(path, mode);
        };
        check(|_| {}, None);
        check(|above| make(&above.join("root"), 0o700), None);
        check(|above| set(above, 0o1777), None);
        check(|above| set(above, 0o777), Some("a, which user 0 owns with mode 0777; choose a root below"));
        check(|above| set(above, 0o775), Some("mode 0775"));
        check(|above| chown(above, Some(1000), None).unwrap(), Some("a, which user 1000 owns with mode 0755"));
        check(|above| make(&above.join("root"), 0o1777), Some("root, which user 0 owns with mode 1777"));
        check(
            |above| {
                make(&above.join("root"), 0o755);
                chown(above.join("root"), Some(1000), None).unwrap();
            },
            Some("root, which user 1000 owns"),
        );
        for part in ["blobs", "logs", "run"] {
            check(
                |above| {
                    make(&above.join("root"), 0o755);
                    symlink("/etc", above.join("root").join(part)).unwrap();
                },
                Some("no symbolic link"),
            );
        }
    }

    #[test]
    fn a_symbolic_link_on_the_way_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        fs::create_dir(path.join("a")).unwrap();
        symlink("a", path.join("b")).unwrap();
        let error = Directory::reach(&path.join("b/root")).err().expect("a link");
        assert!(format!("{error:#}").contains("no symbolic link"), "{error:#}");
        assert!(!path.join("a/root").exists());
    }

    #[test]
    fn the_logs_go_to_the_new_logger_and_nothing_else_does() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("root")).unwrap();
        let layout = Layout::prepare(&root).unwrap();
        let logs = layout.root.join("logs");
        let stranger = layout.root.join("stranger");
        fs::write(&stranger, "").unwrap();
        fs::write(logs.join("x.log"), "").unwrap();
        symlink(&stranger, logs.join("link")).unwrap();
        fs::hard_link(&stranger, logs.join("hard")).unwrap();
        for id in [100_001, 100_001, 200_001] {
            layout.give_logs_to(id).unwrap();
            // the directory is the logger's, and is found again
            let layout = Layout::prepare(&root).unwrap();
            for path in [layout.root.join("logs"), logs.join("x.log")] {
                let meta = path.metadata().unwrap();
                assert_eq!((meta.uid(), meta.gid()), (id, id), "{}", path.display());
            }
            assert_eq!(stranger.metadata().unwrap().uid(), 0);
            assert_eq!(mode(&logs), 0o700);
        }
    }
}
