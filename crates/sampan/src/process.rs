//! What the roles need to know of their own process, and set up for it first.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

/// What is logged: what `SAMPAN_LOG` says, else `info`.
pub fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("SAMPAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Logs to standard error, which the supervisor has appended to a file.
pub fn log_to_stderr() {
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_ansi(false).with_writer(std::io::stderr).init();
}

/// Allows as many descriptors as may be had without asking for more: the soft limit is often 1,024, and a connection
/// that is passed on takes two.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit on descriptors stays as it is");
    }
}

/// Makes what this process creates without a mode of its own unwritable for others, whatever it was started with.
pub fn set_umask() {
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// Sampan's own binary, to be executed again: the one at its path, which after an upgrade is the new one; this very one
/// where there is none any more, or where others than root could have put theirs in its place.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own_binary() -> io::Result<PathBuf> {
    let path = own_path()?;
    Ok(path.filter(|path| only_root_replaces(path)).unwrap_or_else(|| "/proc/self/exe".into()))
}

/// The path of Sampan's own binary, whoever may write there; nothing where it is gone. For another program to execute,
/// which `/proc/self/exe` would lead to itself.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own_path() -> io::Result<Option<PathBuf>> {
    let path = std::env::current_exe()?;
    if path.exists() {
        return Ok(Some(path));
    }
    // the kernel's mark on a file that was replaced or removed
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.exists()))
}

/// Whether what has this owner and mode is changed by root alone. In a directory that is passed through, the sticky bit
/// keeps others from replacing what is root's; that what is in it is root's is to be looked at next.
pub fn only_root_changes(owner: u32, mode: u32, passed_through: bool) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    owner == 0 && (mode & WRITABLE_BY_OTHERS == 0 || passed_through && mode & STICKY != 0)
}

/// Whether nobody but root can change the file at an absolute path, or put another in its place. A symbolic link on the
/// way is taken for one that can be changed: the path is the kernel's, which has none.
pub fn only_root_replaces(file: &Path) -> bool {
    let is_root_s = |path: &Path, is_kind: fn(&FileType) -> bool, passed_through| {
        path.symlink_metadata()
            .is_ok_and(|meta| is_kind(&meta.file_type()) && only_root_changes(meta.uid(), meta.mode(), passed_through))
    };
    is_root_s(file, FileType::is_file, false)
        && file.ancestors().skip(1).all(|directory| is_root_s(directory, FileType::is_dir, true))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    #[test]
    fn only_what_root_alone_can_replace_is_executed_again() {
        let is_root = rustix::process::geteuid().is_root();
        let check = |directory: u32, file: u32, change: &dyn Fn(&Path), expected: bool| {
            let dir = tempfile::tempdir().unwrap();
            let parent = dir.path().canonicalize().unwrap().join("bin");
            fs::create_dir(&parent).unwrap();
            let path = parent.join("sampan");
            fs::write(&path, "").unwrap();
            fs::set_permissions(&parent, Permissions::from_mode(directory)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
            change(&path);
            assert_eq!(only_root_replaces(&path), expected && is_root, "{directory:o} {file:o}");
        };
        check(0o755, 0o755, &|_| {}, true);
        check(0o1777, 0o755, &|_| {}, true);
        check(0o777, 0o755, &|_| {}, false);
        check(0o775, 0o755, &|_| {}, false);
        check(0o755, 0o775, &|_| {}, false);
        check(0o755, 0o1757, &|_| {}, false);
        check(0o755, 0o755, &|path| fs::remove_file(path).unwrap(), false);
        check(
            0o755,
            0o755,
            &|path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                symlink("sampan.old", path).unwrap();
            },
            false,
        );
        if is_root {
            check(0o755, 0o755, &|path| chown(path, Some(1000), None).unwrap(), false);
            check(0o755, 0o755, &|path| chown(path.parent().unwrap(), Some(1000), None).unwrap(), false);
        }
    }
}
