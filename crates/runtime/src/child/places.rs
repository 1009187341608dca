//! What was asked to be mounted, put in its place: volumes, directories and files of the host, memory.
//!
//! A place is named by a path in the container, and the container's image (or what ran in it before) decides where that
//! leads. So each is resolved by the kernel as if the container's root were the root (`openat2`), held by descriptor, and
//! mounted on by descriptor: no link planted on the way, and none put there in between, leads anywhere else
//! (CVE-2021-30465). One after the other, so that a place may be in a mount that came before.

use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sampan_sys::mount::{self, Attributes, Builder};

use super::Step as _;
use super::mounts::PLAIN;
use crate::wire::{Failure, MountKind, MountPoint};

/// Puts all of them in their places, in their order. `handed` are the mounts that the daemon made, in theirs; `own` is
/// the directory where files of the container's own are made. The process is in its root, and the container's own file
/// systems are in theirs.
pub(super) fn attach(mounts: &[MountPoint], handed: Vec<OwnedFd>, own: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut handed = handed.into_iter();
    let root = open_root("open the root file system")?;
    for (number, MountPoint { target, read_only, kind }) in mounts.iter().enumerate() {
        let step = format!("mount on {target}");
        let (made, is_file) = match kind {
            MountKind::Handed { file } => {
                let next = handed.next();
                (next.ok_or_else(|| Failure::because(&step, "its mount was not handed over"))?, *file)
            }
            MountKind::Tmpfs { .. } => (memory(kind, *read_only)?, false),
            MountKind::File { text } => (file_of(text, own, number, *read_only).step(&step)?, true),
        };
        let place = Place { target, step: &step };
        let found = place.open(root.as_fd(), is_file)?;
        place.check(found.as_fd(), is_file)?;
        mount::attach_to(made.as_fd(), found.as_fd()).step(&step)?;
    }
    Ok(())
}

/// A file with this text, detached.
fn file_of(text: &str, own: BorrowedFd<'_>, number: usize, read_only: bool) -> std::io::Result<OwnedFd> {
    let name = number.to_string();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(own, &name, flags, Mode::from_raw_mode(0o644))?;
    std::fs::File::from(file).write_all(text.as_bytes())?;
    let made = mount::clone_of(own, &CString::new(name)?)?;
    if read_only {
        mount::restrict(made.as_fd(), Attributes::MOUNT_ATTR_RDONLY)?;
    }
    Ok(made)
}

/// Makes the root file system read-only; what is mounted in it stays as it is.
pub(crate) fn protect_root() -> Result<(), Failure> {
    let root = open_root("make the root file system read-only")?;
    mount::restrict(root.as_fd(), Attributes::MOUNT_ATTR_RDONLY).step("make the root file system read-only")
}

fn memory(kind: &MountKind, read_only: bool) -> Result<OwnedFd, Failure> {
    let MountKind::Tmpfs { size_bytes, mode, owner: (uid, gid), executable } = kind else {
        return Err(Failure::because("mount memory", "something else is to be mounted there"));
    };
    let mut tmpfs = Builder::open("tmpfs")?.set("mode", &format!("{mode:o}"))?;
    if let Some(size) = size_bytes {
        tmpfs = tmpfs.set("size", &size.to_string())?;
    }
    if (*uid, *gid) != (0, 0) {
        tmpfs = tmpfs.set("uid", &uid.to_string())?.set("gid", &gid.to_string())?;
    }
    let mut attributes = if *executable { PLAIN.difference(Attributes::MOUNT_ATTR_NOEXEC) } else { PLAIN };
    attributes.set(Attributes::MOUNT_ATTR_RDONLY, read_only);
    Ok(tmpfs.mount(attributes)?)
}

fn open_root(step: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(step)
}

/// Where something is to be mounted.
pub(crate) struct Place<'a> {
    /// A path in the container.
    pub target: &'a str,
    /// For failures.
    pub step: &'a str,
}

