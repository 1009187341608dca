//! A container that another runtime starts, as long as it does ([`external`]).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sampan_sys::clone::{Namespaces, clone};
use sampan_sys::{frame, pidfd};

use super::container::Container;
use super::namespaces::ServerNamespaces;
use super::role::KILL;
use super::starting::Starting;
use crate::external::{self, Launch};
use crate::wire::Failure;

/// What is held of a launch.
#[derive(Debug)]
pub(crate) struct Launching {
    /// They live on while nobody lives in them.
    _namespaces: ServerNamespaces,
    /// The runtime has made the first process, which is the container's from then on.
    pub is_created: bool,
    /// It has ended already, with this code.
    pub ended: Option<u8>,
}

impl Container {
    /// Puts a launcher in the place of the child that waits: it is told what is to run as the child would have been.
    pub fn make_way(&mut self) -> Result<(), Failure> {
        let at = |step: &'static str| move |error: io::Error| Failure::at(step, &error);
        let namespaces = ServerNamespaces::of_process(self.pid)?;
        let (socket, theirs) = frame::pair().map_err(at("make a socket"))?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| at("prepare its socket")(errno.into()))?;
        let before: OwnedFd =
            self.pidfd().and_then(|pidfd| pidfd.try_clone_to_owned()).map_err(at("hold the child"))?;
        let launch =
            Launch { socket: theirs.as_fd(), before: before.as_fd(), namespaces: namespaces.paths(), ids: self.ids };
        let keep = [theirs.as_fd(), before.as_fd()];
        let cloned =
            clone(Namespaces::MOUNT, None, &keep, || external::run(&launch)).map_err(at("clone the launcher"))?;
        // has ended already: as well
        let _ = pidfd::signal(before.as_fd(), KILL);
        self.pid = cloned.pid.as_raw_nonzero().get().cast_unsigned();
        self.pidfd = Some(cloned.pidfd);
        self.starting = Some(Starting::new(socket, None));
        self.launch = Some(Launching { _namespaces: namespaces, is_created: false, ended: None });
        Ok(())
    }
}
