//! Standard output.

use std::io::{self, Write as _};

use serde::Serialize;

use super::args::Globals;
use super::failure::Failure;

/// Prints a text as it is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints a value as JSON, for programs and for people who look at it.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).expect("the API's types have string keys only");
    text.push('\n');
    print(&text)
}

/// Prints names, one a line.
pub fn print_lines<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    print(&lines.into_iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// `sampan version`.
pub fn version(globals: &Globals) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if globals.json {
        print_json(&serde_json::json!({ "version": version }))
    } else if globals.quiet {
        print_lines([version])
    } else {
        print_lines([format!("sampan {version}")])
    }
}
