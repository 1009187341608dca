//! `Range`: which bytes of a representation are wanted (RFC 9110 §14).

/// The most ranges of one request; a request for more is answered as a whole (§14.2 allows that, against abuse).
const MOST_RANGES: usize = 16;

/// What a `Range` header comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// Nothing that counts: the whole is sent.
    Whole,
    /// None of the ranges is there: 416.
    Unsatisfiable,
    /// These, each from its first byte to the one after its last, as they were asked for.
    Parts(Vec<(u64, u64)>),
}

impl Ranges {
    /// Reads the value for a representation of `length` bytes. What is no valid range of bytes is ignored, as §14.2
    /// demands; so are ranges that together are longer than the whole.
    pub(crate) fn parse(value: &str, length: u64) -> Self {
        let Some((unit, list)) = value.split_once('=') else { return Self::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let mut parts = Vec::new();
        let mut count = 0;
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            count += 1;
            match part(text, length) {
                Some(Some(part)) => parts.push(part),
                Some(None) => {}
                None => return Self::Whole,
            }
        }
        let total = parts.iter().fold(0u64, |total, (start, end)| total.saturating_add(end - start));
        match (count, parts.len()) {
            (0, _) => Self::Whole,
            (_, 0) => Self::Unsatisfiable,
            _ if count > MOST_RANGES || total > length => Self::Whole,
            _ => Self::Parts(parts),
        }
    }
}

/// `None`: no range at all; `Some(None)`: one that is not there.
fn part(text: &str, length: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    Some(match (first, last) {
        (None, None) => return None,
        (None, Some(suffix)) => (suffix > 0 && length > 0).then(|| (length.saturating_sub(suffix), length)),
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), last) => {
            let end = last.map_or(length, |last| last.saturating_add(1).min(length));
            (first < length).then_some((first, end))
        }
    })
}

/// Digits alone, or nothing; a number past all sizes is the largest.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use Ranges::{Parts, Unsatisfiable, Whole};
        let many = format!("bytes={}", ["0-0"; 17].join(","));
        for (value, length, expected) in [
            ("bytes=0-4", 10, Parts(vec![(0, 5)])),
            ("Bytes = 0-4", 10, Parts(vec![(0, 5)])),
            ("bytes=5-", 10, Parts(vec![(5, 10)])),
            ("bytes=-3", 10, Parts(vec![(7, 10)])),
            ("bytes=-30", 10, Parts(vec![(0, 10)])),
            ("bytes=8-99999999999999999999999", 10, Parts(vec![(8, 10)])),
            ("bytes=0-0, 9-9,", 10, Parts(vec![(0, 1), (9, 10)])),
            ("bytes=20-,0-0", 10, Parts(vec![(0, 1)])),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=4-2", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("bytes=0-9,0-9", 10, Whole),
            (&many, 100, Whole),
        ] {
            assert_eq!(Ranges::parse(value, length), expected, "{value} of {length}");
        }
    }

    proptest::proptest! {
        /// Whatever a stranger sends, no more is read than there is.
        #[test]
        fn parts_are_inside(value in "(bytes=)?[-0-9, a]{0,40}", length in 0u64..50) {
            if let Ranges::Parts(parts) = Ranges::parse(&value, length) {
                proptest::prop_assert!(!parts.is_empty() && parts.len() <= MOST_RANGES);
                proptest::prop_assert!(parts.iter().all(|(start, end)| start < end && *end <= length));
                proptest::prop_assert!(parts.iter().map(|(start, end)| end - start).sum::<u64>() <= length);
            }
        }
    }
}
