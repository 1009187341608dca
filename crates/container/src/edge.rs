//! The edge's table: kept here, changed a part at a time, published whole.
//!
//! A thread of its own publishes, so that nobody who changes a part waits, and many changes become one table. Until
//! [`EdgeTables::open`] nothing is published: a new daemon first takes over what runs, while the edge goes on with the
//! table that the daemon before it left.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_model::{ContainerId, DnsSocket, EdgeStatus, EdgeTable, ForwardedPort, RoutedService};
use sampan_runtime::wire::Request;
use tokio::sync::watch;

use crate::Supervisor;

/// For how long an address that was closed is remembered.
const CLOSED_LATELY: Duration = Duration::from_secs(5);

/// Servers come and go many times a second, and the table names every one: of their changes there is one table in so long.
/// What is asked of a server's name service meanwhile waits in its sockets. Routes and ports wait for nobody.
const TOGETHER: Duration = Duration::from_millis(50);

/// Descriptors that fit one message.
const SOCKETS_A_MESSAGE: usize = 200;

/// The edge's table. Cheap to clone.
#[derive(Clone)]
pub struct EdgeTables {
    shared: Arc<Shared>,
    status: watch::Sender<EdgeStatus>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    table: EdgeTable,
    sockets: Vec<(String, OwnedFd)>,
    published: u64,
    /// Whether there is more in it than servers that came or went.
    is_urgent: bool,
    open: bool,
    /// Addresses of ports that were published until a moment ago.
    closed: Vec<(SocketAddr, Instant)>,
    promised: Promised,
}

/// The sockets of published ports, by container: its owner, and how many. What the edge and the supervisor cannot hold
/// would keep every later table from the edge, and so everybody's services from being reached.
struct Promised {
    by_container: HashMap<ContainerId, (u32, usize)>,
    /// The most of all. One user other than root has a quarter of that at most.
    most: usize,
}

impl Promised {
    /// The most of all, however many descriptors there are: the supervisor holds them too.
    const MOST: usize = 8000;

    fn new() -> Self {
        // each of the edge's threads has a descriptor of each, and connections need most of them
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let share = descriptors.map_or(Self::MOST, |most| usize::try_from(most / 16).unwrap_or(Self::MOST));
        Self { by_container: HashMap::new(), most: share.min(Self::MOST) }
    }

    fn add(&mut self, id: &ContainerId, owner: u32, sockets: usize) -> Result<(), usize> {
        let others = || self.by_container.iter().filter(|(other, _)| *other != id).map(|(_, promised)| *promised);
        let all: usize = others().map(|(_, sockets)| sockets).sum();
        let own: usize = others().filter(|(other, _)| *other == owner).map(|(_, sockets)| sockets).sum();
        if owner != 0 && own + sockets > self.most / 4 {
            return Err(self.most / 4);
        }
        if all + sockets > self.most {
            return Err(self.most);
        }
        self.by_container.insert(id.clone(), (owner, sockets));
        Ok(())
    }
}

