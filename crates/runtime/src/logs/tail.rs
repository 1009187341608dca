//! The last lines of a log, found from its end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sampan_model::ContainerId;

use super::Reader;
use super::format::{ENTRY_MAX, Stream, ends_a_line};

/// What is looked at in one go: several entries, however long they are.
const WINDOW: u64 = 4 * ENTRY_MAX as u64;
/// The longest line shown in a message, in bytes.
const SHOWN: usize = 4096;

/// Where the last `lines` lines of a file begin, and how many of them it has. An entry at the end that does not end its
/// line counts as one.
pub(super) fn start_of_last(file: &File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.metadata()?.len();
    let mut buffer = Vec::new();
    let (mut found, mut last) = (0, true);
    while end > 0 {
        let begin = end.saturating_sub(WINDOW);
        buffer.resize(usize::try_from(end - begin).unwrap_or(0), 0);
        file.read_exact_at(&mut buffer, begin)?;
        // the window begins within an entry, unless it is the file's beginning
        let first = match buffer.iter().position(|&byte| byte == b'\n') {
            _ if begin == 0 => 0,
            Some(newline) if newline + 1 < buffer.len() => newline + 1,
            // a text without lines is no log; go past it
            _ => {
                end = begin;
                continue;
            }
        };
        let mut entries: Vec<&[u8]> = buffer[first..].split_inclusive(|&byte| byte == b'\n').collect();
        let mut at = end;
        while let Some(entry) = entries.pop() {
            // at the very end there may be half an entry: it is still being written
            let whole = entry.ends_with(b"\n");
            if whole && (ends_a_line(&entry[..entry.len() - 1]) || last) {
                if found == lines {
                    return Ok((at, found));
                }
                found += 1;
                last = false;
            }
            at -= entry.len() as u64;
        }
        end = at;
    }
    Ok((0, found))
}

/// The last `count` lines of a container's log for a message to people: both streams, without control characters and
/// terminal colours, each cut at 4 KiB. Nothing where the log cannot be read: what is being reported matters more.
pub fn tail(dir: &Path, id: &ContainerId, count: usize) -> Vec<String> {
    let mut lines: VecDeque<String> = VecDeque::new();
    let mut parts: [Vec<u8>; 2] = Default::default();
    let mut finish = |part: &mut Vec<u8>| {
        lines.push_back(plain(&String::from_utf8_lossy(&std::mem::take(part))));
        if lines.len() > count {
            lines.pop_front();
        }
    };
    let Ok(mut reader) = Reader::open(dir, id, Some(count)) else { return Vec::new() };
    while let Ok(Some(entry)) = reader.next() {
        let part = &mut parts[usize::from(entry.stream == Stream::Stderr)];
        let room = SHOWN - part.len();
        part.extend_from_slice(&entry.text[..entry.text.len().min(room)]);
        if !entry.partial {
            finish(part);
        }
    }
    parts.iter_mut().filter(|part| !part.is_empty()).for_each(finish);
    lines.into()
}

/// The text without control characters and escape sequences (ECMA-48 §5.4 and 8.3: `ESC [ … letter`,
/// `ESC ] … BEL` or `ESC \`, `ESC` with one character). Tabs stay.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => match characters.next() {
                Some('[') => {
                    characters.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
                }
                Some(']') => {
                    let mut escape = false;
                    for c in characters.by_ref() {
                        if c == '\x07' || escape && c == '\\' {
                            break;
                        }
                        escape = c == '\x1b';
                    }
                }
                _ => {}
            },
            '\t' => plain.push('\t'),
            character if character.is_control() => {}
            character => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::logs::format::{Stamp, put};

    #[test]
    fn plain_text() {
        for (text, expected) in [
            ("hello", "hello"),
            ("\x1b[1;31merror\x1b[0m: x", "error: x"),
            ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
            ("a\tb\rc\0d\x7f", "a\tbcd"),
            ("cut \x1b[", "cut "),
            ("cut \x1b", "cut "),
            ("\u{9b}31mgrün", "31mgrün"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn for_messages() {
        let dir = tempfile::tempdir().unwrap();
        let id = ContainerId::from_bytes([2; 32]);
        assert_eq!(tail(dir.path(), &id, 5), [""; 0]);
        assert_eq!(tail(&dir.path().join("none"), &id, 5), [""; 0]);
        let mut records = Vec::new();
        for (stream, partial, text) in [
            (Stream::Stdout, false, &b"first"[..]),
            (Stream::Stdout, true, b"one "),
            (Stream::Stderr, false, b"\x1b[31mred\xff"),
            (Stream::Stdout, false, b"line"),
            (Stream::Stderr, true, b"unended"),
        ] {
            put(&mut records, &Stamp::now(), stream, partial, text);
        }
        fs::write(dir.path().join(format!("{id}.log")), records).unwrap();
        assert_eq!(tail(dir.path(), &id, 9), ["first", "red\u{fffd}", "one line", "unended"]);
        assert_eq!(tail(dir.path(), &id, 1), ["unended"]);
        assert_eq!(tail(dir.path(), &id, 0), [""; 0]);
    }
}
