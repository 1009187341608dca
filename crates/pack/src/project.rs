//! What one directory brings up: one service; several of one `sampan.toml`; those of a `Procfile`.
//!
//! ```text
//! directory ─▶ units: a directory, its settings, a process   cheap: files are read, nothing is run
//!                │  --only
//!                ▼
//!              Prepared, in the order to bring them up        cargo is asked what the source is
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sampan_model::Label;

use crate::detect::{self, DetectError};
use crate::environment::Environment;
use crate::manifest::{FILE_NAME, Manifest};
use crate::procfile::{self, Process, ProcfileError};
use crate::settings::{self, Options, Settings};
use crate::{PackError, Prepared};

/// The services of a directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Each after all that it depends on.
    pub services: Vec<Prepared>,
    /// Whether the directory is of several services, be it that one was chosen.
    pub is_several: bool,
}

/// Why the services of a directory cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// One is needed, and there are several.
    #[error("{} holds several services ({}): give the directory of one", path.display(), join(names))]
    Several {
        /// The directory.
        path: PathBuf,
        /// Their names.
        names: Vec<Label>,
    },
    /// What was chosen is not there.
    #[error("{} holds no service {wanted}; there is: {}", path.display(), join(names))]
    NoSuchService {
        /// The directory.
        path: PathBuf,
        /// What was chosen.
        wanted: Label,
        /// What there is.
        names: Vec<Label>,
    },
    /// Two have one name.
    #[error("two services of {} are named {name}: give one another `name`", path.display())]
    SameName {
        /// The directory.
        path: PathBuf,
        /// The name.
        name: Label,
    },
    /// A service's directory says that it is of several.
    #[error("{} is the directory of one service, and its {FILE_NAME} has several: name those in the first file", path.display())]
    Nested {
        /// The service's directory.
        path: PathBuf,
    },
    /// Something is asked for that only one service can have.
    #[error(
        "{flag} is for one service, and {} holds several ({}): say it below [services.NAME] in {FILE_NAME}, or choose \
         one with --only NAME", path.display(), join(names)
    )]
    ForOne {
        /// What was asked for.
        flag: &'static str,
        /// The directory.
        path: PathBuf,
        /// Their names.
        names: Vec<Label>,
    },
    /// A process's name makes the service's too long.
    #[error("the process {process} of {name} cannot be a service: {name}-{process} is longer than 63 characters")]
    LongName {
        /// The service.
        name: Label,
        /// The process.
        process: Label,
    },
}

fn join(names: &[Label]) -> String {
    names.iter().map(Label::as_str).collect::<Vec<_>>().join(", ")
}

/// What is to be a service.
struct Unit {
    /// Its name.
    name: Label,
    /// The name that the file has for it, where it has several.
    key: Option<Label>,
    /// Its directory or program, without symbolic links.
    path: PathBuf,
    manifest: Manifest,
    process: Option<Process>,
}

struct Units {
    path: PathBuf,
    all: Vec<Unit>,
    /// Whether there are `[services.…]`.
    is_several: bool,
}

/// The services of the directory, or of the program, at `path`: those of `only`, or all where it is empty.
///
/// # Errors
/// [`PackError::Detect`], [`PackError::Settings`], [`PackError::Project`] and [`PackError::Procfile`].
pub fn project(path: &Path, options: &Options, only: &[Label], env: &Environment) -> Result<Project, PackError> {
    let Units { path, mut all, is_several } = units(path, options)?;
    let names: Vec<Label> = all.iter().map(|unit| unit.name.clone()).collect();
    let is_meant = |unit: &Unit, wanted: &Label| unit.name == *wanted || unit.key.as_ref() == Some(wanted);
    if let Some(wanted) = only.iter().find(|wanted| !all.iter().any(|unit| is_meant(unit, wanted))) {
        return Err(ProjectError::NoSuchService { path, wanted: wanted.clone(), names }.into());
    }
    all.retain(|unit| only.is_empty() || only.iter().any(|wanted| is_meant(unit, wanted)));
    let keys: BTreeSet<_> = all.iter().map(|unit| &unit.key).collect();
    if keys.len() > 1
        && let Some(flag) = options.for_one()
    {
        return Err(ProjectError::ForOne { flag, path, names }.into());
    }
    let is_several = is_several || names.len() > 1;
    let services = all.into_iter().map(|unit| unit.prepare(options, env)).collect::<Result<_, _>>()?;
    Ok(Project { services, is_several })
}

