//! The lines of a log file: those of Kubernetes' container runtime interface, so that every log shipper reads them.
//!
//! ```text
//! 2026-11-20T19:03:18.123456789Z stdout F Hello, World!
//! 2026-11-20T19:03:18.200000000Z stderr P a line that goes on in
//! 2026-11-20T19:03:18.400000000Z stderr F  the next entry of its stream
//! ```
//!
//! Time (RFC 3339, nine decimals, UTC), stream, `F` for a line's end or `P` for a part that goes on, the text: each byte
//! as it was written but newline, which ends the entry. A text has at most [`TEXT_MAX`] bytes; longer lines are
//! split into parts. Source: Kubernetes' `kubelet-cri-logging` design, containerd's `pkg/cri/io`.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The most bytes of text in one entry.
pub const TEXT_MAX: usize = 16 * 1024;

/// The bytes before the text: both stream names have six letters.
pub(super) const PREFIX: usize = STAMP + " stdout F ".len();
/// The most bytes an entry has, its newline included.
pub(super) const ENTRY_MAX: usize = PREFIX + TEXT_MAX + 1;

const STAMP: usize = "2026-11-20T19:03:18.123456789Z".len();
const FLAG_AT: usize = PREFIX - 2;

/// Which of a process's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word, as in the files and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it was written.
    pub stream: Stream,
    /// When it was read, in nanoseconds since 1970.
    pub at_ns: i64,
    /// The text, without a newline.
    pub text: Vec<u8>,
    /// Whether the line goes on in the stream's next entry.
    pub partial: bool,
}

impl Entry {
    /// When it was read.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.at_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// A time as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp([u8; STAMP]);

impl Stamp {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self::of(Timestamp::new(now.tv_sec, i32::try_from(now.tv_nsec).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Years before 0 and after 9999 do not fit, and become 1970.
    pub fn of(time: Timestamp) -> Self {
        let text = |time: Timestamp| <[u8; STAMP]>::try_from(format!("{time:.9}").as_bytes());
        Self(text(time).or_else(|_| text(Timestamp::UNIX_EPOCH)).unwrap_or([b'0'; STAMP]))
    }
}

/// Add an entry. The text has no newline and at most [`TEXT_MAX`] bytes.
pub(crate) fn put(records: &mut Vec<u8>, stamp: &Stamp, stream: Stream, partial: bool, text: &[u8]) {
    debug_assert!(text.len() <= TEXT_MAX && !text.contains(&b'\n'));
    records.extend_from_slice(&stamp.0);
    records.push(b' ');
    records.extend_from_slice(stream.as_str().as_bytes());
    records.extend_from_slice(if partial { b" P " } else { b" F " });
    records.extend_from_slice(text);
    records.push(b'\n');
}

/// Read an entry, given without its newline. `None` if it is none: the writer was killed within it.
pub(super) fn parse(record: &[u8]) -> Option<Entry> {
    let (prefix, text) = record.split_at_checked(PREFIX)?;
    let (stamp, rest) = prefix.split_at(STAMP);
    let (stream, partial) = match rest {
        b" stdout F " => (Stream::Stdout, false),
        b" stdout P " => (Stream::Stdout, true),
        b" stderr F " => (Stream::Stderr, false),
        b" stderr P " => (Stream::Stderr, true),
        _ => return None,
    };
    let at: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some(Entry { stream, at_ns: i64::try_from(at.as_nanosecond()).ok()?, text: text.to_vec(), partial })
}

/// Whether an entry, given without its newline, ends a line.
pub(super) fn ends_a_line(record: &[u8]) -> bool {
    record.get(FLAG_AT) != Some(&b'P')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_byte_for_byte() {
        let time: Timestamp = "2026-11-20T19:03:18.12Z".parse().unwrap();
        let every_byte: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
        for text in [&b""[..], b" leading", b"\r", &every_byte, &[b'x'; TEXT_MAX]] {
            for stream in [Stream::Stdout, Stream::Stderr] {
                for partial in [false, true] {
                    let mut records = Vec::new();
                    put(&mut records, &Stamp::of(time), stream, partial, text);
                    assert!(records.len() <= ENTRY_MAX);
                    assert_eq!(records.pop(), Some(b'\n'));
                    let at_ns = i64::try_from(time.as_nanosecond()).unwrap();
                    let entry = Entry { stream, at_ns, text: text.to_vec(), partial };
                    assert_eq!(entry.at(), time);
                    assert_eq!(parse(&records), Some(entry));
                    assert_eq!(ends_a_line(&records), !partial);
                }
            }
        }
    }

    #[test]
    fn what_a_line_looks_like() {
        let mut records = Vec::new();
        let stamp = Stamp::of("2026-01-02T03:04:05Z".parse().unwrap());
        put(&mut records, &stamp, Stream::Stdout, false, b"Hello, World!");
        assert_eq!(records, b"2026-01-02T03:04:05.000000000Z stdout F Hello, World!\n");
    }

    #[test]
    fn what_is_no_entry() {
        for record in [
            "",
            "x",
            "2026-01-02T03:04:05.000000000Z stdout F",
            "2026-01-02T03:04:05.000000000Z stdin  F text",
            "2026-01-02T03:04:05.000000000Z stdout X text",
            "2026-13-02T03:04:05.000000000Z stdout F text",
            "not a time but thirty letters. stdout F text",
        ] {
            assert_eq!(parse(record.as_bytes()), None, "{record}");
        }
    }

    #[test]
    fn every_time_has_its_width() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_eq!(Stamp::of(time).0.len(), STAMP);
        }
        assert!(parse(&[&Stamp::now().0[..], b" stdout F "].concat()).unwrap().at_ns > 0);
    }
}
