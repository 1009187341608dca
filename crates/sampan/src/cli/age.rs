//! Times and sizes as people say them.

use jiff::Timestamp;

/// How long ago something was: "2 minutes", "less than a second".
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    let (count, unit) = match seconds {
        ..1 => return "less than a second".into(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..604_800 => (seconds / 86_400, "day"),
        604_800..31_536_000 => (seconds / 604_800, "week"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Bytes with one decimal: "3.1 MiB".
pub fn bytes(count: u64) -> String {
    match count {
        ..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let check = |seconds: i64, expected: &str| {
            let then = Timestamp::from_second(1_000_000).unwrap();
            assert_eq!(age(Timestamp::from_second(1_000_000 + seconds).unwrap(), then), expected);
        };
        check(-5, "less than a second");
        check(0, "less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(120, "2 minutes");
        check(7199, "1 hour");
        check(86_400 * 3, "3 days");
        check(86_400 * 15, "2 weeks");
        check(86_400 * 800, "2 years");
    }

    #[test]
    fn sizes() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1536, "1.5 KiB");
        check(3_250_586, "3.1 MiB");
        check(8 << 30, "8.0 GiB");
    }
}
