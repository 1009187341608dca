//! A host out there: a network namespace of its own behind a wire, at an address for documentation (RFC 5737), so that
//! the way out of a container can be walked without asking a stranger.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use sampan_sys::net::namespace;
use sampan_sys::net::netlink::{Protocol, Socket};
use sampan_sys::net::rtnetlink::{LOOPBACK, Veth, add_address, create_veth, delete_link, link, link_up};

/// This machine's end of the wire.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The host out there.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// How many leading bits the two have in common.
const PREFIX: u8 = 30;
const CONNECTED_WITHIN: Duration = Duration::from_secs(2);

/// The host; gone with its wire when it is dropped. It knows no way but to this machine: what reaches it under
/// another address than [`NEAR`] gets no answer.
#[derive(Debug)]
pub struct Outside {
    name: String,
    netns: OwnedFd,
}

impl Outside {
    /// Makes it. There can be one at a time on a machine.
    ///
    /// # Panics
    /// Where we are not root, or there is one already.
    pub fn new() -> Self {
        let name = format!("out{:x}", std::process::id());
        let netns = namespace::fresh().expect("a network namespace");
        let mut socket = Socket::open(Protocol::Route).expect("a netlink socket");
        let veth = Veth {
            name: &name,
            // none has it: the kernel counts from 1
            index: 0x4f75_0000 | std::process::id() & 0xffff,
            mac: [2, 0, 198, 51, 100, 1],
            group: 0,
            peer_name: "eth0",
            peer_index: 2,
            peer_mac: [2, 0, 198, 51, 100, 2],
            peer_netns: netns.as_fd(),
        };
        socket.all(&[create_veth(&veth)]).expect("a wire");
        let outside = Self { name, netns };
        let near = link(&mut socket, &outside.name).expect("its near end").index;
        socket.all(&[add_address(near, NEAR, PREFIX), link_up(near)]).expect("an address for the near end");
        outside.inside(|| {
            let mut socket = Socket::open(Protocol::Route).expect("a netlink socket out there");
            socket
                .all(&[link_up(LOOPBACK), add_address(2, FAR, PREFIX), link_up(2)])
                .expect("an address for the far end");
        });
        outside
    }

    /// A listener out there, and where it is.
    ///
    /// # Panics
    /// Where there is no free port.
    pub fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = self.inside(|| TcpListener::bind((FAR, 0)).expect("a listener out there"));
        let address = listener.local_addr().expect("its address");
        (listener, address)
    }

    /// A connection from out there.
    ///
    /// # Errors
    /// Nobody accepts it.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&address, CONNECTED_WITHIN))
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        namespace::run_in(self.netns.as_fd(), work).expect("the namespace can be entered")
    }
}

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let mut socket = Socket::open(Protocol::Route).expect("a netlink socket");
        socket.all(&[delete_link(&self.name)]).expect("the wire can be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_reached_and_sees_who_asks() {
        let outside = Outside::new();
        let (listener, address) = outside.listen();
        let stream = TcpStream::connect(address).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from, stream.local_addr().unwrap());
        assert_eq!(from.ip(), NEAR);
    }
}
