//! What a service is to be like: what was asked for on the command line, else in `sampan.toml`, else the default.
//!
//! The contract's precedence is flag > environment > `sampan.toml` > declared > detected > default. Flags and
//! variables arrive here as one [`Options`], for the command line's parser has already put the flag first. What an
//! image declares and what is found listening come after us, in the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_model::{ByteSize, Cpus, Digest, Health, Label, Mount, ServerSize, ServiceSpec};

use crate::detect::{Selection, Source};
use crate::layout::APP;
use crate::manifest::{Manifest, check_variable};
use crate::procfile::{Process, Word};

/// The port that an app is told to use, unless somebody says another.
const PORT: u16 = 8080;

/// What was asked for with flags and variables. All may be left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `--name`.
    pub name: Option<Label>,
    /// `--bin` and `--package`.
    pub selection: Selection,
    /// `--cpus`.
    pub cpus: Option<Cpus>,
    /// `--memory`.
    pub memory: Option<ByteSize>,
    /// `--replicas`.
    pub replicas: Option<u32>,
    /// `--env NAME=VALUE`, added to those of `sampan.toml`; of two with one name, the later counts.
    pub env: Vec<(String, String)>,
    /// `--port`.
    pub port: Option<u16>,
    /// The path that tells whether a replica is ready.
    pub health_path: Option<String>,
    /// How long a new replica may take until it is ready.
    pub start_timeout: Option<Duration>,
}

/// What a service is to be like; all but its image.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its name.
    pub name: Label,
    /// Who owns that name: the source, without symbolic links.
    pub source: PathBuf,
    /// The size of each replica's server.
    pub size: ServerSize,
    /// How many replicas.
    pub replicas: u32,
    /// Its environment, besides the image's.
    pub env: BTreeMap<String, String>,
    /// The port to route to, where somebody said one.
    pub port: Option<u16>,
    /// How a replica is known to be ready.
    pub health: Health,
    /// Its program and arguments, where they are others than the image's.
    pub command: Vec<String>,
    /// Its volumes.
    pub mounts: Vec<Mount>,
    /// Whether requests are routed to it.
    pub ingress: bool,
}

/// Why a service cannot be like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing of the directory's name can be in a service's.
    #[error("no name for the service can be made of {}: give one with --name NAME", path.display())]
    NoName {
        /// The source.
        path: PathBuf,
    },
    /// No replica would be no service.
    #[error("a service has at least 1 replica, not 0: use `sampan down` to stop it")]
    NoReplicas,
    /// A command line asks for a variable that nobody has set.
    #[error(
        "the process {process} of {name} uses ${variable}, which is not set for it: set it with -e {variable}=VALUE, or \
         below [env] in sampan.toml"
    )]
    Unset {
        /// The service.
        name: Label,
        /// The process.
        process: Label,
        /// The variable.
        variable: String,
    },
    /// No environment can hold it.
    #[error("cannot set an environment variable: {0}")]
    Variable(String),
}

impl Options {
    /// The first thing asked for that several services cannot share.
    pub(crate) fn for_one(&self) -> Option<&'static str> {
        [
            ("--name", self.name.is_some()),
            ("--bin", self.selection.bin.is_some()),
            ("--package", self.selection.package.is_some()),
            ("--port", self.port.is_some()),
            ("--replicas", self.replicas.is_some()),
            ("--health", self.health_path.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, is_said)| is_said.then_some(flag))
    }
}

impl Settings {
    /// Merges what was asked for with what the source says.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn merge(source: &Source, options: &Options) -> Result<Self, SettingsError> {
        Self::of_process(name(&source.path, &source.manifest, options)?, source, None, options)
    }

    /// The same for a process of the source's `Procfile`, if it has one. What is said of ports, health and the number
    /// of replicas is meant for `web`: the others have no port.
    pub(crate) fn of_process(
        name: Label,
        source: &Source,
        process: Option<&Process>,
        options: &Options,
    ) -> Result<Self, SettingsError> {
        let manifest = &source.manifest;
        let is_web = process.is_none_or(Process::is_web);
        let default = (ServerSize::default(), Health::default());
        let replicas = options.replicas.or(manifest.replicas.map(Into::into)).filter(|_| is_web).unwrap_or(1);
        if replicas == 0 {
            return Err(SettingsError::NoReplicas);
        }
        let mut env = manifest.env.clone();
        for (name, value) in &options.env {
            check_variable(name, value).map_err(SettingsError::Variable)?;
            env.insert(name.clone(), value.clone());
        }
        let port = options.port.or(manifest.port.map(Into::into)).filter(|_| is_web);
        let command = match process {
            Some(process) => command(&name, source, process, port, &mut env)?,
            None => Vec::new(),
        };
        let start_timeout = options.start_timeout.or(manifest.health.start_timeout);
        let health_path = options.health_path.clone().or_else(|| manifest.health.path.clone());
        Ok(Self {
            name,
            source: source.path.clone(),
            size: ServerSize {
                cpus: options.cpus.or(manifest.size.cpus).unwrap_or(default.0.cpus),
                memory_bytes: options.memory.or(manifest.size.memory).unwrap_or(default.0.memory_bytes),
                pids: default.0.pids,
            },
            replicas,
            env,
            port,
            health: Health {
                path: health_path.filter(|_| is_web),
                start_timeout_ms: start_timeout.map_or(default.1.start_timeout_ms, |timeout| {
                    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
                }),
            },
            command,
            mounts: manifest.volumes.clone(),
            ingress: is_web,
        })
    }

    /// What the daemon is asked for, once the image is there.
    pub fn into_spec(self, image: Digest) -> ServiceSpec {
        let Self { name, source, size, replicas, env, port, health, command, mounts, ingress } = self;
        let source = Some(source);
        ServiceSpec { name, source, image, size, replicas, command, env, port, health, mounts, ingress, server: None }
    }
}

