//! The namespaces of a container: which are new, which are joined, and the process that is cloned into them.
//!
//! New ones only: the first process is this process's child, cloned into them. Where one is joined, a process cannot be
//! put there from outside, and this one could not come back from a user namespace. So a go-between is cloned, which
//! enters and clones the first process as its own sibling:
//!
//! ```text
//! sampan oci ── clone ──▶ go-between ── setns … ── clone (CLONE_PARENT) ──▶ first process
//!     ▲                        │ pid, pidfd                                    │
//!     └────────────────────────┴──────────────── its parent ◀──────────────────┘
//! ```
//!
//! The cgroup namespace is made by the first process itself, when it is in its cgroup: what it is in then is what it sees
//! as `/`. A time namespace is only ever entered by children, so it is the go-between's to make.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sampan_sys::clone::{Cloned, Namespaces, clone, clone_sibling};
use sampan_sys::frame;

use super::config::{Config, Linux};
use super::error::{OciError, When as _};

/// The kinds: the specification's word, how it is cloned and how it is joined. In the order
/// in which they are joined.
pub(super) const KINDS: [Kind; 8] = {
    use LinkNameSpaceType as Link;
    [
        Kind { word: "user", new: Namespaces::USER, link: Link::User },
        Kind { word: "ipc", new: Namespaces::IPC, link: Link::InterProcessCommunication },
        Kind { word: "uts", new: Namespaces::UTS, link: Link::HostNameAndNISDomainName },
        Kind { word: "network", new: Namespaces::NET, link: Link::Network },
        Kind { word: "pid", new: Namespaces::PID, link: Link::ProcessID },
        Kind { word: "cgroup", new: Namespaces::CGROUP, link: Link::ControlGroup },
        Kind { word: "time", new: Namespaces::TIME, link: Link::Time },
        Kind { word: "mount", new: Namespaces::MOUNT, link: Link::Mount },
    ]
};

/// A kind of namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub word: &'static str,
    pub new: Namespaces,
    pub link: LinkNameSpaceType,
}

/// What a container has of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// It is with the runtime.
    Shared,
    New,
    Joined,
}

/// A container's namespaces.
#[derive(Debug)]
pub(super) struct Set {
    own: [Own; KINDS.len()],
    joined: Vec<(Kind, OwnedFd)>,
    /// Lines of `/proc/PID/timens_offsets`.
    offsets: String,
}

