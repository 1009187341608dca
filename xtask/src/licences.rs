//! Licences: every package that is built in, or could be, is under one that lets Sampan be given away under
//! Apache-2.0 with no further duty than to name it.

use anyhow::{Result, bail};

use crate::workspace::{self, Package};

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Fails with every package that has none of the licences allowed here.
pub fn check() -> Result<()> {
    let metadata = workspace::metadata()?;
    let offenders: Vec<String> = metadata.packages.iter().filter_map(fault).collect();
    if !offenders.is_empty() {
        bail!("these packages may not be depended on:\n  {}", offenders.join("\n  "));
    }
    eprintln!("xtask: licences of {} packages are fine", metadata.packages.len());
    Ok(())
}

fn fault(package: &Package) -> Option<String> {
    let who = format!("{} {}", package.name, package.version);
    match package.license.as_deref() {
        None => Some(format!("{who}: names no licence")),
        Some(text) => match is_allowed(text) {
            Some(true) => None,
            Some(false) => Some(format!("{who}: {text:?} is not among those allowed in xtask/src/licences.rs")),
            None => Some(format!("{who}: {text:?} is no SPDX expression")),
        },
    }
}

/// Whether an SPDX expression (SPDX 2.3, annex D) can be met with what is allowed. `None`: it is no expression.
fn is_allowed(expression: &str) -> Option<bool> {
    // crates of before 2018 write `MIT/Apache-2.0` for OR
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let value = any(&mut words)?;
    words.next().is_none().then_some(value)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words) -> Option<bool> {
    let mut value = all(words)?;
    while words.next_if_eq(&"OR").is_some() {
        value |= all(words)?;
    }
    Some(value)
}

fn all(words: &mut Words) -> Option<bool> {
    let mut value = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        value &= one(words)?;
    }
    Some(value)
}

fn one(words: &mut Words) -> Option<bool> {
    match words.next()? {
        "(" => {
            let value = any(words)?;
            words.next_if_eq(&")").map(|_| value)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        licence if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next()?;
            Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        licence => Some(ALLOWED.contains(&licence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (text, expected) in [
            ("MIT", Some(true)),
            ("MIT/Apache-2.0", Some(true)),
            ("GPL-3.0-only", Some(false)),
            ("GPL-3.0-only OR MIT", Some(true)),
            ("MIT AND GPL-3.0-only", Some(false)),
            ("(MIT OR GPL-2.0-only) AND Unicode-3.0", Some(true)),
            ("MIT OR GPL-2.0-only AND LGPL-2.1-only", Some(true)),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", Some(true)),
            ("GPL-2.0-only WITH Classpath-exception-2.0", Some(false)),
            ("", None),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT Apache-2.0", None),
        ] {
            assert_eq!(is_allowed(text), expected, "{text:?}");
        }
    }
}
