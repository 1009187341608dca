//! Content addresses (OCI image specification 1.1, descriptor.md §digests); `sha256` only.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: 'sha256:' and 64 lower-case hex digits")]
pub struct DigestError(String);

impl Digest {
    /// Parses `sha256:HEX`.
    ///
    /// # Errors
    /// [`DigestError`] for any other form.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or("");
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.into()))
        } else {
            Err(DigestError(text.chars().take(100).collect()))
        }
    }

    /// The digest whose SHA-256 sum is `sum`.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in sum {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// `sha256:HEX`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits: the blob's file name.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The 12 hex digits that people are shown.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let digest = Digest::from_sha256([0xab; 32]);
        assert_eq!(Digest::parse(digest.as_str()), Ok(digest.clone()));
        assert_eq!(digest.short(), "abababababab");
        for bad in ["", "sha256:", "sha512:ab", &format!("sha256:{}", "A".repeat(64)), &"a".repeat(64)] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
