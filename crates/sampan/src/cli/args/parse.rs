//! Values that are no type of the model's.

use std::time::Duration;

/// `NAME=VALUE`, or `NAME` for the caller's own value.
pub(super) fn parse_env(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => (text, value),
            Err(_) => return Err(format!("use NAME=VALUE; {text:?} is not set here either")),
        },
    };
    match name {
        "" => Err("the name before '=' is missing".into()),
        name => Ok((name.into(), value)),
    }
}

/// `60s`, `2m`, `500ms`, or a plain number of seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    const RULE: &str = "use a number and a unit, such as 500ms, 60s or 2m";
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..unit_at].parse().map_err(|_| RULE)?;
    let seconds = match &text[unit_at..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(RULE.into()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| RULE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("60s", 60_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1500), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1d", "1e9s", "99999999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
