//! Published ports: bytes through TCP and UDP, both ways, live changes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use sampan_edge::{Control, Limits};
use sampan_model::{ForwardedPort, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::support::{Edge, PATIENCE, limits};

async fn publish(edge: &mut Edge, protocol: Protocol, socket: OwnedFd, upstream: SocketAddr) -> String {
    let key = format!("port/{protocol}/{}", edge.table.ports.len());
    edge.table.ports.push(ForwardedPort { key: key.clone(), protocol, upstream });
    edge.controls.send(Control::Sockets(vec![(key.clone(), socket)])).await.unwrap();
    edge.apply().await;
    key
}

#[tokio::test]
async fn tcp_of_both_families_flows_both_ways_to_the_end() {
    // an upstream that hears its client out before it says a word: half-closed connections go on
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    let mut edge = Edge::start(limits()).await;
    for host in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
        let listener = std::net::TcpListener::bind(host).unwrap();
        let at = listener.local_addr().unwrap();
        publish(&mut edge, Protocol::Tcp, listener.into(), address).await;
        let mut client = TcpStream::connect(at).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        let (mut read, mut write) = client.split();
        let mut got = Vec::new();
        let whole = async {
            tokio::join!(
                async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap()
                },
                read.read_to_end(&mut got)
            )
            .1
        };
        timeout(PATIENCE, whole).await.unwrap().unwrap();
        assert!(got.iter().rev().eq(sent.iter()), "{at}: {} of {} bytes", got.len(), sent.len());
    }
}

#[tokio::test]
async fn a_connection_to_nobody_is_closed() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut edge = Edge::start(limits()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    publish(&mut edge, Protocol::Tcp, listener.into(), free).await;
    let mut client = TcpStream::connect(at).await.unwrap();
    let read = timeout(PATIENCE, client.read(&mut [0])).await.expect("its end");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn udp_answers_find_their_client_and_forgotten_ones_begin_anew() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        // says which port of the edge it was asked from
        let mut buffer = [0; 100];
        while let Ok((length, from)) = upstream.recv_from(&mut buffer).await {
            let text = format!("{} from {}", String::from_utf8_lossy(&buffer[..length]), from.port());
            upstream.send_to(text.as_bytes(), from).await.unwrap();
        }
    });
    let idle = std::time::Duration::from_millis(200);
    let mut edge = Edge::start(Limits { udp_idle_timeout: idle, ..limits() }).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    publish(&mut edge, Protocol::Udp, socket.into(), address).await;
    let ask = async |client: &UdpSocket, text: &str| {
        client.send_to(text.as_bytes(), at).await.unwrap();
        let mut buffer = [0; 100];
        let (length, from) = timeout(PATIENCE, client.recv_from(&mut buffer)).await.expect("an answer").unwrap();
        assert_eq!(from, at);
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        answer.strip_prefix(&format!("{text} from ")).expect("its own").to_owned()
    };
    let (one, two) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let first = ask(&one, "a").await;
    assert_ne!(first, ask(&two, "b").await, "each client has a way of its own");
    assert_eq!(first, ask(&one, "c").await);
    tokio::time::timeout(PATIENCE, async {
        while first == ask(&one, "d").await {
            tokio::time::sleep(idle * 2).await;
        }
    })
    .await
    .expect("a client that was silent is forgotten");
}

#[tokio::test]
async fn a_port_that_is_no_longer_published_is_closed() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut edge = Edge::start(limits()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    publish(&mut edge, Protocol::Tcp, listener.into(), upstream.local_addr().unwrap()).await;
    drop(TcpStream::connect(at).await.unwrap());
    edge.table.ports.clear();
    edge.apply().await;
    // the worker closes it in its turn
    timeout(PATIENCE, async { while TcpStream::connect(at).await.is_ok() {} }).await.expect("nobody listens");
}
