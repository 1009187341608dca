//! What to do with a packet that claims to be a question: pure functions of its bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The length of a message's header.
const HEADER: usize = 12;

/// What a UDP answer may always have (RFC 1035 section 4.2.1).
const PLAIN_UDP_BYTES: usize = 512;

/// What we say that we take over UDP ourselves (the size that passes every network unfragmented, DNS flag day 2020).
const OUR_UDP_BYTES: u16 = 1232;

/// For how many seconds the address of `localhost` may be kept.
const LOCALHOST_TTL: u32 = 3600;

/// What to do with a packet.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is no question: an answer, or too short to be answered.
    Ignore,
    /// Send this.
    Answer(Vec<u8>),
    /// Ask the resolvers.
    Ask(Question),
}

/// A well-formed question for a name that is not ours.
#[derive(Debug)]
pub(super) struct Question {
    /// The packet as it came.
    pub(super) packet: Vec<u8>,
    /// The end of the question within the packet: what an answer must repeat.
    end: usize,
    /// How long an answer over UDP may be.
    pub(super) udp_bytes: usize,
    message: Message,
}

/// Judges a packet.
pub(super) fn judge(packet: &[u8]) -> Verdict {
    let is_answer = packet.get(2).is_none_or(|flags| flags & 0x80 != 0);
    if packet.len() < HEADER || is_answer {
        return Verdict::Ignore;
    }
    let Ok(message) = Message::from_vec(packet) else {
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        return answer(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
    };
    if message.metadata.op_code != OpCode::Query {
        return answer(reply(&message, ResponseCode::NotImp));
    }
    let (Some(end), [query]) = (question_end(packet), message.queries.as_slice()) else {
        return answer(reply(&message, ResponseCode::FormErr));
    };
    match ours(query.name(), query.query_type()) {
        Some((code, data)) => {
            let mut reply = reply(&message, code);
            reply.metadata.authoritative = true;
            if let Some(data) = data {
                reply.add_answer(Record::from_rdata(query.name().clone(), LOCALHOST_TTL, data));
            }
            answer(reply)
        }
        None => {
            let udp_bytes = message.edns.as_ref().map_or(0, |edns| usize::from(edns.max_payload()));
            Verdict::Ask(Question { packet: packet.to_vec(), end, udp_bytes: udp_bytes.max(PLAIN_UDP_BYTES), message })
        }
    }
}

impl Question {
    /// SERVFAIL: nobody could be asked, or nobody answered.
    pub(super) fn server_failure(&self) -> Vec<u8> {
        encode(&reply(&self.message, ResponseCode::ServFail)).unwrap_or_default()
    }

    /// Whether `packet` is an answer to this question under the id `id`: the name may differ in case only.
    pub(super) fn is_answered_by(&self, packet: &[u8], id: u16) -> bool {
        packet.len() >= self.end
            && packet[..2] == id.to_be_bytes()
            && packet[2] & 0x80 != 0
            && packet[4..6] == [0, 1]
            && packet[HEADER..self.end].eq_ignore_ascii_case(&self.packet[HEADER..self.end])
    }

    /// The id that the client chose.
    pub(super) fn id(&self) -> [u8; 2] {
        [self.packet[0], self.packet[1]]
    }
}

/// The answer, where the name is ours: `localhost` is this machine, and below `localhost` (RFC 6761) and `internal`
/// nothing is known.
fn ours(name: &Name, record: RecordType) -> Option<(ResponseCode, Option<RData>)> {
    let mut labels = name.iter().rev();
    let top = labels.next()?;
    let alone = labels.next().is_none();
    if alone && top.eq_ignore_ascii_case(b"localhost") {
        let data = match record {
            RecordType::A => Some(RData::A(Ipv4Addr::LOCALHOST.into())),
            RecordType::AAAA => Some(RData::AAAA(Ipv6Addr::LOCALHOST.into())),
            _ => None,
        };
        return Some((ResponseCode::NoError, data));
    }
    let ours = top.eq_ignore_ascii_case(b"localhost") || top.eq_ignore_ascii_case(b"internal");
    ours.then_some((ResponseCode::NXDomain, None))
}

/// Where the question ends. None: its name is cut off or compressed, which a first name has no reason to be.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1 + length;
        match length {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    let end = at + 4;
    (end <= packet.len()).then_some(end)
}

fn reply(to: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(to.metadata.id, MessageType::Response, to.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&to.metadata);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(to.queries.iter().cloned());
    if to.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_UDP_BYTES);
        reply.set_edns(edns);
    }
    reply
}

