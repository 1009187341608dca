//! From a directory of source to an OCI image, without privilege and as the caller.
//!
//! ```text
//! detect ──Source──▶ compile ──Binary──▶ collect ──Tree──▶ layout ──▶ Packed: files named by digest
//!              └──────▶ Settings (name, size, port…), before anything is compiled
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
pub mod settings;
pub mod tree;

use std::path::Path;
use std::process::Stdio;

pub use collect::CollectError;
pub use compile::{Binary, CompileError, Interrupt};
pub use detect::{DetectError, Selection, Source, SourceKind, ToolMissing};
pub use environment::Environment;
pub use layout::{Blob, LayoutError, Packed};
pub use manifest::{Manifest, ManifestError, schema};
pub use settings::{Options, Settings, SettingsError};

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
    /// What was asked for cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It did not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What the program needs is not there.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The image could not be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Recognises the source at `path` and settles what its service is to be like. Compiles and writes nothing.
///
/// # Errors
/// [`PackError::Detect`] and [`PackError::Settings`].
pub fn prepare(path: &Path, options: &Options, env: &Environment) -> Result<Prepared, PackError> {
    let source = detect::detect(path, &options.selection, env)?;
    let settings = Settings::merge(&source, options)?;
    Ok(Prepared { source, settings })
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
        Ok(layout::layout(&self.source, &binary, &surroundings, out)?)
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
