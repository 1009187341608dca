//! Asking the machine's resolvers, one after the other.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::question::Question;
use super::{read_message, write_message};

/// How many resolvers are asked, as in `resolv.conf`.
const RESOLVERS: usize = 3;

/// The answer was cut to fit into a packet.
const TRUNCATED: u8 = 0x02;

/// What the client asked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Packets.
    Udp,
    /// A connection.
    Tcp,
}

/// The answer to a question, with the client's own id, as the first resolver gave it that could answer. Each may take
/// as long as `limit`. None: there are no resolvers, or none answered.
///
/// An answer that was cut off is asked for again over TCP; where the whole of it is too long for the client's packets,
/// the client gets the one that was cut off, and asks again over TCP itself.
pub(super) async fn ask(resolvers: &[SocketAddr], question: &Question, over: Over, limit: Duration) -> Option<Vec<u8>> {
    let mut refusal = None;
    for &resolver in resolvers.iter().take(RESOLVERS) {
        let answer = match over {
            Over::Tcp => timeout(limit, ask_tcp(resolver, question)).await,
            Over::Udp => match timeout(limit, ask_udp(resolver, question)).await {
                Ok(Ok(cut)) if cut[2] & TRUNCATED != 0 => match timeout(limit, ask_tcp(resolver, question)).await {
                    Ok(Ok(whole)) if whole.len() <= question.udp_bytes => Ok(Ok(whole)),
                    _ => Ok(Ok(cut)),
                },
                answer => answer,
            },
        };
        let Ok(Ok(mut answer)) = answer else { continue };
        answer[..2].copy_from_slice(&question.id());
        // Success and "no such name" are answers; everything else is a reason to ask the next.
        if matches!(answer[3] & 0x0f, 0 | 3) {
            return Some(answer);
        }
        refusal = Some(answer);
    }
    refusal
}

async fn ask_udp(resolver: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket for each question, so that its port is the kernel's random choice, connected, so that only the resolver
    // is heard: with the random id, what a forger has to guess (RFC 5452).
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let (id, packet) = under_random_id(question);
    socket.send(&packet).await?;
    let mut buffer = vec![0; question.udp_bytes];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if question.is_answered_by(&buffer[..length], id) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let (id, packet) = under_random_id(question);
    write_message(&mut stream, &packet).await?;
    let answer = read_message(&mut stream, usize::from(u16::MAX)).await?;
    match question.is_answered_by(&answer, id) {
        true => Ok(answer),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question")),
    }
}

fn under_random_id(question: &Question) -> (u16, Vec<u8>) {
    // hickory draws a new query's id from a cryptographic generator; the rest of that query is not needed.
    let id = Message::query().metadata.id;
    let mut packet = question.packet.clone();
    packet[..2].copy_from_slice(&id.to_be_bytes());
    (id, packet)
}
