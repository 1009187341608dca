//! A server's wire: its names, addresses and numbers, and the messages that make it.
//!
//! Everything about it follows from the block and the server's index, the interface's index in the host too, so that
//! one system call can make the interface and say all that there is to say about it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sampan_model::Instance;
use sampan_model::instance::Block;
use sampan_sys::net::netlink::{Message, NetlinkError, Socket};
use sampan_sys::net::rtnetlink::{
    Ipv4Switch, LOOPBACK, Mac, Route, Veth, Via, add_address, create_veth, link_up, no_ipv6_address, replace_route,
    set_ipv4, set_neighbour,
};

/// The server's end.
pub(crate) const INSIDE: &str = "eth0";
/// Its index: above those of the fallback interfaces (`tunl0`, `sit0`…) that some kernels put into every namespace.
pub(crate) const INSIDE_INDEX: u32 = 100;
/// Where servers ask for names.
pub(crate) const NAME_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// A server's place in the network.
#[derive(Debug)]
pub struct Wired {
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's end of its wire.
    pub interface: String,
    /// 127.0.0.11:53 in its network namespace: bound, non-blocking.
    pub dns_udp: OwnedFd,
    /// The same for TCP: listening, non-blocking.
    pub dns_tcp: OwnedFd,
}

/// What a wire is to be.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub interface: String,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub group: u32,
}

/// The group that the host's ends of all wires of an instance are in: its tag.
pub(crate) fn group(instance: &Instance) -> u32 {
    u32::from_str_radix(instance.tag(), 16).expect("a tag is 8 hex digits")
}

impl Wire {
    pub fn new(instance: &Instance, block: Block, index: u32) -> Self {
        Self {
            interface: instance.server_interface(index),
            address: block.server_address(index),
            gateway: block.gateway(),
            group: group(instance),
        }
    }

    /// The host end's index: the address as a number, some 180 million, far above those that the kernel counts up.
    fn host_index(&self) -> u32 {
        u32::from(self.address)
    }

    /// Locally administered, and one for each end of each address.
    fn mac(&self, end: u8) -> Mac {
        let [a, b, c, d] = self.address.octets();
        [0x02, end, a, b, c, d]
    }

    fn host_mac(&self) -> Mac {
        self.mac(0x01)
    }

    fn inside_mac(&self) -> Mac {
        self.mac(0x02)
    }

    /// Makes the wire and the host's end.
    pub fn host_messages(&self, netns: BorrowedFd<'_>) -> [Message; 6] {
        let index = self.host_index();
        let veth = Veth {
            name: &self.interface,
            index,
            mac: self.host_mac(),
            group: self.group,
            peer_name: INSIDE,
            peer_index: INSIDE_INDEX,
            peer_mac: self.inside_mac(),
            peer_netns: netns,
        };
        // strict reverse paths: a server cannot send under another's address
        let switches = [
            (Ipv4Switch::Forwarding, 1),
            (Ipv4Switch::RpFilter, 1),
            (Ipv4Switch::ProxyArp, 0),
            (Ipv4Switch::AcceptRedirects, 0),
            (Ipv4Switch::SendRedirects, 0),
            (Ipv4Switch::RouteLocalnet, 0),
        ];
        let route = Route { network: self.address, prefix: 32, via: Via::Interface(index), source: Some(self.gateway) };
        [
            create_veth(&veth),
            no_ipv6_address(index),
            set_ipv4(index, &switches),
            link_up(index),
            set_neighbour(index, self.address, self.inside_mac()),
            replace_route(&route),
        ]
    }

    /// Makes the server's end.
    pub fn inside_messages(&self) -> [Message; 6] {
        let everywhere = Route {
            network: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            via: Via::Gateway(self.gateway, INSIDE_INDEX),
            source: None,
        };
        [
            link_up(LOOPBACK),
            no_ipv6_address(INSIDE_INDEX),
            link_up(INSIDE_INDEX),
            add_address(INSIDE_INDEX, self.address, 32),
            set_neighbour(INSIDE_INDEX, self.gateway, self.host_mac()),
            replace_route(&everywhere),
        ]
    }
}

/// Sends messages of which those about IPv6 may be refused where there is none.
pub(crate) fn settle(socket: &mut Socket, messages: &[Message]) -> Result<(), NetlinkError> {
    let no_ipv6 = |error: &NetlinkError| error.errno() == Some(Errno::AFNOSUPPORT);
    let refused = |answer: &Result<(), NetlinkError>| answer.as_ref().is_err_and(|error| !no_ipv6(error));
    socket.each(messages)?.into_iter().find(refused).unwrap_or(Ok(()))
}

/// The name service's sockets of the network namespace that the calling thread is in. Its `lo` is up.
pub(crate) fn name_service() -> io::Result<(OwnedFd, OwnedFd)> {
    let udp = UdpSocket::bind(NAME_SERVICE)?;
    udp.set_nonblocking(true)?;
    // std sets SO_REUSEADDR on listeners
    let tcp = TcpListener::bind(NAME_SERVICE)?;
    tcp.set_nonblocking(true)?;
    Ok((udp.into(), tcp.into()))
}
