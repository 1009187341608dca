//! Values that are no type of the model's.

use std::time::Duration;

use sampan_model::RestartPolicy;

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

/// `NAME=VALUE`, or `NAME` with nothing to say.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("the name before '=' is missing".into()),
        (name, value) => Ok((name.into(), value.into())),
    }
}

/// Docker's words for it.
pub(super) fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    const RULE: &str = "use no, on-failure, on-failure:5, always or unless-stopped";
    Ok(match text.split_once(':') {
        None if text == "no" => RestartPolicy::No,
        None if text == "always" => RestartPolicy::Always,
        None if text == "unless-stopped" => RestartPolicy::UnlessStopped,
        None if text == "on-failure" => RestartPolicy::OnFailure { max_retries: None },
        Some(("on-failure", most)) => {
            let most: u32 = most.parse().map_err(|_| RULE)?;
            // 0 is without end, as in Docker
            RestartPolicy::OnFailure { max_retries: (most > 0).then_some(most) }
        }
        _ => return Err(RULE.into()),
    })
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
    fn restart_policies() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure { max_retries: None }),
            ("on-failure:3", RestartPolicy::OnFailure { max_retries: Some(3) }),
            ("on-failure:0", RestartPolicy::OnFailure { max_retries: None }),
        ] {
            assert_eq!(parse_restart(text), Ok(policy), "{text}");
        }
        for bad in ["", "yes", "always:3", "on-failure:x"] {
            assert!(parse_restart(bad).unwrap_err().contains("unless-stopped"), "{bad}");
        }
    }

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
