//! One thread of the data plane: a runtime, the table it routes by, its listeners and its kept connections. Nothing here
//! is shared with the other threads but the counters in [`Shared`] and in the table.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, spawn_local};
use tracing::warn;

use crate::dns::{self, Names};
use crate::http::{self, Pool};
use crate::limits::{Limits, THREAD_STACK};
use crate::listeners::Speaks;
use crate::ports;
use crate::table::Table;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The limits.
    pub(crate) limits: Limits,
    /// The count of open client connections.
    pub(crate) connections: Arc<Connections>,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Route by this table; then answer.
    Table(Arc<Table>, oneshot::Sender<()>),
    /// Serve this socket.
    Listen {
        /// Its key.
        key: String,
        /// What is spoken on it.
        speaks: Speaks,
        /// The socket.
        socket: OwnedFd,
    },
    /// Close the socket of this key; connections made through it go on.
    Silence(String),
    /// Close every socket; end each connection after the request it is at.
    Finish,
}

/// What the tasks of one thread share.
pub(crate) struct Worker {
    table: RefCell<Arc<Table>>,
    /// The limits, and the counters of all threads.
    pub(crate) shared: Arc<Shared>,
    /// Kept connections to upstreams.
    pub(crate) pool: Pool,
    /// The name service.
    pub(crate) names: Names,
    finish: watch::Sender<bool>,
}

impl Worker {
    /// The table to route by at this moment. Not to be held over an await: the next table would find it taken.
    pub(crate) fn table(&self) -> Ref<'_, Table> {
        Ref::map(self.table.borrow(), |table| &**table)
    }

    /// Turns true when connections should end after the request they are at.
    pub(crate) fn finish(&self) -> watch::Receiver<bool> {
        self.finish.subscribe()
    }
}

/// Starts the thread. It ends when `commands` is closed, and says its number to `end` then, or when it panics.
pub(crate) fn start(
    number: usize,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    end: mpsc::Sender<usize>,
) -> io::Result<()> {
    struct Ending(mpsc::Sender<usize>, usize);
    impl Drop for Ending {
        fn drop(&mut self) {
            // The channel has a place for each thread; it is closed only when nobody waits any more.
            let _ = self.0.try_send(self.1);
        }
    }

    let ending = Ending(end, number);
    let runtime = Builder::new_current_thread();
    std::thread::Builder::new().name(format!("edge-{number}")).stack_size(THREAD_STACK).spawn(move || {
        let ending = ending;
        let mut runtime = runtime;
        match runtime.enable_io().enable_time().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(work(shared, commands)),
            Err(error) => warn!(number, %error, "a worker's runtime cannot be made"),
        }
        drop(ending);
    })?;
    Ok(())
}

async fn work(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let worker = Rc::new(Worker {
        table: RefCell::default(),
        pool: Pool::new(&shared.limits),
        names: Names::new(&shared.limits),
        shared,
        finish: watch::Sender::new(false),
    });
    spawn_local(http::reap(Rc::clone(&worker)));
    let mut listening: HashMap<String, AbortHandle> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Table(table, done) => {
                worker.pool.keep(|address| table.holds(address));
                worker.table.replace(table);
                // Nobody waits any more where the edge is ending.
                let _ = done.send(());
            }
            Command::Listen { key, speaks, socket } => match listen(&worker, &key, speaks, socket) {
                Ok(task) => drop(listening.insert(key, task)),
                Err(error) => warn!(key, %error, "a socket cannot be listened on"),
            },
            Command::Silence(key) => {
                if let Some(task) = listening.remove(&key) {
                    task.abort();
                }
            }
            Command::Finish => {
                listening.drain().for_each(|(_, task)| task.abort());
                worker.finish.send_replace(true);
            }
        }
    }
}

fn listen(worker: &Rc<Worker>, key: &str, speaks: Speaks, socket: OwnedFd) -> io::Result<AbortHandle> {
    let worker = Rc::clone(worker);
    let task = match speaks {
        Speaks::Http => spawn_local(http::accept(worker, listener(socket)?)),
        Speaks::DnsTcp => spawn_local(dns::accept(worker, listener(socket)?)),
        Speaks::DnsUdp => spawn_local(dns::serve(worker, packets(socket)?)),
        Speaks::PortTcp => spawn_local(ports::accept(worker, key.to_owned(), listener(socket)?)),
        Speaks::PortUdp => spawn_local(ports::serve(worker, key.to_owned(), packets(socket)?)),
    };
    Ok(task.abort_handle())
}

fn listener(socket: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn packets(socket: OwnedFd) -> io::Result<tokio::net::UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

/// The count of open client connections, of all threads.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    limit: usize,
    closed: Notify,
}

/// One open connection's place in the count.
#[derive(Debug)]
pub(crate) struct Place(Arc<Connections>);

impl Connections {
    /// None open, at most `limit`.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), limit, closed: Notify::new() })
    }

    /// A place for one more; none where the limit is reached.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        (self.open.fetch_add(1, Ordering::SeqCst) < self.limit).then_some(place)
    }

    /// Waits until none is open. One waiter at a time. Cancel-safe.
    pub(crate) async fn none_left(&self) {
        while self.open.load(Ordering::SeqCst) > 0 {
            self.closed.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.closed.notify_one();
        }
    }
}
