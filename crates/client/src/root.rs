//! Which Sampan is meant: its root directory, and where its sockets are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The root of the machine's own Sampan, used by root where nothing else is said.
pub const DEFAULT_ROOT: &str = "/var/lib/sampan";

/// Where the default root's sockets are: a file system that is empty after a reboot.
const DEFAULT_RUN_DIR: &str = "/run/sampan";

/// The root of one Sampan: an absolute path, free of symbolic links as far as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

/// Why no root could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Nothing says where an ordinary user's state is kept.
    #[error("there is no root to use: neither SAMPAN_ROOT, XDG_STATE_HOME nor HOME is set; use --root DIR")]
    Unset,
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
    /// The root that is meant: the flag, else `SAMPAN_ROOT`, else [`DEFAULT_ROOT`] for root, else
    /// `$XDG_STATE_HOME/sampan` or `~/.local/state/sampan`.
    ///
    /// # Errors
    /// [`RootError`] where none of them is set or the current directory is gone.
    pub fn resolve(flag: Option<PathBuf>) -> Result<Self, RootError> {
        let environment = Environment {
            sampan_root: std::env::var_os("SAMPAN_ROOT"),
            xdg_state_home: std::env::var_os("XDG_STATE_HOME"),
            home: std::env::var_os("HOME"),
            is_root: rustix::process::geteuid().is_root(),
        };
        Self::at(&environment.choose(flag).ok_or(RootError::Unset)?)
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

/// What the choice depends on.
struct Environment {
    sampan_root: Option<OsString>,
    xdg_state_home: Option<OsString>,
    home: Option<OsString>,
    is_root: bool,
}

impl Environment {
    fn choose(self, flag: Option<PathBuf>) -> Option<PathBuf> {
        let set = |value: Option<OsString>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
        flag.or_else(|| set(self.sampan_root))
            .or_else(|| self.is_root.then(|| DEFAULT_ROOT.into()))
            // the XDG base directory specification: a relative path is to be ignored
            .or_else(|| set(self.xdg_state_home).filter(|path| path.is_absolute()).map(|path| path.join("sampan")))
            .or_else(|| set(self.home).map(|path| path.join(".local/state/sampan")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence() {
        let check = |flag: Option<&str>, root: Option<&str>, xdg: Option<&str>, is_root, expected: Option<&str>| {
            let environment = Environment {
                sampan_root: root.map(Into::into),
                xdg_state_home: xdg.map(Into::into),
                home: Some("/home/u".into()),
                is_root,
            };
            assert_eq!(environment.choose(flag.map(Into::into)), expected.map(Into::into));
        };
        check(Some("/f"), Some("/e"), Some("/x"), true, Some("/f"));
        check(None, Some("/e"), Some("/x"), true, Some("/e"));
        check(None, Some(""), Some("/x"), true, Some(DEFAULT_ROOT));
        check(None, None, Some("/x"), false, Some("/x/sampan"));
        check(None, None, Some("x"), false, Some("/home/u/.local/state/sampan"));
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
