//! Whom an image runs as: its `User` against the `/etc/passwd` and `/etc/group` in its own layers.
//!
//! Source: image-spec 1.1 `config.md`, "User"; in detail as Docker does it: a user that is only a number need not be in
//! the file, its group is then 0; groups beyond the first are the user's only where no group is given.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sampan_model::ByteSize;

use crate::tree::{is_opaque, is_whiteout, open_below};

/// The largest `/etc/passwd` and `/etc/group`.
pub const LARGEST_FILE: u64 = 4 << 20;
/// The ids that a server has.
const IDS: u32 = 65_536;
/// The most groups that the kernel takes (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// Whom a container's process runs as, in the container's own ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The first group's.
    pub gid: u32,
    /// Those of further groups, sorted.
    pub groups: Vec<u32>,
    /// The home directory, where the image knows the user: what `HOME` is to be.
    pub home: Option<String>,
}

/// Why an image's user could not be told.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image has no such user.
    #[error(
        "the image runs as the user {0:?}, who is not in its /etc/passwd: use a number, or add the user to the image"
    )]
    NoUser(String),
    /// The image has no such group.
    #[error(
        "the image runs as the group {0:?}, which is not in its /etc/group: use a number, or add the group to the image"
    )]
    NoGroup(String),
    /// An id that no server has.
    #[error("the image runs as id {0}: a server has those below 65536")]
    Id(u64),
    /// One of the files is too large.
    #[error("{path} is larger than {limit}", path = .0.display(), limit = ByteSize(LARGEST_FILE))]
    TooLarge(PathBuf),
    /// One of the files cannot be read.
    #[error("read {}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Tells whom an image runs as. `user`: as in its config (``, `name`, `uid`, `name:group`, `uid:gid`). `layers`: its
/// unpacked layers, the topmost first.
///
/// # Errors
/// The image does not have that user or group, or an id that no server has.
pub fn resolve(user: &str, layers: &[PathBuf]) -> Result<User, UserError> {
    resolve_by(user, |name| read(layers, name))
}

/// As [`resolve`], by the files that a root file system has now (an `O_PATH` descriptor of its top). They may be a
/// stranger's: nothing outside of it is looked at, and no more than [`LARGEST_FILE`] is read.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(user: &str, root: &OwnedFd) -> Result<User, UserError> {
    resolve_by(user, |name| read_in(root, name))
}

fn read_in(root: &OwnedFd, name: &str) -> Result<String, UserError> {
    let path = Path::new("/etc").join(name);
    match open_below(root, format!("etc/{name}").as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => text(file, &path),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => Ok(String::new()),
        Err(errno) => Err(UserError::Io { path, source: errno.into() }),
    }
}

/// The ids of groups that are named, or given by their numbers; `layers` as of [`resolve`].
///
/// # Errors
/// The image does not have one of them.
pub fn groups(names: &[String], layers: &[PathBuf]) -> Result<Vec<u32>, UserError> {
    groups_by(names, |name| read(layers, name))
}

/// As [`groups`], by the files that a root file system has now, as [`resolve_in`] reads them.
///
/// # Errors
/// As [`groups`].
pub fn groups_in(names: &[String], root: &OwnedFd) -> Result<Vec<u32>, UserError> {
    groups_by(names, |name| read_in(root, name))
}

fn groups_by(names: &[String], read: impl Fn(&str) -> Result<String, UserError>) -> Result<Vec<u32>, UserError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let file = read("group")?;
    let of = |name: &String| match find(&file, name) {
        Some(entry) => id(entry.get(2)),
        None => number(name)?.ok_or_else(|| UserError::NoGroup(name.clone())),
    };
    names.iter().map(of).collect()
}

impl User {
    /// Puts it into further groups.
    pub fn join(&mut self, groups: Vec<u32>) {
        self.groups.extend(groups);
        self.groups.sort_unstable();
        self.groups.dedup();
        self.groups.truncate(MOST_GROUPS);
    }
}

fn resolve_by(user: &str, read: impl Fn(&str) -> Result<String, UserError>) -> Result<User, UserError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read("passwd")?;
    let entry = find(&passwd, user);
    let uid = match &entry {
        Some(entry) => id(entry.get(2))?,
        None => number(user)?.ok_or_else(|| UserError::NoUser(user.to_owned()))?,
    };
    let (gid, groups) = match group.filter(|group| !group.is_empty()) {
        Some(group) => {
            let file = read("group")?;
            let gid = match find(&file, group) {
                Some(entry) => id(entry.get(2))?,
                None => number(group)?.ok_or_else(|| UserError::NoGroup(group.to_owned()))?,
            };
            (gid, Vec::new())
        }
        None => match &entry {
            Some(entry) => (id(entry.get(3))?, memberships(&read("group")?, entry[0])?),
            None => (0, Vec::new()),
        },
    };
    let home = entry.and_then(|entry| entry.get(5).map(|home| (*home).to_owned())).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups, home })
}

/// The first line of a name, or of a number where no line has that name (a user named `0` is one).
fn find<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = |field: usize| {
        file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line.get(field) == Some(&name))
    };
    line(0).or_else(|| if name.bytes().all(|b| b.is_ascii_digit()) { line(2) } else { None })
}

