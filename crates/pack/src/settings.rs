//! What a service is to be like: what was asked for on the command line, else in `sampan.toml`, else the default.
//!
//! The contract's precedence is flag > environment > `sampan.toml` > declared > detected > default. Flags and
//! variables arrive here as one [`Options`], for the command line's parser has already put the flag first. What an
//! image declares and what is found listening come after us, in the daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sampan_model::{ByteSize, Cpus, Digest, Health, Label, ServerSize, ServiceSpec};

use crate::detect::{Selection, Source};
use crate::manifest::check_variable;

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
    /// No environment can hold it.
    #[error("cannot set an environment variable: {0}")]
    Variable(String),
}

impl Settings {
    /// Merges what was asked for with what the source says.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn merge(source: &Source, options: &Options) -> Result<Self, SettingsError> {
        let manifest = &source.manifest;
        let default = (ServerSize::default(), Health::default());
        let replicas = options.replicas.or(manifest.replicas.map(Into::into)).unwrap_or(1);
        if replicas == 0 {
            return Err(SettingsError::NoReplicas);
        }
        let mut env = manifest.env.clone();
        for (name, value) in &options.env {
            check_variable(name, value).map_err(SettingsError::Variable)?;
            env.insert(name.clone(), value.clone());
        }
        let start_timeout = options.start_timeout.or(manifest.health.start_timeout);
        Ok(Self {
            name: name(source, options)?,
            source: source.path.clone(),
            size: ServerSize {
                cpus: options.cpus.or(manifest.size.cpus).unwrap_or(default.0.cpus),
                memory_bytes: options.memory.or(manifest.size.memory).unwrap_or(default.0.memory_bytes),
                pids: default.0.pids,
            },
            replicas,
            env,
            port: options.port.or(manifest.port.map(Into::into)),
            health: Health {
                path: options.health_path.clone().or_else(|| manifest.health.path.clone()),
                start_timeout_ms: start_timeout.map_or(default.1.start_timeout_ms, |timeout| {
                    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
                }),
            },
        })
    }

    /// What the daemon is asked for, once the image is there.
    pub fn into_spec(self, image: Digest) -> ServiceSpec {
        let Self { name, source, size, replicas, env, port, health } = self;
        ServiceSpec {
            name,
            source: Some(source),
            image,
            size,
            replicas,
            command: Vec::new(),
            env,
            port,
            health,
            mounts: Vec::new(),
            server: None,
        }
    }
}

fn name(source: &Source, options: &Options) -> Result<Label, SettingsError> {
    let given = options.name.clone().or_else(|| source.manifest.name.clone());
    let own = || Label::from_directory_name(source.path.file_name()?.to_str()?);
    given.or_else(own).ok_or_else(|| SettingsError::NoName { path: source.path.clone() })
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
