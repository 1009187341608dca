//! Which binary of a Cargo package or workspace is meant. Cargo itself is asked (`cargo metadata`, format version 1);
//! its rules for `cargo run` are followed, so that nobody has to learn others.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DetectError, Selection, ToolMissing};
use crate::environment::Environment;

/// One binary of one package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CargoBinary {
    /// The package's name.
    pub package: String,
    /// The binary's name.
    pub bin: String,
    /// The package's version.
    pub version: String,
    /// The package's description, where it has one.
    pub description: Option<String>,
    /// The package's licence, an SPDX expression, where it has one.
    pub license: Option<String>,
    /// Where the package's source is published, where it says so.
    pub repository: Option<String>,
    /// The package's `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The root of its workspace, or the package itself.
    pub workspace_root: PathBuf,
    /// Where cargo puts what it builds.
    pub target_directory: PathBuf,
    /// Where cargo puts what it builds on the way, since Rust 1.91.
    pub build_directory: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    build_directory: Option<PathBuf>,
    workspace_members: Vec<String>,
    /// Since Rust 1.71.
    workspace_default_members: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    default_run: Option<String>,
    description: Option<String>,
    license: Option<String>,
    repository: Option<String>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

pub(super) fn detect(path: &Path, selection: &Selection, env: &Environment) -> Result<CargoBinary, DetectError> {
    choose(path, &metadata(path, env)?, selection)
}

fn metadata(path: &Path, env: &Environment) -> Result<Metadata, DetectError> {
    let output = env
        .command("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(path)
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DetectError::ToolMissing(ToolMissing::CARGO),
            _ => DetectError::CargoNotRun { path: path.into(), source },
        })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim_end().into();
        return Err(DetectError::CargoRefused { path: path.into(), words });
    }
    serde_json::from_slice(&output.stdout).map_err(|source| DetectError::CargoUnclear { path: path.into(), source })
}

fn choose(path: &Path, metadata: &Metadata, selection: &Selection) -> Result<CargoBinary, DetectError> {
    let packages = candidates(path, metadata, selection)?;
    let mut binaries: Vec<(&Package, &str)> =
        packages.iter().flat_map(|package| package.binaries().map(move |bin| (*package, bin))).collect();
    if binaries.is_empty() {
        let packages = sorted(packages.iter().map(|package| package.name.clone()));
        return Err(DetectError::LibraryOnly { path: path.into(), packages });
    }
    let names = sorted(binaries.iter().map(|(_, bin)| (*bin).into()));
    if let Some(wanted) = &selection.bin {
        binaries.retain(|(_, bin)| bin == wanted);
    } else if let [(package, bin)] = packages
        .iter()
        .filter_map(|package| Some((*package, package.default_run.as_deref()?)))
        .collect::<Vec<_>>()
        .as_slice()
    {
        binaries = vec![(package, bin)];
    }
    match (binaries.as_slice(), &selection.bin) {
        ([(package, bin)], _) => Ok(package.binary(bin, metadata)),
        ([], Some(wanted)) => Err(DetectError::NoSuchBinary { path: path.into(), wanted: wanted.clone(), names }),
        _ => Err(DetectError::SeveralBinaries { path: path.into(), names }),
    }
}

/// The packages to look for a binary in: the one asked for; else the one of this very directory; else, where that is
/// a library or there is none, the workspace's default members.
fn candidates<'a>(path: &Path, metadata: &'a Metadata, selection: &Selection) -> Result<Vec<&'a Package>, DetectError> {
    let members = |ids: &[String]| -> Vec<&'a Package> {
        metadata.packages.iter().filter(|package| ids.contains(&package.id)).collect()
    };
    if let Some(wanted) = &selection.package {
        return match metadata.packages.iter().find(|package| package.name == *wanted) {
            Some(package) => Ok(vec![package]),
            None => Err(DetectError::NoSuchPackage {
                path: path.into(),
                wanted: wanted.clone(),
                names: sorted(metadata.packages.iter().map(|package| package.name.clone())),
            }),
        };
    }
    let has = |package: &&Package| match &selection.bin {
        Some(wanted) => package.binaries().any(|bin| bin == wanted),
        None => package.binaries().next().is_some(),
    };
    let here = metadata.packages.iter().find(|package| package.manifest_path == path.join("Cargo.toml"));
    let is_root = path == metadata.workspace_root;
    Ok(match here {
        // a mere member never speaks for its siblings
        Some(package) if !is_root || has(&package) => vec![package],
        _ => {
            let all = members(&metadata.workspace_members);
            let defaults = metadata.workspace_default_members.as_deref().map(members).unwrap_or_default();
            if defaults.iter().any(has) { defaults } else { all }
        }
    })
}

impl Package {
    fn binaries(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bin")).map(|t| t.name.as_str())
    }

    fn binary(&self, bin: &str, metadata: &Metadata) -> CargoBinary {
        CargoBinary {
            package: self.name.clone(),
            bin: bin.into(),
            version: self.version.clone(),
            description: self.description.clone(),
            license: self.license.clone(),
            repository: self.repository.clone(),
            manifest_path: self.manifest_path.clone(),
            workspace_root: metadata.workspace_root.clone(),
            target_directory: metadata.target_directory.clone(),
            build_directory: metadata.build_directory.clone(),
        }
    }
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}
