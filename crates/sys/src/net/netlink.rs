//! Netlink: messages to the kernel and its answers (RFC 3549; `linux/netlink.h`).
//!
//! A [`Message`] is written attribute by attribute, a [`Socket`] sends any number of them in one system call and
//! matches the kernel's answers to them. The kernel works through the messages *within* that system call: when it
//! returns, all answers lie in the socket's receive buffer, so nothing here ever waits, and an answer that is not there
//! is an error.
//!
//! Not here: notifications (multicast groups), and netlink between processes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// The kernel's answer in the middle of which a dump changed is asked for again so often.
const DUMP_RETRIES: u32 = 16;
/// Longest datagram that the kernel sends (`NLMSG_GOODSIZE` is at most a page, dumps use up to 32 KiB).
const BUFFER: usize = 64 << 10;
const HEADER: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE: u16 = 0x3fff;

/// Make it where it is not there.
pub const CREATE: u16 = 0x400;
/// Refuse where it is there already.
pub const EXCLUSIVE: u16 = 0x200;
/// Put it in the place of what is there.
pub const REPLACE: u16 = 0x100;
/// Put it after what is there (rules).
pub const APPEND: u16 = 0x800;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no such socket to be had.
    #[error("open a netlink socket")]
    Open(#[source] io::Error),
    /// The messages could not be sent, or the answers not be read.
    #[error("{what}: exchange netlink messages")]
    Exchange {
        /// What was asked for.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{what}{}", note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default())]
    Refused {
        /// What was asked for: "create interface sp0-0a1b2c3d".
        what: String,
        /// The kernel's own words, where it has any.
        note: Option<String>,
        /// Its error number.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer is none.
    #[error("{what}: the kernel gave no answer that can be read")]
    Unreadable {
        /// What was asked for.
        what: String,
    },
    /// What was listed changed while it was listed, again and again.
    #[error("{what}: it changed {DUMP_RETRIES} times while it was read")]
    Restless {
        /// What was asked for.
        what: String,
    },
}

impl NetlinkError {
    /// The error number with which the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(source) | Self::Exchange { source, .. } | Self::Refused { source, .. } => {
                Errno::from_io_error(source)
            }
            Self::Unreadable { .. } | Self::Restless { .. } => None,
        }
    }
}

/// A message being written.
///
/// ```text
/// nlmsghdr  length 4 · type 2 · flags 2 · sequence 4 · port 4
/// the family's own header, padded to 4
/// attributes: length 2 · type 2 · value, padded to 4, nested ones being such runs in turn
/// ```
#[derive(Debug, Clone)]
pub struct Message {
    what: String,
    bytes: Vec<u8>,
}

impl Message {
    /// A message of a type, with flags ([`CREATE`]…) and the family's own header. `what` names it in errors.
    pub fn new(what: impl Into<String>, kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { what: what.into(), bytes }.raw(header)
    }

