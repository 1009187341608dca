//! What can go wrong with a network.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sampan_model::instance::{BLOCKS, SERVERS};
use sampan_sys::net::netlink::NetlinkError;

/// Why a network, or a server's place in it, could not be made or removed. Reads on from "failed to".
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The state of the network could not be read.
    #[error("look at the host's network")]
    Look(#[source] NetlinkError),
    /// No block of addresses is free.
    #[error(
        "claim addresses: each of the {BLOCKS} blocks of 10.192.0.0/10 is used by a route, a name server or another \
         Sampan; `ip route` shows the routes"
    )]
    NoBlock,
    /// Others change the firewall all the time.
    #[error("change the firewall: other programs changed it {attempts} times in between; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The firewall refused the change.
    #[error("set up the firewall table {table}; `sampan doctor` says what this kernel lacks")]
    Firewall {
        /// The table.
        table: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// The gateway could not be made or removed.
    #[error("set up the gateway {interface}")]
    Gateway {
        /// Its interface.
        interface: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// A kernel setting could not be read or written.
    #[error("use the kernel setting {}", path.display())]
    Setting {
        /// Its file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no address for such a server.
    #[error("wire server {index}: a network has room for {SERVERS}")]
    Full {
        /// Its index.
        index: u32,
    },
    /// A server could not be wired.
    #[error("wire server {index}")]
    Wire {
        /// Its index.
        index: u32,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// The host's end of a server's wire is gone again.
    #[error("find the wire of server {index} connected")]
    Carrier {
        /// Its index.
        index: u32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A server's network namespace could not be entered.
    #[error("enter the network namespace of {server}")]
    Enter {
        /// The server, by index or address.
        server: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The name service's sockets could not be made.
    #[error("listen on 127.0.0.11:53 of server {index}")]
    NameService {
        /// Its index.
        index: u32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A server's wire could not be removed.
    #[error("unwire server {index}")]
    Unwire {
        /// Its index.
        index: u32,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// What listens on 127.0.0.1 only could not be made reachable.
    #[error("reach port {port} of 127.0.0.1 on server {address}")]
    Loopback {
        /// The server's address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
}
