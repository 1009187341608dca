//! The words of a command, read as runc's own parser does: flags with one or two dashes before the long ones
//! (`-pid-file x`), values behind a space or an equals sign.

use std::ffi::OsString;

use anyhow::{Context as _, Result, bail};
use lexopt::{Arg, Parser, ValueExt as _};

/// Words that were not read yet.
pub struct Arguments {
    parser: Parser,
}

impl Arguments {
    pub fn new(words: impl Iterator<Item = OsString>) -> Self {
        let words = words.map(|word| match word.to_str() {
            // Go's flags have as many dashes as one likes; a single letter is one here too
            Some(text) if is_long_with_one_dash(text) => format!("-{text}").into(),
            _ => word,
        });
        // after the first word that is no flag of ours a program's own may come: those are taken as they are
        Self { parser: Parser::from_args(words.collect::<Vec<_>>()) }
    }

    pub fn next(&mut self) -> Result<Option<Arg<'_>>> {
        Ok(self.parser.next()?)
    }

    pub fn value(&mut self) -> Result<OsString> {
        Ok(self.parser.value()?)
    }

    /// The value of a flag that can do without; `--flag=value` only.
    pub fn optional_value(&mut self) {
        drop(self.parser.optional_value());
    }

    /// `--flag`, `--flag=true` or `--flag=false`.
    pub fn switch(&mut self) -> Result<bool> {
        match self.parser.optional_value() {
            None => Ok(true),
            Some(value) => value.parse().context("a flag that is true or false"),
        }
    }

    /// All that is left, whatever it looks like.
    pub fn rest(&mut self) -> Result<Vec<String>> {
        self.parser
            .raw_args()?
            .map(|word| word.into_string().map_err(|word| anyhow::anyhow!("{word:?} is no text")))
            .collect()
    }

    pub fn number<T: std::str::FromStr>(&mut self, flag: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let value = self.value()?.string()?;
        value.parse().map_err(|error| anyhow::anyhow!("{flag} {value}: {error}"))
    }

    /// A command that takes an id and nothing else.
    pub fn id_alone(mut self) -> Result<String> {
        let mut id = None;
        while let Some(word) = self.next()? {
            match word {
                Arg::Value(value) if id.is_none() => id = Some(value.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        required(id)
    }
}

/// The id, which every such command needs.
pub fn required(id: Option<String>) -> Result<String> {
    let Some(id) = id else { bail!("the id of a container is missing") };
    Ok(id)
}

fn is_long_with_one_dash(text: &str) -> bool {
    const LONG: [&str; 12] = [
        "-bundle",
        "-console-socket",
        "-pid-file",
        "-force",
        "-all",
        "-detach",
        "-process",
        "-root",
        "-log",
        "-log-format",
        "-debug",
        "-version",
    ];
    let name = text.split('=').next().unwrap_or(text);
    LONG.contains(&name)
}
