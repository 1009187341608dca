//! What systemd hands the daemon, and what the daemon tells systemd: `sd_listen_fds(3)` and `sd_notify(3)`, by hand.
//!
//! Sockets that are handed over stay systemd's: it listens on them while there is no daemon, and their files are its to
//! make and to remove. Where nothing was handed over and nobody wants to be told, all of this does nothing.
//!
//! The variables stay in this process's environment, which only [`super::restart`] hands on, without those that say what
//! is handed over ([`keep`]): the supervisor and its children are started with an empty one. The next daemon in this
//! process tells systemd at the same address.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with, sockopt};
use rustix::time::{ClockId, clock_gettime};

/// What [`take`] reads: pid, number and names of what is handed over.
const LISTEN_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The variable in which a restarting daemon hands services' sockets to the next one: their numbers, with commas.
const KEPT: &str = "SAMPAN_HTTP_FDS";
/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// The most that are looked at; the units of `sampan daemon install` hand over two kinds.
const MOST: i32 = 64;
/// The names of descriptors in those units (`FileDescriptorName=`).
pub const NATIVE: &str = "native";
/// As [`NATIVE`], for services' HTTP.
pub const HTTP: &str = "http";

/// The listening sockets that systemd opened for us.
#[derive(Debug, Default)]
pub struct Passed {
    /// The native API's.
    pub native: Option<OwnedFd>,
    /// Those on which services are reached.
    pub http: Vec<OwnedFd>,
}

/// Takes what was handed over to this very process, by systemd or by the daemon that it was before. To be called once,
/// before anything else is opened.
pub fn take() -> Passed {
    let [pid, count, names] = LISTEN_VARIABLES.map(|name| std::env::var(name).unwrap_or_default());
    let mut passed = Passed::default();
    let kept = std::env::var(KEPT).unwrap_or_default();
    for number in kept.split(',').filter_map(|number| number.parse().ok()) {
        passed.http.extend(sampan_sys::process::inherited(number).ok().filter(|socket| kind(HTTP, socket).is_some()));
    }
    for (number, name) in announced(&pid, &count, &names, std::process::id()) {
        let Ok(socket) = sampan_sys::process::inherited(number) else { continue };
        match kind(&name, &socket) {
            Some(Kind::Native) if passed.native.is_none() => passed.native = Some(socket),
            Some(Kind::Http) => passed.http.push(socket),
            // nobody can be told yet but standard error, which is the journal
            _ => eprintln!("sampan: systemd's socket {name:?} is none that the daemon listens on; it is closed"),
        }
    }
    passed
}

/// Leaves services' sockets open, under their numbers, to the daemon that this process becomes by `command`, and to
/// nobody by systemd's own variables: they are this daemon's.
pub fn keep(http: &[OwnedFd], command: &mut Command) {
    for variable in LISTEN_VARIABLES {
        command.env_remove(variable);
    }
    let kept = http.iter().filter(|socket| rustix::io::fcntl_setfd(socket, FdFlags::empty()).is_ok());
    let numbers: Vec<_> = kept.map(|socket| socket.as_raw_fd().to_string()).collect();
    command.env(KEPT, numbers.join(","));
}

/// The numbers and names of descriptors in the three variables, where they are meant for the process `own`.
fn announced(pid: &str, count: &str, names: &str, own: u32) -> Vec<(i32, String)> {
    if pid.parse() != Ok(own) {
        return Vec::new();
    }
    let count = count.parse::<i32>().unwrap_or(0).clamp(0, MOST);
    let mut names = names.split(':').map(str::to_owned);
    (FIRST..FIRST + count).map(|number| (number, names.next().unwrap_or_default())).collect()
}

/// What is served on a socket.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Native,
    Http,
}

/// What a socket is for: by its name where that is one of ours, else by its family (`systemd-socket-activate` and units
/// written by hand name none). `None` where it does not listen, or speaks of something else.
fn kind(name: &str, socket: &OwnedFd) -> Option<Kind> {
    if sockopt::socket_acceptconn(socket) != Ok(true) {
        return None;
    }
    let by_family = match sockopt::socket_domain(socket).ok()? {
        AddressFamily::UNIX => Kind::Native,
        AddressFamily::INET | AddressFamily::INET6 => Kind::Http,
        _ => return None,
    };
    let by_name = match name {
        NATIVE => Some(Kind::Native),
        HTTP => Some(Kind::Http),
        _ => None,
    };
    by_name.is_none_or(|named| named == by_family).then_some(by_family)
}

