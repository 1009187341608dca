//! The host's side of published ports: sockets, opened here and served by the edge.
//!
//! A published port is a listening socket like any other program's. No firewall rule is made for it, so whatever the
//! user's own rules (ufw's, firewalld's, a cloud's) say of incoming connections holds for it too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use sampan_model::{Protocol, PublishedPort};

use crate::listening::who_has;

/// Connections that may wait in a socket's queue.
const QUEUE: i32 = 4096;
/// How often another free port is tried where the first of two addresses chose one that the second has not free.
const TRIES: usize = 32;
/// Below this only root may listen, unless the machine says otherwise.
const PRIVILEGED: u16 = 1024;

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("port {} of {} cannot be published: {}", .address.port(), .address.ip(), reason(.who.as_deref(), .source))]
pub struct PublishError {
    /// The address.
    pub address: SocketAddr,
    /// Who has it, where somebody does.
    pub who: Option<String>,
    /// The kernel's error.
    #[source]
    pub source: io::Error,
}

fn reason(who: Option<&str>, source: &io::Error) -> String {
    match (who, source.kind()) {
        (Some(who), _) => format!("it is taken by {who}"),
        (None, io::ErrorKind::AddrInUse) => "it is taken by another process".to_owned(),
        (None, io::ErrorKind::AddrNotAvailable) => "that is no address of this machine".to_owned(),
        (None, _) => source.to_string(),
    }
}

/// The addresses of the host that a port is reached at: those of the loopback unless one was asked for.
pub fn addresses(port: &PublishedPort) -> Vec<SocketAddr> {
    match port.host_ip {
        Some(ip) => vec![SocketAddr::new(ip, port.host_port)],
        None => [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|ip| SocketAddr::new(ip, port.host_port))
            .to_vec(),
    }
}

/// Opens the sockets of a published port, each at its address. With port 0 they share a free one.
///
/// # Errors
/// An address is taken, is not this machine's, or may not be had.
pub fn open(port: &PublishedPort) -> Result<Vec<(SocketAddr, OwnedFd)>, PublishError> {
    let mut tries = 0;
    loop {
        match open_once(port) {
            Err(error) if port.host_port == 0 && error.source.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {
                tries += 1;
            }
            result => return result,
        }
    }
}

fn open_once(port: &PublishedPort) -> Result<Vec<(SocketAddr, OwnedFd)>, PublishError> {
    let mut opened: Vec<(SocketAddr, OwnedFd)> = Vec::new();
    for mut address in addresses(port) {
        if let Some((first, _)) = opened.first() {
            address.set_port(first.port());
        }
        match open_at(address, port.protocol) {
            Ok(socket) => opened.push(socket),
            // a machine without IPv6 has no ::1, and nobody asked for it
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if port.host_ip.is_none() && !opened.is_empty() => {}
            Err(errno) => {
                let tcp = errno == Errno::ADDRINUSE && port.protocol == Protocol::Tcp;
                let who = tcp.then(|| who_has(address.port())).flatten();
                return Err(PublishError { address, who, source: errno.into() });
            }
        }
    }
    Ok(opened)
}

fn open_at(address: SocketAddr, protocol: Protocol) -> Result<(SocketAddr, OwnedFd), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if protocol == Protocol::Tcp {
        // connections of before that linger are in nobody's way; with UDP this would share the port
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        // the other family may be somebody else's
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, QUEUE)?;
    }
    let bound = getsockname(&socket).and_then(|name| SocketAddr::try_from(name).map_err(|_| Errno::INVAL))?;
    Ok((bound, socket))
}

/// The lowest port that users other than root may listen on.
pub fn first_unprivileged() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(PRIVILEGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: Option<IpAddr>, host_port: u16, protocol: Protocol) -> PublishedPort {
        PublishedPort { host_ip, host_port, container_port: 80, protocol }
    }

    #[test]
    fn a_free_port_is_the_same_on_both_loopback_addresses() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let opened = open(&port(None, 0, protocol)).unwrap();
            let chosen = opened[0].0.port();
            assert_ne!(chosen, 0);
            let at: Vec<_> = opened.iter().map(|(address, _)| *address).collect();
            let expected = addresses(&port(None, chosen, protocol));
            assert_eq!(at, expected, "{protocol}");

            let taken = open(&port(None, chosen, protocol)).unwrap_err();
            assert!(
                taken
                    .to_string()
                    .starts_with(&format!("port {chosen} of 127.0.0.1 cannot be published: it is taken by ")),
                "{taken}"
            );
            drop(opened);
            drop(open(&port(None, chosen, protocol)).expect("free again"));
        }
    }

    #[test]
    fn only_addresses_of_this_machine_are_listened_on() {
        let error = open(&port(Some(IpAddr::from([192, 0, 2, 1])), 0, Protocol::Tcp)).unwrap_err();
        assert!(error.to_string().contains("no address of this machine"), "{error}");
    }
}
