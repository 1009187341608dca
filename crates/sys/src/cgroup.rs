//! Control groups: what a server may use, what it has used, and a handle on all of its processes. Versions 1 and 2, and
//! the hybrid of both, behind one set of words.
//!
//! ```text
//! HIERARCHY/                       each v1 hierarchy, named ones too, and the unified one
//!   sampan-TAG/                    Group: one Sampan instance
//!     role-supervisor/             a leaf for the supervisor (logger, edge)
//!     server-NAME/                 ServerGroup: the limits of one server; v1: the device rules
//!       container-NAME/            ContainerGroup: a leaf; its processes, and the root of their cgroup namespace
//! ```
//!
//! A server that has one container all its life shares its cgroup with that ([`Group::begin_alone`]): a directory a
//! hierarchy less.
//!
//! A server's limits are written on its containers too: the server's are what holds, the containers' are what programs
//! inside find when they ask how much there is (JVM, .NET, Go's `automaxprocs`). Processes live in leaves only, which
//! version 2 demands and version 1 does not mind.
//!
//! A process joins by writing `0` into each of [`ContainerGroup::files`] itself, while it has one thread: being moved by
//! another costs an RCU grace period a hierarchy (`kernel.md` 8).
//!
//! Containers may open Docker's devices, unless they are given others ([`ContainerGroup::set_devices`]). It is a second
//! wall: servers are user namespaces, where nobody can make a device node, or open one that was not bound in for them. On
//! version 1 the rules are the server's, which its containers begin with, so that they cost a start nothing; on version 2
//! they are a BPF program, loaded once and attached to each container.
//!
//! A [`PathGroup`] is a cgroup at a path that somebody else chose, with everything that the OCI runtime-spec has to say of
//! [`Resources`]: what `sampan oci` runs its containers in.

mod container;
mod detect;
mod devices;
mod error;
mod file;
mod freeze;
mod group;
mod making;
mod path;
mod plan;
mod remove;
mod resources;
mod server;
mod stats;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use container::ContainerGroup;
pub use detect::Mode;
pub use devices::{Access, DOCKER_DEVICES, DeviceKind, DeviceRule, EVERY_DEVICE};
pub use error::{CgroupError, RemoveError};
pub use group::Group;
pub use making::Making;
pub use path::PathGroup;
pub use resources::{Cpu, HugePages, Io, Memory, Rdma, Resources, Throttle, WeightDevice};
pub use server::ServerGroup;
pub use stats::{CpuStats, HugePageStats, IoEntry, MemoryStats, MemoryUse, Pressure, PressureLine, Stats};
pub use tree::{Tree, Usage};

/// The controllers without which there are no servers.
const NEEDED: &[&str] = &["cpu", "memory", "pids"];
/// Those that are handed down on version 2 where there are any.
const HANDED_DOWN: &[&str] = &["cpu", "memory", "pids", "io", "cpuset"];

/// The cgroup hierarchies of this machine, as far as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    mode: Mode,
    /// Version 1 first, the unified one last.
    hierarchies: Vec<Arc<Hierarchy>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
    controllers: Vec<String>,
    /// Where this process is, below the mount.
    own: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    V1 {
        /// `systemd` of `name=systemd`.
        name: Option<String>,
    },
    Unified,
}

/// What a container mounts below its `/sys/fs/cgroup`, in its own cgroup namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// The unified hierarchy alone.
    V2,
    /// A directory a hierarchy.
    V1 {
        /// Each hierarchy's directory name and mount option: `("cpu,cpuacct", "cpu,cpuacct")`,
        /// `("systemd", "name=systemd")`.
        hierarchies: Vec<(String, String)>,
        /// Whether the unified hierarchy is there too.
        unified: bool,
    },
}

/// The size of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, in thousandths of one processor; at least 10.
    pub cpu_milli: u32,
    /// Memory in bytes, swap included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

impl Cgroups {
    /// What is mounted on this machine.
    ///
    /// # Errors
    /// When no cgroup file system is mounted, or `/proc` cannot be read.
    pub fn detect() -> Result<Self, CgroupError> {
        detect::detect()
    }

    /// Which version, or both.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The controllers that servers need and this machine lacks: for `doctor`.
    pub fn missing(&self) -> Vec<&'static str> {
        NEEDED.iter().copied().filter(|controller| self.home(controller).is_none()).collect()
    }

    /// What a container mounts.
    pub fn mounts(&self) -> Mounts {
        if self.mode == Mode::V2 {
            return Mounts::V2;
        }
        let directory = |hierarchy: &Hierarchy| {
            hierarchy.mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let hierarchies = self
            .hierarchies
            .iter()
            .filter_map(|hierarchy| match &hierarchy.kind {
                Kind::V1 { name: Some(name) } => Some((directory(hierarchy), format!("name={name}"))),
                Kind::V1 { name: None } => Some((directory(hierarchy), hierarchy.controllers.join(","))),
                Kind::Unified => None,
            })
            .collect();
        Mounts::V1 { hierarchies, unified: self.unified().is_some() }
    }

    /// Make (or find) the group of one Sampan instance, `name` being `sampan-TAG`. It may be called again at any time.
    ///
    /// # Errors
    /// When a needed controller is missing, or a file cannot be written: the error says which and what to do.
    pub fn instance(&self, name: &str) -> Result<Group, CgroupError> {
        Group::make(self, name)
    }

    fn unified_alone(&self) -> bool {
        self.mode == Mode::V2
    }

    fn unified(&self) -> Option<&Arc<Hierarchy>> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.kind == Kind::Unified)
    }

    /// The hierarchy that has a controller.
    fn home(&self, controller: &str) -> Option<&Arc<Hierarchy>> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller))
    }
}

impl Hierarchy {
    fn is_unified(&self) -> bool {
        self.kind == Kind::Unified
    }

    /// The file through which a process joins. On version 1 the thread that writes is moved, and it must be the only
    /// one: `tasks` skips the search for its siblings and the lock that goes with it.
    fn join_file(&self, directory: &Path) -> PathBuf {
        directory.join(if self.is_unified() { "cgroup.procs" } else { "tasks" })
    }
}

/// A name as part of a path.
fn check_name(name: &str) -> Result<(), CgroupError> {
    // 255 bytes are a file name's limit; the prefixes take up to 10
    let good = !name.is_empty()
        && name.len() <= 240
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c.is_control());
    if good { Ok(()) } else { Err(CgroupError::Name(name.chars().take(80).collect())) }
}
