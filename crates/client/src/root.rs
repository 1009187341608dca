//! Which Sampan is meant: its root directory, and where its sockets are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The root of the machine's own Sampan, used where nothing else is said.
pub const DEFAULT_ROOT: &str = "/var/lib/sampan";

/// Where the default root's sockets are: a file system that is empty after a reboot.
const DEFAULT_RUN_DIR: &str = "/run/sampan";

/// The root of one Sampan: an absolute path, free of symbolic links as far as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

/// Why no root could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The path cannot be made absolute.
    #[error("the root {path:?} cannot be used")]
    Path {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Root {
    /// The root that is meant: the flag, else `SAMPAN_ROOT`, else [`DEFAULT_ROOT`], for everybody: the daemon is
    /// root's, and keeps nothing below a directory that somebody else can rename, such as a home. (The contract's
    /// `$XDG_STATE_HOME/sampan` is the place of a daemon without root's rights, which there is none of yet.)
    ///
    /// # Errors
    /// [`RootError::Path`] where the path is relative to a current directory that is gone.
    pub fn resolve(flag: Option<PathBuf>) -> Result<Self, RootError> {
        Self::at(&choose(flag, std::env::var_os("SAMPAN_ROOT")))
    }

    /// The root at this path, which need not exist yet.
    ///
    /// Links are resolved, because names outside the root derive from it: two spellings must not be two Sampans.
    ///
    /// # Errors
    /// [`RootError::Path`] where the path is empty, or relative to a current directory that is gone.
    pub fn at(path: &Path) -> Result<Self, RootError> {
        let error = |source| RootError::Path { path: path.into(), source };
        let absolute = std::path::absolute(path).map_err(error)?;
        let mut missing = Vec::new();
        let mut existing = absolute.as_path();
        loop {
            match existing.canonicalize() {
                Ok(mut resolved) => {
                    resolved.extend(missing.iter().rev());
                    return Ok(Self(resolved));
                }
                Err(source) => match (existing.parent(), existing.file_name()) {
                    (Some(parent), Some(name)) if source.kind() == std::io::ErrorKind::NotFound => {
                        missing.push(name);
                        existing = parent;
                    }
                    // a directory we may not look into: the daemon, which may, resolves it again
                    _ if source.kind() == std::io::ErrorKind::PermissionDenied => return Ok(Self(absolute)),
                    _ => return Err(error(source)),
                },
            }
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where its sockets are: `ROOT/run`, or `/run/sampan` for [`DEFAULT_ROOT`].
    pub fn run_dir(&self) -> PathBuf {
        if self.is_default() { DEFAULT_RUN_DIR.into() } else { self.0.join("run") }
    }

    /// The native API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("sampan.sock")
    }

    /// What the daemon says when nobody listens.
    pub fn daemon_log(&self) -> PathBuf {
        self.0.join("daemon.log")
    }

    /// Whether this is [`DEFAULT_ROOT`].
    pub fn is_default(&self) -> bool {
        self.0 == Path::new(DEFAULT_ROOT)
    }
}

fn choose(flag: Option<PathBuf>, variable: Option<OsString>) -> PathBuf {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    flag.or(variable).unwrap_or_else(|| DEFAULT_ROOT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence() {
        let check = |flag: Option<&str>, variable: Option<&str>, expected: &str| {
            assert_eq!(choose(flag.map(Into::into), variable.map(Into::into)), Path::new(expected));
        };
        check(Some("/f"), Some("/e"), "/f");
        check(None, Some("/e"), "/e");
        check(None, Some(""), DEFAULT_ROOT);
        check(None, None, DEFAULT_ROOT);
    }

    #[test]
    fn two_spellings_are_one_root() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let root = Root::at(&dir.path().join("link/a/b")).unwrap();
        assert_eq!(root, Root::at(&dir.path().join("a/b")).unwrap());
        assert_eq!(root.socket(), dir.path().canonicalize().unwrap().join("a/b/run/sampan.sock"));
        assert_eq!(Root::at(Path::new(DEFAULT_ROOT)).unwrap().run_dir(), Path::new("/run/sampan"));
    }
}