fn answer(message: Message) -> Verdict {
    encode(&message).map_or(Verdict::Ignore, Verdict::Answer)
}

/// None: a name that was read cannot be written, which hickory does not say it never happens.
fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    fn question(name: &str, record: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), record));
        message.to_vec().unwrap()
    }

    fn check(name: &str, record: RecordType, expected: Option<(ResponseCode, Option<&str>)>) {
        match (judge(&question(name, record)), expected) {
            (Verdict::Ask(_), None) => {}
            (Verdict::Answer(bytes), Some((code, data))) => {
                let answer = Message::from_vec(&bytes).unwrap();
                assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, code), "{name}");
                assert_eq!(answer.queries.len(), 1);
                let found = answer.answers.first().map(|record| record.data.to_string());
                assert_eq!(found.as_deref(), data, "{name}");
            }
            (verdict, expected) => panic!("{name} {record}: {verdict:?}, not {expected:?}"),
        }
    }

    #[test]
    fn names() {
        check("localhost.", RecordType::A, Some((ResponseCode::NoError, Some("127.0.0.1"))));
        check("LocalHost.", RecordType::AAAA, Some((ResponseCode::NoError, Some("::1"))));
        check("localhost.", RecordType::MX, Some((ResponseCode::NoError, None)));
        check("web.localhost.", RecordType::A, Some((ResponseCode::NXDomain, None)));
        check("web.internal.", RecordType::A, Some((ResponseCode::NXDomain, None)));
        check("INTERNAL.", RecordType::TXT, Some((ResponseCode::NXDomain, None)));
        check("localhost.example.", RecordType::A, None);
        check("example.com.", RecordType::A, None);
        check(".", RecordType::NS, None);
    }

    #[test]
    fn what_is_no_question() {
        let code = |packet: &[u8]| match judge(packet) {
            Verdict::Answer(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
            Verdict::Ignore => None,
            Verdict::Ask(question) => panic!("asked: {question:?}"),
        };
        let good = question("example.com.", RecordType::A);
        assert_eq!(code(&good[..11]), None, "too short");
        assert_eq!(code(&good[..20]), Some(ResponseCode::FormErr), "cut off");
        let with = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            packet
        };
        assert_eq!(code(&with(2, 0x81)), None, "an answer");
        assert_eq!(code(&with(2, 0x21)), Some(ResponseCode::NotImp), "a notification");
        assert_eq!(code(&with(5, 0)), Some(ResponseCode::FormErr), "no question");
        assert_eq!(code(&with(12, 0xc0)), Some(ResponseCode::FormErr), "a compressed name");
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let Verdict::Ask(asked) = judge(&question("example.com.", RecordType::A)) else { panic!("not asked") };
        let answer = |name: &str, id: u16, flags: u8| {
            let mut packet = question(name, RecordType::A);
            packet[..2].copy_from_slice(&id.to_be_bytes());
            packet[2] = flags;
            packet
        };
        assert!(asked.is_answered_by(&answer("EXAMPLE.com.", 9, 0x81), 9));
        assert!(!asked.is_answered_by(&answer("example.com.", 8, 0x81), 9));
        assert!(!asked.is_answered_by(&answer("example.com.", 9, 0x01), 9));
        assert!(!asked.is_answered_by(&answer("example.net.", 9, 0x81), 9));
        assert!(!asked.is_answered_by(&answer("com.", 9, 0x81), 9));
    }
}
