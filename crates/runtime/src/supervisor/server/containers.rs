//! Containers: made, adopted from a supervisor that was killed, started, reaped, forgotten.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::WaitOptions;
use sampan_model::ContainerId;
use sampan_sys::pidfd;

use super::daemon::Answer;
use super::roles::tell_role;
use super::{CHILD, ORPHAN, Server};
use crate::journal::{Entry, Known};
use crate::supervisor::container::{Container, Made, started_ticks};
use crate::supervisor::input::Input;
use crate::supervisor::note;
use crate::supervisor::output::{self, Output, Pipes};
use crate::supervisor::starting::Asked;
use crate::supervisor::starting::Starting;
use crate::wire::{CreateSpec, Ended, Event, Failure, Phase, Reply, StartSpec};

/// How long an orphan that has ended may wait for its new parent to reap it before its exit code is given up.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(1);

impl Server {
    pub(super) fn container(&mut self, id: &ContainerId) -> Result<&mut Container, Failure> {
        let container = self.containers.get_mut(id).filter(|container| !container.forgotten);
        container.ok_or_else(|| Failure::because(format!("find container {}", id.short()), "there is none of this id"))
    }

    pub(super) fn create(&mut self, spec: &CreateSpec, gate: Option<OwnedFd>) -> Result<Answer, Failure> {
        let id = &spec.id;
        // its end may have happened and not been noted yet
        self.reap();
        if let Some(there) = self.containers.get(id)
            && !matches!(there.phase, Phase::Exited(_))
        {
            let what = format!("create container {}", id.short());
            return Err(Failure::because(what, "its process of before has not ended"));
        }
        let at = |error: io::Error| Failure::at("hold the child", &error);
        let server = match &spec.server {
            None => None,
            Some(server) => Some(self.servers.get(server).ok_or_else(|| {
                Failure::because(format!("find server {}", server.short()), "its namespaces are not there")
            })?),
        };
        let Made { mut container, user_namespace, network_namespace, started_ticks } =
            Container::make(spec, server, gate)?;
        let pid = container.pid;
        let hold = || -> io::Result<_> {
            if let Some(socket) = container.socket() {
                epoll::add(&self.events, socket, EventData::new_u64(CHILD + u64::from(pid)), EventFlags::IN)?;
            }
            container.pidfd()?.try_clone_to_owned()
        };
        let pidfd = hold().map_err(|error| {
            container.kill();
            at(error)
        })?;
        container.phase = Phase::Waiting;
        self.by_pid.insert(pid, id.clone());
        let server = spec.server.clone();
        self.write(Entry::Created { id: id.clone(), pid, started: started_ticks, ids: spec.ids, server });
        self.containers.insert(id.clone(), container);
        Ok(Answer::Now(Reply::Created { pid }, vec![pidfd, user_namespace, network_namespace]))
    }

    /// Tells a child that waits what it is to run. `fds`: its root file system, its mounts, its followers.
    pub(super) fn go(&mut self, asked: Asked, spec: &StartSpec, mut fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let id = &spec.id;
        let followers = fds.len().checked_sub(spec.followers).map(|at| fds.split_off(at));
        let followers =
            followers.ok_or_else(|| Failure::because("go on", "fewer followers were handed over than said"))?;
        let at = |error: io::Error| Failure::at("make pipes", &error);
        let container = self.container(id)?;
        let streams = container.open_streams(spec)?;
        container.followers.extend(followers);
        let pipes = container.output.as_ref().map_or(Ok([0, 0]), Output::inodes).map_err(at)?;
        let stdin = container.stdin.as_ref().map(Input::inode).transpose().map_err(at)?;
        // before the child has them: whoever finds it later finds them by this
        self.write(Entry::Going { id: id.clone(), pipes, stdin });
        self.open_output(id);
        if spec.external.is_some() {
            self.make_way(id)?;
        }
        let null = self.held.null.as_fd();
        if let Some(container) = self.containers.get_mut(id) {
            container.go(spec, streams, &fds, null, asked);
        }
        Ok(Answer::Later)
    }

    /// Of a supervisor that was killed.
    pub(super) fn adopt(&mut self, id: ContainerId, known: Known) {
        let Known { pid, started_ticks: ticks, ids, pipes, stdin, server, started, ended } = known;
        // the pidfd first: it then is of the process whose start time is read, or of one that has ended
        let alive = pidfd::open(pid).ok().filter(|_| ended.is_none() && started_ticks(pid).is_ok_and(|of| of == ticks));
        let pidfd = alive.filter(|pidfd| {
            let token = EventData::new_u64(ORPHAN + u64::from(pid));
            epoll::add(&self.events, pidfd, token, EventFlags::IN).is_ok()
        });
        if let (Some(pidfd), Some(server)) = (&pidfd, &server) {
            self.adopt_server(server, (pid, pidfd.as_fd()));
        }
        let (phase, output, stdin) = if pidfd.is_some() {
            self.by_pid.insert(pid, id.clone());
            // one that waited for its start has lost whom it waited for, and is ending
            (
                started.map_or(Phase::Waiting, |at| Phase::Running { at }),
                Pipes::of_process(pid, pipes).map(Output::Pipes),
                stdin.and_then(|inode| Input::of_process(pid, inode)),
            )
        } else {
            let ended = ended.unwrap_or_else(|| {
                let lost = Ended { exit_code: None, at: Timestamp::now() };
                self.write(Entry::Exited { id: id.clone(), ended: lost.clone() });
                lost
            });
            (Phase::Exited(ended), None, None)
        };
        let followers = Vec::new();
        let (life, starting, failure, forgotten, launch) = (pid, None, None, false, None);
        let container =
            Container { pid, life, pidfd, phase, ids, output, stdin, followers, starting, failure, forgotten, launch };
        self.containers.insert(id, container);
    }

