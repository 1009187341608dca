//! An instance's network: opened once, wires servers, closed for good.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType};
use sampan_model::Instance;
use sampan_model::instance::{Block, SERVERS};
use sampan_sys::net::ethtool::has_carrier;
use sampan_sys::net::namespace::run_in;
use sampan_sys::net::netlink::{Message, NetlinkError, Protocol, Socket};
use sampan_sys::net::rtnetlink::{
    Route, Via, add_address, addresses, create_bridge, delete_group, delete_link, delete_route, destinations, link,
    link_up, links, no_ipv6_address, replace_route,
};

use crate::block::{PREFIX, Used, choose, of_gateway};
use crate::error::NetworkError;
use crate::firewall::{Claims, Firewall};
use crate::loopback;
use crate::wire::{Wire, Wired, group, name_service, settle};

/// An instance's network. It lives in the kernel: dropping this value leaves it as it is, and opening it again finds it
/// with its servers connected; [`Network::close`] removes it.
///
/// # The firewall
///
/// Servers reach the outside under the host's address, and the host itself: what listens there on all addresses answers
/// them, as it does containers of Docker's. Nothing but the host reaches a server: no other server (apps are apart),
/// nothing from outside. IPv6 is dropped.
///
/// # Threads
///
/// All methods block for as long as the kernel's one network lock (rtnl) is taken, some ten microseconds to a second while
/// hundreds of namespaces are removed. They may be called from any number of threads, in whatever network namespace.
pub struct Network {
    instance: Instance,
    block: Block,
    /// The network namespace that the network is in.
    home: OwnedFd,
    // one lock: what is done here is done under one lock of the kernel's as well (rtnl)
    route: Mutex<Socket>,
    firewall: Mutex<Firewall>,
}

impl Network {
    /// Opens the instance's network in the calling thread's network namespace, and makes it where there is none.
    ///
    /// The block is the one that the instance holds already, else `preferred`, else a free one. Blocks are passed over
    /// that other instances have, that routes lead to, or that hold an address of `avoid` (the host's name servers).
    ///
    /// # Errors
    /// [`NetworkError`]. A network that was not there before is not there then.
    pub fn open(instance: &Instance, preferred: Option<Block>, avoid: &[IpAddr]) -> Result<Self, NetworkError> {
        let mut route = Socket::open(Protocol::Route).map_err(NetworkError::Look)?;
        let mut firewall = Firewall::open(instance)?;
        let path = Path::new("/proc/thread-self/ns/net");
        let home = File::open(path).map_err(|source| NetworkError::Setting { path: path.into(), source })?;
        // the table is gone where somebody flushed the firewall; then the gateway still tells the block
        let held = held_block(&mut route, instance).map_err(NetworkError::Look)?;
        let claimed = firewall.claim(instance, |claims: &Claims| {
            if let Some(block) = claims.own.or(held) {
                return Ok(block);
            }
            let routes = destinations(&mut route).map_err(NetworkError::Look)?;
            let used = Used { routes: &routes, avoid, taken: &claims.others };
            choose(instance, preferred, used).ok_or(NetworkError::NoBlock)
        })?;
        let network = Self {
            instance: instance.clone(),
            block: claimed.block,
            home: home.into(),
            route: Mutex::new(route),
            firewall: Mutex::new(firewall),
        };
        match network.make_gateway() {
            Err(source) => {
                if claimed.is_new && held.is_none() {
                    // what is worth telling is the first failure
                    let _ = network.close();
                }
                Err(NetworkError::Gateway { interface: instance.gateway_interface(), source })
            }
            Ok(()) => Ok(network),
        }
    }

    /// The instance's block.
    pub fn block(&self) -> Block {
        self.block
    }

    /// The host's address in it, from which the host's connections to servers come.
    pub fn gateway(&self) -> Ipv4Addr {
        self.block.gateway()
    }

