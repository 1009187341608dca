//! The values of `sampan.toml` that are said as text.

use std::collections::BTreeMap;
use std::time::Duration;

use sampan_model::{ByteSize, Label, Mount, MountSource};
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

pub(super) fn environment<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<String, String>::deserialize(from)?;
    for (name, value) in &env {
        check_variable(name, value).map_err(D::Error::custom)?;
    }
    Ok(env)
}

/// Whether the kernel and everybody's `getenv` would take this variable.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} cannot be a variable's name: it is empty, or holds '=' or a zero byte"));
    }
    if value.contains('\0') {
        return Err(format!("the value of {name} holds a zero byte, which no environment can"));
    }
    Ok(())
}

pub(super) fn byte_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

pub(super) fn url_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(from)?;
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
    if path.starts_with('/') && printable {
        Ok(Some(path))
    } else {
        Err(D::Error::custom(format_args!("{path:?} is not a path: start it with '/', without spaces")))
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).map(Some).ok_or_else(|| {
        D::Error::custom(format_args!("{text:?} is not a duration: use a number and ms, s or m, such as 90s"))
    })
}

/// `500ms`, `90s`, `2m`; at most a day.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..unit_at].parse().ok()?;
    let unit_ms = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).filter(|ms| (1..=86_400_000).contains(ms)).map(Duration::from_millis)
}

pub(super) fn volumes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Mount>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let mounts = texts.iter().map(|text| volume(text).map_err(D::Error::custom)).collect::<Result<Vec<_>, _>>()?;
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|other| other.target == mount.target) {
            return Err(D::Error::custom(format_args!("two volumes cannot both be at {}", mount.target)));
        }
    }
    Ok(mounts)
}

/// `NAME:/PATH`, `NAME:/PATH:ro`.
fn volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, target, read_only) = match parts[..] {
        [name, target] | [name, target, "rw"] => (name, target, false),
        [name, target, "ro"] => (name, target, true),
        _ => return Err(format!("{text:?} is not a volume: use NAME:/PATH or NAME:/PATH:ro, such as data:/data")),
    };
    if name.contains('/') || name.starts_with('.') {
        return Err(format!(
            "{text:?} names a directory of this machine, which another one has not: use a volume's name, such as data:{target}"
        ));
    }
    let name = Label::parse(name).map_err(|error| format!("{text:?} does not name a volume: {error}"))?;
    let is_plain = target.starts_with('/') && target.split('/').all(|part| part != "..") && !target.contains('\0');
    if !is_plain || target.trim_matches('/').is_empty() {
        return Err(format!("{text:?} has no place for the volume: use an absolute path, such as {name}:/data"));
    }
    let target =
        format!("/{}", target.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/"));
    Ok(Mount { target, source: MountSource::Volume { name }, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)));
        }
        for bad in ["", "s", "1", "0s", "1h", "-1s", "2000m", "99999999999999999999s", "1 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn volumes_are_named_and_have_a_place() {
        let check = |text: &str, expected: Result<(&str, &str, bool), &str>| match (volume(text), expected) {
            (Ok(mount), Ok((name, target, read_only))) => {
                let name = Label::parse(name).expect("a label");
                let source = MountSource::Volume { name };
                assert_eq!(mount, Mount { target: target.into(), source, read_only }, "{text}");
            }
            (Err(said), Err(part)) => assert!(said.contains(part), "{text}: {said}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("data:/data", Ok(("data", "/data", false)));
        check("data:/var//lib/./x/:ro", Ok(("data", "/var/lib/x", true)));
        check("data:/data:rw", Ok(("data", "/data", false)));
        check("data", Err("use NAME:/PATH"));
        check("data:/data:z", Err("use NAME:/PATH"));
        check("data:data", Err("data:/data"));
        check("data:/", Err("no place"));
        check("data:/a/../b", Err("no place"));
        check("/srv/data:/data", Err("a directory of this machine"));
        check("./data:/data", Err("such as data:/data"));
        check("Data:/data", Err("does not name a volume"));
    }
}
