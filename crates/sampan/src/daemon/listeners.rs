//! The sockets on which services are reached over HTTP: opened here, or handed over by systemd; accepted from by the edge.
//!
//! The edge has a runtime for each core, each with listening sockets of its own (SO_REUSEPORT), so there are as many of
//! one address as there are cores. The first is bound without SO_REUSEPORT, which is set afterwards: else a second
//! Sampan would share the port in silence instead of finding it taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use sampan_client::Listen;
use sampan_model::view::ErrorView;
use sampan_network::listening::who_has;
use sampan_store::{Durability, Records};
use serde::{Deserialize, Serialize};

const HTTP: &str = "default/daemon/http";
const DEFAULT_PORT: u16 = 8080;
/// How many ports after the default one are tried.
const NEXT_PORTS: u16 = 100;
/// How long an address that was ours is waited for, and how often it is looked at meanwhile.
const DYING_EDGE: Duration = Duration::from_secs(2);
const DYING_EDGE_LOOK: Duration = Duration::from_millis(20);
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

/// What was asked for and where that led to, from one daemon to the next.
///
/// ```json
/// {"asked": "8080", "addresses": ["127.0.0.1:8080", "[::1]:8080"]}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
struct Chosen {
    /// As a [`Listen`] is written; nothing where it was never asked for.
    asked: Option<String>,
    addresses: Vec<SocketAddr>,
}

/// How it has been stored.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Now {
        #[serde(default)]
        asked: Option<String>,
        addresses: Vec<SocketAddr>,
    },
    /// The addresses alone, until November 2026.
    Addresses(Vec<SocketAddr>),
}

impl From<Stored> for Chosen {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Now { asked, addresses } => Self { asked, addresses },
            Stored::Addresses(addresses) => {
                // one that the world can reach is never chosen, only asked for
                let open = addresses.iter().find(|address| !address.ip().is_loopback());
                Self { asked: open.map(ToString::to_string), addresses }
            }
        }
    }
}

/// Where to listen, and on which sockets: what is asked for; without that what systemd listens on for us; without that
/// what was asked for before, exactly; and where it never was, the port there was before, else the default one, else the
/// next free one. A socket that the supervisor holds is used again. Blocks, for up to 2 s where an address of ours is
/// not free yet.
///
/// # Errors
/// [`ListenError`] where an address that was asked for, now or before, cannot be listened on; or the records fail.
pub fn http(records: &Records, held: &[String], asked: Option<Listen>, passed: &[OwnedFd]) -> anyhow::Result<Http> {
    if asked.is_none() && !passed.is_empty() {
        // nothing is remembered: the unit says it anew each time
        return lent(held, passed);
    }
    let before: Option<Chosen> = records.get(HTTP)?.map(|record| record.value);
    let (earlier, addresses) = before.clone().map_or((None, Vec::new()), |before| (before.asked, before.addresses));
    let asked = asked.or_else(|| earlier.and_then(|text| text.parse().ok()));
    let port_before = addresses.first().map(SocketAddr::port);
    let opener = Opener { held, before: &addresses };
    let http = match asked {
        Some(Listen::Address(address)) => opener.open(address)?,
        Some(Listen::Port(0)) => opener.first_free(port_before.into_iter().chain([0]))?,
        Some(Listen::Port(port)) => opener.open_loopback(port)?,
        None => {
            let defaults = (DEFAULT_PORT..=DEFAULT_PORT + NEXT_PORTS).filter(|port| Some(*port) != port_before);
            opener.first_free(port_before.into_iter().chain(defaults).chain([0]))?
        }
    };
    let chosen = Chosen { asked: asked.map(|asked| asked.to_string()), addresses: http.addresses.clone() };
    if before.as_ref() != Some(&chosen) {
        records.put(HTTP, &chosen, Durability::Intent)?;
    }
    Ok(http)
}

/// systemd's sockets: one an address, from which every thread of the edge accepts. Those that the supervisor holds since
/// an earlier daemon are the same ones.
fn lent(held: &[String], passed: &[OwnedFd]) -> anyhow::Result<Http> {
    let mut http = Http { addresses: Vec::new(), keys: Vec::new(), sockets: Vec::new(), warnings: Vec::new() };
    for socket in passed {
        let address = rustix::net::getsockname(socket).and_then(SocketAddr::try_from);
        let address = address.context("look at the socket that systemd listens on for services")?;
        rustix::io::ioctl_fionbio(socket, true).context("use the socket that systemd listens on for services")?;
        let key = format!("http/{address}/0");
        http.addresses.push(address);
        http.keys.push(key.clone());
        if !held.contains(&key) {
            http.sockets
                .push((key, socket.try_clone().context("use the socket that systemd listens on for services")?));
        }
    }
    Ok(http)
}

