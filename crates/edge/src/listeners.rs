//! Which thread listens on which socket. A pure function of the keys: see [`assign`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use sampan_model::{EdgeTable, Protocol};

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1, on a listening TCP socket.
    Http,
    /// DNS, on a UDP socket.
    DnsUdp,
    /// DNS, on a listening TCP socket.
    DnsTcp,
    /// Whatever it is, on a listening TCP socket of a published port.
    PortTcp,
    /// Whatever it is, on a UDP socket of a published port.
    PortUdp,
}

/// A socket's part: what is spoken on it, and the threads that do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// What is spoken.
    pub(crate) speaks: Speaks,
    /// Indices of the threads.
    pub(crate) threads: Vec<usize>,
}

/// Gives every key of `table` for which `held` says that its socket is there to its threads.
///
/// The keys of HTTP sockets are `http/ADDRESS/N`. Where several sockets share an address (`SO_REUSEPORT`, one for each
/// core), the kernel spreads connections over them and each gets one thread; a lone socket is accepted from by all
/// threads, and so is a published TCP port's. Each socket of the name service and each published UDP port has one thread, by
/// its key's hash, so that it stays where it is when others come and go.
pub(crate) fn assign(table: &EdgeTable, held: impl Fn(&str) -> bool, threads: usize) -> BTreeMap<String, Part> {
    let mut parts = BTreeMap::new();
    let mut by_address: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for key in table.http.iter().filter(|key| held(key)) {
        let address = key.rsplit_once('/').map_or(key.as_str(), |(address, _)| address);
        by_address.entry(address).or_default().push(key);
    }
    for keys in by_address.into_values() {
        let lone = keys.len() == 1;
        for (index, key) in keys.into_iter().enumerate() {
            let threads = if lone { (0..threads).collect() } else { vec![index % threads] };
            parts.insert(key.clone(), Part { speaks: Speaks::Http, threads });
        }
    }
    for socket in table.dns.iter().filter(|socket| held(&socket.key)) {
        let speaks = if socket.tcp { Speaks::DnsTcp } else { Speaks::DnsUdp };
        parts.insert(socket.key.clone(), Part { speaks, threads: vec![one_of(threads, &socket.key)] });
    }
    for port in table.ports.iter().filter(|port| held(&port.key)) {
        let part = match port.protocol {
            Protocol::Tcp => Part { speaks: Speaks::PortTcp, threads: (0..threads).collect() },
            // one alone: a client's packets are all to meet its session
            Protocol::Udp => Part { speaks: Speaks::PortUdp, threads: vec![one_of(threads, &port.key)] },
        };
        parts.insert(port.key.clone(), part);
    }
    parts
}

fn one_of(threads: usize, key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % threads as u64).expect("less than a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], held: &[&str], threads: usize, expected: &[(&str, &[usize])]) {
        let table = EdgeTable { http: keys.iter().map(ToString::to_string).collect(), ..EdgeTable::default() };
        let parts = assign(&table, |key| held.contains(&key), threads);
        let parts: Vec<_> = parts.iter().map(|(key, part)| (key.as_str(), part.threads.as_slice())).collect();
        assert_eq!(parts, expected, "{keys:?} on {threads} threads, held {held:?}");
    }

    #[test]
    fn sockets_are_spread_over_the_threads() {
        let (a0, a1, b0) = ("http/127.0.0.1:80/0", "http/127.0.0.1:80/1", "http/[::1]:80/0");
        check(&[a0, a1], &[a0, a1], 2, &[(a0, &[0]), (a1, &[1])]);
        check(&[a0, a1], &[a0, a1], 1, &[(a0, &[0]), (a1, &[0])]);
        check(&[a0, a1], &[a0], 2, &[(a0, &[0, 1])]);
        check(&[a0, b0], &[a0, b0], 2, &[(a0, &[0, 1]), (b0, &[0, 1])]);
        check(&[a0], &[], 2, &[]);
    }
}