/// Whoever wants to be told how the daemon fares (`Type=notify`); nobody where it was started otherwise.
#[derive(Debug, Clone, Default)]
pub struct Notify(Option<OsString>);

impl Notify {
    /// The one that `NOTIFY_SOCKET` names.
    pub fn from_environment() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()))
    }

    /// The daemon listens, after its start or after [`reloading`](Self::reloading).
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={}", std::process::id(), one_line(status)));
    }

    /// The daemon is about to execute its binary anew.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=executing the binary anew"));
    }

    /// The daemon ends: apps first, which takes its time.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping every app");
    }

    /// One datagram. Where it cannot be sent nothing is lost but a word: systemd's own limits end a wait.
    fn tell(&self, text: &str) {
        let Some(address) = &self.0 else { return };
        let sent = unix_address(address).and_then(|address| {
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            sendto(&socket, text.as_bytes(), SendFlags::NOSIGNAL, &address)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, address = %address.display(), "systemd could not be told");
        }
    }
}

/// A path, or a name in the kernel's abstract space after an `@`.
fn unix_address(address: &OsString) -> rustix::io::Result<SocketAddrUnix> {
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(Path::new(address)),
    }
}

/// A status ends at its line's end.
fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn descriptors_are_taken_by_the_process_they_are_meant_for() {
        let check = |pid: &str, count: &str, names: &str, expected: &[(i32, &str)]| {
            let found = announced(pid, count, names, 7);
            let found: Vec<_> = found.iter().map(|(number, name)| (*number, name.as_str())).collect();
            assert_eq!(found, expected, "{pid} {count} {names}");
        };
        check("7", "2", "native:http", &[(3, "native"), (4, "http")]);
        check("7", "2", "", &[(3, ""), (4, "")]);
        check("8", "2", "native:http", &[]);
        check("", "", "", &[]);
        check("7", "-1", "", &[]);
        check("7", "many", "", &[]);
        assert_eq!(announced("7", "99999", "", 7).len(), MOST as usize);
    }

    #[test]
    fn sockets_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let unix = OwnedFd::from(UnixListener::bind(dir.path().join("s")).unwrap());
        let tcp = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let no_listener = OwnedFd::from(UnixDatagram::unbound().unwrap());
        let check = |name: &str, socket: &OwnedFd, expected| assert_eq!(kind(name, socket), expected, "{name}");
        check(NATIVE, &unix, Some(Kind::Native));
        check("unknown", &unix, Some(Kind::Native));
        check("", &tcp, Some(Kind::Http));
        check(HTTP, &unix, None);
        check(NATIVE, &tcp, None);
        check(NATIVE, &no_listener, None);
    }

    #[test]
    fn systemd_is_told_in_datagrams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("sampan-test-{}", std::process::id());
        let abstract_name = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name;
        let abstract_socket = UnixDatagram::bind_addr(&abstract_name(&name).unwrap()).unwrap();
        let sockets =
            [(UnixDatagram::bind(&path).unwrap(), path.into_os_string()), (abstract_socket, format!("@{name}").into())];
        for (socket, address) in sockets {
            let notify = Notify(Some(address));
            let heard = || {
                let mut bytes = [0; 4096];
                let length = socket.recv(&mut bytes).unwrap();
                String::from_utf8(bytes[..length].to_vec()).unwrap()
            };
            notify.ready("services at\nhttp://localhost:8080");
            let expected =
                format!("READY=1\nMAINPID={}\nSTATUS=services at; http://localhost:8080", std::process::id());
            assert_eq!(heard(), expected);
            notify.reloading();
            assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
            notify.stopping();
            assert!(heard().starts_with("STOPPING=1\n"));
        }
        // nobody is told, and nobody minds
        Notify(Some("/no/such/socket".into())).stopping();
        Notify::default().stopping();
    }
}
