//! The name service of every server, on sockets bound to 127.0.0.11:53 inside the servers' own network namespaces.
//!
//! Names below `localhost` and `internal` are ours and never leave the machine; all others are asked of the machine's
//! resolvers, whose answers are passed on as they came. There is no cache (resolvers have one) and no DNSSEC
//! validation. RFC 1035, RFC 6891 (EDNS), RFC 7766 (TCP).

mod ask;
mod question;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::warn;

use self::ask::Over;
use self::question::{Question, Verdict, judge};
use crate::limits::{ACCEPT_PAUSE, Limits};
use crate::worker::Worker;

/// The longest query that is read. A question is at most 259 bytes; the rest is room for EDNS options.
const QUERY_BYTES: usize = 4096;

/// What one thread's name service has open.
#[derive(Debug)]
pub(crate) struct Names {
    queries: Quota,
    connections: Quota,
}

impl Names {
    /// Nothing open.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { queries: Quota::new(limits.dns_queries), connections: Quota::new(limits.dns_connections) }
    }
}

/// Answers questions that come over UDP, until it is aborted.
pub(crate) async fn serve(worker: Rc<Worker>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    loop {
        let received = match socket.readable().await {
            Ok(()) => receive(&socket),
            Err(error) => Err(error),
        };
        match received {
            Ok((packet, from)) => match judge(&packet) {
                Verdict::Ignore => {}
                // Full buffers lose an answer as the network would; the client asks again.
                Verdict::Answer(answer) => drop(socket.try_send_to(&answer, from)),
                Verdict::Ask(question) => {
                    let (worker, socket) = (Rc::clone(&worker), Rc::clone(&socket));
                    let Some(place) = worker.names.queries.take() else {
                        drop(socket.try_send_to(&question.server_failure(), from));
                        continue;
                    };
                    spawn_local(async move {
                        let answer = resolve(&worker, &question, Over::Udp).await;
                        drop(place);
                        let _ = socket.send_to(&answer, from).await;
                    });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!(%error, "questions for names cannot be received; pausing");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One packet. Not asynchronous, so that the buffer is on the stack and not part of each socket's idle task.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; QUERY_BYTES];
    let (length, from) = socket.try_recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), from))
}

/// Accepts connections that questions come over, until it is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(place) = worker.names.connections.take() {
                    let worker = Rc::clone(&worker);
                    spawn_local(async move {
                        // Errors are the client's: it went away, was silent, or sent what is no question.
                        let _ = converse(&worker, stream).await;
                        drop(place);
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "connections to the name service cannot be accepted; pausing");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the questions of one connection, one after the other.
async fn converse(worker: &Rc<Worker>, mut stream: TcpStream) -> io::Result<()> {
    let idle = worker.shared.limits.dns_idle_timeout;
    loop {
        let packet = timeout(idle, read_message(&mut stream, QUERY_BYTES)).await??;
        let answer = match judge(&packet) {
            Verdict::Ignore => return Ok(()),
            Verdict::Answer(answer) => answer,
            Verdict::Ask(question) => match worker.names.queries.take() {
                Some(_place) => resolve(worker, &question, Over::Tcp).await,
                None => question.server_failure(),
            },
        };
        timeout(idle, write_message(&mut stream, &answer)).await??;
    }
}

async fn resolve(worker: &Worker, question: &Question, over: Over) -> Vec<u8> {
    let resolvers = worker.table().resolvers.clone();
    ask::ask(&resolvers, question, over, worker.shared.limits.dns_timeout)
        .await
        .unwrap_or_else(|| question.server_failure())
}

/// A message as TCP carries it: its length in two bytes, big-endian, before it.
async fn read_message(stream: &mut TcpStream, limit: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // one write, so that it is one segment
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// How many of something one thread may have open.
#[derive(Debug)]
struct Quota {
    open: Rc<Cell<usize>>,
    limit: usize,
}

/// One of them.
struct Share(Rc<Cell<usize>>);

impl Quota {
    fn new(limit: usize) -> Self {
        Self { open: Rc::default(), limit }
    }

    fn take(&self) -> Option<Share> {
        (self.open.get() < self.limit).then(|| {
            self.open.set(self.open.get() + 1);
            Share(Rc::clone(&self.open))
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
