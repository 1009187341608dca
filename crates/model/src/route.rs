//! What the edge knows: one immutable table, replaced whole. And what it says of itself, replaced whole too.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::port::Protocol;
use crate::{ContainerName, Label};

/// Everything the edge needs to know. A table of a higher revision replaces the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeTable {
    /// Grows with every table.
    pub revision: u64,
    /// Keys of the listening sockets to serve HTTP on. Sockets are handed over beside the table, each under its key;
    /// one whose key is in no list any more is closed.
    pub http: Vec<String>,
    /// The name service's sockets.
    pub dns: Vec<DnsSocket>,
    /// Where other names are asked: the machine's resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// Every service.
    pub services: Vec<RoutedService>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<ForwardedPort>,
}

/// A published port: what arrives at a socket goes to a container, and its answers come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedPort {
    /// The socket's key: a listening TCP socket or a bound UDP one.
    pub key: String,
    /// Which of them.
    pub protocol: Protocol,
    /// The container's address and port.
    pub upstream: SocketAddr,
}

/// A socket of the name service: bound to 127.0.0.11:53 inside one server's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSocket {
    /// The socket's key.
    pub key: String,
    /// Whether it is a listening TCP socket; else UDP.
    pub tcp: bool,
}

/// One service: its host name is `NAME.localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedService {
    /// Its name.
    pub name: Label,
    /// Its ready replicas. None: requests are answered 503.
    pub upstreams: Vec<Upstream>,
}

/// A ready replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The replica's container.
    pub replica: ContainerName,
    /// Where it answers HTTP.
    pub address: SocketAddr,
}

/// What the edge says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// The revision of the table it serves by.
    pub applied: u64,
    /// Requests and upgraded connections under way, by upstream address; an address without any is absent.
    pub in_flight: BTreeMap<SocketAddr, u64>,
}
