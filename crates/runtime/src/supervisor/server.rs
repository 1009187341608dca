//! The loop: one place to wait in, and whose turn it is then.

mod containers;
mod daemon;
mod launches;
mod roles;
mod servers;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Signal;
use sampan_model::ContainerId;
use sampan_sys::signal::SignalEvents;

use super::container::Container;
use super::exec::Exec;
use super::namespaces::ServerNamespaces;
use super::output::Draining;
use super::peer::Peer;
use super::role::Role;
use super::settings::Settings;
use super::starting::Asked;
use crate::journal::Journal;

/// How long the logger has to write the last bytes when everything ends.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// An end is asked for on the socket: no signal to the group, at the machine's end or of a terminal must take the apps'
/// parent, or halt it.
const IGNORED: &[Signal] = &[
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::PIPE,
    Signal::QUIT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
];

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const LOGGER: u64 = 2;
const EDGE: u64 = 3;
const KIND: u64 = 1 << 32;
const CHILD: u64 = KIND;
const ORPHAN: u64 = 2 * KIND;
/// And all above.
const PEER: u64 = 3 * KIND;

/// What the supervisor holds open for as long as it lives.
pub(super) struct Held {
    pub _lock: OwnedFd,
    pub logs: OwnedFd,
    pub program: OwnedFd,
    pub null: OwnedFd,
    pub socket: PathBuf,
}

/// The supervisor at work.
pub(super) struct Server {
    held: Held,
    events: OwnedFd,
    listener: OwnedFd,
    signals: SignalEvents,
    journal: Journal,
    containers: BTreeMap<ContainerId, Container>,
    by_pid: BTreeMap<u32, ContainerId>,
    execs: BTreeMap<u32, Exec>,
    servers: BTreeMap<ContainerId, ServerNamespaces>,
    draining: Draining,
    /// Orphans that have ended, and when to stop waiting for their exit codes.
    ended_orphans: BTreeMap<u32, Instant>,
    daemon: Option<Peer>,
    newcomers: VecDeque<Peer>,
    next_peer: u64,
    logger: Role,
    edge: Role,
    sockets: BTreeMap<String, OwnedFd>,
    table: Option<(u64, OwnedFd)>,
    edge_status: Option<String>,
    stopping: Option<(Asked, Instant)>,
}

impl Server {
    pub fn new(settings: &Settings, held: Held, listener: OwnedFd, journal: Journal) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watched: Vec<i32> = IGNORED.iter().chain([&Signal::CHILD]).map(|signal| signal.as_raw()).collect();
        let signals = SignalEvents::watch(&watched)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        epoll::add(&events, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&events, &signals, EventData::new_u64(SIGNALS), EventFlags::IN)?;
        let mut server = Self {
            held,
            events,
            listener,
            signals,
            journal,
            containers: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            execs: BTreeMap::new(),
            servers: BTreeMap::new(),
            draining: Draining::default(),
            ended_orphans: BTreeMap::new(),
            daemon: None,
            newcomers: VecDeque::new(),
            next_peer: PEER,
            logger: Role::new("logger", settings.logger_id, LOGGER),
            edge: Role::new("edge", settings.edge_id, EDGE),
            sockets: BTreeMap::new(),
            table: None,
            edge_status: None,
            stopping: None,
        };
        for (id, known) in server.journal.known().clone() {
            server.adopt(id, known);
        }
        Ok(server)
    }

    /// `/dev/null` of the stage.
    pub fn null(&self) -> BorrowedFd<'_> {
        self.held.null.as_fd()
    }

    /// Serves until it is told to end.
    pub fn run(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 64];
        loop {
            self.start_due_roles();
            let timeout = self.next_due().map(|due| {
                let left = due.saturating_duration_since(Instant::now());
                rustix::time::Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
            });
            let happened = match epoll::wait(&self.events, &mut space, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?.0,
            };
            for event in happened {
                self.dispatch(event.data.u64(), event.flags);
            }
            self.give_up_on_orphans();
            self.give_up_on_execs();
            if self.stopping.is_some_and(|(asked, deadline)| self.has_stopped(asked, deadline)) {
                return Ok(());
            }
        }
    }

    fn dispatch(&mut self, token: u64, flags: EventFlags) {
        match token {
            LISTENER => self.accept(),
            SIGNALS => self.reap(),
            LOGGER | EDGE => self.hear_role(token, flags),
            token if token >= PEER => self.hear_peer(token, flags),
            token if token >= ORPHAN => self.orphan_ended((token - ORPHAN) as u32, flags),
            token => {
                let pid = (token - CHILD) as u32;
                match self.by_pid.get(&pid).cloned() {
                    Some(id) => self.hear_child(&id),
                    None => self.hear_exec(pid),
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let orphans = self.ended_orphans.values().copied();
        let stopping = self.stopping.map(|(_, deadline)| deadline);
        [self.logger.due(), self.edge.due(), stopping, self.next_exec_due()].into_iter().flatten().chain(orphans).min()
    }
}
