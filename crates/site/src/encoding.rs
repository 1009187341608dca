//! `Accept-Encoding`: which codings a client takes, and which it likes best (RFC 9110 §12.5.3).

/// How a representation is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// From the smallest result to the largest.
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in headers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What a file that was compressed before has after its name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// What a client takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The best first. `None` is the file as it is.
    pub(crate) codings: Vec<Option<Coding>>,
}

impl Accepted {
    /// The file as it is and nothing else.
    pub(crate) fn plain() -> Self {
        Self { codings: vec![None] }
    }

    /// Whether the file as it is will do.
    pub(crate) fn takes_plain(&self) -> bool {
        self.codings.contains(&None)
    }

    /// Reads the header's values; without one, the file as it is.
    pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut said: Vec<(String, u16)> = Vec::new();
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            // a weight that cannot be read is not a refusal
            said.push((name, weight.map_or(1000, |weight| thousandths(weight).unwrap_or(1000))));
        }
        let weight = |names: &[&str]| {
            let of = |name: &str| said.iter().find(|(said, _)| said == name).map(|(_, weight)| *weight);
            names.iter().find_map(|name| of(name)).or_else(|| of("*"))
        };
        let mut weighed: Vec<(Option<Coding>, u16)> = Vec::new();
        for coding in Coding::ALL {
            let names: &[&str] = if coding == Coding::Gzip { &["gzip", "x-gzip"] } else { &[coding.name()] };
            weighed.extend(weight(names).map(|weight| (Some(coding), weight)));
        }
        // unless it is refused, the file as it is will do, though less than what is asked for by name
        weighed.push((None, weight(&["identity"]).unwrap_or(1)));
        weighed.retain(|(_, weight)| *weight > 0);
        // stable: of two liked alike, the smaller result
        weighed.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        Self { codings: weighed.into_iter().map(|(coding, _)| coding).collect() }
    }
}

/// `0.5` (RFC 9110 §12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let weight: f32 = weight.parse().ok()?;
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings() {
        for (header, expected) in [
            ("", "plain"),
            ("gzip, deflate, br, zstd", "br zstd gzip plain"),
            ("gzip", "gzip plain"),
            ("x-gzip;q=0.5", "gzip plain"),
            ("gzip;q=0", "plain"),
            ("gzip;q=1.0, br;q=0.1", "gzip br plain"),
            ("br;q=0.2, identity;q=0.9", "plain br"),
            ("*", "br zstd gzip plain"),
            ("*;q=0", ""),
            ("gzip, identity;q=0", "gzip"),
            ("gzip, *;q=0", "gzip"),
            ("GZIP;Q=0.3", "gzip plain"),
            ("deflate", "plain"),
        ] {
            let accepted = Accepted::parse(Some(header).into_iter());
            let names: Vec<_> = accepted.codings.iter().map(|coding| coding.map_or("plain", Coding::name)).collect();
            assert_eq!(names.join(" "), expected, "{header:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn strangers_words_are_read(header in "([gzipbr*;q=0-9., -]|\\PC){0,40}") {
            let accepted = Accepted::parse(Some(header.as_str()).into_iter());
            proptest::prop_assert!(accepted.codings.len() <= 4);
        }
    }
}
