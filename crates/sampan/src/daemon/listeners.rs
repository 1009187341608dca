//! The sockets that the daemon opens: the API's for itself, HTTP's for the edge.
//!
//! The edge has a runtime for each core, each with listening sockets of its own (SO_REUSEPORT), so there are as many of
//! one address as there are cores. The first is bound without SO_REUSEPORT, which is set afterwards: else a second
//! Sampan would share the port in silence instead of finding it taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use sampan_client::Listen;
use sampan_model::view::ErrorView;
use sampan_network::listening::who_has;
use sampan_store::{Durability, Records};

use super::layout::Layout;

/// The variable in which a restarting daemon hands its API socket to the next one.
pub const NATIVE_FD: &str = "SAMPAN_NATIVE_FD";

const HTTP: &str = "default/daemon/http";
const DEFAULT_PORT: u16 = 8080;
/// How many ports after the default one are tried.
const NEXT_PORTS: u16 = 100;
/// Connections that may wait in a listening socket's queue.
const QUEUE: i32 = 4096;

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("port {} cannot be listened on: {}", .address.port(), reason(.who.as_deref(), .source))]
pub struct ListenError {
    address: SocketAddr,
    who: Option<String>,
    #[source]
    source: Errno,
}

fn reason(who: Option<&str>, source: &Errno) -> String {
    who.map_or_else(|| source.to_string(), |who| format!("it is taken by {who}"))
}

impl ListenError {
    fn new(address: SocketAddr, source: Errno) -> Self {
        let who = (source == Errno::ADDRINUSE)
            .then(|| who_has(address.port()).unwrap_or_else(|| "another process".to_owned()));
        Self { address, who, source }
    }

    /// As the command line shows it.
    pub fn view(&self) -> ErrorView {
        let taken = self.who.is_some();
        ErrorView {
            code: if taken { "port_taken" } else { "cannot_listen" }.to_owned(),
            message: self.to_string(),
            hint: Some(if taken {
                "choose another with --http PORT, or --http 0 for a free one".to_owned()
            } else {
                format!("is {} an address of this machine?", self.address.ip())
            }),
        }
    }
}

/// The API's socket: the one that a restarting daemon left, else a new one.
pub fn native(layout: &Layout) -> anyhow::Result<UnixListener> {
    let left = std::env::var(NATIVE_FD).ok().and_then(|number| number.parse().ok());
    if let Some(fd) = left.and_then(|number| sampan_sys::process::inherited(number).ok())
        && sockopt::socket_acceptconn(&fd) == Ok(true)
    {
        return Ok(UnixListener::from(fd));
    }
    let path = layout.run_dir.join("sampan.sock");
    // whoever left it is dead: the lock is ours
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", path.display()));
        }
        _ => {}
    }
    let directory = std::fs::File::open(&layout.run_dir).context("open the run directory")?;
    // through the directory's descriptor: a socket's path ends at 107 bytes, a root's need not
    use std::os::fd::AsRawFd as _;
    let short = format!("/proc/self/fd/{}/sampan.sock", directory.as_raw_fd());
    UnixListener::bind(short).with_context(|| format!("listen on {}", path.display()))
}

/// Where HTTP is served.
pub struct Http {
    /// The addresses, the first one in URLs.
    pub addresses: Vec<SocketAddr>,
    /// The keys of all their sockets.
    pub keys: Vec<String>,
    /// The sockets that the supervisor does not hold yet.
    pub sockets: Vec<(String, OwnedFd)>,
    /// What could not be listened on, and was not asked for.
    pub warnings: Vec<String>,
}

/// The sockets that the supervisor holds where they are the ones wanted, else new ones: what was asked for, else what
/// there was before, else the default port or the next free one.
pub fn http(records: &Records, held: &[String], asked: Option<Listen>) -> anyhow::Result<Http> {
    let before: Vec<SocketAddr> = records.get(HTTP)?.map(|record| record.value).unwrap_or_default();
    let held: Vec<String> = held.iter().filter(|key| key.starts_with("http/")).cloned().collect();
    let is_wanted = match asked {
        None => true,
        Some(Listen::Port(0)) => true,
        Some(Listen::Port(port)) => before.iter().all(|address| address.port() == port && address.ip().is_loopback()),
        Some(Listen::Address(address)) => before == [address],
    };
    if !held.is_empty() && !before.is_empty() && is_wanted {
        return Ok(Http { addresses: before, keys: held, sockets: Vec::new(), warnings: Vec::new() });
    }
    let http = match asked {
        Some(Listen::Address(address)) => open(&[address])?,
        Some(Listen::Port(port)) => open_loopback(port)?,
        None => open_default(before.first().map(SocketAddr::port))?,
    };
    records.put(HTTP, &http.addresses, Durability::Intent)?;
    Ok(http)
}

fn open_default(before: Option<u16>) -> Result<Http, ListenError> {
    let ports = before.into_iter().chain(DEFAULT_PORT..=DEFAULT_PORT + NEXT_PORTS);
    let mut first_error = None;
    for port in ports {
        match open_loopback(port) {
            Ok(mut http) => {
                if let Some(ListenError { who: Some(who), .. }) = &first_error {
                    http.warnings.push(format!("port {DEFAULT_PORT} is taken by {who}; services are on {port}"));
                }
                return Ok(http);
            }
            Err(error) if error.source == Errno::ADDRINUSE => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    open_loopback(0)
}

/// One port of 127.0.0.1 and of ::1; the latter is left out where it cannot be had.
fn open_loopback(port: u16) -> Result<Http, ListenError> {
    let mut http = open(&[SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)])?;
    let port = http.addresses[0].port();
    match open(&[SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)]) {
        Ok(v6) => {
            http.addresses.extend(v6.addresses);
            http.keys.extend(v6.keys);
            http.sockets.extend(v6.sockets);
        }
        Err(error) => http.warnings.push(format!("services are on 127.0.0.1 only: on [::1], {error}")),
    }
    Ok(http)
}

fn open(addresses: &[SocketAddr]) -> Result<Http, ListenError> {
    let mut http = Http { addresses: Vec::new(), keys: Vec::new(), sockets: Vec::new(), warnings: Vec::new() };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    for &asked in addresses {
        let failed = |source| ListenError::new(asked, source);
        let first = bound(asked, Share::WithLater).map_err(failed)?;
        let name = rustix::net::getsockname(&first).map_err(failed)?;
        let address = SocketAddr::try_from(name).map_err(failed)?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(bound(address, Share::WithEarlier).map_err(failed)?);
        }
        for (number, socket) in sockets.into_iter().enumerate() {
            listen(&socket, QUEUE).map_err(failed)?;
            let key = format!("http/{address}/{number}");
            http.keys.push(key.clone());
            http.sockets.push((key, socket));
        }
        http.addresses.push(address);
    }
    Ok(http)
}

/// With whom a socket shares its port.
#[derive(PartialEq, Eq)]
enum Share {
    WithEarlier,
    WithLater,
}

fn bound(address: SocketAddr, share: Share) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if share == Share::WithEarlier {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &address)?;
    if share == Share::WithLater {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_among_our_sockets_and_with_no_other_sampan() {
        let ours = open_loopback(0).expect("a free port");
        assert!(ours.sockets.len() >= std::thread::available_parallelism().expect("cores").get());
        let port = ours.addresses[0].port();
        let error = open_loopback(port).err().expect("the port is taken");
        assert_eq!(error.view().code, "port_taken");
        assert!(error.to_string().contains(&format!("port {port}")), "{error}");
    }
}
