//! Who listens where: read from `/proc` (`proc_net_tcp`, `proc_pid_fd(5)`).

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::wire::NAME_SERVICE;

/// More listening sockets than this in one namespace are not looked at.
const MOST: usize = 1024;
/// The state LISTEN.
const LISTEN: &str = "0A";

/// A TCP socket that waits for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listening {
    /// The address; `0.0.0.0` or `::` for all.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

impl Listening {
    /// Whether it is reached at other addresses than the loopback ones.
    pub fn is_reachable(self) -> bool {
        !self.ip.to_canonical().is_loopback()
    }
}

/// Where TCP connections are waited for in the network namespace of a process, sorted, less our own name service. At
/// most 1,024 of each IP version are looked at.
///
/// # Errors
/// There is no such process, or what it says cannot be read.
pub fn of_process(pid: u32) -> io::Result<Vec<Listening>> {
    Ok(apps(sockets(&net_of(pid))?))
}

/// As [`of_process`], but only where one of these processes waits: others have the network namespace too. They are
/// looked at until all sockets are accounted for.
///
/// # Errors
/// None of these processes is there any more, or what they say cannot be read.
pub fn of_processes(pids: &[u32]) -> io::Result<Vec<Listening>> {
    let read = pids.iter().map(|pid| sockets(&net_of(*pid))).find(|read| !read.as_ref().is_err_and(is_gone));
    let mut others = read.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?;
    let mut own = Vec::new();
    for pid in pids {
        if others.is_empty() {
            break;
        }
        // a process may end while it is looked at
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for target in descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok()) {
            let found = others.iter().position(|socket| Path::new(&socket.link()) == target);
            own.extend(found.map(|at| others.swap_remove(at)));
        }
    }
    Ok(apps(own))
}

fn net_of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("net")
}

/// A process that has just ended has no network any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
}

fn apps(sockets: Vec<Socket>) -> Vec<Listening> {
    let found = sockets.into_iter().map(|socket| socket.listening);
    let mut found: Vec<_> =
        found.filter(|found| SocketAddr::new(found.ip, found.port) != SocketAddr::V4(NAME_SERVICE)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The process on this host (in the calling thread's network namespace) that listens on a TCP port: `nginx (pid 123)`.
/// Nothing where nobody does, or the caller may not see who.
pub fn who_has(port: u16) -> Option<String> {
    let sockets = sockets(Path::new("/proc/thread-self/net")).ok()?;
    let links: Vec<_> = sockets.into_iter().filter(|s| s.listening.port == port).map(|s| s.link()).collect();
    if links.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = |target: &Path| links.iter().any(|link| Path::new(link) == target);
        descriptors.find(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| holds(&target)))?;
        let command = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", command.trim_end()))
    })
}

struct Socket {
    listening: Listening,
    inode: u64,
}

impl Socket {
    /// What a descriptor of it is a link to.
    fn link(&self) -> String {
        format!("socket:[{}]", self.inode)
    }
}

/// The listening sockets of a `net` directory below a process.
fn sockets(net: &Path) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        let file = match File::open(net.join(name)) {
            // no IPv6
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "tcp6" => break,
            file => file?,
        };
        let most = found.len() + MOST;
        for line in BufReader::new(file).lines() {
            found.extend(read(&line?));
            if found.len() >= most {
                break;
            }
        }
    }
    Ok(found)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn read(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace();
    let (ip, port) = words.nth(1)?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    Some(Socket { listening: Listening { ip: address(ip)?, port: u16::from_str_radix(port, 16).ok()? }, inode })
}

/// Groups of 8 hex digits, each of which is 4 bytes of the address read as a number of this machine's.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip((0..32).step_by(8)) {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_are_read() {
        let check = |line: &str, expected: Option<(&str, u64)>| {
            let found = read(line).map(|s| (SocketAddr::new(s.listening.ip, s.listening.port).to_string(), s.inode));
            assert_eq!(found, expected.map(|(address, inode)| (address.to_owned(), inode)), "{line}");
        };
        check("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", None);
        let v4 = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1 0 100 0";
        check(v4, Some(("127.0.0.1:8080", 4242)));
        check(&v4.replace(" 0A ", " 01 "), None);
        let all = v4.replace("0100007F", "00000000000000000000000000000000");
        check(&all, Some(("[::]:8080", 4242)));
        let mapped = v4.replace("0100007F", "0000000000000000FFFF00000100007F");
        check(&mapped, Some(("[::ffff:127.0.0.1]:8080", 4242)));
        for broken in ["", "0:", "0: 7F:1", "0: 0100007F:1F90 0:0 0A", &v4.replace("0100007F", "0x00007F")] {
            check(broken, None);
        }
    }

    #[test]
    fn we_are_found_listening() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("address").port();
        let found = of_process(std::process::id()).expect("own sockets");
        let ours = Listening { ip: Ipv4Addr::LOCALHOST.into(), port };
        assert!(found.contains(&ours) && !ours.is_reachable(), "{found:?}");
        assert!(of_processes(&[u32::MAX, std::process::id()]).expect("own sockets").contains(&ours));
        assert!(of_processes(&[]).is_err());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("another process");
        assert!(!of_processes(&[other.id()]).expect("no sockets").contains(&ours), "it is not the other's");
        other.kill().and_then(|()| other.wait()).expect("its end");
        let who = who_has(port).expect("ourselves");
        assert!(who.ends_with(&format!("(pid {})", std::process::id())), "{who}");
        drop(listener);
        assert_eq!(who_has(port), None);
    }
}
