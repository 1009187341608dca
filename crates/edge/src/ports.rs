//! Published ports: what arrives at a socket goes to one address, bytes as they are, and its answers come back.
//!
//! TCP by connection: both directions flow on their own, so an end that only stops sending still hears the other out.
//! UDP by client address: each has a socket of its own towards the container, so that answers find their way back, until
//! nothing has passed for a while. Where the upstream is gone the client's connection is closed, its packets are lost.
//!
//! Deliberately absent: retries (bytes are not requests) and the client's address at the upstream, which sees ours.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use crate::limits::ACCEPT_PAUSE;
use crate::worker::Worker;

/// What is on its way in one direction of a connection, in bytes.
const COPIED: usize = 64 * 1024;
/// The longest UDP payload there is.
const LONGEST_PACKET: usize = 65_535;

/// Accepts connections of a published port, until it is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, key: String, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (Some(place), Some(upstream)) = (worker.shared.connections.open(), worker.table().port(&key))
                else {
                    continue;
                };
                let worker = Rc::clone(&worker);
                spawn_local(async move {
                    // errors are those of one connection: both ends are told by its end
                    let _ = forward(&worker, client, upstream).await;
                    drop(place);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(key, %error, "connections to a published port cannot be accepted; pausing");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn forward(worker: &Worker, mut client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let mut server = timeout(worker.shared.limits.connect_timeout, TcpStream::connect(upstream)).await??;
    // whoever writes small pieces means them
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut finish = worker.finish();
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut server, COPIED, COPIED) => copied.map(drop),
        // an edge that ends waits for requests, and such a connection may have no end
        _ = finish.wait_for(|finish| *finish) => Ok(()),
    }
}

/// A client's packets on their way: the socket they leave by, and when one passed last, either way.
struct Session {
    socket: UdpSocket,
    upstream: SocketAddr,
    last: RefCell<Instant>,
}

type Sessions = Rc<RefCell<HashMap<SocketAddr, Rc<Session>>>>;

/// Passes packets of a published port on, until it is aborted.
pub(crate) async fn serve(worker: Rc<Worker>, key: String, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let sessions = Sessions::default();
    loop {
        if let Err(error) = socket.readable().await {
            warn!(key, %error, "packets to a published port cannot be received; pausing");
            sleep(ACCEPT_PAUSE).await;
            continue;
        }
        let Some(upstream) = worker.table().port(&key) else { continue };
        pass_all(&worker, &socket, &sessions, upstream);
    }
}

/// Not asynchronous, so that the buffer is on the stack and not part of each socket's idle task.
fn pass_all(worker: &Rc<Worker>, socket: &Rc<UdpSocket>, sessions: &Sessions, upstream: SocketAddr) {
    let mut buffer = [0; LONGEST_PACKET];
    while let Ok((length, client)) = socket.try_recv_from(&mut buffer) {
        let known = sessions.borrow().get(&client).filter(|session| session.upstream == upstream).cloned();
        // a packet for which there is no place or no socket is lost, as a network loses packets
        let _ = match known {
            Some(session) => {
                *session.last.borrow_mut() = Instant::now();
                session.socket.try_send(&buffer[..length]).map(drop)
            }
            None => begin(worker, socket, sessions, (client, upstream), &buffer[..length]),
        };
    }
}

/// A session for a client, with its first packet sent: a socket that the runtime does not know yet can be written to.
fn begin(
    worker: &Rc<Worker>,
    socket: &Rc<UdpSocket>,
    sessions: &Sessions,
    (client, upstream): (SocketAddr, SocketAddr),
    packet: &[u8],
) -> io::Result<()> {
    let limits = &worker.shared.limits;
    if sessions.borrow().len() >= limits.udp_sessions {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    let outward = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    outward.connect(upstream)?;
    outward.set_nonblocking(true)?;
    outward.send(packet)?;
    let last = RefCell::new(Instant::now());
    let session = Rc::new(Session { socket: UdpSocket::from_std(outward)?, upstream, last });
    sessions.borrow_mut().insert(client, Rc::clone(&session));
    let (socket, idle) = (Rc::downgrade(socket), limits.udp_idle_timeout);
    let (held, sessions) = (session, Rc::downgrade(sessions));
    spawn_local(async move {
        loop {
            let due = *held.last.borrow() + idle;
            tokio::select! {
                readable = held.socket.readable() => if readable.is_err() { break },
                () = sleep_until(due) => {
                    if *held.last.borrow() + idle <= Instant::now() {
                        break;
                    }
                    continue;
                }
            }
            // the port is no longer published
            let Some(socket) = socket.upgrade() else { return };
            answer_all(&held, &socket, client);
        }
        if let Some(sessions) = sessions.upgrade() {
            let mut sessions = sessions.borrow_mut();
            // another one may have taken its place
            if sessions.get(&client).is_some_and(|there| Rc::ptr_eq(there, &held)) {
                sessions.remove(&client);
            }
        }
    });
    Ok(())
}

fn answer_all(session: &Session, socket: &UdpSocket, client: SocketAddr) {
    let mut buffer = [0; LONGEST_PACKET];
    // an error is the upstream's "no such port": the next packet may find it there
    while let Ok(length) = session.socket.try_recv(&mut buffer) {
        *session.last.borrow_mut() = Instant::now();
        let _ = socket.try_send_to(&buffer[..length], client);
    }
}
