//! The keys that leave an attached process to itself: Ctrl-P Ctrl-Q unless others are named.
//!
//! A key that may be the sequence's beginning is held back until the next one tells; whatever does not become the
//! sequence goes through, byte for byte. (So a lone Ctrl-P is seen by the process with the key after it, as in Docker.)

use std::str::FromStr;

/// A sequence of keys. The empty one never comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![control(b'p'), control(b'q')])
    }
}

impl DetachKeys {
    /// No keys at all.
    pub fn none() -> Self {
        Self(Vec::new())
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Docker's notation: single characters and `ctrl-X`, with commas between. The empty text is no keys at all.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |word: &str| match (word.strip_prefix("ctrl-").unwrap_or(word).as_bytes(), word.len()) {
            (&[key], 1) => Ok(key),
            (&[key], 6) if key.is_ascii_lowercase() || b"@[\\]^_".contains(&key) => Ok(control(key)),
            _ => Err(format!("{word:?} is no key: use single characters and ctrl-X, such as ctrl-p,ctrl-q")),
        };
        match text {
            "" => Ok(Self::none()),
            text => text.split(',').map(key).collect::<Result<_, _>>().map(Self),
        }
    }
}

fn control(key: u8) -> u8 {
    key & 0x1f
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub struct Typed {
    keys: DetachKeys,
    /// The beginning of the sequence that was typed last: not yet passed on.
    held: Vec<u8>,
}

impl Typed {
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: Vec::new() }
    }

    /// Takes what was typed and adds what goes through to `through`. Whether the sequence is complete: what was typed
    /// after it is dropped.
    pub fn take(&mut self, typed: &[u8], through: &mut Vec<u8>) -> bool {
        let DetachKeys(keys) = &self.keys;
        if keys.is_empty() {
            through.extend_from_slice(typed);
            return false;
        }
        for &byte in typed {
            self.held.push(byte);
            while !keys.starts_with(&self.held) {
                through.push(self.held.remove(0));
            }
            if self.held.len() == keys.len() {
                self.held.clear();
                return true;
            }
        }
        false
    }

    /// At the end of what is typed: what was held back was no sequence.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Typed in all ways to cut it, it must come out the same.
    fn check(keys: &str, typed: &[u8], expected: &[u8], detached: bool) {
        for cut in 0..=typed.len() {
            let mut machine = Typed::new(keys.parse().unwrap());
            let mut through = Vec::new();
            let mut is_detached = false;
            for piece in [&typed[..cut], &typed[cut..]] {
                is_detached = is_detached || machine.take(piece, &mut through);
            }
            if !is_detached {
                through.extend(machine.rest());
            }
            assert_eq!((through.as_slice(), is_detached), (expected, detached), "{keys} {typed:?} at {cut}");
        }
    }

    #[test]
    fn what_goes_through() {
        const KEYS: &str = "ctrl-p,ctrl-q";
        check(KEYS, b"hello\n", b"hello\n", false);
        check(KEYS, b"\x10\x11", b"", true);
        check(KEYS, b"ab\x10\x11cd", b"ab", true);
        check(KEYS, b"\x10\x10\x11", b"\x10", true);
        check(KEYS, b"\x10x\x11", b"\x10x\x11", false);
        check(KEYS, b"\x10", b"\x10", false);
        check("a,a,b", b"aaab", b"a", true);
        check("a,b,a,c", b"ababac", b"ab", true);
        check("", b"\x10\x11", b"\x10\x11", false);
    }

    #[test]
    fn notations() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-@,x".parse(), Ok(DetachKeys(vec![0, b'x'])));
        assert_eq!("".parse(), Ok(DetachKeys(vec![])));
        for bad in ["ctrl-", "ctrl-P", "ctrl-pp", "ab", "ctrl-p,", "ä"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }
}
