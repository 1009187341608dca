//! The licences of everything that is built into the binary: every package that cargo names, with the texts that came
//! with it, each text once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output};
use crate::workspace::{self, Metadata};

/// Names of the files that hold a licence's text, in capitals and as their beginning.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

const HEAD: &str = "\
Sampan is under the Apache License 2.0. Built into its binary are the packages below, each under its own licence. Beside
them there are Rust's standard library (MIT OR Apache-2.0, the Rust project's authors), SQLite (in the public domain), and,
where the binary is static, the GNU C library (LGPL-2.1-or-later): Sampan's source is what it can be linked anew from, with
any version of it.
";

/// The list and the texts.
pub fn texts(metadata: &Metadata) -> Result<String> {
    let mut texts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut list, mut ordered) = (String::new(), Vec::new());
    for (name, version) in packages()? {
        let package = metadata.packages.iter().find(|package| package.name == name && package.version == version);
        let package = package.with_context(|| format!("cargo metadata has no {name} {version}"))?;
        let directory = package.manifest_path.parent().context("a manifest lies in a directory")?;
        let mut numbers = Vec::new();
        for text in texts_in(directory)? {
            let number = *texts.entry(text.clone()).or_insert_with(|| {
                ordered.push(text);
                ordered.len()
            });
            numbers.push(format!("[{number}]"));
        }
        let licence = package.license.as_deref().unwrap_or("no licence named");
        list.push_str(&format!("{name} {version}: {licence} {}\n", numbers.join(" ")).replace(" \n", "\n"));
    }
    let mut all = format!("{HEAD}\n{list}");
    for (index, text) in ordered.iter().enumerate() {
        all.push_str(&format!("\n{}\n[{}]\n\n{text}\n", "=".repeat(80), index + 1));
    }
    Ok(all)
}

/// Name and version of what is built in and is not the workspace's own.
fn packages() -> Result<Vec<(String, String)>> {
    let words = ["tree", "--locked", "--package", "sampan", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let text = output(cargo().current_dir(workspace::root()).args(words))?;
    let mut packages: Vec<_> = text.lines().filter_map(parse).collect();
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// `NAME vVERSION`, with ` (proc-macro)`, ` (*)` or a path behind it; a package with a path is our own.
fn parse(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let is_own = words.any(|word| word.starts_with("(/"));
    (!is_own).then(|| (name.to_owned(), version.to_owned()))
}

fn texts_in(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        NAMES.iter().any(|known| name.starts_with(known))
    });
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree() {
        let named = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(parse("clap v4.6.7"), named("clap", "4.6.7"));
        assert_eq!(parse("serde_derive v1.0.1 (proc-macro) (*)"), named("serde_derive", "1.0.1"));
        assert_eq!(parse("sampan-model v0.1.0 (/work/crates/model)"), None);
        assert_eq!(parse(""), None);
    }
}