fn memberships(groups: &str, user: &str) -> Result<Vec<u32>, UserError> {
    let mut ids = Vec::new();
    for line in groups.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user)) {
            ids.push(id(fields.get(2))?);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(MOST_GROUPS);
    Ok(ids)
}

/// The id in a field; a line without one is root's to the C library as well, which no image may rely on.
fn id(field: Option<&&str>) -> Result<u32, UserError> {
    let text = field.copied().unwrap_or_default();
    number(text)?.ok_or_else(|| UserError::NoUser(text.to_owned()))
}

fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>().unwrap_or(u64::MAX) {
        id if id < u64::from(IDS) => Ok(u32::try_from(id).ok()),
        id => Err(UserError::Id(id)),
    }
}

/// Reads `/etc/NAME` as it is in the container: from the topmost layer that has it, unless a layer above hides it.
/// Empty where there is none.
fn read(layers: &[PathBuf], name: &str) -> Result<String, UserError> {
    for layer in layers {
        let path = layer.join("etc").join(name);
        let io = |errno: Errno| UserError::Io { path: path.clone(), source: errno.into() };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(layer, directory, Mode::empty()).map_err(io)?;
        match open_below(&root, format!("etc/{name}").as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => return text(file, &path),
            // a whiteout of the file itself (no such device), or of /etc
            Err(Errno::NXIO | Errno::NOTDIR | Errno::NODEV) => return Ok(String::new()),
            Err(Errno::NOENT) if hides_lower(&root) => return Ok(String::new()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(io(errno)),
        }
    }
    Ok(String::new())
}

fn hides_lower(root: &OwnedFd) -> bool {
    open_below(root, b"etc", OFlags::RDONLY | OFlags::DIRECTORY).is_ok_and(|etc| is_opaque(&etc))
}

fn text(file: OwnedFd, path: &Path) -> Result<String, UserError> {
    let io = |source| UserError::Io { path: path.to_owned(), source };
    let stat = rustix::fs::fstat(&file).map_err(|errno| io(errno.into()))?;
    if is_whiteout(&stat) || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(UserError::TooLarge(path.to_owned()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn layers(files: &[&[(&str, &str)]]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let mut layers = Vec::new();
        for (at, files) in files.iter().enumerate() {
            let layer = dir.path().join(at.to_string());
            fs::create_dir_all(layer.join("etc")).unwrap();
            for (name, text) in *files {
                fs::write(layer.join(name), text).unwrap();
            }
            layers.push(layer);
        }
        (dir, layers)
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:\n7:x:70:70::/seven:\nbad:x\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nstaff:x:50:root,app\nvideo:x:44:app\n";

    #[test]
    fn users() {
        let (_dir, layers) =
            layers(&[&[("etc/group", GROUP)], &[("etc/passwd", PASSWD)], &[("etc/passwd", "x:x:1:1")]]);
        let check = |name: &str, (uid, gid): (u32, u32), groups: &[u32], home: Option<&str>| {
            let expected = User { uid, gid, groups: groups.into(), home: home.map(str::to_owned) };
            assert_eq!(resolve(name, &layers).unwrap(), expected, "{name:?}");
        };
        let refused = |name: &str, words: &str| {
            let error = resolve(name, &layers).unwrap_err().to_string();
            assert!(error.contains(words), "{name:?}: {error}");
        };
        check("", (0, 0), &[50], Some("/root"));
        check("root", (0, 0), &[50], Some("/root"));
        check("app", (1000, 1001), &[44, 50], Some("/home/app"));
        check("1000", (1000, 1001), &[44, 50], Some("/home/app"));
        check("app:staff", (1000, 50), &[], Some("/home/app"));
        check("app:7", (1000, 7), &[], Some("/home/app"));
        check("app:", (1000, 1001), &[44, 50], Some("/home/app"));
        check("7", (70, 70), &[], Some("/seven"));
        check("4321:1", (4321, 1), &[], None);
        check("4321", (4321, 0), &[], None);
        refused("nobody", "\"nobody\", who is not in its /etc/passwd");
        refused("app:nogroup", "\"nogroup\", which is not in its /etc/group");
        refused("65536", "id 65536");
        refused("99999999999999999999999", "below 65536");
        refused("bad", "/etc/passwd");
        refused("x", "\"x\"");
    }

    #[test]
    fn no_files_no_names() {
        assert_eq!(resolve("", &[]).unwrap(), User { uid: 0, gid: 0, groups: vec![], home: None });
        assert!(matches!(resolve("app", &[]), Err(UserError::NoUser(_))));
    }

    #[test]
    fn links_do_not_leave_the_layer() {
        let (_dir, layers) = layers(&[&[]]);
        std::os::unix::fs::symlink("../../../../../../../../etc/passwd", layers[0].join("etc/passwd")).unwrap();
        // in the layer as root, the link leads to itself
        assert!(matches!(resolve("root", &layers), Err(UserError::Io { .. })));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let (_dir, layers) = layers(&[&[]]);
        let path = layers[0].join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(resolve("app", &layers), Err(UserError::NoUser(_))));
    }
}
