//! Whether a replica is ready, and at which port: the one health prober.
//!
//! The port is the one given, else the image's declared one, else what the process listens on: `PORT`'s, else the
//! lowest that answers HTTP. A service that requests are not routed to has none to look for: it is ready when it has run
//! for a moment. There is no event for "a process began to listen", so it is looked at again and again,
//! soon at first and every 100 ms at the latest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use sampan_container::{ContainerRecord, Containers, Listening};
use sampan_model::ContainerId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::record::ReadyRecord;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a replica without a port has to run until it is taken for one that goes on running: most that cannot, for
/// want of a variable, a file or a database, end before.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// What to look for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: ContainerId,
    pub(crate) address: Ipv4Addr,
    pub(crate) started_at: Option<Timestamp>,
    /// The host name to ask for.
    pub(crate) host: String,
    pub(crate) port: Wanted,
    /// The path that must answer 2xx or 3xx; any HTTP answer to `/` will do where there is none.
    pub(crate) path: Option<String>,
}

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This one, and why.
    Fixed(u16, &'static str),
    /// Any, but rather the one that the app was told to use.
    Any {
        /// The value of `PORT`.
        told: u16,
    },
}

/// Looks until the replica is ready; never ends where it never is. `waiting` is told what is waited for, each time
/// that changes.
pub(crate) async fn until_ready(
    containers: &Containers,
    target: &Target,
    mut waiting: impl FnMut(String),
) -> ReadyRecord {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        match look(containers, target).await {
            Ok(ready) => return ready,
            Err(missing) if missing != said => {
                waiting(missing.clone());
                said = missing;
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until a replica that has no port has run for a moment. Its end is for others to notice.
pub(crate) async fn until_steady(record: &ContainerRecord, mut waiting: impl FnMut(String)) -> ReadyRecord {
    waiting("it to have run for a moment".to_owned());
    let started_at = record.state.started_at;
    // a clock that was set back meanwhile is no reason to wait longer
    let since = started_at.and_then(|at| Duration::try_from(at.duration_until(Timestamp::now())).ok());
    tokio::time::sleep(STEADY_AFTER.saturating_sub(since.unwrap_or_default())).await;
    let address = SocketAddr::new(IpAddr::V4(record.address), 0);
    ReadyRecord { address, port_source: "nothing is routed to it".to_owned(), started_at }
}

/// One look: ready, or what is missing, for people.
async fn look(containers: &Containers, target: &Target) -> Result<ReadyRecord, String> {
    let listening = containers.listening(&target.id).await.unwrap_or_default();
    let candidates = candidates(&listening, target.port);
    let mut missing = match target.port {
        Wanted::Fixed(port, _) if listening.is_empty() => format!("port {port} to be listened on"),
        Wanted::Fixed(port, _) if candidates.is_empty() => {
            format!("port {port} to be listened on (the app listens on {})", ports(&listening))
        }
        Wanted::Any { told } if listening.is_empty() => {
            format!("the app to listen on a port (PORT={told} is set for it)")
        }
        _ => String::new(),
    };
    for (port, reach) in candidates {
        match reach {
            Reach::Direct => {}
            Reach::Loopback => {
                if let Err(error) = containers.reach_loopback(&target.id, port).await {
                    return Err(format!("a way to port {port}, which the app opened on 127.0.0.1 only ({error})"));
                }
            }
            Reach::Never => {
                missing = format!(
                    "port {port} on IPv4: the app opened it on [::1] only; let it listen on 0.0.0.0 or 127.0.0.1"
                );
                continue;
            }
        }
        let address = SocketAddr::new(IpAddr::V4(target.address), port);
        let path = target.path.as_deref().unwrap_or("/");
        match answer(address, &target.host, path).await {
            Some(status) if target.path.is_none() || (200..400).contains(&status) => {
                let port_source = match target.port {
                    Wanted::Fixed(_, why) => why,
                    Wanted::Any { told } if told == port => "the app listens on it, as PORT says",
                    Wanted::Any { .. } => "the app listens on it",
                };
                let started_at = target.started_at;
                return Ok(ReadyRecord { address, port_source: port_source.to_owned(), started_at });
            }
            Some(status) => missing = format!("{path} on port {port} to answer 2xx or 3xx (it answers {status})"),
            None => missing = format!("port {port} to answer HTTP"),
        }
    }
    Err(missing)
}

/// How a listening port can be reached from outside its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Direct,
    Loopback,
    Never,
}

/// The ports to try, in order, each in the best way there is.
fn candidates(listening: &[Listening], wanted: Wanted) -> Vec<(u16, Reach)> {
    let mut ports: Vec<(u16, Reach)> = listening.iter().map(|one| (one.port, reach(one.ip))).collect();
    ports.sort_unstable();
    ports.dedup_by_key(|(port, _)| *port);
    match wanted {
        Wanted::Fixed(only, _) => ports.retain(|(port, _)| *port == only),
        // stable: the one that the app was told to use first, the others by number
        Wanted::Any { told } => ports.sort_by_key(|(port, _)| *port != told),
    }
    ports
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => Reach::Loopback,
        IpAddr::V4(_) => Reach::Direct,
        // a wildcard IPv6 listener takes IPv4 as well unless it was told not to
        IpAddr::V6(v6) if v6.is_unspecified() || v6.to_ipv4_mapped().is_some_and(|v4| !v4.is_loopback()) => {
            Reach::Direct
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Reach::Loopback,
        IpAddr::V6(_) => Reach::Never,
    }
}

fn ports(listening: &[Listening]) -> String {
    let mut ports: Vec<u16> = listening.iter().map(|one| one.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// The status of the answer to one GET, where there is an HTTP answer.
async fn answer(address: SocketAddr, host: &str, path: &str) -> Option<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sampan-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        // "HTTP/1.1 200": no more than that of a stranger's answer is read here
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        status_of(&head)
    };
    tokio::time::timeout(ANSWER_WITHIN, exchange).await.ok().flatten()
}

fn status_of(head: &[u8; 12]) -> Option<u16> {
    let text = std::str::from_utf8(head).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?;
    status.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listening: &[&str], wanted: Wanted, expected: &[(u16, Reach)]) {
        let listening: Vec<Listening> = listening
            .iter()
            .map(|text| text.parse::<SocketAddr>().expect(text))
            .map(|address| Listening { ip: address.ip(), port: address.port() })
            .collect();
        assert_eq!(candidates(&listening, wanted), expected);
    }

    #[test]
    fn ports_are_tried_in_order() {
        use Reach::{Direct, Loopback, Never};
        let any = Wanted::Any { told: 8080 };
        check(
            &["0.0.0.0:9000", "0.0.0.0:8080", "0.0.0.0:3000"],
            any,
            &[(8080, Direct), (3000, Direct), (9000, Direct)],
        );
        check(&["[::]:80", "127.0.0.1:80"], any, &[(80, Direct)]);
        check(&["127.0.0.1:8080", "[::1]:8080"], any, &[(8080, Loopback)]);
        check(&["[::1]:8080"], any, &[(8080, Never)]);
        check(&["[::ffff:127.0.0.1]:81", "[::ffff:10.0.0.1]:82"], any, &[(81, Loopback), (82, Direct)]);
        check(&["0.0.0.0:9000", "0.0.0.0:80"], Wanted::Fixed(80, "given"), &[(80, Direct)]);
        check(&["0.0.0.0:9000"], Wanted::Fixed(80, "given"), &[]);
    }

    #[test]
    fn only_http_is_an_answer() {
        for (head, status) in [
            (b"HTTP/1.1 200", Some(200)),
            (b"HTTP/1.0 404", Some(404)),
            (b"HTTP/1.1 999", None),
            (b"SSH-2.0-Open", None),
            (b"HTTP/1.1 2\xff0", None),
        ] {
            assert_eq!(status_of(head), status);
        }
    }
}
