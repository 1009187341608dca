//! Daemons: who connects, who is listened to, and what is answered.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use sampan_sys::frame;
use serde::Serialize;

use super::{LAST_BYTES, Server};
use crate::supervisor::container::Container;
use crate::supervisor::note;
use crate::supervisor::output::to_json;
use crate::supervisor::peer::Peer;
use crate::supervisor::starting::Asked;
use crate::wire::{self, Call, Event, Failure, Phase, Reply, Request, Told, Welcome};

/// The most connections that have not said who they are. One more, and the oldest is let go.
const MOST_NEWCOMERS: usize = 8;

/// An answer now, with descriptors, or one later.
pub(super) enum Answer {
    Now(Reply, Vec<OwnedFd>),
    Later,
}

/// The commonest answer.
pub(super) const DONE: Answer = Answer::Now(Reply::Done, Vec::new());

impl Server {
    pub(super) fn accept(&mut self) {
        let socket = match frame::accept(self.listener.as_fd()) {
            Ok(socket) => socket,
            Err(error) => {
                // out of descriptors, it would be asked again at once and for ever: whoever has not said hello goes
                if error.kind() != io::ErrorKind::WouldBlock {
                    note(format_args!("accept a connection: {error}"));
                    self.newcomers.clear();
                }
                return;
            }
        };
        // the socket's mode says so already; a directory that was opened to others must not undo it
        if !frame::peer(socket.as_fd()).is_ok_and(|peer| peer.uid == 0) {
            return;
        }
        let token = self.next_peer;
        self.next_peer += 1;
        if self.newcomers.len() >= MOST_NEWCOMERS {
            self.newcomers.pop_front();
        }
        match Peer::watch(socket, token, self.events.as_fd()) {
            Ok(peer) => self.newcomers.push_back(peer),
            Err(error) => note(format_args!("accept a connection: {error}")),
        }
    }

    fn drop_peer(&mut self, token: u64) {
        self.newcomers.retain(|peer| peer.token() != token);
        self.daemon.take_if(|peer| peer.token() == token);
    }