/// Opens what is not open already.
struct Opener<'a> {
    /// The keys of the sockets that the supervisor holds.
    held: &'a [String],
    /// Where it was listened before.
    before: &'a [SocketAddr],
}

impl Opener<'_> {
    /// The first of these ports that is free, with a warning where it is not the first one.
    fn first_free(&self, ports: impl Iterator<Item = u16>) -> Result<Http, ListenError> {
        let mut first_error = None;
        for port in ports {
            match self.open_loopback(port) {
                Ok(mut http) => {
                    if let Some(ListenError { address, who: Some(who), .. }) = &first_error {
                        let (wanted, port) = (address.port(), http.addresses[0].port());
                        http.warnings.push(format!("port {wanted} is taken by {who}; services are on {port}"));
                    }
                    return Ok(http);
                }
                Err(error) if error.source == Errno::ADDRINUSE => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.expect("there is a port to try, and any other error has been returned"))
    }

    /// One port of 127.0.0.1 and of ::1; the latter is left out where it cannot be had.
    fn open_loopback(&self, port: u16) -> Result<Http, ListenError> {
        let mut http = self.open(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))?;
        let port = http.addresses[0].port();
        match self.open(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)) {
            Ok(v6) => {
                http.addresses.extend(v6.addresses);
                http.keys.extend(v6.keys);
                http.sockets.extend(v6.sockets);
            }
            Err(error) => http.warnings.push(format!("services are on 127.0.0.1 only: on [::1], {error}")),
        }
        Ok(http)
    }

    /// One address: the sockets that are held, else new ones. One that was ours before may be held by an edge that is
    /// about to end, which nothing tells of: it is tried for a while.
    fn open(&self, address: SocketAddr) -> Result<Http, ListenError> {
        let prefix = format!("http/{address}/");
        let keys: Vec<_> = self.held.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
        if !keys.is_empty() {
            return Ok(Http { addresses: vec![address], keys, sockets: Vec::new(), warnings: Vec::new() });
        }
        let end = Instant::now() + DYING_EDGE;
        loop {
            match open(address) {
                Err(Errno::ADDRINUSE) if self.before.contains(&address) && Instant::now() < end => {
                    std::thread::sleep(DYING_EDGE_LOOK);
                }
                opened => return opened.map_err(|source| ListenError::new(address, source)),
            }
        }
    }
}

