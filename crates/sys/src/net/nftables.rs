//! The firewall: tables, chains and rules of nf_tables (`linux/netfilter/nf_tables.h`, `nfnetlink.h`).
//!
//! Changes are made by a [`Transaction`]: all or nothing, in one system call. A transaction can be tied to a
//! generation of the whole rule set ([`generation`]): the kernel then refuses it with `ERESTART` where anybody has
//! changed any rule since, which makes "look, decide, change" atomic among all programs of a network namespace without
//! a lock.
//!
//! Here is what Sampan's rules need and no more: no sets, maps, counters, logging, and no reading of rules.

use std::net::Ipv4Addr;

use super::netlink::{APPEND, CREATE, Message, NetlinkError, Socket, attributes, text};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENID: u16 = 1;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETGEN: u16 = 16;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const GEN_ID: u16 = 1;

const VERDICT_REGISTER: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ipv4 = 2,
}

/// A table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Which packets it sees.
    pub family: Family,
    /// Its name in that family.
    pub name: &'a str,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// All that come in, before they are routed.
    Prerouting,
    /// All that are passed on.
    Forward,
    /// The first of each connection that comes in: its destination may be changed.
    NatDestination,
    /// The first of each connection that goes out: its source may be changed.
    NatSource,
}

impl Entry {
    /// Type, hook and priority, as `nft` names the latter `filter`, `dstnat` and `srcnat`.
    fn parts(self) -> (&'static str, u32, i32) {
        match self {
            Self::Prerouting => ("filter", 0, 0),
            Self::Forward => ("filter", HOOK_FORWARD, 0),
            Self::NatDestination => ("nat", 0, -100),
            Self::NatSource => ("nat", 4, 100),
        }
    }
}

/// The number of the hook for packets that are passed on.
pub const HOOK_FORWARD: u32 = 2;

/// Whether a comparison has to hold or to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Test {
    /// It is so.
    Is = 0,
    /// It is not so.
    IsNot = 1,
}

/// One step of a rule. All work on register 1 except where said.
#[derive(Debug, Clone)]
enum Step {
    Meta {
        key: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    ConnectionState,
    Mask(Vec<u8>),
    Compare(Test, Vec<u8>),
    Load {
        register: u32,
        value: Vec<u8>,
    },
    Verdict(u32),
    Masquerade,
    /// To the address in register 1 and the port in register 2.
    DestinationNat,
}

/// A rule: what has to be so, in order, and then what is done.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    steps: Vec<Step>,
}

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPV4_SOURCE_AT: u32 = 12;
const PORT_DESTINATION_AT: u32 = 2;
/// Bits of the connection states "established" and "related".
const STATE_KNOWN: u32 = 0b110;

impl Rule {
    /// A rule for every packet.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Where the name of the interface that it came in by starts so.
    pub fn comes_by(self, test: Test, prefix: &str) -> Self {
        self.step(Step::Meta { key: META_IIFNAME }).step(Step::Compare(test, prefix.into()))
    }

    /// Where the name of the interface that it leaves by starts so.
    pub fn leaves_by(self, test: Test, prefix: &str) -> Self {
        self.step(Step::Meta { key: META_OIFNAME }).step(Step::Compare(test, prefix.into()))
    }

    /// Where it is IPv4. Has to come before what looks into an IPv4 header, in a table of both.
    pub fn ipv4(self) -> Self {
        self.step(Step::Meta { key: META_NFPROTO }).step(Step::Compare(Test::Is, vec![2]))
    }

    /// Where it is IPv6.
    pub fn ipv6(self) -> Self {
        self.step(Step::Meta { key: META_NFPROTO }).step(Step::Compare(Test::Is, vec![10]))
    }

    /// Where its IPv4 source is of that network.
    pub fn source(self, test: Test, network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        self.step(Step::Payload { base: NETWORK_HEADER, offset: IPV4_SOURCE_AT, length: 4 })
            .step(Step::Mask(mask.to_be_bytes().into()))
            .step(Step::Compare(test, network.octets().into()))
    }

