//! An edge, applications behind it, and a client that writes bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sampan_edge::{Control, EdgeError, Limits, run};
use sampan_model::{ContainerName, DnsSocket, EdgeStatus, EdgeTable, Label, RoutedService, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Edge {
    pub address: SocketAddr,
    pub controls: mpsc::Sender<Control>,
    pub status: watch::Receiver<EdgeStatus>,
    pub running: JoinHandle<Result<(), EdgeError>>,
    pub table: EdgeTable,
}

pub fn limits() -> Limits {
    Limits { threads: 2, ..Limits::default() }
}

impl Edge {
    pub async fn start(limits: Limits) -> Self {
        let (controls, told) = mpsc::channel(4);
        let (tell, status) = watch::channel(EdgeStatus::default());
        let running = tokio::spawn(run(told, limits, move |status| drop(tell.send_replace(status))));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let key = format!("http/{address}/0");
        let table = EdgeTable { http: vec![key.clone()], ..EdgeTable::default() };
        controls.send(Control::Sockets(vec![(key, OwnedFd::from(listener))])).await.unwrap();
        Self { address, controls, status, running, table }
    }

    /// An edge with one service, `web`.
    pub async fn before(upstreams: &[SocketAddr]) -> Self {
        let mut edge = Self::start(limits()).await;
        edge.route(&[("web", upstreams)]).await;
        edge
    }

    /// Sends a table with these services and waits until it is applied.
    pub async fn route(&mut self, services: &[(&str, &[SocketAddr])]) -> EdgeStatus {
        self.table.services = services
            .iter()
            .map(|(name, upstreams)| {
                let name = Label::parse(name).unwrap();
                let upstream = |(number, &address): (usize, _)| Upstream {
                    replica: ContainerName::of_replica(&name, u32::try_from(number).unwrap() + 1),
                    address,
                };
                RoutedService { upstreams: upstreams.iter().enumerate().map(upstream).collect(), name: name.clone() }
            })
            .collect();
        self.apply().await
    }

    pub async fn apply(&mut self) -> EdgeStatus {
        self.table.revision += 1;
        self.controls.send(Control::Table(self.table.clone())).await.unwrap();
        let revision = self.table.revision;
        self.until(|status| status.applied == revision).await
    }

    pub async fn until(&mut self, there: impl FnMut(&EdgeStatus) -> bool) -> EdgeStatus {
        timeout(PATIENCE, self.status.wait_for(there)).await.expect("the edge tells it").unwrap().clone()
    }

    pub async fn add_dns(&mut self, key: &str, tcp: bool, socket: OwnedFd) {
        self.table.dns.push(DnsSocket { key: key.to_owned(), tcp });
        self.controls.send(Control::Sockets(vec![(key.to_owned(), socket)])).await.unwrap();
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One exchange on a connection of its own; all that comes back.
    pub async fn say(&self, bytes: &str) -> String {
        let mut client = self.connect().await;
        client.write(bytes).await;
        client.rest().await
    }

    /// GET / of this host, on a connection of its own.
    pub async fn get(&self, host: &str) -> String {
        self.say(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }
}

/// A client that writes what it is told and reads what comes.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let so_far = String::from_utf8_lossy(&self.read);
            match read {
                Ok(Ok(1..)) => {}
                read => panic!("{end:?} did not come ({read:?}), but {so_far:?}"),
            }
        }
    }

    /// A whole response with a Content-Length: head and body.
    pub async fn response(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        while self.read.len() < length {
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "the body is cut off: {head}");
        }
        let rest = self.read.split_off(length);
        (head, String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap())
    }

    /// Everything until the edge closes.
    pub async fn rest(&mut self) -> String {
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        let text = String::from_utf8_lossy(&self.read).into_owned();
        // a reset after the answer is a close too
        assert!(read.is_ok(), "not closed; so far: {text}");
        text
    }
}

pub type Answer = Response<BoxBody<Bytes, hyper::Error>>;

pub fn answer(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}

/// An application on hyper.
pub struct App {
    pub address: SocketAddr,
    /// How many connections were made to it.
    pub connections: Arc<AtomicUsize>,
    /// How many requests it got.
    pub requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl App {
    pub async fn start<F>(serve: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Answer> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let (connected, requested) = (Arc::clone(&connections), Arc::clone(&requests));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connected.fetch_add(1, Ordering::SeqCst);
                let (serve, requested) = (serve.clone(), Arc::clone(&requested));
                let service = service_fn(move |request| {
                    requested.fetch_add(1, Ordering::SeqCst);
                    let answer = serve(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { address, connections, requests, accepting }
    }

    /// One that answers its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { answer(name) }).await
    }

    /// One that answers with the request's head and body as it got them, the header lines sorted.
    pub async fn mirror() -> Self {
        Self::start(|request| async {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap();
            let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
            let lines = head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
            text.extend(lines.collect::<std::collections::BTreeSet<_>>());
            for (name, value) in body.trailers().into_iter().flatten() {
                text += &format!("trailer {name}: {}\n", value.to_str().unwrap());
            }
            text += std::str::from_utf8(&body.to_bytes()).unwrap();
            answer(text)
        })
        .await
    }

    /// Stops it, and waits until it accepts nothing more.
    pub async fn stop(&self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An application made of bytes: `serve` gets each connection with its number.
pub async fn raw_app<F>(serve: impl Fn(Client, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(Client { stream, read: Vec::new() }, number));
        }
    });
    address
}

/// An address where nobody listens: bound for as long as the tests run, so that no other test gets it.
pub fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}
