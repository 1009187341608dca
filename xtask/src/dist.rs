//! `cargo xtask dist`: what is given away, in `target/dist`. See `packaging/README.md`.
//!
//! ```text
//! static binary ─▶ asked for its completions, manual and units ─▶ files ─▶ .tar.gz, .deb ─▶ SHA256SUMS
//! ```
//!
//! It signs nothing and uploads nothing.

mod archive;
mod deb;
mod elf;
mod third_party;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, output, run};
use crate::workspace;
use archive::{Entry, Executable};

/// What everything is said to have been made at, where `SOURCE_DATE_EPOCH` says nothing: the first day of 2026.
const MADE_AT: u64 = 1_767_225_600;
/// Static, so that it runs on any Linux; glibc's, which needs no other toolchain than Rust's own.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Options: `--debug` or `--binary FILE` for a binary that is there already, `--out DIR` for another place.
pub fn dist(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    let metadata = workspace::metadata()?;
    let version = metadata.members().find(|package| package.name == "sampan").map(|package| package.version.clone());
    let version = version.context("there is no package sampan")?;
    let binary = match options.binary {
        Some(binary) => binary,
        None => build()?,
    };
    let elf = elf::look(&binary)?;
    if !elf.is_static {
        eprintln!("xtask: {} is no static binary: what is made of it runs where its libraries are", binary.display());
    }
    let made_at = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(MADE_AT);
    let out = options.out.unwrap_or_else(|| workspace::target().join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;

    let parts = Parts::of(&binary, &metadata, &out.join(".partial"))?;
    let name = format!("sampan-{version}-{}-linux", elf.architecture);
    let tar = archive::tar_gz(&parts.plain(&name), made_at)?;
    let package = deb::Package { version: &version, architecture: elf.debian_architecture(), is_static: elf.is_static };
    let deb = package.build(&parts, made_at)?;
    let mut sums = String::new();
    for (name, bytes) in [(format!("{name}.tar.gz"), tar), (package.file_name(), deb)] {
        write(&out.join(&name), &bytes)?;
        sums.push_str(&format!("{}  {name}\n", archive::sha256(&bytes)));
        println!("{}", out.join(&name).display());
    }
    write(&out.join("SHA256SUMS"), sums.as_bytes())
}

#[derive(Default)]
struct Options {
    binary: Option<PathBuf>,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(PathBuf::from).with_context(|| format!("{word} what?"));
            match *word {
                "--debug" => {
                    run(cargo().current_dir(workspace::root()).args(["build", "--locked", "--package", "sampan"]))?;
                    options.binary = Some(workspace::target().join("debug/sampan"));
                }
                "--binary" => options.binary = Some(value()?),
                "--out" => options.out = Some(value()?),
                _ => bail!("dist knows --debug, --binary FILE and --out DIR, and not {word:?}"),
            }
        }
        Ok(options)
    }
}

/// The release, static, and without the paths of whoever built it.
fn build() -> Result<PathBuf> {
    // named, so that the flags are not those of build scripts and macros, which cannot be static
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let remap = |from: &str, to: &str| format!("--remap-path-prefix={from}={to}");
    let flags = [STATIC.to_owned(), remap(&home, "/cargo"), remap(&workspace::root().display().to_string(), "/sampan")];
    let mut command = cargo();
    command.current_dir(workspace::root()).args(["build", "--locked", "--release", "--package", "sampan"]);
    run(command.args(["--target", &target]).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")))?;
    let binary = workspace::target().join(target).join("release/sampan");
    match elf::look(&binary)?.is_static {
        true => Ok(binary),
        false => bail!("{} asks for a loader, and should be static", binary.display()),
    }
}

/// What both archives are made of.
struct Parts {
    binary: Vec<u8>,
    /// Names as the shells' own directories have them, with their texts.
    completions: Vec<(&'static str, Vec<u8>)>,
    /// `sampan.1` and the others.
    manual: Vec<(String, Vec<u8>)>,
    /// `sampan.service` and the others.
    units: Vec<(String, Vec<u8>)>,
    sysusers: Vec<u8>,
    licence: Vec<u8>,
    third_party: Vec<u8>,
    readme: Vec<u8>,
    changelog: Vec<u8>,
}

impl Parts {
    /// Asks the binary for what it makes itself, in `scratch`, which is removed again.
    fn of(binary: &Path, metadata: &workspace::Metadata, scratch: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(scratch);
        fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
        let sampan = || {
            let mut command = Command::new(binary);
            // what the packager's own environment says is nothing of the package's
            for name in ["SAMPAN_ROOT", "SAMPAN_HTTP"] {
                command.env_remove(name);
            }
            command
        };
        let shells = [("sampan.bash", "bash"), ("_sampan", "zsh"), ("sampan.fish", "fish")];
        let mut completions = Vec::new();
        for (name, shell) in shells {
            completions.push((name, output(sampan().args(["completions", shell]))?.into_bytes()));
        }
        let man = scratch.join("man");
        output(sampan().arg("man").arg(&man))?;
        let prefix = scratch.join("prefix");
        output(sampan().args(["daemon", "install", "--binary", "/usr/bin/sampan", "--prefix"]).arg(&prefix))?;
        let parts = Self {
            binary: read(binary)?,
            completions,
            manual: files(&man)?,
            units: files(&prefix.join("etc/systemd/system"))?,
            sysusers: read(&prefix.join("etc/sysusers.d/sampan.conf"))?,
            licence: read(&workspace::root().join("LICENSE"))?,
            third_party: third_party::texts(metadata)?.into_bytes(),
            readme: read(&workspace::root().join("README.md"))?,
            changelog: read(&workspace::root().join("CHANGELOG.md"))?,
        };
        fs::remove_dir_all(scratch).with_context(|| format!("remove {}", scratch.display()))?;
        Ok(parts)
    }

    /// For any Linux: one directory, to be unpacked anywhere.
    fn plain(&self, top: &str) -> Vec<Entry> {
        let file = |path: String, bytes: &[u8]| Entry::file(format!("{top}/{path}"), bytes, Executable::No);
        let mut entries = vec![Entry::file(format!("{top}/sampan"), &self.binary, Executable::Yes)];
        for (name, bytes) in [
            ("LICENSE", &self.licence),
            ("THIRD-PARTY.txt", &self.third_party),
            ("README.md", &self.readme),
            ("CHANGELOG.md", &self.changelog),
            ("systemd/sysusers.d/sampan.conf", &self.sysusers),
        ] {
            entries.push(file(name.to_owned(), bytes));
        }
        entries.extend(self.completions.iter().map(|(name, bytes)| file(format!("completions/{name}"), bytes)));
        entries.extend(self.manual.iter().map(|(name, bytes)| file(format!("man/man1/{name}"), bytes)));
        entries.extend(self.units.iter().map(|(name, bytes)| file(format!("systemd/system/{name}"), bytes)));
        entries
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Every file of a directory.
fn files(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, read(&path)?));
    }
    files.sort();
    Ok(files)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
