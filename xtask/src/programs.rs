//! The test programs that run once more in the guest, under another kernel (`crates/e2e/src/guest`): built here, since
//! only cargo knows their paths, and told to the tests by a variable.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{self, cargo};
use crate::workspace;

/// The crates whose unit tests run there.
const UNIT_TESTS: &[&str] = &["sampan_sys"];
/// The other test programs that run there.
const TESTS: &[&str] = &["sealed", "network", "e2e"];

/// Whether the tests that `cargo test` is asked for by these words may be those of the guest.
pub fn are_wanted(arguments: &[&str]) -> bool {
    let selects = |word: &&str| ["--test", "--lib", "--bin", "--bins", "--doc", "-p", "--package"].contains(word);
    !arguments.iter().any(selects) || arguments.contains(&"guest")
}

/// Builds them, and returns `NAME=PATH` of each, parted by colons. With the selection of packages that every test is
/// built with, or cargo would unite other features and build much twice.
pub fn build() -> Result<String> {
    let mut command = cargo();
    command.current_dir(workspace::root()).args(["test", "--locked", "--workspace", "--no-run", "--lib"]);
    for name in TESTS {
        command.args(["--test", name]);
    }
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    eprintln!("xtask: building the test programs that run in the guest");
    let found = read(&process::output(&mut command)?)?;
    let missing: Vec<&&str> =
        UNIT_TESTS.iter().chain(TESTS).filter(|name| !found.iter().any(|(other, _)| other == *name)).collect();
    if !missing.is_empty() {
        bail!("cargo built no test program {missing:?}");
    }
    Ok(found.iter().map(|(name, path)| format!("{name}={path}")).collect::<Vec<_>>().join(":"))
}

/// A line of cargo's (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The names and paths of those that are wanted.
fn read(messages: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("read cargo's message {line}"))?;
        let (Some(target), Some(path)) = (message.target, message.executable) else { continue };
        let wanted = if target.kind.iter().any(|kind| kind == "test") { TESTS } else { UNIT_TESTS };
        if wanted.contains(&target.name.as_str()) {
            found.push((target.name, path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"sampan_sys","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"sampan_sys","kind":["lib"]},"executable":"/t/sampan_sys-1"}
{"reason":"compiler-artifact","target":{"name":"sampan_model","kind":["lib"]},"executable":"/t/sampan_model-1"}
{"reason":"compiler-artifact","target":{"name":"sealed","kind":["test"]},"executable":"/t/sealed-1"}
{"reason":"build-finished","success":true}"#;
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(read(messages).unwrap(), [pair("sampan_sys", "/t/sampan_sys-1"), pair("sealed", "/t/sealed-1")]);
    }

    #[test]
    fn the_guest_is_part_of_every_run_that_does_not_select_another() {
        for (arguments, wanted) in [
            (&[][..], true),
            (&["some_name"], true),
            (&["--test", "guest"], true),
            (&["--test", "e2e", "up"], false),
            (&["-p", "sampan-e2e", "--test", "guest"], true),
        ] {
            assert_eq!(are_wanted(arguments), wanted, "{arguments:?}");
        }
    }
}
