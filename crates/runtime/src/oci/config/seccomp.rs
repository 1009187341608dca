//! A filter of system calls: config-linux.md, "Seccomp".

use serde::Deserialize;

use super::nullable;

/// The filter.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What becomes of a call that no rule is for (`SCMP_ACT_…`).
    pub default_action: String,
    /// The error number of that, where it has one.
    #[serde(default)]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`: this machine's own where there are none.
    #[serde(default, deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`.
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// The socket of the agent that `SCMP_ACT_NOTIFY` asks.
    #[serde(default, deserialize_with = "nullable")]
    pub listener_path: String,
    /// Passed on to the agent.
    #[serde(default, deserialize_with = "nullable")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, deserialize_with = "nullable")]
    pub syscalls: Vec<SystemCalls>,
}

/// A rule for some calls.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemCalls {
    /// Which.
    #[serde(default, deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// What becomes of them (`SCMP_ACT_…`).
    pub action: String,
    /// The error number of that, where it has one.
    #[serde(default)]
    pub errno_ret: Option<u32>,
    /// What must hold of their arguments.
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<Argument>,
}

/// What must hold of one argument.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Which, from 0 to 5.
    pub index: u32,
    /// What it is compared with; for `SCMP_CMP_MASKED_EQ` the mask.
    pub value: u64,
    /// What its masked bits are compared with.
    #[serde(default, deserialize_with = "nullable")]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}