    /// Wires server `index` (0-based): its network namespace gets the interface `eth0` with its address, the way out,
    /// `lo`, and the name service's sockets. What held the index before is cut off.
    ///
    /// ```text
    /// sendto, recvfrom × 2   host     wire made · no IPv6 · switches · up · neighbour · route
    /// setns                  ┐        the thread is in the server's namespace
    /// socket, setsockopt × 2 │
    /// sendto, recvfrom × 2   │ inside lo up · no IPv6 · eth0 up · address · neighbour · default route
    /// socket, bind × 2 …     ┘        127.0.0.11:53
    /// ioctl                    host   the wire's end knows of the other: no first packet is lost
    /// ```
    ///
    /// # Errors
    /// [`NetworkError`]. The wire is not there then.
    pub fn attach(&self, index: u32, netns: BorrowedFd<'_>) -> Result<Wired, NetworkError> {
        if index >= SERVERS {
            return Err(NetworkError::Full { index });
        }
        let wire = Wire::new(&self.instance, self.block, index);
        let made = self.make_wire(&wire, netns).map_err(|source| NetworkError::Wire { index, source });
        let finished = made.and_then(|()| Self::finish_inside(&wire, index, netns));
        let wired = finished.and_then(|wired| match has_carrier(&self.route(), &wire.interface) {
            Ok(_) => Ok(wired),
            Err(source) => Err(NetworkError::Carrier { index, source }),
        });
        if wired.is_err() {
            // what is worth telling is the first failure
            let _ = self.detach(index);
        }
        wired
    }

    /// New sockets of the name service, UDP and TCP, for a server that is wired already: those that
    /// [`attach`](Self::attach) made are closed.
    ///
    /// # Errors
    /// [`NetworkError::Enter`], [`NetworkError::NameService`].
    pub fn name_service(&self, index: u32, netns: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), NetworkError> {
        run_in(netns, name_service)
            .map_err(|source| NetworkError::Enter { server: format!("server {index}"), source })?
            .map_err(|source| NetworkError::NameService { index, source })
    }

    /// Removes server `index`'s wire, where there is one. The kernel waits for some grace periods in it, 10–50 ms, without
    /// holding up anybody else.
    ///
    /// # Errors
    /// [`NetworkError::Unwire`].
    pub fn detach(&self, index: u32) -> Result<(), NetworkError> {
        let removal = delete_link(&self.instance.server_interface(index));
        unless(Errno::NODEV, self.remove(removal)).map_err(|source| NetworkError::Unwire { index, source })
    }

    /// Whether server `index` is wired. Waits for nothing.
    pub fn is_attached(&self, index: u32) -> bool {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
        // a process without a descriptor to spare finds out later
        socket.map_or(true, |socket| name_to_index(socket, &self.instance.server_interface(index)).is_ok())
    }

    /// The servers that are wired, by index.
    ///
    /// # Errors
    /// [`NetworkError::Look`].
    pub fn attached(&self) -> Result<Vec<u32>, NetworkError> {
        let prefix = self.instance.server_interface_prefix();
        let links = links(&mut self.route()).map_err(NetworkError::Look)?;
        let index = |name: &str| u32::from_str_radix(name.strip_prefix(&prefix)?, 16).ok();
        let mut indexes: Vec<_> = links.iter().filter_map(|link| index(&link.name)).collect();
        indexes.sort_unstable();
        Ok(indexes)
    }

    /// Makes an app that listens on 127.0.0.1:`port` only, in the network namespace of the server at `address`, answer
    /// at `address`:`port` as well, to the host alone. Lasts as long as the namespace. Nothing changes the second time.
    ///
    /// # Errors
    /// [`NetworkError::Enter`], [`NetworkError::Loopback`].
    pub fn reach_loopback(&self, netns: BorrowedFd<'_>, address: Ipv4Addr, port: u16) -> Result<(), NetworkError> {
        let gateway = self.gateway();
        run_in(netns, || loopback::redirect(gateway, port))
            .map_err(|source| NetworkError::Enter { server: address.to_string(), source })?
            .map_err(|source| NetworkError::Loopback { address, port, source })
    }

