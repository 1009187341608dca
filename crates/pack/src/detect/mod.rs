//! What a directory of source holds, and which program is to be made of it.
//!
//! ```text
//! a file that is a program           ──▶ that program
//! a directory with Cargo.toml        ──▶ one binary of the crate or workspace      (`cargo`)
//!                  go.mod or .go     ──▶ one main package                          (`go`)
//!                  index.html        ──▶ a static site
//!                  ELF programs only ──▶ the one program
//!                  none of these     ──▶ an error saying what was looked for
//! ```
//!
//! The first line that fits counts; where a program is named, the site is not looked for. `--bin` and `--package`, else those of `sampan.toml`, choose among several; where
//! nothing chooses, nothing is guessed. Detection reads; it compiles nothing, writes nothing, and looks at no entry
//! of the directory through a symbolic link.

mod cargo;
mod go;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::elf::{self, WrongArchitecture};
use crate::environment::Environment;
use crate::manifest::{FILE_NAME, Manifest, ManifestError};
use crate::site::INDEX;

pub use cargo::CargoBinary;
pub use go::GoMain;

/// Which program is wanted, where a source holds several. What is `None` here is taken from `sampan.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// A Cargo binary, a directory under `cmd/`, or a file's name.
    pub bin: Option<String>,
    /// A package of a Cargo workspace.
    pub package: Option<String>,
}

/// A source that was recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// What was given, with all symbolic links resolved: who owns a service's name.
    pub path: PathBuf,
    /// What it is.
    pub kind: SourceKind,
    /// Its `sampan.toml`.
    pub manifest: Manifest,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A binary of a Cargo package.
    Cargo(CargoBinary),
    /// A Go main package.
    Go(GoMain),
    /// A program that is ready to run.
    Executable(PathBuf),
    /// Files for browsers, which our own file server serves.
    Site,
}

/// Why no program could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Nothing there.
    #[error("no such directory: {}", path.display())]
    NoSuchDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// A file, and no program.
    #[error("{} is neither a directory of source nor an executable program", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// It may not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its `sampan.toml` is broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A directory without anything that we know.
    #[error(
        "nothing in {} can be made into a service: there is no Cargo.toml, no go.mod, no .go file of package main, no \
         index.html and no executable program in it. {}", path.display(), instead(*has_dockerfile)
    )]
    NothingRecognisable {
        /// The directory.
        path: PathBuf,
        /// Whether there are instructions for Docker in it, which others would build it by.
        has_dockerfile: bool,
    },
    /// More than one program, and nothing chooses.
    #[error(
        "{} holds several programs: {}. Choose one with --bin NAME, or with `bin = \"NAME\"` in {FILE_NAME}",
        path.display(), List(names)
    )]
    SeveralBinaries {
        /// The directory.
        path: PathBuf,
        /// Their names, sorted.
        names: Vec<String>,
    },
    /// The program that was asked for is not among those there are.
    #[error("{} holds no program {wanted:?}{}", path.display(), Choice(names))]
    NoSuchBinary {
        /// The directory.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is, sorted.
        names: Vec<String>,
    },
    /// The package that was asked for is not among those there are.
    #[error("{} holds no package {wanted:?}{}", path.display(), Choice(names))]
    NoSuchPackage {
        /// The directory.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is, sorted.
        names: Vec<String>,
    },
    /// Only libraries.
    #[error(
        "{} holds no program, only libraries ({}): give the directory of a package with a src/main.rs, or add one",
        path.display(), List(packages)
    )]
    LibraryOnly {
        /// The directory.
        path: PathBuf,
        /// The packages, sorted.
        packages: Vec<String>,
    },
    /// A Go module without a main package where one is looked for.
    #[error(
        "{} is a Go module without a program: there is no package main in it nor in a directory under cmd/",
        path.display()
    )]
    NoGoMain {
        /// The directory.
        path: PathBuf,
    },
    /// The program is for another processor.
    #[error(transparent)]
    WrongArchitecture(#[from] WrongArchitecture),
    /// `cargo` is not there.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// Cargo could not be started.
    #[error("cannot run cargo metadata in {}", path.display())]
    CargoNotRun {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cargo does not accept the crate; the words are cargo's.
    #[error("cargo cannot read the crate in {}:\n{words}", path.display())]
    CargoRefused {
        /// The directory.
        path: PathBuf,
        /// What cargo said.
        words: String,
    },
    /// Cargo said something that we do not understand.
    #[error("cannot understand what cargo metadata says of {}", path.display())]
    CargoUnclear {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// What to do where nothing is recognised.
fn instead(has_dockerfile: bool) -> &'static str {
    match has_dockerfile {
        true => {
            "Its Dockerfile is not followed: build the image where Docker is, and bring it here with \
             `docker save IMAGE | sampan image load`"
        }
        false => "Give the directory that holds one of these, or the path of a program",
    }
}

/// A compiler that is not installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{tool} is not installed (or not on PATH), and this source needs it: {remedy}")]
pub struct ToolMissing {
    /// The program.
    pub tool: &'static str,
    /// How to install it.
    pub remedy: &'static str,
}

impl ToolMissing {
    pub(crate) const CARGO: Self =
        Self { tool: "cargo", remedy: "install Rust with rustup, see https://rustup.rs, then open a new shell" };
    pub(crate) const GO: Self =
        Self { tool: "go", remedy: "install Go with `apt-get install golang-go`, or from https://go.dev/dl" };
}

/// How many names an error lists.
const MOST_NAMES: usize = 20;

/// "a, b", or "a, … and 7 more".
pub(crate) struct List<'a>(pub(crate) &'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(MOST_NAMES)];
        f.write_str(&shown.join(", "))?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, ", … and {more} more"),
        }
    }
}

