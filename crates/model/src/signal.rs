//! Signals by name and number, as `kill` and images write them: `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`.
//!
//! The numbers are those of every architecture that Sampan is built for (signal(7)).

/// The first real-time signal that programs are given: the C library keeps the two before it.
const FIRST_REAL_TIME: i32 = 34;
const LAST: i32 = 64;

const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A text that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal: use a name such as TERM or SIGHUP, or a number from 1 to 64")]
pub struct SignalError(String);

/// The number of a signal.
///
/// # Errors
/// The text is none.
pub fn parse(text: &str) -> Result<i32, SignalError> {
    let error = || SignalError(text.chars().take(40).collect());
    let number = if text.starts_with(|c: char| c.is_ascii_digit()) {
        text.parse().ok()
    } else {
        let upper = text.to_ascii_uppercase();
        of_name(upper.strip_prefix("SIG").unwrap_or(&upper))
    };
    number.filter(|number| (1..=LAST).contains(number)).ok_or_else(error)
}

fn of_name(name: &str) -> Option<i32> {
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => FIRST_REAL_TIME + offset(rest, '+')?,
        (_, Some(rest)) => LAST - offset(rest, '-')?,
        (None, None) => return None,
    };
    (FIRST_REAL_TIME..=LAST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("RTMAX", 64),
            ("rtmax-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for bad in ["", "SIG", "0", "65", "-1", "+9", "9x", "TERMINATE", "RTMIN-1", "RTMIN+31", "RTMAX-x", "RTMAX-31"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
