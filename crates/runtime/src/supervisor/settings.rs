//! What a supervisor is told on its command line: `KEY=VALUE` words, in bytes, as paths need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// A supervisor's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    /// The instance's tag: for people who look at a list of processes.
    pub tag: String,
    pub logger_id: u32,
    pub edge_id: u32,
    /// Files to write `0` into.
    pub cgroup_files: Vec<PathBuf>,
}

/// The words are not settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{0:?} is no KEY=VALUE that is known here")]
    Unknown(OsString),
    #[error("{0}= is missing or not what it should be")]
    Missing(&'static str),
}

impl Settings {
    /// The words for a command line.
    pub fn to_args(&self) -> Vec<OsString> {
        let word = |key: &str, value: &OsStr| {
            let mut word = OsString::from(key);
            word.push("=");
            word.push(value);
            word
        };
        let mut args = vec![
            word("instance", self.tag.as_ref()),
            word("run", self.run_dir.as_os_str()),
            word("logs", self.log_dir.as_os_str()),
            word("logger", self.logger_id.to_string().as_ref()),
            word("edge", self.edge_id.to_string().as_ref()),
        ];
        args.extend(self.cgroup_files.iter().map(|file| word("cgroup", file.as_os_str())));
        args
    }

    /// From the words of a command line.
    pub fn parse(args: &[OsString]) -> Result<Self, SettingsError> {
        let (mut run_dir, mut log_dir, mut tag, mut logger_id, mut edge_id) = (None, None, None, None, None);
        let mut cgroup_files = Vec::new();
        for arg in args {
            let unknown = || SettingsError::Unknown(arg.clone());
            let at = arg.as_bytes().iter().position(|&byte| byte == b'=').ok_or_else(unknown)?;
            let (key, value) = (&arg.as_bytes()[..at], OsString::from_vec(arg.as_bytes()[at + 1..].to_vec()));
            let path = || PathBuf::from(&value);
            let number = || value.to_str().and_then(|text| text.parse().ok());
            match key {
                b"run" => run_dir = Some(path()),
                b"logs" => log_dir = Some(path()),
                b"instance" => tag = value.to_str().map(str::to_owned),
                b"logger" => logger_id = number(),
                b"edge" => edge_id = number(),
                b"cgroup" => cgroup_files.push(path()),
                _ => return Err(unknown()),
            }
        }
        let absolute = |path: Option<PathBuf>, key| path.filter(|p| p.is_absolute()).ok_or(SettingsError::Missing(key));
        // root would make the two roles that read strangers' bytes the host's masters
        let user = |id: Option<u32>, key| id.filter(|&id| id != 0).ok_or(SettingsError::Missing(key));
        Ok(Self {
            run_dir: absolute(run_dir, "run")?,
            log_dir: absolute(log_dir, "logs")?,
            tag: tag.ok_or(SettingsError::Missing("instance"))?,
            logger_id: user(logger_id, "logger")?,
            edge_id: user(edge_id, "edge")?,
            cgroup_files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            run_dir: OsString::from_vec(b"/run/\xff=x".to_vec()).into(),
            log_dir: "/logs".into(),
            tag: "ab".into(),
            logger_id: 1,
            edge_id: 2,
            cgroup_files: vec!["/a".into(), "/b".into()],
        }
    }

    #[test]
    fn settings_come_back() {
        assert_eq!(Settings::parse(&settings().to_args()), Ok(settings()));
    }

    #[test]
    fn bad_words_are_refused() {
        for (word, expected) in [
            ("run=relative", SettingsError::Missing("run")),
            ("edge=0", SettingsError::Missing("edge")),
            ("edge=x", SettingsError::Missing("edge")),
            ("colour=red", SettingsError::Unknown("colour=red".into())),
            ("run", SettingsError::Unknown("run".into())),
        ] {
            let mut args = settings().to_args();
            args.push(word.into());
            assert_eq!(Settings::parse(&args), Err(expected), "{word}");
        }
    }
}
