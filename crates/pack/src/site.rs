//! The files of a static site, as they are served from `/srv`.
//!
//! All there is below the directory, but what starts with a dot (`.git`, `.env`; only `.well-known` is meant to be read
//! by strangers) and our own `sampan.toml`. A link stays a link where it leads to something inside by a relative path;
//! one that leads out would be a dead end in the image, or show what was not meant to be, and is refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::FILE_NAME;
use crate::tree::Tree;

/// Where the files are in the image.
pub const ROOT: &str = "/srv";
/// What makes a directory a site.
pub const INDEX: &str = "index.html";
/// The most files and directories of one site.
pub const MOST_ENTRIES: usize = 200_000;
/// The one name with a dot that is served (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Why a site's files cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link leads out of the site, or nowhere.
    #[error(
        "the link {} leads to {}, which is not inside the site: put the file itself there, or remove the link",
        path.display(), target.display()
    )]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither a file nor a directory nor a link.
    #[error("{} is neither a file nor a directory, and cannot be served: remove it", path.display())]
    Odd {
        /// Which.
        path: PathBuf,
    },
    /// More than [`MOST_ENTRIES`].
    #[error("{} holds more than {MOST_ENTRIES} files: is it the directory that was built?", path.display())]
    TooMany {
        /// The site.
        path: PathBuf,
    },
}

/// The files of the site in `directory`, a path without symbolic links.
///
/// # Errors
/// [`SiteError`].
pub(crate) fn tree(directory: &Path) -> Result<Tree, SiteError> {
    let mut tree = Tree::default();
    tree.directory(ROOT, 0o755);
    let mut ahead = vec![directory.to_owned()];
    let mut count = 0;
    while let Some(at) = ahead.pop() {
        let unreadable = |source| SiteError::Unreadable { path: at.clone(), source };
        for entry in at.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, name) = (entry.path(), entry.file_name());
            let is_hidden = name.as_encoded_bytes().starts_with(b".") && !(name == WELL_KNOWN && at == directory);
            if is_hidden || (name == FILE_NAME && at == directory) {
                continue;
            }
            count += 1;
            if count > MOST_ENTRIES {
                return Err(SiteError::TooMany { path: directory.into() });
            }
            let inside = path.strip_prefix(directory).expect("it was found below");
            let served = Path::new(ROOT).join(inside);
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                tree.directory(served, 0o755);
                ahead.push(path);
            } else if kind.is_file() {
                tree.file(served, 0o644, path);
            } else if kind.is_symlink() {
                tree.symlink(served, link(directory, &path)?);
            } else {
                return Err(SiteError::Odd { path });
            }
        }
    }
    Ok(tree)
}

/// Where a link leads, if it may.
fn link(directory: &Path, path: &Path) -> Result<PathBuf, SiteError> {
    let target = path.read_link().map_err(|source| SiteError::Unreadable { path: path.into(), source })?;
    let leads_inside = path.canonicalize().is_ok_and(|real| real.starts_with(directory));
    if target.is_relative() && leads_inside {
        Ok(target)
    } else {
        Err(SiteError::LinkOut { path: path.into(), target })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_site_is_what_is_meant_to_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for file in [
            "index.html",
            "a/b.css",
            ".git/config",
            ".env",
            ".well-known/security.txt",
            "a/.well-known/x",
            "sampan.toml",
        ] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), "x").unwrap();
        }
        symlink("a/b.css", root.join("style.css")).unwrap();
        let tree = tree(&root).expect("a site");
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/srv",
                "/srv/.well-known",
                "/srv/.well-known/security.txt",
                "/srv/a",
                "/srv/a/b.css",
                "/srv/index.html",
                "/srv/style.css"
            ]
        );
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        for target in ["/etc/passwd", "../../etc/passwd", "nothing", "/"] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().canonicalize().unwrap();
            symlink(target, root.join("x")).unwrap();
            let error = tree(&root).expect_err(target);
            assert!(matches!(error, SiteError::LinkOut { .. }), "{target}: {error}");
        }
    }
}