    /// Where it is TCP to that port.
    pub fn tcp_to(self, port: u16) -> Self {
        self.step(Step::Meta { key: META_L4PROTO })
            .step(Step::Compare(Test::Is, vec![6]))
            .step(Step::Payload { base: TRANSPORT_HEADER, offset: PORT_DESTINATION_AT, length: 2 })
            .step(Step::Compare(Test::Is, port.to_be_bytes().into()))
    }

    /// Where it belongs to a connection that was let through before, or is an error message about one.
    pub fn connection_known(self) -> Self {
        self.step(Step::ConnectionState)
            .step(Step::Mask(STATE_KNOWN.to_ne_bytes().into()))
            .step(Step::Compare(Test::IsNot, vec![0; 4]))
    }

    /// It may pass; other tables are asked all the same.
    pub fn accept(self) -> Self {
        self.step(Step::Verdict(ACCEPT))
    }

    /// It is dropped.
    pub fn drop_it(self) -> Self {
        self.step(Step::Verdict(DROP))
    }

    /// Its source becomes the address of the interface that it leaves by.
    pub fn masquerade(self) -> Self {
        self.step(Step::Masquerade)
    }

    /// Its destination becomes that address and port.
    pub fn redirect_to(self, address: Ipv4Addr, port: u16) -> Self {
        self.step(Step::Load { register: 1, value: address.octets().into() })
            .step(Step::Load { register: 2, value: port.to_be_bytes().into() })
            .step(Step::DestinationNat)
    }
}

impl Step {
    /// The expression's name, and its attributes.
    fn write(&self, message: Message) -> Message {
        let data = |m: Message, kind, value: &[u8]| m.nested(kind, |m| m.bytes(DATA_VALUE, value));
        let expression = |name, inner: &dyn Fn(Message) -> Message| {
            message.nested(LIST_ELEMENT, |m| m.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, inner))
        };
        match self {
            Self::Meta { key } => expression("meta", &|m| m.be32(2, *key).be32(1, 1)),
            Self::Payload { base, offset, length } => {
                expression("payload", &|m| m.be32(1, 1).be32(2, *base).be32(3, *offset).be32(4, *length))
            }
            Self::ConnectionState => expression("ct", &|m| m.be32(2, 0).be32(1, 1)),
            Self::Mask(mask) => expression("bitwise", &|m| {
                let m = m.be32(1, 1).be32(2, 1).be32(3, mask.len() as u32);
                data(data(m, 4, mask), 5, &vec![0; mask.len()])
            }),
            Self::Compare(test, value) => expression("cmp", &|m| data(m.be32(1, 1).be32(2, *test as u32), 3, value)),
            Self::Load { register, value } => expression("immediate", &|m| data(m.be32(1, *register), 2, value)),
            Self::Verdict(code) => expression("immediate", &|m| {
                m.be32(1, VERDICT_REGISTER).nested(2, |m| m.nested(DATA_VERDICT, |m| m.be32(VERDICT_CODE, *code)))
            }),
            Self::Masquerade => expression("masq", &|m| m),
            Self::DestinationNat => {
                expression("nat", &|m| m.be32(1, 1).be32(2, u32::from(Family::Ipv4 as u8)).be32(3, 1).be32(5, 2))
            }
        }
    }
}

/// Changes that are made together or not at all.
#[derive(Debug)]
pub struct Transaction {
    generation: Option<u32>,
    changes: Vec<Message>,
}

impl Transaction {
    /// Changes to be made whatever the rule set is.
    pub fn new() -> Self {
        Self { generation: None, changes: Vec::new() }
    }

    /// Changes to be made only while the rule set is of that [`generation`].
    pub fn at(generation: u32) -> Self {
        Self { generation: Some(generation), changes: Vec::new() }
    }

    fn change(
        mut self,
        what: String,
        kind: u16,
        flags: u16,
        family: Family,
        write: impl FnOnce(Message) -> Message,
    ) -> Self {
        let message = Message::new(what, SUBSYSTEM << 8 | kind, flags, &[family as u8, 0, 0, 0]);
        self.changes.push(write(message));
        self
    }

