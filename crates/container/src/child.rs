//! A container's first process before it is told what it is to run, and the server that is made with it where that is its
//! own.
//!
//! It is made in two steps, for there is something to do while the supervisor clones, which takes a millisecond: to write
//! the container's record, and to make the cgroups that the child need not be born in.
//!
//! ```text
//! begin    cgroup of version 2, Create ──▶ supervisor: clone3 ──▶ child waits for its cgroups
//!          (the record)                     │
//! finish   cgroups of version 1 ────────────┼───────────────────▶ joins them, makes its file systems
//!          ◀────────────────────────────────┘ its namespaces
//!          wire, address, name service                            waits for what it is to run
//! ```

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use sampan_model::{Confinement, ContainerId, IdRange, ServerSize};
use sampan_runtime::cgroup::{ContainerGroup, DeviceRule, Making};
use sampan_runtime::defaults;
use sampan_runtime::link::Question;
use sampan_runtime::wire::{self, CreateSpec, Reply, Request};

use crate::containers::Inner;
use crate::server::{Server, limits};
use crate::start::{cgroup_mounts, unexpected};
use crate::{ConfineError, ContainerError, confine, devices, failpoint};

/// A child that waits to be told what it is to run, and what was made for it.
pub(crate) struct Child {
    /// Its process.
    pub pid: u32,
    /// The process itself.
    pub pidfd: OwnedFd,
    /// Its server's.
    pub user_namespace: OwnedFd,
    /// Its server's, when it was made.
    pub size: ServerSize,
    /// What its server answers names with, where that is new and the edge has not been told.
    pub name_service: Option<(OwnedFd, OwnedFd)>,
}

/// One that is being made. Dropped, it ends by itself; what was made is to be taken down.
pub(crate) struct Begun {
    size: ServerSize,
    group: ContainerGroup,
    making: Making,
    rules: Option<Vec<DeviceRule>>,
    gate: OwnedFd,
    question: Question,
}

/// What a container has of its start before it is started.
pub(crate) enum Ahead {
    /// It waited in the pool.
    Ready(Child),
    /// It was begun with the container.
    Begun(Begun),
}

impl Inner {
    /// Begins to make a container's cgroup, and its server with it where that is its own; and a child there that waits.
    /// Where it fails, here or later, what was made is to be taken down by whoever asked.
    pub(crate) fn begin_child(
        &self,
        id: &ContainerId,
        server: &Server,
        asked: &Confinement,
    ) -> Result<Begun, ContainerError> {
        let devices = devices::of(asked).map_err(ConfineError::from)?;
        let sysctls = confine::parameters(asked)?;
        let (masked_paths, readonly_paths) = confine::closed_paths(asked);
        let (group, making) = self.begin_group(id, server)?;
        let spec = CreateSpec {
            id: id.clone(),
            ids: if asked.has_host_users() { IdRange::HOST } else { self.block().server_ids(server.index) },
            cgroup_files: group.files().iter().map(|file| file.to_string_lossy().into_owned()).collect(),
            cgroup_mounts: cgroup_mounts(&group),
            masked_paths,
            readonly_paths,
            writable_kernel: asked.privileged,
            nodes: devices.nodes,
            sysctls,
            shm_bytes: asked.shm_bytes.map_or(defaults::SHM_BYTES, |size| size.0),
            server: server.shared.then(|| server.id.clone()),
        };
        let (theirs, gate) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| ContainerError::Io { what: "make a pipe".to_owned(), source: errno.into() })?;
        let question = self.foundation.supervisor.ask(Request::Create(Box::new(spec)), &[theirs.as_fd()])?;
        Ok(Begun { size: server.size, group, making, rules: devices.rules, gate, question })
    }

    /// Makes the rest, up to the server's wire.
    pub(crate) fn finish_child(&self, begun: Begun, server: &Server) -> Result<Child, ContainerError> {
        let Begun { size, group, making, rules, gate, question } = begun;
        let made = making.finish().and_then(|()| rules.map_or(Ok(()), |rules| group.set_devices(&rules)));
        if made.is_ok() {
            // a child that has ended says why itself
            let _ = rustix::io::write(&gate, wire::JOIN);
        }
        drop(gate);
        // also where it is of no use any more: what is taken down then does not come after
        let answer = question.answer();
        made?;
        let (reply, fds) = answer?;
        let Reply::Created { pid } = reply else { return Err(unexpected("create")) };
        let [pidfd, user_namespace, netns]: [OwnedFd; 3] = fds.try_into().map_err(|_| unexpected("create"))?;
        failpoint::reach("container_created");
        let name_service = match server.shared {
            true => None,
            false => Some(self.connect(server, netns.as_fd())?),
        };
        Ok(Child { pid, pidfd, user_namespace, size, name_service })
    }

    /// Gives a server that was made ahead the size that it is to have.
    pub(crate) fn fit(&self, server: &Server, child: &Child) -> Result<(), ContainerError> {
        if server.size != child.size {
            self.server_group(server)?.update(&limits(&server.size))?;
        }
        Ok(())
    }
}