    /// Removes the network: wires, gateway, routes, the firewall table and with it the claim, and switches forwarding
    /// off where it was off before the first instance came. Goes on past what fails, and returns all of that: nothing,
    /// where nothing is left. May be called again.
    #[must_use = "what could not be removed is still there"]
    pub fn close(&self) -> Vec<NetworkError> {
        let mut failures = Vec::new();
        // all at once; then one by one, for the name of what could not be removed
        let _ = self.remove(delete_group(group(&self.instance)));
        match self.attached() {
            Ok(indexes) => failures.extend(indexes.into_iter().filter_map(|index| self.detach(index).err())),
            Err(error) => failures.push(error),
        }
        let interface = self.instance.gateway_interface();
        let removals = [(Errno::NODEV, delete_link(&interface)), (Errno::SRCH, delete_route(&self.unreachable()))];
        for (absent, removal) in removals {
            let removed = unless(absent, self.remove(removal));
            failures.extend(removed.err().map(|source| NetworkError::Gateway { interface: interface.clone(), source }));
        }
        // last: while the table is there, nobody else takes the block
        failures.extend(self.firewall().give_up(&self.instance).err());
        failures
    }

    fn make_gateway(&self) -> Result<(), NetlinkError> {
        let mut socket = self.route();
        let name = self.instance.gateway_interface();
        unless(Errno::EXIST, socket.all(&[create_bridge(&name)]))?;
        let index = link(&mut socket, &name)?.index;
        let messages = [
            no_ipv6_address(index),
            link_up(index),
            add_address(index, self.gateway(), 32),
            replace_route(&self.unreachable()),
        ];
        settle(&mut socket, &messages)
    }

    /// The route for what no server has.
    fn unreachable(&self) -> Route {
        Route { network: self.block.network(), prefix: PREFIX, via: Via::Unreachable, source: None }
    }

    /// Sends a removal on a socket of its own: removals wait long, and others' messages must not wait for them.
    fn remove(&self, removal: Message) -> Result<(), NetlinkError> {
        let socket = run_in(self.home.as_fd(), || Socket::open(Protocol::Route));
        socket.map_err(NetlinkError::Open)??.all(&[removal])
    }

    fn make_wire(&self, wire: &Wire, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let messages = wire.host_messages(netns);
        let first = settle(&mut self.route(), &messages);
        match first {
            // left behind by a server that is no more: its namespace is removed in the background, or held by a socket
            Err(error) if matches!(error.errno(), Some(Errno::EXIST | Errno::BUSY)) => {
                unless(Errno::NODEV, self.remove(delete_link(&wire.interface)))?;
                settle(&mut self.route(), &messages)
            }
            done => done,
        }
    }

    fn finish_inside(wire: &Wire, index: u32, netns: BorrowedFd<'_>) -> Result<Wired, NetworkError> {
        let finished = run_in(netns, || {
            Socket::open(Protocol::Route)
                .and_then(|mut socket| settle(&mut socket, &wire.inside_messages()))
                .map_err(|source| NetworkError::Wire { index, source })?;
            name_service().map_err(|source| NetworkError::NameService { index, source })
        });
        let entered = finished.map_err(|source| NetworkError::Enter { server: format!("server {index}"), source });
        let (dns_udp, dns_tcp) = entered??;
        Ok(Wired { address: wire.address, interface: wire.interface.clone(), dns_udp, dns_tcp })
    }

    // the sockets keep no state between two calls that a panic could have left half-done
    fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn firewall(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("instance", &self.instance).field("block", &self.block).finish_non_exhaustive()
    }
}

/// The block whose gateway the instance's gateway interface holds.
fn held_block(socket: &mut Socket, instance: &Instance) -> Result<Option<Block>, NetlinkError> {
    let index = match link(socket, &instance.gateway_interface()) {
        Ok(link) => link.index,
        Err(error) if error.errno() == Some(Errno::NODEV) => return Ok(None),
        Err(error) => return Err(error),
    };
    let block = |address| match address {
        IpAddr::V4(address) => of_gateway(address),
        IpAddr::V6(_) => None,
    };
    let held = addresses(socket)?.into_iter().filter(|address| address.index == index);
    Ok(held.filter_map(|held| block(held.address)).next())
}

/// An error that says that it is so already is none.
fn unless(already: Errno, result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(already) => Ok(()),
        other => other,
    }
}