impl Place<'_> {
    fn refuse(&self, why: &str) -> Failure {
        Failure::because(self.step, why)
    }

    /// Opens it (`O_PATH`) in the root file system `root`, and makes what is missing.
    pub fn open(&self, root: BorrowedFd<'_>, is_file: bool) -> Result<OwnedFd, Failure> {
        let names: Vec<&str> = self.target.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if !self.target.starts_with('/') || names.contains(&"..") {
            return Err(self.refuse("the place must be an absolute path without '..'"));
        }
        match self.find(root, &names.join("/")) {
            Err(Errno::NOENT) => self.make(root, &names, is_file),
            found => found.step(self.step),
        }
    }

    /// As [`open`](Self::open), but a link on the way that leads nowhere is followed all the same, and what it names is
    /// made: as other runtimes do, and images count on (`/etc/resolv.conf -> ../run/…`).
    pub fn open_through_links(&self, root: BorrowedFd<'_>, is_file: bool) -> Result<OwnedFd, Failure> {
        let mut names = Names::default();
        names.append(self.target);
        // the kernel's own limit of links
        for _ in 0..40 {
            match self.find(root, &names.0.join("/")) {
                Err(Errno::NOENT) => {}
                found => return found.step(self.step),
            }
            if let Some(place) = self.make_or_follow(root, &mut names, is_file)? {
                return Ok(place);
            }
        }
        Err(Failure::at(self.step, &Errno::LOOP.into()))
    }

    /// Makes what is missing; `None` where a link was met first, and `names` lead on from there.
    fn make_or_follow(
        &self,
        root: BorrowedFd<'_>,
        names: &mut Names,
        is_file: bool,
    ) -> Result<Option<OwnedFd>, Failure> {
        let mut place = root.try_clone_to_owned().step(self.step)?;
        for at in 0..names.0.len() {
            place = match self.find(root, &names.0[..=at].join("/")) {
                Err(Errno::NOENT) => {
                    let name = names.0[at].as_str();
                    if let Ok(link) = rustix::fs::readlinkat(&place, name, Vec::new()) {
                        let link = link.to_str().map_err(|_| self.refuse("a link on the way is no text"))?;
                        let rest = names.0.split_off(at + 1);
                        names.0.pop();
                        names.append(link);
                        names.0.extend(rest);
                        return Ok(None);
                    }
                    let is_last = at + 1 == names.0.len();
                    let made = make_one(place.as_fd(), name, is_last && is_file);
                    made.map_err(|errno| Failure::at(format!("make the place of {}", self.step), &errno.into()))?
                }
                found => found.step(self.step)?,
            };
        }
        Ok(Some(place))
    }

    fn find(&self, root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename somewhere on the machine while a ".." of a link was resolved (openat2(2)); it ends by itself
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < 128 => tries += 1,
                result => return result,
            }
        }
    }

    fn make(&self, root: BorrowedFd<'_>, names: &[&str], is_file: bool) -> Result<OwnedFd, Failure> {
        let mut place = root.try_clone_to_owned().step(self.step)?;
        for (at, name) in names.iter().enumerate() {
            // from the root each time: a link on the way may lead to another branch
            place = match self.find(root, &names[..=at].join("/")) {
                Err(Errno::NOENT) => {
                    let is_last = at + 1 == names.len();
                    make_one(place.as_fd(), name, is_last && is_file).map_err(|errno| match errno {
                        Errno::EXIST => self.refuse("a symbolic link on the way there leads nowhere"),
                        errno => Failure::at(format!("make the place of {}", self.step), &errno.into()),
                    })?
                }
                found => found.step(self.step)?,
            };
        }
        Ok(place)
    }

    /// Sees to it that something of the daemon's may be mounted there.
    fn check(&self, place: BorrowedFd<'_>, is_file: bool) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(place).step(self.step)?;
        // where it has led to: /proc is the container's own by now, and nothing can lie over it
        let link = format!("/proc/self/fd/{}", place.as_raw_fd());
        let path = rustix::fs::readlink(link, Vec::new()).step(self.step)?;
        match path.to_bytes().split(|&byte| byte == b'/').nth(1) {
            Some(b"") | None => return Err(self.refuse("that is the root file system itself")),
            Some(b"proc" | b"sys") => {
                return Err(self.refuse("it is in /proc or /sys, where programs believe what the kernel says"));
            }
            Some(b"dev") if path.to_bytes() == b"/dev" => {
                return Err(self.refuse("/dev as a whole is Sampan's; a file or a directory in it can be mounted on"));
            }
            _ => {}
        }
        match (FileType::from_raw_mode(stat.st_mode), is_file) {
            (FileType::Directory, false) | (FileType::RegularFile | FileType::Socket, true) => Ok(()),
            (FileType::Directory, true) => Err(self.refuse("a file cannot be mounted on a directory")),
            (FileType::RegularFile | FileType::Socket, false) => {
                Err(self.refuse("a directory cannot be mounted on a file"))
            }
            _ => Err(self.refuse("only files and directories can be mounted on")),
        }
    }
}

/// A path from the root on, without `.` and `..`.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// Goes on with a path, or begins anew with an absolute one. `..` takes the name before it: where that is a link,
    /// this is another place than the kernel's, but one in the root all the same.
    fn append(&mut self, path: &str) {
        if path.starts_with('/') {
            self.0.clear();
        }
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(self.0.pop()),
                name => self.0.push(name.to_owned()),
            }
        }
    }
}

fn make_one(directory: BorrowedFd<'_>, name: &str, is_file: bool) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if is_file {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat2(directory, name, flags, Mode::from_raw_mode(0o644), resolve)?;
    } else {
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    }
    rustix::fs::openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}