    /// Makes a table where there is none.
    pub fn add_table(self, table: Table<'_>) -> Self {
        let what = format!("make the firewall table {}", table.name);
        self.change(what, NEWTABLE, CREATE, table.family, |m| m.text(TABLE_NAME, table.name))
    }

    /// Removes a table and all in it. Refused with `ENOENT` where there is none.
    pub fn delete_table(self, table: Table<'_>) -> Self {
        let what = format!("remove the firewall table {}", table.name);
        self.change(what, DELTABLE, 0, table.family, |m| m.text(TABLE_NAME, table.name))
    }

    /// Removes a table where there is one, and makes it, empty.
    pub fn renew_table(self, table: Table<'_>) -> Self {
        self.add_table(table).delete_table(table).add_table(table)
    }

    /// Makes a chain that no packet enters by itself.
    pub fn add_chain(self, table: Table<'_>, chain: &str) -> Self {
        let what = format!("make the chain {chain} in the firewall table {}", table.name);
        self.change(what, NEWCHAIN, CREATE, table.family, |m| m.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain))
    }

    /// Makes a chain that packets enter. What no rule of it drops may pass.
    pub fn add_entry(self, table: Table<'_>, chain: &str, entry: Entry) -> Self {
        let what = format!("make the chain {chain} in the firewall table {}", table.name);
        let (kind, hook, priority) = entry.parts();
        self.change(what, NEWCHAIN, CREATE, table.family, |m| {
            m.text(CHAIN_TABLE, table.name)
                .text(CHAIN_NAME, chain)
                .nested(CHAIN_HOOK, |m| m.be32(HOOK_NUMBER, hook).be32(HOOK_PRIORITY, priority.cast_unsigned()))
                .be32(CHAIN_POLICY, ACCEPT)
                .text(CHAIN_TYPE, kind)
        })
    }

    /// Adds a rule at a chain's end.
    pub fn add_rule(self, table: Table<'_>, chain: &str, rule: &Rule) -> Self {
        let what = format!("add a rule to the chain {chain} of the firewall table {}", table.name);
        self.change(what, NEWRULE, CREATE | APPEND, table.family, |m| {
            m.text(RULE_TABLE, table.name)
                .text(RULE_CHAIN, chain)
                .nested(RULE_EXPRESSIONS, |m| rule.steps.iter().fold(m, |m, step| step.write(m)))
        })
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// The kernel's, and then nothing has changed; `ERESTART` where the rule set is of another generation.
    pub fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let Some(last) = self.changes.last() else { return Ok(()) };
        // family and version, then the subsystem in network byte order
        let header = [0, 0, 0, SUBSYSTEM as u8];
        let what = last.what().to_owned();
        let begin = Message::new(what.clone(), BATCH_BEGIN, 0, &header);
        let begin = match self.generation {
            Some(generation) => begin.be32(BATCH_GENID, generation),
            None => begin,
        };
        let mut messages = vec![begin];
        messages.extend(self.changes);
        // within a batch, only what asks for it is acknowledged; the batch's end could not before Linux 6.10
        if let Some(last) = messages.last_mut() {
            last.acknowledge();
        }
        messages.push(Message::new(what, BATCH_END, 0, &header));
        socket.transact(&messages)
    }
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

/// A chain that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its table's family, as in `NFPROTO_…`.
    pub family: u8,
    /// Its table's name.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook where packets enter it, and whether what no rule decides on is dropped.
    pub hook: Option<(u32, bool)>,
}