/// New sockets on one address, one for each core.
fn open(address: SocketAddr) -> Result<Http, Errno> {
    let first = bound(address, Share::WithLater)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&first)?)?;
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let mut http = Http { addresses: vec![address], keys: Vec::new(), sockets: Vec::new(), warnings: Vec::new() };
    let later = (1..count).map(|_| bound(address, Share::WithEarlier));
    for (number, socket) in std::iter::once(Ok(first)).chain(later).enumerate() {
        let socket = socket?;
        listen(&socket, QUEUE)?;
        let key = format!("http/{address}/{number}");
        http.keys.push(key.clone());
        http.sockets.push((key, socket));
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

    const NOTHING: Opener<'static> = Opener { held: &[], before: &[] };

    #[test]
    fn a_port_is_shared_among_our_sockets_and_with_no_other_sampan() {
        let ours = NOTHING.open_loopback(0).expect("a free port");
        assert!(ours.sockets.len() >= std::thread::available_parallelism().expect("cores").get());
        let port = ours.addresses[0].port();
        let error = NOTHING.open_loopback(port).err().expect("the port is taken");
        assert_eq!(error.view().code, "port_taken");
        assert!(error.to_string().contains(&format!("port {port}")), "{error}");
    }

    fn records() -> (tempfile::TempDir, Records) {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("records.db")).unwrap();
        (dir, records)
    }

    #[test]
    fn what_was_asked_for_is_asked_for_again() {
        let (_dir, records) = records();
        // a fresh port each: what `http` lets go of is free for the next call
        let port = NOTHING.open_loopback(0).expect("a free port").addresses[0].port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let check = |held: &[&str], asked: Option<Listen>, expected: Result<u16, &str>, remembered: Option<&str>| {
            let held: Vec<_> = held.iter().map(|key| format!("http/{address}/{key}")).collect();
            match (http(&records, &held, asked, &[]), expected) {
                (Ok(http), Ok(expected)) => {
                    assert_eq!(http.addresses[0].port(), expected);
                    assert!(held.is_empty() || http.keys.starts_with(&held), "{:?}", http.keys);
                    assert!(!http.warnings.iter().any(|warning| warning.contains("taken")), "{:?}", http.warnings);
                }
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (result, expected) => panic!("{:?} and not {expected:?}", result.map(|http| http.addresses)),
            }
            let chosen: Chosen = records.get(HTTP).unwrap().unwrap().value;
            assert_eq!(chosen.asked.as_deref(), remembered);
        };
        let text = address.to_string();
        check(&[], Some(Listen::Address(address)), Ok(port), Some(&text));
        check(&[], None, Ok(port), Some(&text));
        check(&["0", "1"], None, Ok(port), Some(&text));
        let taken = NOTHING.open(address).expect("the port is free");
        check(&[], None, Err("taken by"), Some(&text));
        check(&["0"], Some(Listen::Port(port)), Ok(port), Some(&port.to_string()));
        drop(taken);
        // any free one: the one there was
        check(&[], Some(Listen::Port(0)), Ok(port), Some("0"));
        check(&[], None, Ok(port), Some("0"));
    }

    #[test]
    fn what_systemd_listens_on_is_used_and_not_remembered() {
        let (_dir, records) = records();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let key = format!("http/{address}/0");
        let passed = [OwnedFd::from(listener)];
        let fresh = http(&records, &[], None, &passed).unwrap();
        assert_eq!((fresh.addresses, &fresh.keys, fresh.sockets.len()), (vec![address], &vec![key.clone()], 1));
        let held = http(&records, std::slice::from_ref(&key), None, &passed).unwrap();
        assert_eq!((&held.keys, held.sockets.len()), (&vec![key], 0));
        assert!(records.get::<Chosen>(HTTP).unwrap().is_none());
        // whoever asks for another place gets it
        let asked = http(&records, &[], Some(Listen::Port(0)), &passed).unwrap();
        assert!(!asked.addresses.contains(&address), "{:?}", asked.addresses);
    }

    #[test]
    fn what_was_never_asked_for_moves_with_a_word() {
        let (_dir, records) = records();
        let taken = NOTHING.open_loopback(0).expect("a free port");
        records.put(HTTP, &taken.addresses, Durability::RunState).unwrap();
        let port = taken.addresses[0].port();
        let moved = http(&records, &[], None, &[]).expect("another port");
        assert_ne!(moved.addresses[0].port(), port);
        assert!(moved.warnings[0].starts_with(&format!("port {port} is taken by ")), "{:?}", moved.warnings);
        assert_eq!(records.get::<Chosen>(HTTP).unwrap().unwrap().value.asked, None);
    }

    #[test]
    fn a_dying_edge_is_waited_for() {
        let dying = NOTHING.open_loopback(0).expect("a free port");
        let addresses = dying.addresses.clone();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(5 * DYING_EDGE_LOOK);
            drop(dying);
        });
        let opened = Opener { held: &[], before: &addresses }.open_loopback(addresses[0].port()).expect("free again");
        assert_eq!(opened.addresses, addresses);
        ends.join().unwrap();
    }

    #[test]
    fn what_older_daemons_stored_is_read() {
        let check = |text: &str, asked: Option<&str>, addresses: &[&str]| {
            let chosen: Chosen = serde_json::from_str(text).unwrap();
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(chosen, Chosen { asked: asked.map(Into::into), addresses }, "{text}");
        };
        check(r#"["127.0.0.1:8080", "[::1]:8080"]"#, None, &["127.0.0.1:8080", "[::1]:8080"]);
        check(r#"["0.0.0.0:80"]"#, Some("0.0.0.0:80"), &["0.0.0.0:80"]);
        check(r#"{"addresses": ["[::1]:80"]}"#, None, &["[::1]:80"]);
        check(r#"{"asked": "0", "addresses": ["[::1]:80"]}"#, Some("0"), &["[::1]:80"]);
    }
}
