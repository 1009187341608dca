//! A process: config.md, "Process".

use serde::Deserialize;

use super::nullable;

/// What is executed, and as whom.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether it has a terminal.
    #[serde(default, deserialize_with = "nullable")]
    pub terminal: bool,
    /// How large that is.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// As whom.
    #[serde(default, deserialize_with = "nullable")]
    pub user: User,
    /// The command and its arguments.
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Where.
    #[serde(default, deserialize_with = "nullable")]
    pub cwd: String,
    /// What it may do.
    #[serde(default)]
    pub capabilities: Option<CapabilityNames>,
    /// What it may use.
    #[serde(default, deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    /// Whether programs it executes may give it more than it has.
    #[serde(default, deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    /// AppArmor's profile.
    #[serde(default, deserialize_with = "nullable")]
    pub apparmor_profile: String,
    /// SELinux' label.
    #[serde(default, deserialize_with = "nullable")]
    pub selinux_label: String,
    /// How soon it is killed where memory ends, from -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// How its turn at the processors comes.
    #[serde(default)]
    pub scheduler: Option<Scheduler>,
    /// How its turn at the disks comes.
    #[serde(default)]
    pub io_priority: Option<IoPriority>,
    /// Which processors `exec` runs it on.
    #[serde(default, rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<Affinity>,
}

/// A terminal's size, in characters.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    #[serde(default)]
    pub height: u16,
    /// Columns.
    #[serde(default)]
    pub width: u16,
}

/// Ids in the container.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user.
    #[serde(default)]
    pub uid: u32,
    /// The group.
    #[serde(default)]
    pub gid: u32,
    /// What files it makes lack.
    #[serde(default)]
    pub umask: Option<u32>,
    /// More groups.
    #[serde(default, deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

/// `CAP_…` names.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct CapabilityNames {
    /// The most that may ever be gained.
    #[serde(default, deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    /// What counts.
    #[serde(default, deserialize_with = "nullable")]
    pub effective: Vec<String>,
    /// What files with capabilities of their own may use.
    #[serde(default, deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    /// What may be made effective.
    #[serde(default, deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    /// What a program without capabilities of its own keeps.
    #[serde(default, deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// One limit.
#[derive(Debug, Clone, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The one that holds.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// sched_setattr(2).
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Scheduler {
    /// `SCHED_…`.
    pub policy: String,
    /// From -20 to 19.
    #[serde(default, deserialize_with = "nullable")]
    pub nice: i32,
    /// From 1 to 99, with the real-time policies.
    #[serde(default, deserialize_with = "nullable")]
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// Of `SCHED_DEADLINE`, in nanoseconds.
    #[serde(default, deserialize_with = "nullable")]
    pub runtime: u64,
    /// Of `SCHED_DEADLINE`, in nanoseconds.
    #[serde(default, deserialize_with = "nullable")]
    pub deadline: u64,
    /// Of `SCHED_DEADLINE`, in nanoseconds.
    #[serde(default, deserialize_with = "nullable")]
    pub period: u64,
}

/// ioprio_set(2).
#[derive(Debug, Default, Clone, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_…`.
    #[serde(default, deserialize_with = "nullable")]
    pub class: String,
    /// From 0, first, to 7.
    #[serde(default, deserialize_with = "nullable")]
    pub priority: u8,
}

/// Lists of processors (`0-3,7`).
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Affinity {
    /// Before it is in its cgroup.
    #[serde(default, deserialize_with = "nullable")]
    pub initial: String,
    /// When it is.
    #[serde(default, rename = "final", deserialize_with = "nullable")]
    pub last: String,
}
