//! The words after `cargo xtask bench`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// How it is called.
pub const USAGE: &str = "cargo xtask bench SUITE [--runs N] [--seconds N] [--binary FILE] [--json]";

/// How long a churn lasts where nothing is said.
const SECONDS: u64 = 30;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// A suite's name, or `all`.
    pub suite: String,
    /// How often each is measured; each suite has a number of its own where none is given.
    pub runs: Option<usize>,
    /// How long a churn lasts.
    pub seconds: u64,
    /// The `sampan` to measure, instead of one that is built now.
    pub binary: Option<PathBuf>,
    /// Whether the report is for machines.
    pub json: bool,
}

impl Options {
    /// Reads the words.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let [suite, words @ ..] = words else { bail!("no suite is named") };
        let mut options = Self { suite: (*suite).to_owned(), runs: None, seconds: SECONDS, binary: None, json: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word {
                "--json" => options.json = true,
                "--runs" => options.runs = Some(number(value()?, "runs", 100_000)?),
                "--seconds" => options.seconds = number(value()?, "seconds", 3600)? as u64,
                "--binary" => options.binary = Some(value()?.into()),
                _ => bail!("{word:?} is not understood"),
            }
        }
        Ok(options)
    }
}

fn number(text: &str, what: &str, most: usize) -> Result<usize> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.with_context(|| format!("{text:?} is no number of {what} from 1 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let plain = Options { suite: "api".into(), runs: None, seconds: 30, binary: None, json: false };
        assert_eq!(Options::parse(&["api"]).unwrap(), plain);
        let all = Options::parse(&["all", "--json", "--runs", "7", "--seconds", "3", "--binary", "/b"]).unwrap();
        assert_eq!(
            all,
            Options { suite: "all".into(), runs: Some(7), seconds: 3, binary: Some("/b".into()), json: true }
        );
        for (words, expected) in [
            (&["api", "--runs"][..], "--runs needs a value"),
            (&["api", "--runs", "0"], "\"0\" is no number of runs from 1 to 100000"),
            (&["api", "--fast"], "\"--fast\" is not understood"),
            (&[], "no suite is named"),
        ] {
            assert_eq!(Options::parse(words).unwrap_err().to_string(), expected);
        }
    }
}
