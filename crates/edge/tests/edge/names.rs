//! The name service, over packets and connections, with resolvers played by the tests.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sampan_edge::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Duration, Instant, timeout};

use crate::support::{Edge, PATIENCE, limits};

/// How a played resolver answers over packets. Over connections it always answers in full.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Answers,
    /// With a forged id first, then to another question, then well.
    AnswersAfterForgers,
    Truncates,
    Refuses,
    IsSilent,
}

/// How many addresses a full answer has: so many that it does not fit into a plain packet, or one.
async fn resolver(manner: Manner, addresses: u8) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // the same port may be another test's for the other protocol
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let full = answer(&buffer[..length], addresses);
            let packets = match manner {
                Manner::Answers => vec![full],
                Manner::AnswersAfterForgers => {
                    let (mut forged, mut other) = (full.clone(), full.clone());
                    forged.metadata.id = full.metadata.id.wrapping_add(1);
                    other.queries[0].set_name(Name::from_ascii("evil.example.").unwrap());
                    vec![forged, other, full]
                }
                Manner::Truncates => vec![full.truncate()],
                Manner::Refuses => {
                    let mut refusal = answer(&buffer[..length], 0);
                    refusal.metadata.response_code = ResponseCode::Refused;
                    vec![refusal]
                }
                Manner::IsSilent => vec![],
            };
            for packet in packets {
                udp.send_to(&packet.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let question = read(&mut stream).await;
            write(&mut stream, &answer(&question, addresses).to_vec().unwrap()).await;
        }
    });
    address
}

fn answer(question: &[u8], addresses: u8) -> Message {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    for last in 1..=addresses {
        let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into());
        answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, data));
    }
    answer.add_queries(question.queries);
    answer
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut message).await.unwrap();
    message
}

async fn write(stream: &mut TcpStream, message: &[u8]) {
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(message).await.unwrap();
}

/// The name service of an edge that asks these resolvers.
struct Service {
    _edge: Edge,
    udp: UdpSocket,
    tcp: SocketAddr,
}

impl Service {
    async fn start(resolvers: &[SocketAddr], limits: Limits) -> Self {
        let mut edge = Edge::start(limits).await;
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp_address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        edge.add_dns("dns/1/udp", false, OwnedFd::from(udp)).await;
        edge.add_dns("dns/1/tcp", true, OwnedFd::from(tcp)).await;
        edge.table.resolvers = resolvers.to_vec();
        edge.apply().await;
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.connect(udp_address).await.unwrap();
        Self { _edge: edge, udp, tcp: tcp_address }
    }

    async fn over_udp(&self, name: &str) -> Message {
        self.udp.send(&question(name)).await.unwrap();
        let mut buffer = [0; 4096];
        let length = timeout(PATIENCE, self.udp.recv(&mut buffer)).await.expect("an answer").unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn over_tcp(&self, names: &[&str]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.tcp).await.unwrap();
        let mut answers = Vec::new();
        for name in names {
            write(&mut stream, &question(name)).await;
            answers.push(Message::from_vec(&timeout(PATIENCE, read(&mut stream)).await.expect("an answer")).unwrap());
        }
        answers
    }
}

fn check(answer: &Message, code: ResponseCode, addresses: usize, what: &str) {
    let found = (answer.metadata.id, answer.metadata.response_code, answer.answers.len());
    assert_eq!(found, (4711, code, addresses), "{what}");
}

#[tokio::test]
async fn names_are_asked_of_the_resolvers() {
    let code = ResponseCode::NoError;
    for (manners, expected, what) in [
        (&[Manner::Answers][..], code, "plain"),
        (&[Manner::AnswersAfterForgers], code, "forgers"),
        (&[Manner::Refuses, Manner::Answers], code, "the second, as the first refuses"),
        (&[Manner::IsSilent, Manner::Answers], code, "the second, as the first is silent"),
        (&[Manner::Refuses, Manner::IsSilent], ResponseCode::Refused, "the refusal, as there is nothing better"),
        (&[Manner::IsSilent], ResponseCode::ServFail, "nobody answers"),
        (&[], ResponseCode::ServFail, "nobody to ask"),
    ] {
        let mut resolvers = Vec::new();
        for &manner in manners {
            resolvers.push(resolver(manner, 1).await);
        }
        let limits = Limits { dns_timeout: Duration::from_millis(200), ..limits() };
        let service = Service::start(&resolvers, limits).await;
        let answer = service.over_udp("www.example.com.").await;
        check(&answer, expected, usize::from(expected == code), what);
    }
}

#[tokio::test]
async fn long_answers_come_over_connections() {
    let short = Service::start(&[resolver(Manner::Truncates, 5).await], limits()).await;
    let whole = short.over_udp("www.example.com.").await;
    check(&whole, ResponseCode::NoError, 5, "fetched in full for the client");

    let long = Service::start(&[resolver(Manner::Truncates, 200).await], limits()).await;
    let cut = long.over_udp("www.example.com.").await;
    assert!(cut.metadata.truncation && cut.answers.is_empty(), "too long for the client's packets");
    for answer in long.over_tcp(&["www.example.com.", "www.example.net."]).await {
        check(&answer, ResponseCode::NoError, 200, "over one connection");
    }
}

#[tokio::test]
async fn our_own_names_are_never_asked_for() {
    let service = Service::start(&[resolver(Manner::Answers, 9).await], limits()).await;
    let names = ["localhost.", "web.localhost.", "1.web.internal."];
    let expected = [(ResponseCode::NoError, 1), (ResponseCode::NXDomain, 0), (ResponseCode::NXDomain, 0)];
    let over_tcp = service.over_tcp(&names).await;
    for ((name, (code, addresses)), over_tcp) in names.iter().zip(expected).zip(over_tcp) {
        check(&service.over_udp(name).await, code, addresses, name);
        check(&over_tcp, code, addresses, name);
    }
}

#[tokio::test]
async fn more_questions_than_allowed_fail_at_once() {
    let limits = Limits { dns_queries: 1, ..limits() };
    let service = Service::start(&[resolver(Manner::IsSilent, 1).await], limits).await;
    let started = Instant::now();
    service.udp.send(&question("one.example.")).await.unwrap();
    let answer = service.over_udp("two.example.").await;
    check(&answer, ResponseCode::ServFail, 0, "the second");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn garbage_is_no_question() {
    let service = Service::start(&[], limits()).await;
    service.udp.send(b"hello").await.unwrap();
    service.udp.send(&question("a.example.")[..20]).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(PATIENCE, service.udp.recv(&mut buffer)).await.unwrap().unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (4711, ResponseCode::FormErr));
    let mut stream = TcpStream::connect(service.tcp).await.unwrap();
    write(&mut stream, b"hello").await;
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "closed");
}
