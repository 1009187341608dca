//! What cargo says of the workspace: its packages, who depends on whom, under which licence, with which crate roots.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// `cargo metadata`, as far as it is used here (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>).
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// Every package, of the workspace and below it.
    pub packages: Vec<Package>,
    /// The ids of the workspace's own.
    pub workspace_members: Vec<String>,
}

/// A package.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its id.
    pub id: String,
    /// Its licence, an SPDX expression.
    pub license: Option<String>,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// Its crates.
    pub targets: Vec<Target>,
}

/// An arrow from one package to another.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The other's name.
    pub name: String,
    /// `dev`, `build`, or none.
    pub kind: Option<String>,
}

/// A crate of a package.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// `lib`, `bin`, `test`…
    pub kind: Vec<String>,
    /// Its root.
    pub src_path: PathBuf,
}

impl Metadata {
    /// The workspace's own packages.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

/// Asks cargo. The lock file must be up to date, so that what is checked is what is built.
pub fn metadata() -> Result<Metadata> {
    let text =
        process::output(process::cargo().current_dir(root()).args(["metadata", "--locked", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("read the output of cargo metadata")
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}
