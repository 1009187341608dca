//! What goes in and out of running containers beside their logs: followers, input, further processes.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;
use rustix::event::epoll::{self, EventData, EventFlags};
use sampan_model::ContainerId;
use sampan_sys::pidfd;

use super::daemon::{Answer, DONE};
use super::roles::tell_role;
use super::{CHILD, Server};
use crate::supervisor::exec::Exec;
use crate::supervisor::output;
use crate::supervisor::role::KILL;
use crate::supervisor::starting::Asked;
use crate::wire::{Ended, Event, ExecSpec, Failure, Phase, Reply};

/// The most processes beside the containers' first ones that are waited for.
const MOST_EXECS: usize = 4096;
/// The most followers that wait for a container to begin, or for a logger.
const MOST_WAITING: usize = 64;

impl Server {
    pub(super) fn follow(&mut self, id: &ContainerId, mut fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let step = "follow its output";
        let pipe = fds.pop().ok_or_else(|| Failure::because(step, "no pipe was handed over"))?;
        let container = self.container(id)?;
        match (&container.phase, &container.output) {
            (Phase::Exited(_), _) => return Err(Failure::because(step, "the container has ended")),
            (_, None) if container.starting.is_none() => {
                return Err(Failure::because(step, "it went with a supervisor that was killed"));
            }
            _ => {}
        }
        if container.followers.len() >= MOST_WAITING {
            return Err(Failure::because(step, format!("{MOST_WAITING} others wait for it to begin")));
        }
        container.followers.push(pipe);
        self.hand_on_followers(id);
        Ok(DONE)
    }

    /// Has the logger read a container's output.
    pub(super) fn open_output(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(output) = &container.output else { return };
        // in one message: of a terminal something may be written already, which is not to be read in between
        let followers = container.followers.iter().map(|pipe| pipe.as_fd());
        let fds: Vec<BorrowedFd<'_>> = output.ends().into_iter().chain(followers).collect();
        if tell_role(&mut self.logger, &self.events, output::open_frame(id, container.followers.len()), &fds) {
            // the logger's alone: their end is to be seen where the logger ends
            container.followers.clear();
        }
    }

    /// Followers of an output that the logger reads; where none runs, they wait for the next.
    fn hand_on_followers(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id).filter(|container| container.output.is_some()) else {
            return;
        };
        while let Some(pipe) = container.followers.first() {
            if !tell_role(&mut self.logger, &self.events, output::follow_frame(id), &[pipe.as_fd()]) {
                return;
            }
            // the logger's alone: its end is to be seen where the logger ends
            container.followers.remove(0);
        }
    }

    pub(super) fn input(&mut self, id: &ContainerId) -> Result<Answer, Failure> {
        let end = self.container(id)?.input().map(|end| end.try_clone_to_owned()).transpose();
        let end = end.map_err(|error| Failure::at("hand over its input", &error))?;
        Ok(Answer::Now(Reply::Done, end.into_iter().collect()))
    }

    pub(super) fn exec(&mut self, asked: Asked, spec: &ExecSpec, streams: &[OwnedFd]) -> Result<Answer, Failure> {
        let step = format!("start a process in container {}", spec.id.short());
        if self.execs.len() >= MOST_EXECS {
            return Err(Failure::because(step, format!("{MOST_EXECS} are waited for already")));
        }
        // its end may have happened and not been noted yet
        self.reap();
        let container = self.container(&spec.id)?;
        match container.phase {
            Phase::Running { .. } => {}
            Phase::Waiting => return Err(Failure::because(step, "the container is being started")),
            Phase::Exited(_) => return Err(Failure::because(step, "the container has ended")),
        }
        let pidfd = container.pidfd().map_err(|error| Failure::at(&step, &error))?;
        let (pid, exec) = Exec::make(spec, pidfd, streams, asked)?;
        if let Some(starting) = &exec.starting {
            let token = EventData::new_u64(CHILD + u64::from(pid));
            if let Err(errno) = epoll::add(&self.events, starting.socket(), token, EventFlags::IN) {
                // it sees its socket closed, and is reaped in silence
                return Err(Failure::at("hold the child", &errno.into()));
            }
        }
        self.execs.insert(pid, exec);
        Ok(Answer::Later)
    }

    pub(super) fn hear_exec(&mut self, pid: u32) {
        let Some(exec) = self.execs.get_mut(&pid) else { return };
        let Some(starting) = &mut exec.starting else { return };
        let Some(result) = starting.hear() else { return };
        let asked = starting.asked;
        exec.starting = None;
        exec.executed = result.is_ok();
        let Some(asked) = asked else { return };
        match result {
            Ok(terminal) => {
                // of a terminal the master alone: it is to hang up when all inside have closed it
                let fds: Vec<OwnedFd> = exec.pidfd.take().into_iter().chain(terminal.into_iter().take(1)).collect();
                self.reply(asked, Reply::Executed { pid }, &fds);
            }
            Err(failure) => self.reply(asked, Reply::Failed(failure), &[]),
        }
    }

    /// When the first of those that are being started is to be given up.
    pub(super) fn next_exec_due(&self) -> Option<Instant> {
        self.execs.values().filter(|exec| exec.starting.is_some()).map(|exec| exec.due).min()
    }

    /// Ends children that have not become their programs in time.
    pub(super) fn give_up_on_execs(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for exec in self.execs.values_mut().filter(|exec| exec.due <= now) {
            if let Some(starting) = exec.starting.take() {
                if let Some(pidfd) = &exec.pidfd {
                    // has ended already: as well
                    let _ = pidfd::signal(pidfd.as_fd(), KILL);
                }
                late.extend(starting.asked);
            }
        }
        for asked in late {
            let failure =
                Failure::because("start", "its program was not executed in time: something in the container keeps it");
            self.reply(asked, Reply::Failed(failure), &[]);
        }
    }

    /// A child that is no container's first process has ended.
    pub(super) fn exec_ended(&mut self, pid: u32, exit_code: u8) {
        // its socket may still say whether it was started, which comes before its end
        self.hear_exec(pid);
        let Some(exec) = self.execs.remove(&pid) else { return };
        if exec.executed {
            let ended = Ended { exit_code: Some(exit_code), at: Timestamp::now() };
            self.tell(&Event::ExecExited { id: exec.container, pid, ended });
        }
    }
}
