//! Servers that were asked for by name. (A container that asks for none has one of its own.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Disk, Label, Owner, ServerSize};

/// A server, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSpec {
    /// Its name, and its host name.
    pub name: Label,
    /// Its size: what all containers on it share.
    pub size: ServerSize,
    /// The size of what its containers write. `None`: as much as the disk has.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// Whose it is.
    #[serde(default)]
    pub owner: Owner,
}

/// Whether containers may run on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerStatus {
    /// They may: it has its address.
    Running,
    /// They may not: nothing of it is there but its record and what its containers wrote.
    Stopped,
    /// It is being taken apart.
    Closing,
}