impl EdgeTables {
    /// A table after the one of `revision`, published through `supervisor`, not yet open.
    pub fn new(supervisor: Arc<Supervisor>, revision: u64) -> Self {
        let table = EdgeTable { revision: revision + 1, ..EdgeTable::default() };
        let state = State {
            table,
            sockets: Vec::new(),
            published: revision,
            is_urgent: true,
            open: false,
            closed: Vec::new(),
            promised: Promised::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let publisher = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("edge-tables".to_owned())
            .spawn(move || publish(&publisher, &supervisor))
            .expect("a daemon that has just started can start a thread");
        Self { shared, status: watch::Sender::new(EdgeStatus::default()) }
    }

    /// Begins to publish.
    pub fn open(&self) {
        self.shared.lock().open = true;
        self.shared.changed.notify_one();
    }

    /// Sets where HTTP is served and whom the name service asks; the sockets of keys that are held already are not
    /// given again.
    pub fn set_listeners(&self, http: Vec<String>, sockets: Vec<(String, OwnedFd)>, resolvers: Vec<SocketAddr>) {
        self.change(|state| {
            state.table.http = http;
            state.table.resolvers = resolvers;
            state.sockets.extend(sockets);
        });
    }

    /// Sets the ready replicas of all services; the revision of the table that says so comes back.
    pub fn set_services(&self, services: Vec<RoutedService>) -> u64 {
        self.change(|state| state.table.services = services)
    }

    /// Adds a server's name service sockets; none where the supervisor holds them already.
    pub fn add_server(&self, id: &ContainerId, sockets: Option<(OwnedFd, OwnedFd)>) {
        let [udp, tcp] = dns_keys(id);
        self.change_in_time(|state| {
            state.table.dns.push(DnsSocket { key: udp.clone(), tcp: false });
            state.table.dns.push(DnsSocket { key: tcp.clone(), tcp: true });
            if let Some((udp_socket, tcp_socket)) = sockets {
                state.sockets.push((udp, udp_socket));
                state.sockets.push((tcp, tcp_socket));
            }
        });
    }

    /// Takes a server's name service sockets away.
    pub fn remove_server(&self, id: &ContainerId) {
        let keys = dns_keys(id);
        self.change_in_time(|state| {
            state.table.dns.retain(|socket| !keys.contains(&socket.key));
            state.sockets.retain(|(key, _)| !keys.contains(key));
        });
    }

    /// Promises a container's published ports their sockets, until they are [closed](Self::unpublish).
    ///
    /// # Errors
    /// The most that there may be, where that is reached.
    pub(crate) fn promise(&self, id: &ContainerId, owner: u32, sockets: usize) -> Result<(), usize> {
        self.shared.lock().promised.add(id, owner, sockets)
    }

    /// Has published ports served, on sockets that are handed over, or that the supervisor holds already.
    pub(crate) fn publish(&self, ports: impl IntoIterator<Item = (ForwardedPort, Option<OwnedFd>)>) {
        self.change(|state| {
            for (port, socket) in ports {
                if let Some(socket) = socket {
                    state.sockets.push((port.key.clone(), socket));
                }
                state.table.ports.push(port);
            }
        });
    }

    /// Closes the published ports of a container.
    pub(crate) fn unpublish(&self, id: &ContainerId) {
        let prefix = crate::ports::prefix(id);
        self.shared.lock().promised.by_container.remove(id);
        if !self.shared.lock().table.ports.iter().any(|port| port.key.starts_with(&prefix)) {
            return;
        }
        self.change(|state| {
            let now = Instant::now();
            state.closed.retain(|(_, at)| now.duration_since(*at) < CLOSED_LATELY);
            let gone = state.table.ports.iter().filter(|port| port.key.starts_with(&prefix));
            let addresses = gone.filter_map(|port| port.key.rsplit_once('/')?.1.parse().ok());
            state.closed.extend(addresses.map(|address| (address, now)));
            state.table.ports.retain(|port| !port.key.starts_with(&prefix));
            state.sockets.retain(|(key, _)| !key.starts_with(&prefix));
        });
    }

    /// Whether a port was published at this address until a moment ago: the edge may hold it yet.
    pub(crate) fn was_published(&self, address: SocketAddr) -> bool {
        let state = self.shared.lock();
        state.closed.iter().any(|(closed, at)| *closed == address && at.elapsed() < CLOSED_LATELY)
    }

    /// What the edge last said of itself.
    pub fn status(&self) -> watch::Receiver<EdgeStatus> {
        self.status.subscribe()
    }

    /// The edge said something of itself.
    pub(crate) fn told(&self, status: &str) {
        match serde_json::from_str(status) {
            Ok(status) => {
                self.status.send_replace(status);
            }
            Err(error) => tracing::warn!(%error, "the edge's status cannot be read"),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> u64 {
        self.change_in_time(|state| {
            change(state);
            state.is_urgent = true;
        })
    }

    /// What may wait for more of its kind.
    fn change_in_time(&self, change: impl FnOnce(&mut State)) -> u64 {
        let mut state = self.shared.lock();
        change(&mut state);
        state.table.revision += 1;
        self.shared.changed.notify_one();
        state.table.revision
    }
}

/// The keys of a server's name service sockets, UDP and TCP.
pub(crate) fn dns_keys(id: &ContainerId) -> [String; 2] {
    ["udp", "tcp"].map(|protocol| format!("dns/{}/{protocol}", id.short()))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes every change until the supervisor is gone; the daemon then starts anew.
fn publish(shared: &Shared, supervisor: &Supervisor) {
    let mut last = Instant::now();
    loop {
        let mut state = shared.lock();
        while !state.open || state.published == state.table.revision {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        while let Some(left) = TOGETHER.checked_sub(last.elapsed()).filter(|_| !state.is_urgent) {
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        last = Instant::now();
        state.is_urgent = false;
        let sockets = std::mem::take(&mut state.sockets);
        let table = state.table.clone();
        state.published = table.revision;
        drop(state);
        match send(supervisor, &sockets, &table) {
            Ok(()) => crate::failpoint::reach("routes_set"),
            Err(error) => {
                tracing::error!(%error, "the edge's table cannot be published");
                if supervisor.is_gone() {
                    // the daemon starts anew
                    return;
                }
                // with the next change, and all that was to be handed over
                let mut state = shared.lock();
                state.sockets.splice(0..0, sockets);
                state.is_urgent = true;
            }
        }
    }
}

fn send(
    supervisor: &Supervisor,
    sockets: &[(String, OwnedFd)],
    table: &EdgeTable,
) -> Result<(), crate::ContainerError> {
    for sockets in sockets.chunks(SOCKETS_A_MESSAGE) {
        let keys = sockets.iter().map(|(key, _)| key.clone()).collect();
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        supervisor.call(Request::HoldSockets { keys }, &fds)?;
    }
    let dns = table.dns.iter().map(|socket| &socket.key);
    let ports = table.ports.iter().map(|port| &port.key);
    let keep = table.http.iter().chain(dns).chain(ports).cloned().collect();
    let text = serde_json::to_vec(table).expect("a table has only text keys");
    let memfd = in_memory(&text)
        .map_err(|source| crate::ContainerError::Io { what: "make the edge's table".into(), source })?;
    supervisor.call(Request::SetTable { revision: table.revision, keep }, &[memfd.as_fd()])?;
    Ok(())
}

/// Bytes in memory that nobody can change any more: the supervisor keeps them for every edge to come, and whoever holds
/// a descriptor of such a file can open it for writing.
fn in_memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let memfd = rustix::fs::memfd_create("edge-table", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memfd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_all_sockets() {
        let mut promised = Promised { by_container: HashMap::new(), most: 8000 };
        let id = |number: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_ne_bytes());
            ContainerId::from_bytes(bytes)
        };
        assert_eq!(promised.add(&id(1), 1000, 1500), Ok(()));
        // another start of the same
        assert_eq!(promised.add(&id(1), 1000, 1500), Ok(()));
        assert_eq!(promised.add(&id(2), 1000, 501), Err(2000));
        assert_eq!(promised.add(&id(2), 1001, 501), Ok(()));
        assert_eq!(promised.add(&id(3), 0, 5000), Ok(()));
        assert_eq!(promised.add(&id(4), 0, 1000), Err(8000));
        promised.by_container.remove(&id(3));
        assert_eq!(promised.add(&id(4), 0, 1000), Ok(()));
    }
}
