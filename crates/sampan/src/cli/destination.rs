//! Files that are written whole or not at all: under a passing name beside their own, which they get at the end.
//!
//! What is no file (a pipe, a device, `-` for standard output) is written as it comes; a terminal is refused, for what
//! goes here is not for reading.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use tempfile::NamedTempFile;

use super::failure::Failure;

const BUFFER: usize = 256 << 10;

/// Where something is written.
pub enum Destination {
    /// A file, not there under its name yet.
    File { partial: BufWriter<NamedTempFile>, path: PathBuf },
    /// What takes bytes as they come.
    Stream(BufWriter<File>),
}

impl Destination {
    /// The file of a path, or standard output where it is `-` or none.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            if io::stdout().is_terminal() {
                let hint = "name a file, or send it on with '|' or '>'";
                return Err(Failure::new("an archive is not written to a terminal").with_hint(hint));
            }
            let stdout = rustix::io::dup(io::stdout()).map_err(|errno| cannot("open", Path::new("-"), errno.into()))?;
            return Ok(Self::Stream(BufWriter::with_capacity(BUFFER, stdout.into())));
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::new(format!("{} is a directory", path.display())).with_hint("name a file in it"));
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(|error| cannot("open", path, error))?;
                return Ok(Self::Stream(BufWriter::with_capacity(BUFFER, file)));
            }
            _ => {}
        }
        // a link's target is replaced, and not the link
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            // as any new file: the umask takes its part away
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory_of(&path))
            .map_err(|error| cannot("write", &path, error))?;
        Ok(Self::File { partial: BufWriter::with_capacity(BUFFER, partial), path })
    }

    /// Fails where [`open`](Self::open) would, and leaves everything as it is.
    pub fn check(path: &Path) -> Result<(), Failure> {
        // a pipe that is opened and closed again is at its end for whoever reads it
        let is_stream = path != Path::new("-") && fs::metadata(path).is_ok_and(|at| !at.is_file() && !at.is_dir());
        if is_stream { Ok(()) } else { Self::open(Some(path)).map(drop) }
    }

    /// All is written: gives the file its name.
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stream(mut out) => Ok(out.flush()?),
            Self::File { partial, path } => {
                let failed = |error| cannot("write", &path, error);
                let partial = partial.into_inner().map_err(|error| failed(error.into_error()))?;
                partial.as_file().sync_all().map_err(failed)?;
                partial.persist(&path).map_err(|error| failed(error.error))?;
                Ok(())
            }
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { partial, .. } => partial.write(bytes),
            Self::Stream(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { partial, .. } => partial.flush(),
            Self::Stream(out) => out.flush(),
        }
    }
}

/// Fails where a directory of this path would take the place of somebody's files: a bundle, and an empty directory, may
/// be replaced.
pub fn check_directory(path: &Path) -> Result<(), Failure> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let hint = "name a directory that is not there yet";
    if !metadata.is_dir() {
        return Err(Failure::new(format!("{} is there, and no directory", path.display())).with_hint(hint));
    }
    let is_bundle = path.join("config.json").is_file() && path.join("rootfs").is_dir();
    let is_empty = fs::read_dir(path).map_err(|error| cannot("read", path, error))?.next().is_none();
    if is_bundle || is_empty {
        return Ok(());
    }
    let message = format!("{} is there, and neither empty nor a bundle: it is not replaced", path.display());
    Err(Failure::new(message).with_hint(hint))
}

/// Makes a directory with what `write` puts into it, and gives it its name when that is done; what was there under that
/// name goes then.
pub fn write_directory(path: &Path, write: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    check_directory(path)?;
    let name =
        path.file_name().ok_or_else(|| Failure::new(format!("{} is no name for a directory", path.display())))?;
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .suffix(".partial")
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(directory_of(path))
        .map_err(|error| cannot("make", path, error))?;
    write(partial.path())?;
    if path.exists() {
        // both at once: at no moment is there none; the old one has the passing name then, and goes with it
        rustix::fs::renameat_with(CWD, partial.path(), CWD, path, RenameFlags::EXCHANGE)
            .map_err(|errno| cannot("replace", path, errno.into()))?;
        return partial.close().map_err(|error| cannot("remove what was before at", path, error));
    }
    fs::rename(partial.path(), path).map_err(|error| cannot("make", path, error))?;
    // its name is another one now
    let _ = partial.keep();
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        for (text, finish, expected) in
            [("one", false, None), ("two", true, Some("two")), ("three", false, Some("two"))]
        {
            let mut out = Destination::open(Some(&path)).unwrap();
            out.write_all(text.as_bytes()).unwrap();
            if finish {
                out.finish().unwrap();
            } else {
                drop(out);
            }
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), expected);
        }
        assert_eq!(names(dir.path()), ["x.tar"]);
        let error = Destination::open(Some(dir.path())).err().unwrap();
        assert!(error.parts().0.ends_with("is a directory"), "{error:?}");
        Destination::open(Some(Path::new("/dev/null"))).unwrap().finish().unwrap();
        assert!(fs::metadata("/dev/null").is_ok_and(|metadata| !metadata.is_file()), "it is written to, not replaced");
    }

    #[test]
    fn a_directory_replaces_none_of_somebody_s_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        let make = |text: &'static str| {
            write_directory(&path, |into| {
                fs::create_dir(into.join("rootfs")).unwrap();
                fs::write(into.join("config.json"), text).unwrap();
                Ok(())
            })
        };
        make("one").unwrap();
        make("two").unwrap();
        assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), "two");
        write_directory(&path, |_| Err(Failure::new("no"))).unwrap_err();
        assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), "two");
        assert_eq!(names(dir.path()), ["bundle"]);
        fs::remove_file(path.join("config.json")).unwrap();
        let error = make("three").unwrap_err();
        assert!(error.parts().0.contains("neither empty nor a bundle"), "{error:?}");
    }
}
