//! What is asked of a new container, made complete.

use sampan_container::Containers;
use sampan_model::view::ContainerCreate;
use sampan_model::{ContainerName, ContainerSpec, Protocol, PublishedPort, signal};

use crate::{ApiError, Caller};

impl Caller {
    /// The spec of a container that they ask for. Blocks.
    pub(crate) fn spec_of(&self, containers: &Containers, asked: ContainerCreate) -> Result<ContainerSpec, ApiError> {
        let images = containers.images().of(&self.owner());
        let image = images.resolve(&asked.image)?;
        let name = match asked.name {
            Some(name) => name,
            None => made_up_name()?,
        };
        let stop_signal = asked.stop_signal.as_deref().map(signal::parse).transpose();
        let stop_signal = stop_signal.map_err(|error| ApiError::bad_request(error.to_string()))?;
        if let Some(server) = &asked.server {
            self.own_server(containers, server)?;
        }
        let mut ports = asked.ports;
        if asked.publish_all {
            let declared = images.image(&image)?;
            ports.extend(declared.config.exposed_ports.iter().filter_map(|port| on_a_free_port(port)));
        }
        let new = ContainerSpec::new(name, image, asked.image);
        Ok(ContainerSpec {
            host_name: asked.host_name.unwrap_or_else(|| new.host_name.clone()),
            size: asked.size,
            owner: self.owner(),
            server: asked.server,
            entrypoint: asked.entrypoint,
            command: asked.command,
            env: asked.env,
            user: asked.user,
            working_dir: asked.working_dir,
            labels: asked.labels,
            mounts: asked.mounts,
            ports,
            read_only: asked.read_only,
            confinement: asked.confinement,
            stdin: asked.stdin,
            terminal: asked.terminal,
            init: asked.init,
            runtime: asked.runtime,
            restart: asked.restart,
            stop_signal,
            disk: asked.disk,
            remove_at_exit: asked.remove_at_exit,
            ..new
        })
    }
}

/// A port as an image declares it, `80` or `53/udp`, published on a port that is free.
fn on_a_free_port(declared: &str) -> Option<PublishedPort> {
    let (number, protocol) = match declared.split_once('/') {
        None | Some((_, "tcp")) => (declared.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((number, "udp")) => (number, Protocol::Udp),
        // what images declare and nothing here carries
        Some(_) => return None,
    };
    let container_port = number.parse().ok().filter(|&port| port > 0)?;
    Some(PublishedPort { host_ip: None, host_port: 0, container_port, protocol })
}

/// A name for a container that was given none.
fn made_up_name() -> Result<ContainerName, ApiError> {
    const FIRST: [&str; 16] = [
        "amber", "brisk", "calm", "dusty", "early", "fair", "green", "hazy", "idle", "jolly", "keen", "lucid", "merry",
        "noble", "quiet", "rapid",
    ];
    const SECOND: [&str; 16] = [
        "anchor", "beacon", "cargo", "delta", "estuary", "ferry", "gull", "harbour", "island", "junk", "keel",
        "lagoon", "mast", "oar", "pier", "rudder",
    ];
    let mut bytes = [0; 8];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    read.map_err(|error| ApiError::bad_request(format!("no random bytes: {error}")))?;
    let pick = |words: &[&'static str; 16], byte: u8| words[usize::from(byte % 16)];
    let number = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]) % 1_000_000;
    let name = format!("{}_{}_{number}", pick(&FIRST, bytes[0]), pick(&SECOND, bytes[1]));
    ContainerName::parse(&name).map_err(|error| ApiError::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_ports() {
        for (declared, expected) in [
            ("80", Some("localhost:0->80/tcp")),
            ("443/tcp", Some("localhost:0->443/tcp")),
            ("53/udp", Some("localhost:0->53/udp")),
            ("9/sctp", None),
            ("0", None),
            ("http", None),
        ] {
            let port = on_a_free_port(declared).map(|port| port.to_string());
            assert_eq!(port.as_deref(), expected, "{declared}");
        }
    }
}
