//! `cargo xtask check`: all that can be told without running Sampan.

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run};
use crate::{floors, licences, workspace};

/// The one crate that may hold unsafe code.
const UNSAFE: &str = "sampan-sys";
const FORBID: &str = "#![forbid(unsafe_code)]";

/// A check.
type Check = fn() -> Result<()>;

/// Runs every check, also after one has failed, and fails with the names of those that did.
pub fn check() -> Result<()> {
    let checks: [(&str, Check); 7] = [
        ("format", || run(at_root().args(["fmt", "--all", "--check"]))),
        ("floors", floors::check),
        ("licences", licences::check),
        ("unsafe code", unsafe_code),
        ("pages", pages),
        ("clippy", || {
            run(at_root().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        }),
        ("documentation", || {
            run(at_root().env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--locked", "--no-deps", "--workspace"]))
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check() {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    eprintln!("xtask: every check passed");
    Ok(())
}

fn at_root() -> std::process::Command {
    let mut command = cargo();
    command.current_dir(workspace::root());
    command
}

/// Every crate root but those of `sys` forbids unsafe code; a lint level in `Cargo.toml` could be lowered in passing.
fn unsafe_code() -> Result<()> {
    let metadata = workspace::metadata()?;
    let mut bare = Vec::new();
    for package in metadata.members().filter(|package| package.name != UNSAFE) {
        for target in &package.targets {
            let text = std::fs::read_to_string(&target.src_path)
                .with_context(|| format!("read {}", target.src_path.display()))?;
            if !text.lines().any(|line| line == FORBID) {
                let path = target.src_path.strip_prefix(workspace::root()).unwrap_or(&target.src_path);
                bare.push(format!("{} ({})", path.display(), target.kind.join(", ")));
            }
        }
    }
    if !bare.is_empty() {
        bail!("no {FORBID} in\n  {}", bare.join("\n  "));
    }
    eprintln!("xtask: unsafe code is forbidden everywhere but in {UNSAFE}");
    Ok(())
}

/// Every file that `ARCHITECTURE.md` names is there: a path through the files that leads nowhere is worse than none.
fn pages() -> Result<()> {
    let path = workspace::root().join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let crates = workspace::root().join("crates");
    let missing: Vec<&str> = files_named(&page).filter(|file| !crates.join(file).exists()).collect();
    if !missing.is_empty() {
        bail!("ARCHITECTURE.md names files that are not there:\n  {}", missing.join("\n  "));
    }
    eprintln!("xtask: files named in ARCHITECTURE.md are there");
    Ok(())
}

/// What stands between backticks and looks like `CRATE/src/…`, with or without `crates/` before.
fn files_named(page: &str) -> impl Iterator<Item = &str> {
    let quoted = page.split('`').skip(1).step_by(2).map(|text| text.trim_start_matches("crates/"));
    quoted.filter(|text| text.contains("/src/") && !text.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    #[test]
    fn files_named_in_a_page() {
        let page = "`a/src/b.rs` and `crates/c/src/d/`, `e.rs`, `f /src/ g`";
        assert_eq!(super::files_named(page).collect::<Vec<_>>(), ["a/src/b.rs", "c/src/d/"]);
    }
}