impl Set {
    /// Reads them from a configuration, and opens those that are joined.
    pub fn open(config: &Config) -> Result<Self, OciError> {
        let Linux { namespaces, time_offsets, .. } = &config.linux;
        let mut set = Self { own: [Own::Shared; KINDS.len()], joined: Vec::new(), offsets: String::new() };
        for namespace in namespaces {
            let at = KINDS.iter().position(|kind| kind.word == namespace.kind).ok_or_else(|| {
                OciError::config("linux.namespaces", format!("{:?} is no kind of namespace", namespace.kind))
            })?;
            if set.own[at] != Own::Shared {
                return Err(OciError::config("linux.namespaces", format!("{} is there twice", namespace.kind)));
            }
            match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => set.own[at] = Own::New,
                Some(path) => {
                    set.own[at] = Own::Joined;
                    let namespace = open(path, KINDS[at])?;
                    if KINDS[at].word == "mount" {
                        refuse_the_hosts(path, namespace.as_fd())?;
                    }
                    set.joined.push((KINDS[at], namespace));
                }
            }
        }
        set.joined.sort_by_key(|(kind, _)| KINDS.iter().position(|one| one.word == kind.word));
        for (clock, offset) in time_offsets {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(OciError::config("linux.timeOffsets", format!("{clock:?} is no clock that can be set")));
            }
            set.offsets.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
        }
        if !set.offsets.is_empty() && set.of("time") != Own::New {
            return Err(OciError::config("linux.timeOffsets", "they need a new time namespace"));
        }
        Ok(set)
    }

    /// What it has of the kind of that word.
    pub fn of(&self, word: &str) -> Own {
        KINDS.iter().position(|kind| kind.word == word).map_or(Own::Shared, |at| self.own[at])
    }

    pub fn is_new(&self, word: &str) -> bool {
        self.of(word) == Own::New
    }

    /// Whether its ids are not the host's.
    pub fn has_users(&self) -> bool {
        self.of("user") != Own::Shared
    }

    /// The one that is joined.
    pub fn joined(&self, word: &str) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|(kind, _)| kind.word == word).map(|(_, fd)| fd.as_fd())
    }

    /// All that the first process is cloned into.
    fn cloned(&self) -> Namespaces {
        let later = |kind: &Kind| matches!(kind.word, "cgroup" | "time");
        KINDS
            .iter()
            .zip(self.own)
            .filter(|(kind, own)| *own == Own::New && !later(kind))
            .fold(Namespaces::NONE, |all, (kind, _)| all.and(kind.new))
    }

    /// Makes the first process, which runs `child`, keeping the descriptors `keep`. `cgroup`: the directory of version 2
    /// that it is born in.
    pub fn clone(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        keep: &[BorrowedFd<'_>],
        child: impl FnOnce() -> u8,
    ) -> io::Result<Cloned> {
        let is_born_there = |(kind, _): &(Kind, OwnedFd)| kind.word != "mount";
        if !self.joined.iter().any(is_born_there) && !self.is_new("time") {
            return clone(self.cloned(), cgroup, keep, child);
        }
        let (socket, theirs) = frame::pair()?;
        let mut kept = vec![theirs.as_fd()];
        kept.extend(self.joined.iter().map(|(_, fd)| fd.as_fd()));
        kept.extend(cgroup);
        kept.extend(keep);
        let go_between = || {
            let made = self.enter().and_then(|()| clone_sibling(self.cloned(), cgroup, keep, child));
            let sent = match &made {
                Ok(made) => {
                    let pid = made.pid.as_raw_nonzero().get();
                    frame::send(theirs.as_fd(), &pid.to_ne_bytes(), &[made.pidfd.as_fd()])
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                    frame::send(theirs.as_fd(), &(-errno).to_ne_bytes(), &[])
                }
            };
            u8::from(sent.is_err())
        };
        let between = clone(Namespaces::NONE, None, &kept, go_between)?;
        drop(theirs);
        let lost = || io::Error::new(io::ErrorKind::UnexpectedEof, "the go-between was killed");
        let told = frame::receive(socket.as_fd());
        let _ = rustix::process::waitpid(Some(between.pid), rustix::process::WaitOptions::empty());
        let mut told = told?.ok_or_else(lost)?;
        let number = <[u8; 4]>::try_from(&told.body[..]).map(i32::from_ne_bytes).map_err(|_| lost())?;
        match (Pid::from_raw(number.max(0)), told.fds.pop()) {
            (Some(pid), Some(pidfd)) => Ok(Cloned { pid, pidfd }),
            _ if number < 0 => Err(io::Error::from_raw_os_error(-number)),
            _ => Err(lost()),
        }
    }

    /// As far as the host's rights go first, the rest with those of the user namespace that is joined: some are its, and
    /// some are the host's.
    fn enter(&self) -> io::Result<()> {
        if self.is_new("time") {
            sampan_sys::clone::unshare(Namespaces::TIME)?;
            if !self.offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", &self.offsets)?;
            }
        }
        // the mount namespace is the first process's to enter: /proc goes with it
        let here = self.joined.iter().filter(|(kind, _)| kind.word != "mount");
        let (users, others): (Vec<_>, Vec<_>) = here.partition(|(kind, _)| kind.word == "user");
        let mut left = Vec::new();
        for (kind, namespace) in others {
            match move_into_link_name_space(namespace.as_fd(), Some(kind.link)) {
                Err(Errno::PERM) if !users.is_empty() => left.push((kind, namespace)),
                result => result?,
            }
        }
        for (kind, namespace) in users {
            move_into_link_name_space(namespace.as_fd(), Some(kind.link))?;
        }
        for (kind, namespace) in left {
            move_into_link_name_space(namespace.as_fd(), Some(kind.link))?;
        }
        Ok(())
    }
}

/// A mount namespace that is joined becomes the container's, down to its root: never the machine's, or the runtime's.
fn refuse_the_hosts(path: &str, namespace: BorrowedFd<'_>) -> Result<(), OciError> {
    let when = || format!("look at the mount namespace {path}");
    let number = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let wanted = number(rustix::fs::fstat(namespace).when(when())?);
    for (of, whose) in
        [("/proc/self/ns/mnt", "the runtime's own"), ("/proc/1/ns/mnt", "that of the machine's first process")]
    {
        // whoever may not look at one has no way to join it either
        if rustix::fs::stat(of).is_ok_and(|stat| number(stat) == wanted) {
            let why =
                format!("it is {whose}, whose root would become the container's; name another, or none for a new one");
            return Err(OciError::config(format!("the mount namespace {path}"), why));
        }
    }
    Ok(())
}

/// Opens a namespace, and sees to it that it is one of that kind.
fn open(path: &str, kind: Kind) -> Result<OwnedFd, OciError> {
    let wrong = |why: String| OciError::config(format!("the {} namespace {path}", kind.word), why);
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| wrong(std::io::Error::from(errno).to_string()))?;
    match sampan_sys::clone::kind_of(fd.as_fd()) {
        Ok(found) if found == kind.new => Ok(fd),
        Ok(_) => Err(wrong("that is a namespace of another kind".into())),
        Err(_) => Err(wrong("that is no namespace".into())),
    }
}