    pub(super) fn hear_peer(&mut self, token: u64, flags: EventFlags) {
        let mut peers = self.daemon.iter_mut().chain(&mut self.newcomers);
        let Some(peer) = peers.find(|peer| peer.token() == token) else { return };
        if flags.contains(EventFlags::OUT) && peer.flush(self.events.as_fd()).is_err() {
            return self.drop_peer(token);
        }
        // one frame a turn: a daemon that asks much must not keep an exit waiting
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        match peer.hear() {
            Ok(Some(frame)) => match serde_json::from_slice::<Call>(&frame.body) {
                Ok(call) => self.answer(token, call, frame.fds),
                Err(error) => {
                    note(format_args!("a request that cannot be read: {error}"));
                    self.drop_peer(token);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.drop_peer(token),
        }
    }

    fn answer(&mut self, by: u64, call: Call, fds: Vec<OwnedFd>) {
        let asked = Asked { by, number: call.number };
        if let Request::Hello { .. } = call.request {
            return self.welcome(asked);
        }
        let result = if self.daemon.as_ref().is_some_and(|daemon| daemon.token() == by) {
            self.serve(asked, call.request, fds)
        } else {
            Err(Failure::because("be heard", "another daemon has taken over, or none has said hello"))
        };
        match result {
            Ok(Answer::Later) => {}
            Ok(Answer::Now(reply, fds)) => self.reply(asked, reply, &fds),
            Err(failure) => self.reply(asked, Reply::Failed(failure), &[]),
        }
    }

    fn welcome(&mut self, asked: Asked) {
        if let Some(at) = self.newcomers.iter().position(|peer| peer.token() == asked.by) {
            self.daemon = self.newcomers.remove(at);
        }
        let containers = self.containers.iter().filter(|(_, container)| !container.forgotten);
        let welcome = Welcome {
            version: wire::VERSION,
            pid: std::process::id(),
            logger: self.logger.pid(),
            edge: self.edge.pid(),
            containers: containers
                .map(|(id, container)| wire::Held {
                    id: id.clone(),
                    pid: container.pid,
                    life: container.life,
                    phase: container.phase.clone(),
                })
                .collect(),
            servers: self.servers.keys().cloned().collect(),
            sockets: self.sockets.keys().cloned().collect(),
            table: self.table.as_ref().map_or(0, |(revision, _)| *revision),
        };
        self.reply(asked, Reply::Welcome(welcome), &[]);
        if let Some(status) = self.edge_status.clone() {
            self.tell(&Event::Edge { status });
        }
    }

    fn serve(&mut self, asked: Asked, request: Request, mut fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        if self.stopping.is_some() {
            return Err(Failure::because("be served", "the supervisor is ending"));
        }
        match request {
            Request::Hello { .. } => Ok(DONE),
            Request::Create(spec) => self.create(&spec, fds.pop()),
            Request::Go(spec) => self.go(asked, &spec, fds),
            Request::MakeServer(spec) => self.make_server(&spec),
            Request::ForgetServer { id } => Ok(self.forget_server(&id)),
            Request::Follow { id } => self.follow(&id, fds),
            Request::Input { id } => self.input(&id),
            Request::CloseInput { id } => {
                self.container(&id)?.stdin = None;
                Ok(DONE)
            }
            Request::Exec(spec) => self.exec(asked, &spec, &fds),
            Request::Signal { id, signal } => {
                let sent = self.container(&id)?.signal(signal);
                sent.map_err(|error| Failure::at(format!("send signal {signal}"), &error))?;
                Ok(DONE)
            }
            Request::Forget { id } => {
                self.forget(&id);
                Ok(DONE)
            }
            Request::HoldSockets { keys } => self.hold_sockets(keys, fds),
            Request::SetTable { revision, keep } => {
                let table = fds.pop().ok_or_else(|| Failure::because("set the table", "no table was handed over"))?;
                let keep: HashSet<String> = keep.into_iter().collect();
                self.sockets.retain(|key, _| keep.contains(key));
                self.table = Some((revision, table));
                self.tell_edge_table();
                Ok(DONE)
            }
            Request::Shutdown => self.shut_down(asked),
        }
    }

    pub(super) fn reply(&mut self, asked: Asked, reply: Reply, fds: &[OwnedFd]) {
        let body = to_json(&Told::Reply { number: asked.number, reply });
        let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        let told = match self.daemon.iter_mut().chain(&mut self.newcomers).find(|peer| peer.token() == asked.by) {
            Some(peer) => peer.tell(self.events.as_fd(), body, &fds),
            // it has gone, and its successor finds out by its welcome
            None => return,
        };
        if let Err(error) = told {
            self.lose_daemon(asked.by, &error);
        }
    }

    pub(super) fn tell(&mut self, event: &Event) {
        let Some(daemon) = &mut self.daemon else { return };
        let token = daemon.token();
        let body = to_json(&TellEvent { event });
        let told = match event {
            Event::Edge { .. } => daemon.tell_latest(self.events.as_fd(), body),
            _ => daemon.tell(self.events.as_fd(), body, &[]),
        };
        if let Err(error) = told {
            self.lose_daemon(token, &error);
        }
    }

    fn lose_daemon(&mut self, token: u64, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            note(format_args!("the daemon's connection is given up: {error}"));
        }
        self.drop_peer(token);
    }

    fn shut_down(&mut self, asked: Asked) -> Result<Answer, Failure> {
        // the last end may have happened and not been noted yet
        self.reap();
        // one that was killed and forgotten ends by itself: it may be another's to reap
        let runs = |container: &&Container| !container.forgotten && !matches!(container.phase, Phase::Exited(_));
        let running = self.containers.values().filter(runs).count();
        if running > 0 {
            return Err(Failure::because("end", format!("{running} containers have not ended")));
        }
        self.stopping = Some((asked, Instant::now() + LAST_BYTES));
        self.edge.retire();
        self.edge.kill();
        self.logger.retire();
        Ok(Answer::Later)
    }

    pub(super) fn has_stopped(&mut self, asked: Asked, deadline: Instant) -> bool {
        if self.draining.is_empty() {
            self.logger.hang_up();
        }
        if self.logger.pid().is_some() || self.edge.pid().is_some() {
            if Instant::now() >= deadline {
                self.logger.kill();
                self.edge.kill();
                self.stopping = Some((asked, Instant::now() + LAST_BYTES));
            }
            return false;
        }
        // nobody may connect to one that is about to go
        let _ = std::fs::remove_file(&self.held.socket);
        self.reply(asked, Reply::Done, &[]);
        true
    }
}

/// As [`Told::Event`], without a copy.
#[derive(Serialize)]
struct TellEvent<'event> {
    event: &'event Event,
}