/// Lists the chains of all tables.
///
/// # Errors
/// The kernel's.
pub fn chains(socket: &mut Socket) -> Result<Vec<Chain>, NetlinkError> {
    let message = Message::new("list the firewall's chains", SUBSYSTEM << 8 | GETCHAIN, 0, &[0; 4]);
    socket.dump(&message, |body| {
        let (head, rest) = body.split_first_chunk::<4>()?;
        let find = |kind| attributes(rest).find(|(k, _)| *k == kind).map(|(_, value)| value);
        let number = |value: &[u8]| value.first_chunk().map(|&value| u32::from_be_bytes(value));
        let hook = find(CHAIN_HOOK)
            .and_then(|hook| attributes(hook).find(|(kind, _)| *kind == HOOK_NUMBER))
            .and_then(|(_, value)| number(value))
            .map(|hook| (hook, find(CHAIN_POLICY).and_then(number) == Some(DROP)));
        Some(Chain { family: head[0], table: text(find(CHAIN_TABLE)?), name: text(find(CHAIN_NAME)?), hook })
    })
}

/// The generation of the rule set: another number after every change that anybody makes.
///
/// # Errors
/// The kernel's.
pub fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let what = "read the firewall's generation";
    let mut found = None;
    socket.ask(&Message::new(what, SUBSYSTEM << 8 | GETGEN, 0, &[0; 4]), |body| {
        found = attributes(body.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == GEN_ID)
            .and_then(|(_, value)| value.first_chunk().map(|&value| u32::from_be_bytes(value)));
    })?;
    found.ok_or(NetlinkError::Unreadable { what: what.into() })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::io::Errno;

    use super::super::namespace::{fresh, run_in};
    use super::super::netlink::Protocol;
    use super::*;

    const TABLE: Table<'static> = Table { family: Family::Inet, name: "try" };

    #[test]
    fn transactions_are_all_or_nothing_and_tied_to_a_generation() {
        let work = || {
            let mut socket = Socket::open(Protocol::Netfilter).expect("socket");
            assert_eq!(chains(&mut socket).expect("chains"), []);

            let before = generation(&mut socket).expect("generation");
            let rules = [
                Rule::new().comes_by(Test::Is, "sp").ipv6().drop_it(),
                Rule::new().leaves_by(Test::IsNot, "sp").connection_known().accept(),
                Rule::new().ipv4().source(Test::IsNot, Ipv4Addr::new(10, 0, 0, 0), 8).tcp_to(80).drop_it(),
            ];
            let made = Transaction::at(before).renew_table(TABLE).add_entry(TABLE, "forward", Entry::Forward);
            let made = rules.iter().fold(made, |made, rule| made.add_rule(TABLE, "forward", rule));
            let nat = Rule::new().ipv4().source(Test::Is, Ipv4Addr::new(10, 0, 0, 0), 8).masquerade();
            let to = Rule::new().ipv4().tcp_to(80).redirect_to(Ipv4Addr::LOCALHOST, 8080);
            made.add_entry(TABLE, "out", Entry::NatSource)
                .add_rule(TABLE, "out", &nat)
                .add_entry(TABLE, "in", Entry::NatDestination)
                .add_rule(TABLE, "in", &to)
                .add_chain(TABLE, "mark")
                .commit(&mut socket)
                .expect("commit");
            let there = chains(&mut socket).expect("chains");
            let mut names: Vec<_> = there.iter().map(|chain| (chain.name.as_str(), chain.hook)).collect();
            names.sort_unstable();
            let expected =
                [("forward", Some((2, false))), ("in", Some((0, false))), ("mark", None), ("out", Some((4, false)))];
            assert_eq!(names, expected);

            let late = Transaction::at(before).delete_table(TABLE).commit(&mut socket).expect_err("late");
            assert_eq!(late.errno().map(Errno::raw_os_error), Some(85), "{late:?}");
            let broken = Transaction::new()
                .delete_table(TABLE)
                .add_rule(TABLE, "nowhere", &Rule::new().accept())
                .commit(&mut socket)
                .expect_err("no such chain");
            assert_eq!(broken.errno(), Some(Errno::NOENT), "{broken:?}");
            assert_eq!(chains(&mut socket).expect("chains").len(), 4);
            Transaction::new().delete_table(TABLE).commit(&mut socket).expect("delete");
            assert_eq!(chains(&mut socket).expect("chains"), []);
        };
        run_in(fresh().expect("namespace (as root)").as_fd(), work).expect("enter");
    }
}
