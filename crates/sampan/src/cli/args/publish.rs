//! Docker's notation of published ports: `[IP:][HOST:]CONTAINER[/udp]`, single ports or ranges of one length.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use sampan_model::{Protocol, PublishedPort};

const RULE: &str = "use [IP:][HOST:]CONTAINER[/udp], such as 8080:80, 127.0.0.1:8080:80 or [::1]:5353:53/udp";
/// The most ports that one word may publish.
const MOST: usize = 1024;

/// What one `-p` publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published(pub Vec<PublishedPort>);

/// Reads one `-p`.
pub(super) fn parse_published(text: &str) -> Result<Published, String> {
    let (ports, protocol) = match text.rsplit_once('/') {
        None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp; {RULE}")),
    };
    let (host_ip, ports) = split_ip(ports)?;
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (host, container),
        None => ("", ports),
    };
    let container = range(container)?;
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    let count = container.clone().count();
    if count > MOST {
        return Err(format!("{count} ports are more than the {MOST} that may be published at once"));
    }
    if let Some(host) = &host
        && host.clone().count() != count
    {
        return Err(format!("{} ports of the host are not {count} ports inside", host.clone().count()));
    }
    let mut host = host.into_iter().flatten();
    let publish =
        |container_port| PublishedPort { host_ip, host_port: host.next().unwrap_or(0), container_port, protocol };
    Ok(Published(container.map(publish).collect()))
}

/// `127.0.0.1:rest`, `[::1]:rest`, or no address.
fn split_ip(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    let (ip, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:").ok_or(RULE)?,
        None if text.matches(':').count() < 2 => return Ok((None, text)),
        // more of them, and which is the address's would be a guess
        None if text.matches(':').count() > 2 => {
            return Err(format!("put an address with colons in brackets, such as [::1]; {RULE}"));
        }
        None => text.split_once(':').ok_or(RULE)?,
    };
    let ip = ip.parse().map_err(|_| format!("{ip:?} is no address; {RULE}"))?;
    Ok((Some(ip), rest))
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is no port; {RULE}")),
    };
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let range = port(first)?..=port(last)?;
            if range.is_empty() { Err(format!("{text:?} ends before it begins")) } else { Ok(range) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [
            ("80", "localhost:0->80/tcp"),
            ("8080:80", "localhost:8080->80/tcp"),
            (":80", "localhost:0->80/tcp"),
            ("53:53/udp", "localhost:53->53/udp"),
            ("8080:80/tcp", "localhost:8080->80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("0.0.0.0::80", "0.0.0.0:0->80/tcp"),
            ("[::1]:8080:80/udp", "[::1]:8080->80/udp"),
            ("[::]:80", "[::]:0->80/tcp"),
            ("8000-8001:80-81", "localhost:8000->80/tcp localhost:8001->81/tcp"),
            ("80-81", "localhost:0->80/tcp localhost:0->81/tcp"),
        ] {
            let Published(ports) = parse_published(text).unwrap();
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            assert_eq!(ports.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port() {
        for (text, says) in [
            ("", "is no port"),
            ("http", "\"http\" is no port"),
            ("0", "\"0\" is no port"),
            ("70000:80", "\"70000\" is no port"),
            ("80/sctp", "neither tcp nor udp"),
            ("8000-8002:80-81", "3 ports of the host are not 2"),
            ("81-80", "ends before it begins"),
            ("1-60000", "more than the 1024"),
            ("::1:8080:80", "[::1]"),
            ("localhost:8080:80", "is no address"),
            ("[::1", "use [IP:]"),
        ] {
            let error = parse_published(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
