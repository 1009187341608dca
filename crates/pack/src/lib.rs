//! From a directory of source to an OCI image, without privilege and as the caller.
//!
//! ```text
//! project ─▶ detect ──Source──▶ compile ──Binary──▶ collect ──Tree──▶ layout ──▶ Packed: files named by digest
//!                        └──────▶ Settings (name, size, port…), before anything is compiled
//! ```
//!
//! One direction, small types, all synchronous. [`prepare`] is the part that takes no time and finds most mistakes;
//! [`Prepared::pack`] is the rest. The image of an unchanged source is the same to the last bit, so that it is
//! uploaded once.
//!
//! Deliberately not here: talking to the daemon (`client`), Dockerfiles (`build`), and any choice that can only be
//! made while the app runs, such as the port that it listens on.

#![forbid(unsafe_code)]

pub mod collect;
pub mod compile;
pub mod detect;
pub mod elf;
pub mod environment;
pub mod layout;
pub mod manifest;
pub mod procfile;
pub mod project;
mod remap;
pub mod settings;
pub mod site;
pub mod tree;

use std::path::Path;
use std::process::Stdio;

pub use collect::CollectError;
pub use compile::{Binary, CompileError, Interrupt};
pub use detect::{DetectError, Selection, Source, SourceKind, ToolMissing};
pub use environment::Environment;
pub use layout::{Blob, LayoutError, Packed};
pub use manifest::{Manifest, ManifestError, schema};
pub use procfile::ProcfileError;
pub use project::{Project, ProjectError, names, project};
pub use settings::{Options, Settings, SettingsError};
pub use site::SiteError;

/// Whom packing tells what it does. `()` hears nothing, and lets the compiler speak on our standard error.
pub trait Progress {
    /// The compiler is about to run with this command line.
    fn compiling(&mut self, command: &str) {
        let _ = command;
    }

    /// The program is there; its image is about to be made.
    fn packing(&mut self, binary: &Binary) {
        let _ = binary;
    }

    /// Where the compiler's standard error goes. On a terminal, leave it what it is: cargo shows a progress bar there.
    fn compiler_output(&mut self) -> Stdio {
        Stdio::inherit()
    }
}

impl Progress for () {}

/// A source that was recognised, and what its service is to be like.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The source.
    pub source: Source,
    /// What its service is to be like.
    pub settings: Settings,
}

/// Why no image could be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// No program was recognised.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The services of the directory cannot be told.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The `Procfile` cannot be used.
    #[error(transparent)]
    Procfile(#[from] ProcfileError),
    /// What was asked for cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It did not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What the program needs is not there.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The files of a static site cannot be served.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The image could not be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Recognises the one source at `path` and settles what its service is to be like. Compiles and writes nothing. Of a
/// directory that may be of several services, [`project()`] tells them all.
///
/// # Errors
/// [`PackError::Detect`], [`PackError::Settings`], [`PackError::Procfile`]; [`PackError::Project`] where there are
/// several services.
pub fn prepare(path: &Path, options: &Options, env: &Environment) -> Result<Prepared, PackError> {
    project::one(path, options, env)
}

impl Prepared {
    /// Compiles the source and writes its image as files named by digest into `out`, a directory that exists and is
    /// the caller's to remove.
    ///
    /// # Errors
    /// [`PackError`]; [`CompileError::Interrupted`] where `interrupt` was raised meanwhile.
    pub fn pack(
        &self,
        env: &Environment,
        out: &Path,
        progress: &mut dyn Progress,
        interrupt: Option<&Interrupt>,
    ) -> Result<Packed, PackError> {
        let binary = compile::compile(&self.source, env, progress, interrupt)?;
        progress.packing(&binary);
        let surroundings = collect::collect(&binary.path)?;
        let site = match self.source.kind {
            SourceKind::Site => Some(site::tree(&self.source.path)?),
            _ => None,
        };
        Ok(layout::layout(&self.source, &binary, &surroundings, site.as_ref(), out)?)
    }
}

/// [`prepare`] and [`Prepared::pack`] in one, with the caller's own environment.
///
/// # Errors
/// [`PackError`].
pub fn up_source(
    path: &Path,
    options: &Options,
    out: &Path,
    progress: &mut dyn Progress,
    interrupt: Option<&Interrupt>,
) -> Result<(Settings, Packed), PackError> {
    let env = Environment::of_caller();
    let prepared = prepare(path, options, &env)?;
    let packed = prepared.pack(&env, out, progress, interrupt)?;
    Ok((prepared.settings, packed))
}