/// What there is instead.
pub(crate) struct Choice<'a>(pub(crate) &'a [String]);

impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(", nor any other") } else { write!(f, "; there is: {}", List(self.0)) }
    }
}

impl Source {
    /// The name of the program, which is its file name in the image.
    pub fn program(&self) -> String {
        match &self.kind {
            SourceKind::Cargo(binary) => binary.bin.clone(),
            SourceKind::Go(main) => main.name.clone(),
            SourceKind::Executable(path) => file_name(path),
            SourceKind::Site => "sampan".into(),
        }
    }
}

/// For people: `the Rust program "hello-rust"`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            SourceKind::Cargo(_) => "Rust",
            SourceKind::Go(_) => "Go",
            SourceKind::Executable(_) => "ready",
            SourceKind::Site => return write!(f, "the static site in {}", self.path.display()),
        };
        write!(f, "the {what} program {:?}", self.program())
    }
}

/// Recognises what `path` holds, a program or the directory of one service.
///
/// # Errors
/// [`DetectError`], which says what to do.
pub fn detect(path: &Path, selection: &Selection, env: &Environment) -> Result<Source, DetectError> {
    let path = locate(path)?;
    let manifest = if path.is_dir() { Manifest::read(&path)? } else { Manifest::default() };
    recognise(path, manifest, selection, env)
}

/// Where the source is, without symbolic links.
pub(crate) fn locate(given: &Path) -> Result<PathBuf, DetectError> {
    given.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DetectError::NoSuchDirectory { path: given.into() },
        _ => DetectError::Unreadable { path: given.into(), source },
    })
}

/// Recognises what a path without symbolic links holds; its settings are these, wherever they were said.
pub(crate) fn recognise(
    path: PathBuf,
    manifest: Manifest,
    selection: &Selection,
    env: &Environment,
) -> Result<Source, DetectError> {
    if !path.is_dir() {
        return program_file(path, manifest);
    }
    let selection = Selection {
        bin: selection.bin.clone().or_else(|| manifest.bin.clone()),
        package: selection.package.clone().or_else(|| manifest.package.clone()),
    };
    let files = regular_files(&path)?;
    let kind = if files.iter().any(|file| file.ends_with("Cargo.toml")) {
        SourceKind::Cargo(cargo::detect(&path, &selection, env)?)
    } else if let Some(main) = go::detect(&path, &files, &selection)? {
        SourceKind::Go(main)
    } else if selection.bin.is_none() && files.iter().any(|file| file.ends_with(INDEX)) {
        SourceKind::Site
    } else {
        SourceKind::Executable(only_program(&path, files, &selection)?)
    };
    Ok(Source { path, kind, manifest })
}

/// A program given by its own path. A `sampan.toml` beside it is not its: a directory like `/usr/bin` is nobody's
/// source.
fn program_file(path: PathBuf, manifest: Manifest) -> Result<Source, DetectError> {
    let kind = if path.is_file() { elf::kind(&path) } else { Ok(elf::Kind::Other) };
    match kind.map_err(|source| DetectError::Unreadable { path: path.clone(), source })? {
        kind @ elf::Kind::Program(_) => {
            elf::check_architecture(&path, kind)?;
            Ok(Source { kind: SourceKind::Executable(path.clone()), path, manifest })
        }
        elf::Kind::Other | elf::Kind::NoProgram => Err(DetectError::NotADirectory { path }),
    }
}

/// The one program among the files, or the one of the wanted name. Only what is marked executable counts.
fn only_program(directory: &Path, files: Vec<PathBuf>, selection: &Selection) -> Result<PathBuf, DetectError> {
    use std::os::unix::fs::PermissionsExt as _;

    let mut programs = Vec::new();
    for path in files {
        let executable = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
        // a file that cannot be read is not the program: it could not be packed either
        if executable && let Ok(kind @ elf::Kind::Program(_)) = elf::kind(&path) {
            programs.push((path, kind));
        }
    }
    let names = || programs.iter().map(|(path, _)| file_name(path)).collect();
    let chosen = match (&selection.bin, programs.as_slice()) {
        (_, []) => {
            return Err(DetectError::NothingRecognisable {
                path: directory.into(),
                has_dockerfile: ["Dockerfile", "Containerfile"].iter().any(|name| directory.join(name).exists()),
            });
        }
        (Some(wanted), _) => programs.iter().find(|(path, _)| path.ends_with(wanted)).ok_or_else(|| {
            DetectError::NoSuchBinary { path: directory.into(), wanted: wanted.clone(), names: names() }
        })?,
        (None, [only]) => only,
        (None, _) => return Err(DetectError::SeveralBinaries { path: directory.into(), names: names() }),
    };
    elf::check_architecture(&chosen.0, chosen.1)?;
    Ok(chosen.0.clone())
}

/// The regular files directly in a directory, sorted; symbolic links are none.
fn regular_files(directory: &Path) -> Result<Vec<PathBuf>, DetectError> {
    entries(directory, |kind| kind.is_file())
}

fn entries(directory: &Path, wanted: impl Fn(std::fs::FileType) -> bool) -> Result<Vec<PathBuf>, DetectError> {
    let unreadable = |source| DetectError::Unreadable { path: directory.into(), source };
    let mut paths = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().is_ok_and(&wanted) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
