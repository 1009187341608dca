//! What is mounted in a container, and volumes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Label};

/// One mount in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where, an absolute path in the container. Made where it is missing.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// It cannot be written to.
    #[serde(default)]
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum MountSource {
    /// A volume, by its name; made where there is none. A new one begins with what the image has at the target.
    Volume {
        /// The volume.
        name: Label,
    },
    /// A file or directory of the host, opened with the rights of whoever asked for it.
    Bind {
        /// An absolute path.
        path: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// At most so much. `None`: half of the server's memory.
        size_bytes: Option<ByteSize>,
        /// Its mode, 0o1777 unless given.
        mode: Option<u32>,
        /// Whose it is, user and group; root's unless given.
        #[serde(default)]
        owner: (u32, u32),
        /// What is in it may be executed.
        #[serde(default)]
        executable: bool,
    },
}

/// How the size of what is written is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// At most so much.
    pub size_bytes: ByteSize,
    /// Where the file system has no quota for directories: an ext4 in a file, mounted, rather than being refused.
    #[serde(default)]
    pub loop_mounted: bool,
}
