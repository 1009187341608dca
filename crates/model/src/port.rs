//! Published ports: ports of a container that are reached from outside.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// The address of the host that it is reached at. `None`: the loopback's, 127.0.0.1 and ::1, which other machines do
    /// not reach.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// The port of the host; 0: a free one, chosen when the container is created and kept from then on.
    #[serde(default)]
    pub host_port: u16,
    /// The port inside.
    pub container_port: u16,
    /// TCP unless given.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for PublishedPort {
    /// As `docker ps` has it: `127.0.0.1:8080->80/tcp`; without an address: `localhost:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => write!(f, "localhost:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
        }
        write!(f, "{}->{}/{}", self.host_port, self.container_port, self.protocol)
    }
}