    pub(super) fn hear_child(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let heard = container.hear();
        if let Some(pid) = container.starting.as_mut().and_then(Starting::take_created) {
            return self.replace(id, pid);
        }
        let Some((asked, result)) = heard else { return };
        let (pid, launch) = (container.pid, container.launch.take());
        let reply = match result {
            Ok(()) => {
                let at = Timestamp::now();
                container.phase = Phase::Running { at };
                let has_terminal = matches!(container.output, Some(Output::Terminal { .. }));
                self.write(Entry::Started { id: id.clone(), at });
                if has_terminal {
                    self.open_output(id);
                }
                Reply::Started { at, pid }
            }
            Err(failure) => {
                if asked.is_none() {
                    container.failure = Some(failure.clone());
                }
                Reply::Failed(failure)
            }
        };
        if let Some(asked) = asked {
            self.reply(asked, reply, &[]);
        }
        // it ended before its launcher did
        if let Some(exit_code) = launch.and_then(|launch| launch.ended) {
            self.by_pid.remove(&pid);
            self.exited(id.clone(), Some(exit_code));
        }
    }

    pub(super) fn reap(&mut self) {
        // what the signals were does not matter: children that have ended are found by asking
        while let Ok(Some(_)) = self.signals.next() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get().cast_unsigned();
            if self.logger.pid() == Some(pid) {
                self.logger.ended();
            } else if self.edge.pid() == Some(pid) {
                self.edge.ended();
                self.edge_status = None;
            } else if self.ended_while_launched(pid, pidfd::code_of_status(status.as_raw())) {
                // its launcher has yet to say that it was started, which comes before its end
            } else if let Some(id) = self.by_pid.remove(&pid) {
                // its socket may still say whether it was started, which comes before its end
                self.hear_child(&id);
                self.exited(id, Some(pidfd::code_of_status(status.as_raw())));
            } else {
                self.exec_ended(pid, pidfd::code_of_status(status.as_raw()));
            }
            if self.stopping.is_some() {
                self.logger.retire();
                self.edge.retire();
            }
        }
    }

    pub(super) fn orphan_ended(&mut self, pid: u32, flags: EventFlags) {
        let container = self.by_pid.get(&pid).and_then(|id| self.containers.get(id));
        let Some(Ok(pidfd)) = container.map(Container::pidfd) else { return };
        // the code is known once its parent (not this process) has reaped it, which the kernel tells by HUP
        let code = pidfd::exit_code(pidfd);
        if code.is_none() && !flags.contains(EventFlags::HUP) {
            let token = EventData::new_u64(ORPHAN + u64::from(pid));
            let _ = epoll::modify(&self.events, pidfd, token, EventFlags::empty());
            self.ended_orphans.entry(pid).or_insert_with(|| Instant::now() + ORPHAN_PATIENCE);
            return;
        }
        self.ended_orphans.remove(&pid);
        if let Some(id) = self.by_pid.remove(&pid) {
            self.exited(id, code);
        }
    }

    pub(super) fn give_up_on_orphans(&mut self) {
        let now = Instant::now();
        let late: Vec<u32> = self.ended_orphans.iter().filter(|(_, due)| **due <= now).map(|(pid, _)| *pid).collect();
        for pid in late {
            self.orphan_ended(pid, EventFlags::HUP);
        }
    }

    /// All of its processes have ended with the first one: nobody writes to its pipes any more.
    fn exited(&mut self, id: ContainerId, exit_code: Option<u8>) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let ended = Ended { exit_code, at: Timestamp::now() };
        container.phase = Phase::Exited(ended.clone());
        // and with it, it leaves the events it may be watched in
        container.pidfd = None;
        container.stdin = None;
        container.followers.clear();
        let (output, forgotten, pid) = (container.output.take(), container.forgotten, container.life);
        // it went with a supervisor that was killed, or was never opened: the logger has nothing to say of it
        let is_logged = output.is_none();
        if let Some(output) = output {
            self.draining.add(id.clone(), pid, output);
            tell_role(&mut self.logger, &self.events, output::end_frame(&id), &[]);
        }
        if forgotten {
            self.containers.remove(&id);
            return;
        }
        self.write(Entry::Exited { id: id.clone(), ended: ended.clone() });
        self.tell(&Event::Exited { id: id.clone(), pid, ended });
        if is_logged {
            self.tell(&Event::Logged { id, pid });
        }
    }

    pub(super) fn forget(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if matches!(container.phase, Phase::Exited(_)) {
            self.containers.remove(id);
        } else {
            container.kill();
            container.forgotten = true;
        }
        self.write(Entry::Forgotten { id: id.clone() });
    }

    pub(super) fn write(&mut self, entry: Entry) {
        // what happened has happened: it is told all the same
        if let Err(error) = self.journal.append(entry) {
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            note(format_args!("{error}: {why}"));
        }
    }
}
