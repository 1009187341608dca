//! Logger and edge: started, started again, and told everything that the one before them knew.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::{Mode, OFlags};
use sampan_sys::frame::{self, Frame};
use serde::Serialize;

use super::daemon::{Answer, DONE};
use super::{EDGE, Held, LOGGER, Server};
use crate::supervisor::note;
use crate::supervisor::output::{self, FromLogger, to_json};
use crate::supervisor::role::{Program, Role};
use crate::wire::{Event, Failure};

/// The most sockets held for the edge: two name service sockets for each of an instance's servers, 8,000 of published
/// ports (`container`), and listeners.
const MOST_SOCKETS: usize = 20_000;
/// The longest status of the edge, in bytes: some thirty for each of an instance's servers.
const LONGEST_STATUS: usize = 512 * 1024;

impl Server {
    pub(super) fn start_due_roles(&mut self) {
        let is_due = |role: &Role| role.due().is_some_and(|due| due <= Instant::now());
        if is_due(&self.logger) {
            let logs = self.held.logs.as_fd();
            let started = self.logger.start(&program(&self.held), &[logs], self.events.as_fd());
            if self.note_start(LOGGER, started) {
                self.tell_logger_all();
            }
        }
        if is_due(&self.edge) {
            let started = self.edge.start(&program(&self.held), &[], self.events.as_fd());
            if self.note_start(EDGE, started) {
                self.tell_edge_all();
            }
        }
    }

    fn note_start(&mut self, token: u64, started: io::Result<()>) -> bool {
        let role = if token == LOGGER { &self.logger } else { &self.edge };
        match (started, role.pid()) {
            (Ok(()), Some(pid)) => {
                let role = role.name().to_owned();
                self.tell(&Event::RoleStarted { role, pid });
                true
            }
            (result, _) => {
                if let Err(error) = result {
                    note(format_args!("start the {}: {error}", role.name()));
                }
                false
            }
        }
    }

    pub(super) fn hear_role(&mut self, token: u64, flags: EventFlags) {
        let role = if token == LOGGER { &mut self.logger } else { &mut self.edge };
        let Some(peer) = role.peer() else { return };
        if flags.contains(EventFlags::OUT) && peer.flush(self.events.as_fd()).is_err() {
            return role.kill();
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let understood = match peer.hear() {
            Ok(Some(frame)) if token == LOGGER => self.hear_logger(&frame),
            Ok(Some(frame)) => self.hear_edge(frame),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(None) | Err(_) => {
                // it is ending, or has to: it is of no use without its socket. Reaping it tells
                let _ = epoll::delete(&self.events, peer.socket());
                self.stopping.is_some()
            }
        };
        if !understood {
            // it reads what strangers write: a role that talks nonsense is no longer ours
            if token == LOGGER { &self.logger } else { &self.edge }.kill();
        }
    }

    fn hear_logger(&mut self, frame: &Frame) -> bool {
        let Ok(FromLogger::Logged { id }) = serde_json::from_slice(&frame.body) else { return false };
        if let Some(pid) = self.draining.done(&id) {
            self.tell(&Event::Logged { id, pid });
        }
        true
    }

    fn hear_edge(&mut self, frame: Frame) -> bool {
        let Some(status) = String::from_utf8(frame.body).ok().filter(|status| status.len() <= LONGEST_STATUS) else {
            return false;
        };
        self.edge_status = Some(status.clone());
        self.tell(&Event::Edge { status });
        true
    }

    fn tell_logger_all(&mut self) {
        for (id, output) in self.draining.iter() {
            tell_role(&mut self.logger, &self.events, output::open_frame(id, 0), &output.ends());
            tell_role(&mut self.logger, &self.events, output::end_frame(id), &[]);
        }
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in &ids {
            self.open_output(id);
        }
    }

    pub(super) fn hold_sockets(&mut self, keys: Vec<String>, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let step = "hold sockets for the edge";
        if keys.len() != fds.len() {
            return Err(Failure::because(step, format!("{} keys came with {} sockets", keys.len(), fds.len())));
        }
        if self.sockets.len() + keys.len() > MOST_SOCKETS {
            return Err(Failure::because(step, format!("there are {MOST_SOCKETS} at most")));
        }
        let ends: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        let keys_told: Vec<&str> = keys.iter().map(String::as_str).collect();
        tell_role(&mut self.edge, &self.events, to_json(&ToEdge::Sockets(&keys_told)), &ends);
        self.sockets.extend(keys.into_iter().zip(fds));
        Ok(DONE)
    }

    fn tell_edge_all(&mut self) {
        let all: Vec<(&String, &OwnedFd)> = self.sockets.iter().collect();
        for some in all.chunks(frame::MOST_DESCRIPTORS) {
            let keys: Vec<&str> = some.iter().map(|(key, _)| key.as_str()).collect();
            let ends: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
            tell_role(&mut self.edge, &self.events, to_json(&ToEdge::Sockets(&keys)), &ends);
        }
        self.tell_edge_table();
    }

    pub(super) fn tell_edge_table(&mut self) {
        let Some((revision, table)) = &self.table else { return };
        let keep: Vec<&str> = self.sockets.keys().map(String::as_str).collect();
        // opened anew: an earlier edge has read the one before, and its place in the file is not this one's
        let path = format!("/proc/self/fd/{}", table.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(table) => {
                let body = to_json(&EdgeTableFrame { table: *revision, keep });
                tell_role(&mut self.edge, &self.events, body, &[table.as_fd()]);
            }
            Err(error) => note(format_args!("hand the table to the edge: {error}")),
        }
    }
}

/// To the edge: sockets, each descriptor under its key.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ToEdge<'keys> {
    Sockets(&'keys [&'keys str]),
}

/// To the edge: its table, as a descriptor, and which sockets are still of use.
#[derive(Serialize)]
struct EdgeTableFrame<'keys> {
    table: u64,
    keep: Vec<&'keys str>,
}

fn program(held: &Held) -> Program<'_> {
    Program { file: held.program.as_fd(), null: held.null.as_fd(), stderr: rustix::stdio::stderr() }
}

/// Where it does not run, or falls behind and is ended, it is told everything when it is started again. Whether it was
/// told now.
pub(super) fn tell_role(role: &mut Role, events: &OwnedFd, body: Vec<u8>, fds: &[BorrowedFd<'_>]) -> bool {
    let told = match role.peer() {
        Some(peer) => peer.tell(events.as_fd(), body, fds),
        None => return false,
    };
    if let Err(error) = &told {
        if error.kind() != io::ErrorKind::BrokenPipe {
            note(format_args!("the {} is started again: {error}", role.name()));
        }
        role.kill();
    }
    told.is_ok()
}