    /// What it is called in errors.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Bytes that are no attribute: a header inside a nested attribute.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute.
    ///
    /// # Panics
    /// Where the value is longer than an attribute can be (65,531 bytes).
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("an attribute's value is at most 65,531 bytes long");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    /// A byte.
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// A number in the machine's byte order, as `rtnetlink` has them.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order, as netfilter has them.
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text, ended with a zero byte.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut ended = Vec::with_capacity(value.len() + 1);
        ended.extend_from_slice(value.as_bytes());
        ended.push(0);
        self.bytes(kind, &ended)
    }

    /// An IPv4 address.
    pub fn ipv4(self, kind: u16, value: Ipv4Addr) -> Self {
        self.bytes(kind, &value.octets())
    }

    /// An attribute that holds what `inner` writes.
    ///
    /// # Panics
    /// Where that is longer than an attribute can be (65,531 bytes).
    pub fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut message = inner(self);
        let length = u16::try_from(message.bytes.len() - start).expect("nested attributes are at most 65,531 bytes");
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// Asks for an answer where it succeeds, too.
    pub(super) fn acknowledge(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | NLM_F_ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends the finished message.
    fn write(&self, sequence: u32, flags: u16, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("a message is some hundred bytes long");
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        into[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        into[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        into[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Interfaces, addresses, routes.
    Route,
    /// The firewall.
    Netfilter,
}

/// A netlink socket. It belongs to the network namespace that the thread which opened it was in, for good, and may be
/// used from any thread.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let protocol = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| NetlinkError::Open(errno.into()))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            switch_on(&fd, option).map_err(NetlinkError::Open)?;
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// The socket itself.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends the messages at once and gives back the kernel's answer to each. It goes on past a message that fails.
    ///
    /// # Errors
    /// [`NetlinkError::Exchange`]: none can be said to have been done.
    pub fn each(&mut self, messages: &[Message]) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let Some(first) = messages.first() else { return Ok(Vec::new()) };
        let start = self.post(messages, NLM_F_ACK)?;
        let mut answers: Vec<_> = messages.iter().map(|_| None).collect();
        self.receive(start, &first.what, |answer| {
            let place = answer.sequence.wrapping_sub(start) as usize;
            if let (Some(slot), Some(result)) = (answers.get_mut(place), answer.result(&messages[place].what)) {
                *slot = Some(result);
            }
        })?;
        let unanswered = |message: &Message| Err(NetlinkError::Unreadable { what: message.what.clone() });
        Ok(answers.into_iter().zip(messages).map(|(a, message)| a.unwrap_or_else(|| unanswered(message))).collect())
    }

    /// Sends the messages at once.
    ///
    /// # Errors
    /// That of the first that failed. Those after it have been tried as well.
    pub fn all(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        self.each(messages)?.into_iter().collect()
    }

    /// Sends messages of which the kernel does all or nothing (netfilter's batches) and only the last is acknowledged.
    pub(super) fn transact(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        let start = self.post(messages, 0)?;
        let (mut failure, mut acknowledged) = (None, false);
        self.receive(start, &messages[last].what, |answer| {
            let place = answer.sequence.wrapping_sub(start) as usize;
            match messages.get(place).and_then(|message| answer.result(&message.what)) {
                Some(Err(error)) => failure = failure.take().or(Some(error)),
                Some(Ok(())) => acknowledged = true,
                None => {}
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(NetlinkError::Unreadable { what: messages[last].what.clone() }),
        }
    }

    /// Asks for one thing, and gives `each` the body of every message of the answer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(&mut self, message: &Message, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        let start = self.post(std::slice::from_ref(message), 0)?;
        let mut failure = None;
        self.receive(start, &message.what, |answer| match answer.result(&message.what) {
            None => each(answer.body),
            Some(Err(error)) => failure = Some(error),
            Some(Ok(())) => {}
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Asks for a list and gives `read` the body of each of its messages. What `read` returns is collected.
    ///
    /// # Errors
    /// The kernel's; [`NetlinkError::Restless`].
    pub fn dump<T>(
        &mut self,
        message: &Message,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_RETRIES {
            let mut list = Vec::new();
            let (mut failure, mut changed, mut ended) = (None, false, false);
            let start = self.post(std::slice::from_ref(message), NLM_F_DUMP)?;
            self.receive(start, &message.what, |answer| {
                changed |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.result(&message.what) {
                    None => list.extend(read(answer.body)),
                    Some(Err(error)) => failure = Some(error),
                    Some(Ok(())) => ended = true,
                }
            })?;
            match failure {
                Some(error) => return Err(error),
                None if !ended => return Err(NetlinkError::Unreadable { what: message.what.clone() }),
                None if changed => {}
                None => return Ok(list),
            }
        }
        Err(NetlinkError::Restless { what: message.what.clone() })
    }

    /// Sends messages under fresh sequence numbers and returns the first.
    fn post(&mut self, messages: &[Message], flags: u16) -> Result<u32, NetlinkError> {
        let start = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(messages.iter().map(|message| message.bytes.len()).sum());
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.write(self.sequence, flags, &mut bytes);
        }
        let what = messages.first().map(|message| message.what.as_str()).unwrap_or_default();
        let exchange = |errno: Errno| NetlinkError::Exchange { what: what.into(), source: errno.into() };
        rustix::io::retry_on_intr(|| send(&self.fd, &bytes, SendFlags::empty())).map_err(exchange)?;
        Ok(start)
    }

    /// Reads everything that the kernel has answered to the messages from number `start` on.
    fn receive(&mut self, start: u32, what: &str, mut each: impl FnMut(Answer<'_>)) -> Result<(), NetlinkError> {
        let sent = self.sequence.wrapping_sub(start);
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::io::retry_on_intr(|| recv(&self.fd, self.buffer.as_mut_slice(), flags)) {
                Ok((_, length)) if length > self.buffer.len() => {
                    return Err(NetlinkError::Unreadable { what: what.into() });
                }
                // what an exchange left behind that was broken off is not for us
                Ok((_, length)) => answers(&self.buffer[..length])
                    .filter(|answer| answer.sequence.wrapping_sub(start) <= sent)
                    .for_each(&mut each),
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(NetlinkError::Exchange { what: what.into(), source: errno.into() }),
            }
        }
    }
}

fn switch_on(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is an int that lives through the call, of the length given
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One message of the kernel's.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// What it says about the message it answers; nothing where it carries data.
    fn result(&self, what: &str) -> Option<Result<(), NetlinkError>> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        // the end of a dump may come without a number
        let code = self.body.first_chunk().map_or(0, |&code| i32::from_ne_bytes(code));
        Some(match code {
            0 => Ok(()),
            code => Err(NetlinkError::Refused {
                what: what.into(),
                note: self.note(),
                source: io::Error::from_raw_os_error(code.saturating_neg()),
            }),
        })
    }

    /// The extended acknowledgement's text: behind the error number and the header of the message that failed, and
    /// behind that message itself where it was not left out.
    fn note(&self) -> Option<String> {
        if self.kind != NLMSG_ERROR || self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let echoed = if self.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            let length = u32::from_ne_bytes(*self.body.get(4..)?.first_chunk()?) as usize;
            length.checked_next_multiple_of(4)?
        };
        let attributes_at = echoed.checked_add(4)?;
        attributes(self.body.get(attributes_at..)?)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, value)| text(value))
    }
}

/// The messages of a datagram, up to the first that is none.
fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let answer = Answer {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

/// The attributes of a run of bytes, type and value, up to the first that is none.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head: &[u8; 4] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute's text, without its zero byte.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// An attribute's IPv4 address.
pub fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let message = Message::new("try", 16, CREATE, &[7; 3]).nested(18, |m| m.text(1, "abc").u8(2, 9)).u32(4, 5);
        let mut bytes = Vec::new();
        message.write(77, NLM_F_ACK, &mut bytes);
        let answer = answers(&bytes).next().expect("one message");
        assert_eq!((answer.kind, answer.flags, answer.sequence), (16, CREATE | NLM_F_REQUEST | NLM_F_ACK, 77));
        assert_eq!(answer.body[..4], [7, 7, 7, 0]);
        let outer: Vec<_> = attributes(&answer.body[4..]).collect();
        assert_eq!((outer.len(), outer[0].0, outer[1]), (2, 18, (4, 5u32.to_ne_bytes().as_slice())));
        let inner: Vec<_> = attributes(outer[0].1).collect();
        assert_eq!(inner, [(1, b"abc\0".as_slice()), (2, [9].as_slice())]);
        assert_eq!(text(inner[0].1), "abc");
    }

    #[test]
    fn bytes_that_are_no_messages_end_the_reading() {
        for bytes in [&[][..], &[1; 3], &[0; 16], &[255; 64], &[20, 0, 0, 0, 2, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0]] {
            for answer in answers(bytes).take(100) {
                let _ = (answer.result("try"), answer.note());
            }
            assert!(attributes(bytes).take(100).count() < 100, "{bytes:?} never ends");
        }
    }

    #[test]
    fn the_kernels_words_are_in_the_error() {
        let mut socket = Socket::open(Protocol::Route).expect("socket");
        // RTM_NEWLINK of an unknown kind
        let message = Message::new("create interface x", 16, CREATE | EXCLUSIVE, &[0; 16])
            .nested(18, |m| m.text(1, "no-such-kind"));
        let error = socket.all(&[message]).expect_err("no such kind");
        assert_eq!(error.errno(), Some(Errno::OPNOTSUPP), "{error:?}");
        assert!(error.to_string().starts_with("create interface x (Unknown device type"), "{error}");
    }
}
