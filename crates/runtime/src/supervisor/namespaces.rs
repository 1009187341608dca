//! The namespaces of a server that several containers share: user, net, ipc and uts. They live for as long as they are
//! held here, with or without a container on it.
//!
//! A container of a server of its own is cloned into new namespaces. One on a shared server has to be cloned from
//! within: a process cannot be put into a user namespace from outside, nor can the supervisor enter one and come back.
//! So a go-between is cloned, which enters, clones the container as its own sibling and ends:
//!
//! ```text
//! supervisor ── clone ──▶ go-between ── setns ×4 ── clone (CLONE_PARENT) ──▶ container's first process
//!     ▲                        │ pid, pidfd                                     │
//!     └────────────────────────┴──────────────── its parent ◀───────────────────┘
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sampan_model::IdRange;
use sampan_sys::clone::{Cloned, Namespaces, clone, clone_sibling};
use sampan_sys::frame;

use crate::wire::Failure;

/// What a server's containers share.
const SHARED: Namespaces = Namespaces::USER.and(Namespaces::NET).and(Namespaces::IPC).and(Namespaces::UTS);
/// What each of them has of its own from its first moment. The cgroup namespace comes later.
const OWN: Namespaces = Namespaces::MOUNT.and(Namespaces::PID);

/// A server's namespaces.
#[derive(Debug)]
pub(crate) struct ServerNamespaces {
    pub user: OwnedFd,
    pub net: OwnedFd,
    ipc: OwnedFd,
    uts: OwnedFd,
}

impl ServerNamespaces {
    /// New ones. They are born with a process, which does nothing and ends when they are held.
    pub fn make(ids: IdRange) -> Result<Self, Failure> {
        let at = |step: &'static str| move |error: io::Error| Failure::at(step, &error);
        let (socket, theirs) = frame::pair().map_err(at("make a socket"))?;
        // the other end is closed, for it also where this process is killed
        let wait = || u8::from(frame::receive(theirs.as_fd()).is_err());
        let cloned = clone(SHARED, None, &[theirs.as_fd()], wait).map_err(at("clone into a server's namespaces"))?;
        let pid = cloned.pid.as_raw_nonzero().get().cast_unsigned();
        let made = write_maps(pid, ids).and_then(|()| Self::of_process(pid));
        drop(socket);
        made
    }

    /// Those of a process: of a container on the server, whose supervisor was killed.
    pub fn of_process(pid: u32) -> Result<Self, Failure> {
        Ok(Self { user: of(pid, "user")?, net: of(pid, "net")?, ipc: of(pid, "ipc")?, uts: of(pid, "uts")? })
    }

    /// Where they are to be opened by others while these are held: by the kinds of the runtime-spec.
    pub fn paths(&self) -> Vec<(&'static str, String)> {
        let own = std::process::id();
        [("user", &self.user), ("network", &self.net), ("ipc", &self.ipc), ("uts", &self.uts)]
            .map(|(kind, namespace)| (kind, format!("/proc/{own}/fd/{}", namespace.as_raw_fd())))
            .into()
    }

    /// Makes a child in them, with a pid and a mount namespace of its own, as [`clone`] does; it is this process's. Waits
    /// for the go-between, which itself waits for nothing.
    pub fn clone(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        keep: &[BorrowedFd<'_>],
        child: impl FnOnce() -> u8,
    ) -> io::Result<Cloned> {
        let (socket, theirs) = frame::pair()?;
        let mut kept = vec![theirs.as_fd(), self.user.as_fd(), self.net.as_fd(), self.ipc.as_fd(), self.uts.as_fd()];
        kept.extend(cgroup);
        kept.extend(keep);
        let go_between = || {
            let made = self.enter().and_then(|()| clone_sibling(OWN, cgroup, keep, child));
            let sent = match &made {
                Ok(made) => {
                    let pid = made.pid.as_raw_nonzero().get();
                    frame::send(theirs.as_fd(), &pid.to_ne_bytes(), &[made.pidfd.as_fd()])
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
                    frame::send(theirs.as_fd(), &(-errno).to_ne_bytes(), &[])
                }
            };
            u8::from(sent.is_err())
        };
        // reaped as every other child is
        clone(Namespaces::NONE, None, &kept, go_between)?;
        drop(theirs);
        let lost = || io::Error::new(io::ErrorKind::UnexpectedEof, "the go-between was killed");
        let mut told = frame::receive(socket.as_fd())?.ok_or_else(lost)?;
        let number = <[u8; 4]>::try_from(&told.body[..]).map(i32::from_ne_bytes).map_err(|_| lost())?;
        match (Pid::from_raw(number.max(0)), told.fds.pop()) {
            (Some(pid), Some(pidfd)) => Ok(Cloned { pid, pidfd }),
            _ if number < 0 => Err(io::Error::from_raw_os_error(-number)),
            _ => Err(lost()),
        }
    }

    /// The user namespace first: the others are owned by it.
    fn enter(&self) -> io::Result<()> {
        for (namespace, kind) in [
            (&self.user, LinkNameSpaceType::User),
            (&self.net, LinkNameSpaceType::Network),
            (&self.ipc, LinkNameSpaceType::InterProcessCommunication),
            (&self.uts, LinkNameSpaceType::HostNameAndNISDomainName),
        ] {
            move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        }
        Ok(())
    }
}

/// Says what the ids of a new user namespace are on the host.
pub(crate) fn write_maps(pid: u32, ids: IdRange) -> Result<(), Failure> {
    let map = format!("0 {} {}", ids.start, ids.length);
    for name in ["uid_map", "gid_map"] {
        File::options()
            .write(true)
            .open(format!("/proc/{pid}/{name}"))
            .and_then(|mut file| file.write_all(map.as_bytes()))
            .map_err(|error| Failure::at(format!("write its {name} ({map})"), &error))?;
    }
    Ok(())
}

/// A namespace of a process, by its name below `/proc/PID/ns`.
pub(crate) fn of(pid: u32, name: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(format!("/proc/{pid}/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::at(format!("open its {name} namespace"), &errno.into()))
}
