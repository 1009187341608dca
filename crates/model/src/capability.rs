//! Capabilities by their names (`linux/capability.h`, Linux 6.18), and what Docker makes of `--cap-add` and `--cap-drop`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The names, without `CAP_`, each at its number.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability, bit N for capability N.
pub const ALL_CAPABILITIES: u64 = (1 << NAMES.len()) - 1;

/// One capability, by its name without `CAP_`, or `ALL` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Capability(Option<u8>);

/// There is no such capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no capability: it is ALL or one of capabilities(7), such as NET_ADMIN")]
pub struct CapabilityError(String);

impl Capability {
    /// All of them.
    pub const ALL: Self = Self(None);

    /// Bit N for capability N.
    pub fn bits(self) -> u64 {
        self.0.map_or(ALL_CAPABILITIES, |number| 1 << number)
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    /// As Docker reads it: in any case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::ALL);
        }
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = (0..).zip(NAMES).find(|(_, known)| *known == name);
        found.map(|(number, _)| Self(Some(number))).ok_or_else(|| CapabilityError(text.to_owned()))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.and_then(|number| NAMES.get(usize::from(number)).copied()).unwrap_or("ALL"))
    }
}

impl TryFrom<String> for Capability {
    type Error = CapabilityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

/// What is left of `default` (bit N for capability N) with these added and dropped, as Docker has it: where all are
/// added, dropping counts; where all are dropped, adding does.
pub fn tweak(default: u64, add: &[Capability], drop: &[Capability]) -> u64 {
    let bits =
        |of: &[Capability]| of.iter().filter(|one| **one != Capability::ALL).fold(0, |all, one| all | one.bits());
    let (added, dropped) = (bits(add), bits(drop));
    if add.contains(&Capability::ALL) {
        ALL_CAPABILITIES & !dropped
    } else if drop.contains(&Capability::ALL) {
        added
    } else {
        default & !dropped | added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_reads_them() {
        for (text, bits) in
            [("NET_ADMIN", 1 << 12), ("cap_net_admin", 1 << 12), ("Cap_Chown", 1), ("CHECKPOINT_RESTORE", 1 << 40)]
        {
            assert_eq!(text.parse::<Capability>().unwrap().bits(), bits, "{text}");
        }
        assert_eq!("all".parse(), Ok(Capability::ALL));
        assert_eq!("cap_net_admin".parse::<Capability>().unwrap().to_string(), "NET_ADMIN");
        for bad in ["", "CAP_", "CAP_ALL", "NET-ADMIN", "NETADMIN"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn added_and_dropped_as_docker_does() {
        let of = |words: &str| words.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<Capability>>();
        let check = |add: &str, drop: &str, expected: u64| {
            assert_eq!(tweak(0b11, &of(add), &of(drop)), expected, "+{add} -{drop}");
        };
        check("", "", 0b11);
        check("FOWNER", "CHOWN", 0b1010);
        check("", "ALL", 0);
        check("KILL", "ALL", 1 << 5);
        check("ALL", "CHOWN", ALL_CAPABILITIES & !1);
        check("ALL CHOWN", "ALL CHOWN", ALL_CAPABILITIES & !1);
        check("CHOWN", "CHOWN", 0b11);
    }
}
