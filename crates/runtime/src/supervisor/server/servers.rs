//! Servers with several containers: their namespaces, held between the first and the last of them.

use std::collections::btree_map;
use std::os::fd::{AsFd as _, BorrowedFd};

use sampan_model::ContainerId;
use sampan_sys::pidfd;

use super::Server;
use super::daemon::{Answer, DONE};
use crate::supervisor::namespaces::ServerNamespaces;
use crate::supervisor::note;
use crate::wire::{Failure, Reply, ServerSpec};

impl Server {
    pub(super) fn make_server(&mut self, spec: &ServerSpec) -> Result<Answer, Failure> {
        let namespaces = match self.servers.entry(spec.id.clone()) {
            btree_map::Entry::Occupied(there) => there.into_mut(),
            btree_map::Entry::Vacant(place) => place.insert(ServerNamespaces::make(spec.ids)?),
        };
        let copy =
            |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|error| Failure::at("hand on a namespace", &error));
        let fds = vec![copy(namespaces.user.as_fd())?, copy(namespaces.net.as_fd())?];
        Ok(Answer::Now(Reply::ServerMade, fds))
    }

    pub(super) fn forget_server(&mut self, id: &ContainerId) -> Answer {
        // what runs in them keeps them
        self.servers.remove(id);
        DONE
    }

    /// A container that lives on it has a server's namespaces, where the supervisor that held them was killed.
    pub(super) fn adopt_server(&mut self, id: &ContainerId, container: (u32, BorrowedFd<'_>)) {
        let (pid, pidfd) = container;
        if self.servers.contains_key(id) {
            return;
        }
        match ServerNamespaces::of_process(pid) {
            // it has not ended, so they were not of another process that has the pid now
            Ok(namespaces) if pidfd::signal(pidfd, 0).is_ok() => {
                self.servers.insert(id.clone(), namespaces);
            }
            Ok(_) => {}
            Err(failure) => note(format_args!("hold the namespaces of server {} again: {failure}", id.short())),
        }
    }
}
