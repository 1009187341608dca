//! A container's published ports: opened before its start, so that a taken one is known at once, served by the edge
//! once it runs, closed when it ends.
//!
//! The sockets are the supervisor's and the edge's to hold: a new daemon finds them there by their keys.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_model::{ContainerId, ForwardedPort, Owner, PublishedPort};
use sampan_network::published::{self, PublishError};

use crate::containers::{Container, Inner};
use crate::{ContainerError, ContainerRecord};

/// How long an address that was ours a moment ago is waited for, and how often it is looked at: the edge closes its
/// sockets when it comes to it.
const CLOSING: Duration = Duration::from_secs(2);
const CLOSING_LOOK: Duration = Duration::from_millis(10);

/// The most ports of one container.
const MOST: usize = 1000;

/// Ports that are open, and not served yet.
pub(crate) struct Opened {
    /// As they were asked for, with the port that was chosen where any would do.
    pub(crate) ports: Vec<PublishedPort>,
    sockets: Vec<(ForwardedPort, OwnedFd)>,
}

/// The keys of a container's ports begin with this.
pub(crate) fn prefix(id: &ContainerId) -> String {
    format!("port/{}/", id.short())
}

fn forwarded(record: &ContainerRecord, port: &PublishedPort, address: SocketAddr) -> ForwardedPort {
    ForwardedPort {
        key: format!("{}{}/{address}", prefix(&record.id), port.protocol),
        protocol: port.protocol,
        upstream: SocketAddr::from((record.address, port.container_port)),
    }
}

impl Inner {
    /// Whether these ports may be asked for by their owner.
    pub(crate) fn check_ports(&self, owner: u32, ports: &[PublishedPort]) -> Result<(), ContainerError> {
        if ports.len() > MOST {
            return Err(ContainerError::TooManyPorts { asked: ports.len(), most: MOST });
        }
        if owner == 0 || ports.is_empty() {
            return Ok(());
        }
        let first = published::first_unprivileged();
        let low = ports.iter().find(|port| (1..first).contains(&port.host_port));
        match low {
            Some(port) => Err(ContainerError::PrivilegedPort { port: port.host_port, first }),
            None => Ok(()),
        }
    }

    /// Opens the ports of a container that is about to start.
    pub(crate) fn open_ports(&self, record: &ContainerRecord) -> Result<Opened, ContainerError> {
        let mut opened = Opened { ports: record.spec.ports.clone(), sockets: Vec::new() };
        self.promise_sockets(record)
            .map_err(|most| ContainerError::NoSocketsLeft { asked: record.spec.ports.len(), most })?;
        for port in &mut opened.ports {
            let sockets = self.open_port(&record.spec.owner, port)?;
            if let Some((address, _)) = sockets.first() {
                port.host_port = address.port();
            }
            let forwarded = sockets.into_iter().map(|(address, socket)| (forwarded(record, port, address), socket));
            opened.sockets.extend(forwarded);
        }
        Ok(opened)
    }

    fn promise_sockets(&self, record: &ContainerRecord) -> Result<(), usize> {
        let sockets: usize = record.spec.ports.iter().map(|port| published::addresses(port).len()).sum();
        if sockets == 0 {
            return Ok(());
        }
        self.foundation.edge.promise(&record.id, record.spec.owner.uid, sockets)
    }

    fn open_port(&self, asker: &Owner, port: &PublishedPort) -> Result<Vec<(SocketAddr, OwnedFd)>, ContainerError> {
        let deadline = Instant::now() + CLOSING;
        loop {
            match published::open(port) {
                Err(error) if self.foundation.edge.was_published(error.address) && Instant::now() < deadline => {
                    std::thread::sleep(CLOSING_LOOK);
                }
                result => return result.map_err(|error| self.taken(asker, error)),
            }
        }
    }

    /// Says which container has it, where it is one of ours; of another user's no more than that.
    fn taken(&self, asker: &Owner, error: PublishError) -> ContainerError {
        let PublishError { address, who, source } = error;
        let ours = self.all().into_iter().map(|container| container.record()).find(|record| {
            let has = |port: &PublishedPort| {
                published::addresses(port).iter().any(|at| {
                    at.port() == address.port()
                        && (at.ip() == address.ip() || at.ip().is_unspecified() || address.ip().is_unspecified())
                })
            };
            record.state.pid.is_some() && record.spec.ports.iter().any(has)
        });
        let words = |record: Arc<ContainerRecord>| match asker.may_touch(&record.spec.owner) {
            true => format!("container {:?}", record.spec.name.as_str()),
            false => "another user's container".to_owned(),
        };
        let who = ours.map(words).or(who);
        ContainerError::Publish(PublishError { address, who, source })
    }

    /// Has opened ports served.
    pub(crate) fn publish(&self, opened: Opened) {
        if !opened.sockets.is_empty() {
            self.foundation.edge.publish(opened.sockets.into_iter().map(|(port, socket)| (port, Some(socket))));
        }
    }

    /// Goes on with the ports of a running container; where their sockets went with a supervisor, new ones are made.
    pub(crate) fn adopt_ports(&self, container: &Container, held: &[String]) {
        let record = container.record();
        let held: HashSet<&str> = held.iter().map(String::as_str).collect();
        if self.promise_sockets(&record).is_err() {
            tracing::warn!(id = %container.id, "more sockets are published than there may be");
        }
        for port in &record.spec.ports {
            let wanted = published::addresses(port).into_iter().map(|address| forwarded(&record, port, address));
            let there: Vec<_> = wanted.filter(|port| held.contains(port.key.as_str())).collect();
            if !there.is_empty() {
                self.foundation.edge.publish(there.into_iter().map(|port| (port, None)));
                continue;
            }
            match published::open(port) {
                Ok(sockets) => {
                    let sockets = sockets.into_iter().map(|(at, socket)| (forwarded(&record, port, at), Some(socket)));
                    self.foundation.edge.publish(sockets);
                }
                Err(error) => tracing::warn!(id = %container.id, %error, "a published port is not reached any more"),
            }
        }
    }
}