/// The names of the services of a directory, each with its own directory, in the order to bring them up. Nothing is
/// run.
///
/// # Errors
/// [`PackError::Detect`], [`PackError::Settings`], [`PackError::Project`] and [`PackError::Procfile`].
pub fn names(path: &Path) -> Result<Vec<(Label, PathBuf)>, PackError> {
    let units = units(path, &Options::default())?;
    Ok(units.all.into_iter().map(|unit| (unit.name, unit.path)).collect())
}

/// The one service at `path`; of a `Procfile`'s processes, the first: `web` where there is one.
pub(crate) fn one(path: &Path, options: &Options, env: &Environment) -> Result<Prepared, PackError> {
    let Units { path, all, is_several } = units(path, options)?;
    if is_several {
        let names = all.into_iter().map(|unit| unit.name).collect();
        return Err(ProjectError::Several { path, names }.into());
    }
    let first = all.into_iter().next().expect("what is not several services is at least one");
    first.prepare(options, env)
}

impl Unit {
    fn prepare(self, options: &Options, env: &Environment) -> Result<Prepared, PackError> {
        let Self { name, key: _, path, manifest, process } = self;
        let mut selection = options.selection.clone();
        if let Some(process) = &process {
            let chosen = selection.bin.or_else(|| manifest.bin.clone()).filter(|_| process.is_web());
            selection.bin = chosen.or_else(|| Some(process.program.clone()));
        }
        let source = detect::recognise(path, manifest, &selection, env).map_err(|error| match (error, &process) {
            (DetectError::NoSuchBinary { path, wanted, names }, Some(process)) if wanted == process.program => {
                let path = path.join(procfile::FILE_NAME);
                ProcfileError::NoSuchProgram { path, process: process.name.clone(), program: wanted, names }.into()
            }
            (error, _) => PackError::Detect(error),
        })?;
        let settings = Settings::of_process(name, &source, process.as_ref(), options)?;
        Ok(Prepared { source, settings })
    }
}

fn units(given: &Path, options: &Options) -> Result<Units, PackError> {
    let path = detect::locate(given)?;
    if !path.is_dir() {
        let name = settings::name(&path, &Manifest::default(), options)?;
        let unit = Unit { name, key: None, path: path.clone(), manifest: Manifest::default(), process: None };
        return Ok(Units { path, all: vec![unit], is_several: false });
    }
    let manifest = Manifest::read(&path).map_err(DetectError::from)?;
    let mut all = Vec::new();
    for key in manifest.order() {
        let service = manifest.services[key].clone();
        let directory = detect::locate(&path.join(service.path.as_deref().unwrap_or(Path::new("."))))?;
        let own = if directory == path { Manifest::default() } else { own_manifest(&directory)? };
        let mut service = service.or(own);
        service.name.get_or_insert_with(|| key.clone());
        all.extend(processes(directory, service, Some(key), options)?);
    }
    let is_several = manifest.is_several();
    if !is_several {
        all = processes(path.clone(), manifest, None, options)?;
    }
    let mut names = BTreeSet::new();
    match all.iter().find(|unit| !names.insert(&unit.name)) {
        Some(twice) => Err(ProjectError::SameName { path, name: twice.name.clone() }.into()),
        None => Ok(Units { path, all, is_several }),
    }
}

/// The `sampan.toml` in the directory of one service of several.
fn own_manifest(directory: &Path) -> Result<Manifest, PackError> {
    if !directory.is_dir() {
        return Ok(Manifest::default());
    }
    let own = Manifest::read(directory).map_err(DetectError::from)?;
    if own.is_several() { Err(ProjectError::Nested { path: directory.into() }.into()) } else { Ok(own) }
}

fn processes(
    path: PathBuf,
    manifest: Manifest,
    key: Option<&Label>,
    options: &Options,
) -> Result<Vec<Unit>, PackError> {
    // a name that was asked for is one service's; where it is for several, that is refused later
    let base = match key {
        Some(_) => manifest.name.clone().expect("a service of several has its key's name"),
        None => settings::name(&path, &manifest, options)?,
    };
    let unit =
        |name, process| Unit { name, key: key.cloned(), path: path.clone(), manifest: manifest.clone(), process };
    let Some(processes) = procfile::read(&path)? else { return Ok(vec![unit(base, None)]) };
    let units = processes.into_iter().map(|process| {
        let name = if process.is_web() { Ok(base.clone()) } else { Label::parse(&format!("{base}-{}", process.name)) };
        let name = name.map_err(|_| ProjectError::LongName { name: base.clone(), process: process.name.clone() })?;
        Ok(unit(name, Some(process)))
    });
    units.collect()
}
