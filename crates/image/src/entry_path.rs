//! Names in a tar, made safe: relative, without `.` and `..`, bounded.

/// The longest name of an entry, in bytes (the kernel's `PATH_MAX` with its end).
const LONGEST: usize = 4095;
/// The longest part of one (`NAME_MAX`).
const LONGEST_PART: usize = 255;
/// How many directories deep.
const DEEPEST: usize = 128;

/// A name below the root of a layer: parts that are neither empty, `.` nor `..`, joined by `/`. Empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath(Vec<u8>);

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It has a `..` in it.
    #[error("it leads out of the layer")]
    Escapes,
    /// It is the layer's root.
    #[error("it is the root of the layer, which can only be a directory")]
    Empty,
    /// It has a zero byte in it.
    #[error("it has a zero byte in it")]
    Nul,
    /// It or one of its parts is too long.
    #[error("it has more than {LONGEST} bytes, or {LONGEST_PART} in one part")]
    TooLong,
    /// It is too deep.
    #[error("it is more than {DEEPEST} directories deep")]
    TooDeep,
}

impl EntryPath {
    /// Parses a name as it is in a tar. A leading `/` means the root of the layer, as for Docker and containerd.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, BadName> {
        if name.len() > LONGEST {
            return Err(BadName::TooLong);
        }
        let mut path = Vec::with_capacity(name.len());
        let mut depth = 0;
        for part in name.split(|&b| b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(BadName::Escapes),
                _ if part.contains(&0) => return Err(BadName::Nul),
                _ if part.len() > LONGEST_PART => return Err(BadName::TooLong),
                _ if depth == DEEPEST => return Err(BadName::TooDeep),
                _ => {}
            }
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(part);
            depth += 1;
        }
        Ok(Self(path))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory it is in and its name there; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => Some((&self.0[..at], &self.0[at + 1..])),
            None if self.0.is_empty() => None,
            None => Some((b"", &self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, path) in [
            (&b"a/b"[..], Ok(&b"a/b"[..])),
            (b"./a//b/./c/", Ok(b"a/b/c")),
            (b"/etc/passwd", Ok(b"etc/passwd")),
            (b"./", Ok(b"")),
            (b"...", Ok(b"...")),
            (b"..", Err(BadName::Escapes)),
            (b"a/../../b", Err(BadName::Escapes)),
            (b"a\0b", Err(BadName::Nul)),
            (&[b'a'; 256], Err(BadName::TooLong)),
            (&b"a/".repeat(129), Err(BadName::TooDeep)),
        ] {
            assert_eq!(EntryPath::parse(name).as_ref().map(EntryPath::as_bytes), path.as_ref().map(|p| *p));
        }
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(EntryPath::parse(b"/").unwrap().split(), None);
    }
}
