//! What can go wrong with cgroups.

use std::io;
use std::path::PathBuf;

/// Why something could not be done with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted.
    #[error("no cgroup file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    /// Controllers that servers need are missing.
    #[error(
        "the kernel offers no cgroup controller {}; enable it with the kernel parameters \
         cgroup_enable=cpu,memory,pids (on a Raspberry Pi in cmdline.txt) and start again",
        .0.join(", ")
    )]
    Missing(Vec<&'static str>),
    /// Not usable as a cgroup's name.
    #[error("{0:?} is no name for a cgroup: use 1 to 240 bytes without slashes or control characters")]
    Name(String),
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("{path} holds {text:?}, which is not understood")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// A value could not be written.
    #[error("write {value:?} to {path}{}", hint(.source, .path))]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup could not be made.
    #[error("make cgroup {path}{}", hint(.source, .path))]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup of that name is there and has processes in it.
    #[error("cgroup {path} is in use by process {}", list(.pids))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its processes.
        pids: Vec<u32>,
    },
    /// A cgroup could not be removed.
    #[error("remove cgroup {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup could not be removed in time because processes are still in it.
    #[error("remove cgroup {path}: still busy after {waited_ms} ms with process {}", list(.pids))]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Its processes.
        pids: Vec<u32>,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A process could not be killed.
    #[error("kill process {pid} of cgroup {path}")]
    Kill {
        /// The process.
        pid: u32,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel can bring no cgroup to a halt.
    #[error("freeze cgroup {path}: the kernel offers no freezer; Linux 5.2 and newer have one in cgroup2")]
    NoFreezer {
        /// The cgroup.
        path: PathBuf,
    },
    /// It is frozen, and nothing would ever run in it.
    #[error("cgroup {0} is frozen: thaw it, or choose another one")]
    Frozen(PathBuf),
    /// Version 2 has no place for processes there.
    #[error(
        "limit {controller} in cgroup {path}: it is below one that has processes of its own; choose a path beside that, \
         or move them to a child of it"
    )]
    Threads {
        /// The cgroup.
        path: PathBuf,
        /// The controller.
        controller: &'static str,
    },
    /// Its processes did not come to rest.
    #[error(
        "freeze cgroup {path}: after {waited_ms} ms a process of it still waits in the kernel, for a disk most likely"
    )]
    Restless {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A controller that a setting is of is not there.
    #[error("{resource} cannot be limited: this machine's kernel offers no cgroup controller {controller}")]
    NoController {
        /// The controller.
        controller: &'static str,
        /// What was asked for.
        resource: &'static str,
    },
    /// A path without a name in it.
    #[error("{0:?} is no path of a cgroup: it names none")]
    Path(PathBuf),
    /// `unified` on version 1.
    #[error("unified setting {0:?} is one of cgroup version 2, and this machine runs version 1")]
    NotUnified(String),
    /// Not the name of a setting.
    #[error("unified setting {0:?} is no file name such as memory.high")]
    Setting(String),
    /// Not the name of a page size.
    #[error("{0:?} is no size of huge pages such as 2MB")]
    PageSize(String),
    /// Beyond what the kernel has.
    #[error("a swappiness of {0} is not 0 to 100")]
    Swappiness(u64),
    /// Version 2 cannot subtract from what is not there.
    #[error("memory and swap together are limited to {0} bytes, memory is not: give it a limit, or -1")]
    SwapWithoutLimit(i64),
    /// The sum is below one of its parts.
    #[error("memory and swap together are limited to {both} bytes, which is less than the {limit} of memory alone")]
    SwapBelowLimit {
        /// That of both together.
        both: i64,
        /// That of memory.
        limit: i64,
    },
    /// There is more memory in use than there may be.
    #[error("limit memory to {limit} bytes: {used} are in use")]
    MemoryUsed {
        /// In use.
        used: u64,
        /// The new limit.
        limit: u64,
    },
    /// Rules that cannot be said to the kernel.
    #[error("device rule {rule} cannot be denied while {wider} is allowed: allow what is left of it instead")]
    DeviceHole {
        /// What was to be taken back.
        rule: String,
        /// The exception that it is a part of.
        wider: String,
    },
    /// The device rules of version 2 could not be set.
    #[error("set the device rules of cgroup {path}{}", bpf_hint(.source))]
    DeviceProgram {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Processes kept appearing while they were being killed.
    #[error("kill the processes of cgroup {path}: after {rounds} rounds there were new ones")]
    KillUnending {
        /// The cgroup.
        path: PathBuf,
        /// How many rounds.
        rounds: u32,
    },
}

/// Every failure of one removal: it goes on past each.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.failures))]
pub struct RemoveError {
    /// The failures, in their order; never none.
    pub failures: Vec<CgroupError>,
}

fn describe(failures: &[CgroupError]) -> String {
    let texts: Vec<String> = failures
        .iter()
        .map(|failure| match std::error::Error::source(failure) {
            Some(source) => format!("{failure}: {source}"),
            None => failure.to_string(),
        })
        .collect();
    texts.join("; ")
}

fn list(pids: &[u32]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = pids.iter().take(SHOWN).map(u32::to_string).collect();
    match pids.len() {
        0 => "(none that can be seen from here)".into(),
        1..=SHOWN => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - SHOWN),
    }
}

fn bpf_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (BPF programs take root: in a container, run it privileged)",
        Some(libc::ENOSYS | libc::EINVAL) => " (the kernel needs CONFIG_CGROUP_BPF)",
        _ => "",
    }
}

/// What to do about the errors that are not about the value.
fn hint(source: &io::Error, path: &std::path::Path) -> &'static str {
    match rustix::io::Errno::from_io_error(source) {
        Some(rustix::io::Errno::ROFS) => " (it is mounted read-only: in a container, run it privileged)",
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => " (run it as root, or have the cgroup delegated)",
        Some(rustix::io::Errno::BUSY) if path.ends_with("cgroup.subtree_control") => {
            " (processes are in this very cgroup: in a container, move them to a child cgroup first)"
        }
        Some(rustix::io::Errno::BUSY) => " (more than that is in use)",
        Some(rustix::io::Errno::NOENT) => {
            " (the kernel has no such setting, or the cgroups above do not hand its controller down)"
        }
        _ => "",
    }
}
