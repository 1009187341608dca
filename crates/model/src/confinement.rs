//! What a container is kept from, and what is opened to it: Docker's words for it, with Sampan's defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Capability, ResourceLimit};

/// What is asked for beside the defaults. The default is the whole seal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Confinement {
    /// It may what the daemon itself may, and sees the host's devices: no seal but its namespaces. In the host's user
    /// namespace. Root's alone to ask for.
    pub privileged: bool,
    /// It has no user namespace of its own: its root is the host's. Root's alone to ask for.
    pub host_users: bool,
    /// Capabilities beside the default ones.
    pub cap_add: Vec<Capability>,
    /// Default capabilities that it is not to have.
    pub cap_drop: Vec<Capability>,
    /// Which system calls it may make.
    pub seccomp: SeccompChoice,
    /// Programs in it may gain privileges by being executed (setuid, file capabilities).
    pub new_privileges: bool,
    /// What `/proc` and `/sys` say of the host and let change is neither hidden nor read-only.
    pub open_system_paths: bool,
    /// Devices of the host. Root's alone to ask for.
    pub devices: Vec<Device>,
    /// Limits of each of its processes.
    pub limits: Vec<ResourceLimit>,
    /// Parameters of its own kernel namespaces, such as `net.core.somaxconn`.
    pub sysctls: BTreeMap<String, String>,
    /// How soon it is killed where the machine's memory runs out, -1000 to 1000. Below 0 is root's alone to ask for.
    pub oom_score_adj: Option<i32>,
    /// How large `/dev/shm` is. `None`: 64 MiB.
    pub shm_bytes: Option<ByteSize>,
    /// Groups that its user is in beside its own, names or numbers.
    pub groups: Vec<String>,
}

impl Confinement {
    /// Whether it is in the host's user namespace.
    pub fn has_host_users(&self) -> bool {
        self.privileged || self.host_users
    }

    /// For a view: a profile's text is left out.
    #[must_use]
    pub fn without_profile(&self) -> Self {
        let mut brief = self.clone();
        if let SeccompChoice::Profile { json } = &mut brief.seccomp {
            json.clear();
        }
        brief
    }
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SeccompChoice {
    /// Those of Docker's default profile, by its capabilities.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a profile in Docker's or the OCI's JSON.
    Profile {
        /// The profile's text; left out (empty) where a container is shown.
        json: String,
    },
}

/// A device of the host, or all devices below a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it is in the container.
    pub inside: String,
    /// What may be done with it.
    #[serde(default)]
    pub access: DeviceAccess,
}

/// What may be done with a device: `r`, `w` and `m` (a node of it may be made), as cgroups have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct DeviceAccess {
    /// It may be read.
    pub read: bool,
    /// It may be written to.
    pub write: bool,
    /// A node of it may be made.
    pub make: bool,
}

/// That is no access to a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no access to a device: it is made of r, w and m")]
pub struct DeviceAccessError(String);

impl Default for DeviceAccess {
    fn default() -> Self {
        Self { read: true, write: true, make: true }
    }
}

impl FromStr for DeviceAccess {
    type Err = DeviceAccessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut access = Self { read: false, write: false, make: false };
        for letter in text.chars() {
            let part = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.make,
                _ => return Err(DeviceAccessError(text.to_owned())),
            };
            if std::mem::replace(part, true) {
                return Err(DeviceAccessError(text.to_owned()));
            }
        }
        if text.is_empty() { Err(DeviceAccessError(String::new())) } else { Ok(access) }
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (is_there, letter) in [(self.read, "r"), (self.write, "w"), (self.make, "m")] {
            if is_there {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for DeviceAccess {
    type Error = DeviceAccessError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> Self {
        access.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_whole_seal_and_what_is_said_comes_back() {
        let empty: Confinement = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, Confinement::default());
        let text = r#"{"cap_add":["CAP_NET_ADMIN","all"],"seccomp":{"kind":"profile","json":"{}"},
            "devices":[{"host":"/dev/fuse","inside":"/dev/fuse","access":"rw"}],"sysctls":{"net.core.somaxconn":"9"}}"#;
        let read: Confinement = serde_json::from_str(text).unwrap();
        assert_eq!(read.cap_add.iter().map(ToString::to_string).collect::<Vec<_>>(), ["NET_ADMIN", "ALL"]);
        assert_eq!(serde_json::from_value::<Confinement>(serde_json::to_value(&read).unwrap()).unwrap(), read);
        assert_eq!(read.without_profile().seccomp, SeccompChoice::Profile { json: String::new() });
        assert!(serde_json::from_str::<Confinement>(r#"{"privilege":true}"#).is_err());
    }

    #[test]
    fn access_to_devices() {
        for text in ["r", "rw", "rwm", "m"] {
            assert_eq!(text.parse::<DeviceAccess>().unwrap().to_string(), text);
        }
        for bad in ["", "x", "rr", "rw "] {
            assert!(bad.parse::<DeviceAccess>().is_err(), "{bad}");
        }
    }
}
