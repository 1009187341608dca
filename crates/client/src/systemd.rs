//! Where systemd runs the daemon of a root: the names of its units, and having it started.
//!
//! The units are written by `sampan daemon install` or come with a package; here they are only found. A daemon that
//! systemd knows is not started behind its back: it would neither come up at boot nor be watched.

use std::path::Path;
use std::process::Stdio;

use sampan_model::Instance;

use crate::{Root, StartError};

/// Where units are, the machine's own first (`systemd.unit(5)`).
const UNIT_DIRECTORIES: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// What is there while systemd runs (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// The units of one root: `sampan` for the default one, `sampan-TAG` for any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    stem: String,
}

impl Units {
    /// Those of this root, whether they are there or not.
    pub fn of(root: &Root) -> Self {
        let stem = match root.is_default() {
            true => "sampan".to_owned(),
            false => format!("sampan-{}", Instance::of_root(root.path()).tag()),
        };
        Self { stem }
    }

    /// What their names begin with: `sampan`.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The daemon: `sampan.service`.
    pub fn service(&self) -> String {
        format!("{}.service", self.stem)
    }

    /// The native API's socket: `sampan.socket`.
    pub fn socket(&self) -> String {
        format!("{}.socket", self.stem)
    }

    /// The sockets on which services are reached, where systemd listens on them too: `sampan-http.socket`.
    pub fn http_socket(&self) -> String {
        format!("{}-http.socket", self.stem)
    }

    /// Whether systemd runs on this machine and knows the daemon.
    pub fn are_installed(&self) -> bool {
        is_booted() && UNIT_DIRECTORIES.iter().any(|directory| Path::new(directory).join(self.service()).exists())
    }

    /// Has systemd start the daemon and waits until it is ready. Needs root. Cancel-safe: systemd goes on.
    pub(crate) async fn start(&self) -> Result<(), StartError> {
        let failed = |why: String| StartError::Systemd { unit: self.service(), why };
        let mut command = tokio::process::Command::new("systemctl");
        command.arg("start").arg(self.socket()).arg(self.service()).stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.output().await.map_err(|error| failed(format!("run systemctl: {error}")))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))),
        }
    }
}

/// Whether systemd is this machine's init.
pub fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_has_units_of_its_own() {
        let units = Units::of(&Root::at(Path::new(crate::DEFAULT_ROOT)).unwrap());
        let names = [units.service(), units.socket(), units.http_socket()];
        assert_eq!(names, ["sampan.service", "sampan.socket", "sampan-http.socket"]);
        let dir = tempfile::tempdir().unwrap();
        let other = Units::of(&Root::at(dir.path()).unwrap());
        assert!(other.service().starts_with("sampan-") && other != units, "{other:?}");
        assert!(!other.are_installed());
    }
}
