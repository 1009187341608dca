//! Whose something is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The user that asked for something, as the kernel told: who may see it and change it, and with whose rights files of
/// the host are opened for it. The default is root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

impl Owner {
    /// Whether this user may see and change what is `of`: root everything, others their own.
    pub fn may_touch(&self, of: &Self) -> bool {
        self.uid == 0 || self.uid == of.uid
    }
}
