//! What a request's path asks for, as a path below the root.

/// A path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without a slash at its start or end; empty for the root itself.
    pub(crate) path: Vec<u8>,
    /// It ended with a slash, so it means a directory.
    pub(crate) is_directory: bool,
}

/// Why a path asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadTarget {
    /// It is no path: `%zz`, a zero byte.
    Malformed,
    /// It is one that nothing can be at: hidden, or with empty names or dots in it.
    Nowhere,
}

/// The one name with a dot that is there (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

impl Target {
    /// Reads the path of a URL (RFC 3986 §3.3). Dots and empty names are not resolved: who asks for them has not asked
    /// for a page of ours, and browsers resolve them before they ask.
    pub(crate) fn parse(path: &str) -> Result<Self, BadTarget> {
        let path = path.strip_prefix('/').ok_or(BadTarget::Malformed)?;
        let is_directory = path.is_empty() || path.ends_with('/');
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut decoded = Vec::with_capacity(path.len());
        if path.is_empty() {
            return Ok(Self { path: decoded, is_directory });
        }
        for (index, segment) in path.split('/').enumerate() {
            let name = decode(segment).ok_or(BadTarget::Malformed)?;
            let is_hidden = name.starts_with(b".") && !(index == 0 && name == WELL_KNOWN);
            if name.is_empty() || is_hidden || name.contains(&b'/') {
                return Err(BadTarget::Nowhere);
            }
            if index > 0 {
                decoded.push(b'/');
            }
            decoded.extend_from_slice(&name);
        }
        Ok(Self { path: decoded, is_directory })
    }

    /// The same path with something after it.
    pub(crate) fn with(&self, suffix: &[u8]) -> Vec<u8> {
        [self.path.as_slice(), suffix].concat()
    }
}

fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    (!decoded.contains(&0)).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/", Ok(("", true))),
            ("/a", Ok(("a", false))),
            ("/a/b.css", Ok(("a/b.css", false))),
            ("/a/", Ok(("a", true))),
            ("/%C3%A4%20b", Ok(("ä b", false))),
            ("/.well-known/x", Ok((".well-known/x", false))),
            ("/a..b/c.", Ok(("a..b/c.", false))),
            ("/.git/config", Err(BadTarget::Nowhere)),
            ("/a/.well-known", Err(BadTarget::Nowhere)),
            ("/%2egit", Err(BadTarget::Nowhere)),
            ("/../etc/passwd", Err(BadTarget::Nowhere)),
            ("/a/%2e%2e/b", Err(BadTarget::Nowhere)),
            ("/a%2f..%2fb", Err(BadTarget::Nowhere)),
            ("//evil.example/", Err(BadTarget::Nowhere)),
            ("/a//b", Err(BadTarget::Nowhere)),
            ("/%zz", Err(BadTarget::Malformed)),
            ("/%2", Err(BadTarget::Malformed)),
            ("/a%00", Err(BadTarget::Malformed)),
            ("*", Err(BadTarget::Malformed)),
        ] {
            let expected = expected.map(|(path, is_directory)| Target { path: path.into(), is_directory });
            assert_eq!(Target::parse(path), expected, "{path}");
        }
    }

    proptest::proptest! {
        /// Whatever a stranger sends, no path has a name in it that leads up or is hidden.
        #[test]
        fn paths_lead_down(path in "/?([a./%20-9eEfF]|%2[eEfF]|\\PC){0,30}") {
            if let Ok(target) = Target::parse(&path) {
                let names: Vec<&[u8]> = target.path.split(|byte| *byte == b'/').collect();
                let is_plain = |name: &[u8]| !name.is_empty() && !name.starts_with(b".") && !name.contains(&0);
                proptest::prop_assert!(target.path.is_empty() || names.iter().all(|name| is_plain(name)));
            }
        }
    }
}
