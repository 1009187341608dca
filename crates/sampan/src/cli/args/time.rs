//! Moments: of the past by how long ago, or absolute.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::parse::parse_duration;

/// `2026-11-20T19:03:18Z`, `1763665398.5` (Unix seconds), `10m` (so long ago), `1h30m`, `2d`.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    parse_at(text, Timestamp::now())
}

fn parse_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let rule = || "use a time such as 2026-11-20T19:03:18Z, Unix seconds, or how long ago: 10m, 1h30m".to_owned();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let seconds: f64 = text.parse().map_err(|_| rule())?;
        return Timestamp::from_nanosecond((seconds * 1e9) as i128).map_err(|_| rule());
    }
    let ago = ago(text).ok_or_else(rule)?;
    let ago = SignedDuration::try_from(ago).map_err(|_| rule())?;
    now.checked_sub(ago).map_err(|_| rule())
}

/// A sum of numbers with units: `1h30m`.
fn ago(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |at| unit + at);
        let part = match &rest[unit..end] {
            "d" => parse_duration(&format!("{}h", &rest[..unit])).ok()?.checked_mul(24)?,
            _ => parse_duration(&rest[..end]).ok()?,
        };
        sum = sum.checked_add(part)?;
        rest = &rest[end..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, expected_ms) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("12.5", 12_500),
            ("10m", 999_400_000),
            ("1h30m", 994_600_000),
            ("500ms", 999_999_500),
            ("1d", 913_600_000),
        ] {
            assert_eq!(parse_at(text, now).map(|at| at.as_millisecond()), Ok(expected_ms), "{text}");
        }
        for bad in ["", "yesterday", "1x", "m", "5m3", "1.2.3", "-5m"] {
            assert!(parse_at(bad, now).is_err(), "{bad}");
        }
    }
}