/// What a process is started with, its variables filled in. Arguments in `sampan.toml` come before those of `web`.
fn command(
    service: &Label,
    source: &Source,
    process: &Process,
    port: Option<u16>,
    env: &mut BTreeMap<String, String>,
) -> Result<Vec<String>, SettingsError> {
    let port = port.unwrap_or(PORT).to_string();
    let expand = |word: &Word, env: &BTreeMap<String, String>| {
        let value = |name: &str| env.get(name).map(String::as_str).or((name == "PORT").then_some(port.as_str()));
        let unset = |variable| SettingsError::Unset { name: service.clone(), process: process.name.clone(), variable };
        word.expand(value).map_err(unset)
    };
    for (name, value) in &process.env {
        let value = expand(value, env)?;
        check_variable(name, &value).map_err(SettingsError::Variable)?;
        env.insert(name.clone(), value);
    }
    let mut command = vec![format!("{APP}/{}", source.program())];
    if process.is_web() && !source.manifest.args.is_empty() {
        command.extend(source.manifest.args.iter().cloned());
    } else {
        for word in &process.args {
            command.push(expand(word, env)?);
        }
    }
    Ok(command)
}

/// The service's name: the one asked for, else `sampan.toml`'s, else the directory's.
pub(crate) fn name(path: &Path, manifest: &Manifest, options: &Options) -> Result<Label, SettingsError> {
    let given = options.name.clone().or_else(|| manifest.name.clone());
    let own = || Label::from_directory_name(path.file_name()?.to_str()?);
    given.or_else(own).ok_or_else(|| SettingsError::NoName { path: path.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::SourceKind;
    use crate::manifest::Manifest;

    fn source(path: &str, manifest: &str) -> Source {
        Source {
            path: path.into(),
            kind: SourceKind::Executable("/x".into()),
            manifest: Manifest::parse("sampan.toml".as_ref(), manifest.as_bytes()).expect("manifest"),
        }
    }

    #[test]
    fn defaults() {
        let settings = Settings::merge(&source("/src/My App", ""), &Options::default()).expect("settings");
        assert_eq!(settings.name.as_str(), "my-app");
        assert_eq!((settings.size, settings.replicas), (ServerSize::default(), 1));
        assert_eq!((settings.port, settings.health, settings.env.len()), (None, Health::default(), 0));
    }

    #[test]
    fn flags_come_before_the_file() {
        let source = source(
            "/src/x",
            "name = 'b'\nport = 1\nreplicas = 2\n[size]\ncpus = 2\nmemory = '1GiB'\n[env]\nA = '1'\nB = '1'\n\
             [health]\npath = '/a'\nstart_timeout = '1s'",
        );
        let from_file = Settings::merge(&source, &Options::default()).expect("settings");
        assert_eq!((from_file.name.as_str(), from_file.port, from_file.replicas), ("b", Some(1), 2));
        assert_eq!(from_file.size.memory_bytes, ByteSize::gib(1));
        let options = Options {
            name: Some(Label::parse("c").expect("label")),
            cpus: Some(Cpus::ONE),
            memory: Some(ByteSize::mib(64)),
            replicas: Some(3),
            env: vec![("B".into(), "2".into())],
            port: Some(2),
            health_path: Some("/b".into()),
            start_timeout: Some(Duration::from_secs(2)),
            ..Options::default()
        };
        let settings = Settings::merge(&source, &options).expect("settings");
        assert_eq!((settings.name.as_str(), settings.port, settings.replicas), ("c", Some(2), 3));
        assert_eq!((settings.size.cpus, settings.size.memory_bytes), (Cpus::ONE, ByteSize::mib(64)));
        assert_eq!(settings.health, Health { path: Some("/b".into()), start_timeout_ms: 2000 });
        assert_eq!(settings.env, [("A".into(), "1".into()), ("B".into(), "2".into())].into());
    }

    #[test]
    fn what_cannot_be() {
        let no_name = Settings::merge(&source("/src/--", ""), &Options::default());
        assert_eq!(no_name, Err(SettingsError::NoName { path: "/src/--".into() }));
        let none = Options { replicas: Some(0), ..Options::default() };
        assert_eq!(Settings::merge(&source("/x", ""), &none), Err(SettingsError::NoReplicas));
        let odd = Options { env: vec![("A=B".into(), String::new())], ..Options::default() };
        assert!(matches!(Settings::merge(&source("/x", ""), &odd), Err(SettingsError::Variable(_))));
    }
}
