//! The one task that decides: takes tables and sockets, hands both to the workers, tells the status.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use sampan_model::{EdgeStatus, EdgeTable};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use crate::limits::STATUS_INTERVAL;
use crate::listeners::{Part, assign};
use crate::table::{Loads, Table};
use crate::worker::{self, Command, Connections, Shared};
use crate::{Control, EdgeError, Limits};

/// Runs the edge until `controls` is closed; then it accepts nothing more and returns when what is under way has ended,
/// at most [`Limits::drain_timeout`] later. The sockets are not shut down, only closed: whoever holds copies can hand
/// them to the next edge, and what waits in their queues is served by that one.
///
/// `status` is called after every table that was applied, and when something ends at an address that has left the
/// table, the latter at most every 50 ms. It must not block.
///
/// To be awaited on a tokio runtime with I/O and time; the workers are threads of their own. Not cancel-safe: dropped
/// before its end, requests under way are cut off.
///
/// # Errors
///
/// A worker thread cannot be started, or ended by itself.
pub async fn run(
    mut controls: mpsc::Receiver<Control>,
    limits: Limits,
    status: impl FnMut(EdgeStatus),
) -> Result<(), EdgeError> {
    let drained = Arc::new(Notify::new());
    let connections = Connections::new(limits.connections);
    let shared = Arc::new(Shared { limits, connections: Arc::clone(&connections) });
    let mut workers = Workers::start(&shared)?;
    let mut state = State {
        held: HashMap::new(),
        table: EdgeTable::default(),
        parts: BTreeMap::new(),
        loads: Loads::new(Arc::clone(&drained)),
        status,
        told: Instant::now(),
    };
    let mut owed: Option<Instant> = None;
    loop {
        tokio::select! {
            control = controls.recv() => match control {
                Some(Control::Sockets(sockets)) => {
                    for (key, socket) in sockets {
                        state.drop_socket(&key, &workers).await?;
                        state.held.insert(key, socket);
                    }
                    state.place(&workers).await?;
                }
                Some(Control::Table(table)) => {
                    state.apply(table, &workers).await?;
                    state.tell();
                    owed = None;
                }
                None => break,
            },
            () = drained.notified(), if owed.is_none() => owed = Some(state.told + STATUS_INTERVAL),
            () = tokio::time::sleep_until(owed.unwrap_or(state.told)), if owed.is_some() => {
                state.tell();
                owed = None;
            }
            thread = workers.ended() => return Err(EdgeError::Ended { thread }),
        }
    }
    state.held.clear();
    workers.tell_all(|| Command::Finish).await?;
    // Past the limit the workers' runtimes are dropped with what is left.
    let _ = tokio::time::timeout(shared.limits.drain_timeout, connections.none_left()).await;
    workers.join().await;
    Ok(())
}

struct State<S> {
    /// Every socket that was handed over and not closed since.
    held: HashMap<String, OwnedFd>,
    table: EdgeTable,
    /// What the workers have been told to listen on.
    parts: BTreeMap<String, Part>,
    loads: Loads,
    status: S,
    /// When the status was told last.
    told: Instant,
}

impl<S: FnMut(EdgeStatus)> State<S> {
    async fn apply(&mut self, table: EdgeTable, workers: &Workers) -> Result<(), EdgeError> {
        let compiled = Arc::new(Table::new(&table, &mut self.loads));
        self.table = table;
        let dns = self.table.dns.iter().map(|socket| &socket.key);
        let ports = self.table.ports.iter().map(|port| &port.key);
        let named: HashSet<&String> = self.table.http.iter().chain(dns).chain(ports).collect();
        let unnamed: Vec<String> = self.held.keys().filter(|key| !named.contains(key)).cloned().collect();
        for key in unnamed {
            self.drop_socket(&key, workers).await?;
        }
        let mut applied = Vec::new();
        workers
            .tell_all(|| {
                let (done, wait) = oneshot::channel();
                applied.push(wait);
                Command::Table(Arc::clone(&compiled), done)
            })
            .await?;
        for (thread, wait) in applied.into_iter().enumerate() {
            wait.await.map_err(|_| EdgeError::Ended { thread })?;
        }
        self.place(workers).await
    }

    /// Brings what the workers listen on in line with the table and the sockets held.
    async fn place(&mut self, workers: &Workers) -> Result<(), EdgeError> {
        let wanted = assign(&self.table, |key| self.held.contains_key(key), workers.commands.len());
        let before = std::mem::take(&mut self.parts);
        for (key, part) in &before {
            let kept = wanted.get(key).filter(|now| now.speaks == part.speaks);
            for &thread in part.threads.iter().filter(|thread| kept.is_none_or(|now| !now.threads.contains(thread))) {
                workers.tell(thread, Command::Silence(key.clone())).await?;
            }
        }
        for (key, part) in &wanted {
            let old = before.get(key).filter(|old| old.speaks == part.speaks);
            for &thread in part.threads.iter().filter(|thread| old.is_none_or(|old| !old.threads.contains(thread))) {
                match self.held[key].as_fd().try_clone_to_owned() {
                    Ok(socket) => {
                        workers.tell(thread, Command::Listen { key: key.clone(), speaks: part.speaks, socket }).await?;
                    }
                    Err(error) => warn!(key, %error, "a socket cannot be listened on"),
                }
            }
        }
        self.parts = wanted;
        Ok(())
    }

    async fn drop_socket(&mut self, key: &str, workers: &Workers) -> Result<(), EdgeError> {
        self.held.remove(key);
        for thread in self.parts.remove(key).into_iter().flat_map(|part| part.threads) {
            workers.tell(thread, Command::Silence(key.to_owned())).await?;
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        let in_flight = self.loads.in_flight();
        (self.status)(EdgeStatus { applied: self.table.revision, in_flight });
    }
}

/// The worker threads.
struct Workers {
    commands: Vec<mpsc::Sender<Command>>,
    ended: mpsc::Receiver<usize>,
}

impl Workers {
    fn start(shared: &Arc<Shared>) -> Result<Self, EdgeError> {
        let threads = shared.limits.threads.max(1);
        let (end, ended) = mpsc::channel(threads);
        let mut commands = Vec::with_capacity(threads);
        for thread in 0..threads {
            let (tell, told) = mpsc::channel(16);
            worker::start(thread, Arc::clone(shared), told, end.clone()).map_err(|source| EdgeError::Start {
                thread,
                threads,
                source,
            })?;
            commands.push(tell);
        }
        Ok(Self { commands, ended })
    }

    async fn tell(&self, thread: usize, command: Command) -> Result<(), EdgeError> {
        self.commands[thread].send(command).await.map_err(|_| EdgeError::Ended { thread })
    }

    async fn tell_all(&self, mut command: impl FnMut() -> Command) -> Result<(), EdgeError> {
        for thread in 0..self.commands.len() {
            self.tell(thread, command()).await?;
        }
        Ok(())
    }

    /// The next worker that ends. Cancel-safe.
    async fn ended(&mut self) -> usize {
        match self.ended.recv().await {
            Some(thread) => thread,
            None => std::future::pending().await,
        }
    }

    /// Ends all workers and waits until they have.
    async fn join(mut self) {
        self.commands.clear();
        while self.ended.recv().await.is_some() {}
    }
}
