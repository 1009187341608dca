//! Containers that another runtime starts: who the first process is, from the child of ours that waited to the launcher,
//! and on to the process that the runtime has made.

use std::io;
use std::os::fd::AsFd as _;

use rustix::event::epoll::{self, EventData, EventFlags};
use sampan_model::ContainerId;
use sampan_sys::{frame, pidfd};

use super::{CHILD, Server};
use crate::external::CREATED;
use crate::journal::Entry;
use crate::supervisor::container::started_ticks;
use crate::wire::{Failure, Reply};

impl Server {
    /// The child that waits makes way for a launcher, which is then told to go in its place.
    pub(super) fn make_way(&mut self, id: &ContainerId) -> Result<(), Failure> {
        let container = self.container(id)?;
        let before = container.pid;
        container.make_way()?;
        let pid = container.pid;
        // its end is nobody's business any more
        self.by_pid.remove(&before);
        self.by_pid.insert(pid, id.clone());
        let token = EventData::new_u64(CHILD + u64::from(pid));
        match self.containers.get(id).and_then(|container| container.socket()) {
            Some(socket) => epoll::add(&self.events, socket, token, EventFlags::IN)
                .map_err(|errno| Failure::at("hold the launcher", &errno.into())),
            None => Ok(()),
        }
    }

    /// A launcher says which process the runtime has made, and waits to hear that it is held.
    pub(super) fn replace(&mut self, id: &ContainerId, pid: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let launcher = container.pid;
        let held = || -> io::Result<_> { Ok((pidfd::open(pid)?, started_ticks(pid)?)) };
        let (pidfd, started) = match held() {
            Ok(held) => held,
            Err(error) => {
                // the launcher hears that its socket is closed, and clears away
                let asked = container.starting.take().and_then(|starting| starting.asked);
                let failure = Failure::at("hold the process that the runtime made", &error);
                if let Some(asked) = asked {
                    self.reply(asked, Reply::Failed(failure), &[]);
                }
                return;
            }
        };
        container.pid = pid;
        container.pidfd = Some(pidfd);
        if let Some(launch) = &mut container.launch {
            launch.is_created = true;
        }
        if let Some(socket) = container.socket() {
            let token = EventData::new_u64(CHILD + u64::from(pid));
            // a launcher that was killed is heard of in its turn
            let _ = epoll::modify(&self.events, socket, token, EventFlags::IN);
            let _ = frame::send(socket.as_fd(), CREATED, &[]);
        }
        self.by_pid.remove(&launcher);
        self.by_pid.insert(pid, id.clone());
        self.write(Entry::Replaced { id: id.clone(), pid, started });
    }

    /// Whether this is a process that a runtime has made, whose launcher has not said yet that it was started: its end is
    /// told after that.
    pub(super) fn ended_while_launched(&mut self, pid: u32, exit_code: u8) -> bool {
        let Some(id) = self.by_pid.get(&pid) else { return false };
        let launch = self.containers.get_mut(id).and_then(|container| container.launch.as_mut());
        match launch {
            Some(launch) if launch.is_created => {
                launch.ended = Some(exit_code);
                true
            }
            _ => false,
        }
    }
}
