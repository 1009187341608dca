//! Published ports: TCP and UDP, IPv4 and IPv6, from this machine; who has a port; what survives.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sampan_e2e::sampan::{SOON, listener};
use sampan_e2e::{Sampan, sources};
use sampan_testkit::{wait_for, wait_until};

/// A container that sends what comes to its port 7 back.
fn echo(sampan: &Sampan, name: &str, publish: &str) {
    sampan.ok(&["run", "-d", "--name", name, "-p", publish, "bb", "nc", "-ll", "-p", "7", "-e", "cat"]);
}

fn host_port(sampan: &Sampan, name: &str) -> u16 {
    let port = sampan.inspect(name)["ports"][0]["host_port"].as_u64().expect("a port");
    u16::try_from(port).expect("a port")
}

#[track_caller]
fn assert_echoes(address: SocketAddr) {
    let text = wait_for(&format!("an answer of {address}"), SOON, || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"over tcp\n").ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    });
    assert_eq!(text, "over tcp\n");
}

#[track_caller]
fn assert_echoes_packets(address: SocketAddr) {
    let any =
        if address.is_ipv4() { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { (Ipv6Addr::LOCALHOST, 0).into() };
    let text = wait_for(&format!("a packet of {address}"), SOON, || {
        let socket = UdpSocket::bind(any).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        socket.send_to(b"over udp\n", address).ok()?;
        let mut buffer = [0; 100];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, address, "the answer comes from where it was asked");
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(text, "over udp\n");
}

#[test]
fn over_tcp_and_udp_and_both_families() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    echo(&sampan, "echo", "7");
    let port = host_port(&sampan, "echo");
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        assert_echoes(SocketAddr::new(ip, port));
    }
    // an image that answers packets
    sampan.up(&sources::fixture("probe"), &[]);
    for (name, publish, ip) in
        [("four", "7/udp", Ipv4Addr::LOCALHOST.into()), ("six", "[::1]::7/udp", Ipv6Addr::LOCALHOST.into())]
    {
        sampan.ok(&["run", "-d", "--name", name, "-e", "PROBE_MODE=packets", "-p", publish, "probe"]);
        assert_echoes_packets(SocketAddr::new(ip, host_port(&sampan, name)));
    }
    let listed = sampan.ok(&["ps"]);
    assert!(listed.contains(&format!("localhost:{port}->7/tcp")), "{listed}");
}

#[test]
fn a_taken_port_names_who_has_it() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let (_listener, taken) = listener();
    let publish = format!("{taken}:7");
    let words = ["run", "-d", "--name", "late", "-p", &publish, "bb", "sleep", "1000"];
    sampan.run(&words).assert_fails(125, &[&taken.to_string(), "taken by", "-p"]);
    assert!(sampan.containers().is_empty(), "nothing of it is left");

    echo(&sampan, "first", "7");
    let publish = format!("{}:7", host_port(&sampan, "first"));
    let words = ["run", "-d", "--name", "second", "-p", &publish, "bb", "sleep", "1000"];
    sampan.run(&words).assert_fails(125, &["container \"first\""]);
    sampan.ok(&["rm", "-f", "first"]);
    sampan.ok(&words);
}

#[test]
fn a_port_stays_through_restarts_and_kills() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    echo(&sampan, "echo", "7");
    let port = host_port(&sampan, "echo");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_echoes(address);
    let mut open = TcpStream::connect(address).expect("a connection");
    for role in ["daemon", "supervisor", "edge"] {
        sampan.kill(role);
        sampan.ok(&["ps"]);
        assert_echoes(address);
        if role == "daemon" {
            // the daemon is in nobody's way
            let mut word = [0; 5];
            open.write_all(b"still").and_then(|()| open.read_exact(&mut word)).expect("an answer");
            assert_eq!(&word, b"still");
        }
    }
    sampan.ok(&["restart", "-t", "0", "echo"]);
    assert_eq!(host_port(&sampan, "echo"), port, "the one that was chosen");
    assert_echoes(address);
    sampan.ok(&["stop", "-t", "0", "echo"]);
    wait_until("nobody to listen", SOON, || TcpStream::connect(address).is_err());
}
