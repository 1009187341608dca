//! Names and ids, parsed once at the edge.
//!
//! Sources: RFC 1123 §2.1 (labels), Docker's container name rule, the OCI distribution specification 1.1 (image names).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not the name it was given as. `Display` says the rule, so that it can be shown as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {rule}")]
pub struct NameError {
    /// What the text was to be, in the words of `docs`: "name", "container name"…
    pub what: &'static str,
    /// The text, cut at 80 characters.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), rule }
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        $(#[$doc])*
        pub struct $name(String);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`NameError`] with the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check(text).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

text_type! {
    /// A name of a service, server, volume, bucket or network: a DNS label (RFC 1123), lower case, at most 63 bytes.
    #[schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    Label, check_label
}
text_type! {
    /// A container's name, by Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 128 bytes.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$"))]
    ContainerName, check_container_name
}
text_type! {
    /// A container's id: 64 lower-case hex digits, shown as the first 12.
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    ContainerId, check_container_id
}
text_type! {
    /// An image's name with its tag, `path[/path…]:tag`; parsing adds `:latest` where no tag is given.
    ImageName, check_image_name
}

const LABEL_RULE: &str =
    "use lower-case letters, digits and '-', starting and ending with a letter or digit, at most 63 in all";
const CONTAINER_NAME_RULE: &str =
    "use letters, digits, '_', '.' and '-', starting with a letter or digit, 2 to 128 in all";
const IMAGE_NAME_RULE: &str =
    "use lower-case letters and digits, with '.', '_' or '-' between them, '/' between parts, and an optional ':tag'";

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!(bytes, [first, .., last] if inner(*first) && inner(*last))
        && bytes.len() <= 63
        && bytes.iter().all(|&b| inner(b) || b == b'-')
        || matches!(bytes, [only] if inner(*only))
}

fn check_label(text: &str) -> Result<String, NameError> {
    if is_label(text) { Ok(text.into()) } else { Err(NameError::new("name", text, LABEL_RULE)) }
}

fn check_container_name(text: &str) -> Result<String, NameError> {
    let bytes = text.as_bytes();
    let valid = (2..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if valid { Ok(text.into()) } else { Err(NameError::new("container name", text, CONTAINER_NAME_RULE)) }
}

fn check_container_id(text: &str) -> Result<String, NameError> {
    let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if valid { Ok(text.into()) } else { Err(NameError::new("container id", text, "64 lower-case hex digits")) }
}

fn check_image_name(text: &str) -> Result<String, NameError> {
    let error = || NameError::new("image name", text, IMAGE_NAME_RULE);
    // a ':' after the last '/' starts the tag; one before it belongs to a registry's port
    let tag_at = text.rfind(':').filter(|&at| !text[at..].contains('/'));
    let (path, tag) = match tag_at {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "latest"),
    };
    let part_ok = |part: &str| {
        let bytes = part.as_bytes();
        let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !bytes.is_empty()
            && end(bytes[0])
            && end(bytes[bytes.len() - 1])
            && bytes.iter().all(|&b| end(b) || matches!(b, b'.' | b'_' | b'-' | b':'))
    };
    let mut parts = path.split('/');
    let first_ok = parts.next().is_some_and(|first| part_ok(first) && (path.contains('/') || !first.contains(':')));
    let rest_ok = parts.all(|part| part_ok(part) && !part.contains(':'));
    let tag_ok = (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first_ok && rest_ok && tag_ok && path.len() <= 255 { Ok(format!("{path}:{tag}")) } else { Err(error()) }
}

impl Label {
    /// The label nearest to a directory's name: lower case, anything else turned into single '-'. `None` where
    /// nothing is left.
    pub fn from_directory_name(name: &str) -> Option<Self> {
        let mut text = String::new();
        for c in name.chars() {
            match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => text.push(c),
                _ if text.is_empty() || text.ends_with('-') => {}
                _ => text.push('-'),
            }
        }
        text.truncate(63);
        Self::parse(text.trim_end_matches('-')).ok()
    }
}

impl ContainerId {
    /// The id made of 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The 12 digits that people are shown.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl ContainerName {
    /// The container, and so the server, of one replica of a service: `NAME.N`.
    pub fn of_replica(service: &Label, number: u32) -> Self {
        Self(format!("{service}.{number}"))
    }

    /// The host name that a container of this name is given: its letters and digits, all else as '-'.
    pub fn host_name(&self) -> Label {
        Label::from_directory_name(&self.0).unwrap_or_else(|| Label("server".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "0", "hello", "hello-1", &"x".repeat(63)] {
            assert!(Label::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64), "a b", "..", "a\n"] {
            assert!(Label::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_from_directories() {
        for (directory, label) in
            [("hello", Some("hello")), ("My App_2", Some("my-app-2")), ("--", None), ("a..b", Some("a-b")), ("ä", None)]
        {
            assert_eq!(Label::from_directory_name(directory).as_ref().map(Label::as_str), label, "{directory}");
        }
    }

    #[test]
    fn image_names() {
        for (text, full) in [
            ("busybox", "busybox:latest"),
            ("a/b:1.0", "a/b:1.0"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:x", "localhost:5000/a:x"),
        ] {
            assert_eq!(ImageName::parse(text).expect(text).as_str(), full);
        }
        for bad in ["", "A", "a:", ":x", "a//b", "/a", "a/", "a:b:c", "a b"] {
            assert!(ImageName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replicas_have_host_names() {
        let name = ContainerName::of_replica(&Label::parse("courses").expect("label"), 2);
        assert_eq!((name.as_str(), name.host_name().as_str()), ("courses.2", "courses-2"));
    }
}
