//! A process of a configuration, read: what [`crate::wire::ProcessSpec`] is for the daemon's containers, and what only
//! bundles ask for.

use rustix::process::Pid;
use sampan_model::capability::Capability;
use sampan_model::{Resource, ResourceLimit};
use sampan_sys::{process, scheduling};

use super::config::{CapabilityNames, Personality, Process, Rlimit};
use super::error::{OciError, When as _};
use crate::child::limits;
use crate::wire::{Capabilities, ProcessSpec};

/// A process that can be made.
#[derive(Debug)]
pub(super) struct Planned {
    /// What it shares with the daemon's containers.
    pub spec: ProcessSpec,
    /// Its terminal's size, where it has one.
    pub terminal: Option<(u16, u16)>,
    /// The rest of it.
    pub config: Process,
    scheduler: Option<scheduling::Scheduler>,
    io_priority: Option<scheduling::IoPriority>,
}

impl Planned {
    /// Reads one. What it says of capabilities that nobody knows is passed over, as runc does: a configuration may be
    /// newer than the kernel.
    pub fn read(config: Process) -> Result<Self, OciError> {
        if config.args.is_empty() {
            return Err(OciError::config("process.args", "it must not be empty"));
        }
        if !config.cwd.starts_with('/') {
            return Err(OciError::config("process.cwd", format!("{:?} is no absolute path", config.cwd)));
        }
        let limits = config.rlimits.iter().map(limit).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = limits.iter().enumerate().find_map(|(at, limit)| {
            limits[..at].iter().any(|before| before.resource == limit.resource).then_some(limit.resource)
        }) {
            return Err(OciError::config("process.rlimits", format!("{twice} is there twice")));
        }
        if let Some(adjustment) = config.oom_score_adj.filter(|value| !(-1000..=1000).contains(value)) {
            return Err(OciError::config("process.oomScoreAdj", format!("{adjustment} is not within -1000 and 1000")));
        }
        let spec = ProcessSpec {
            args: config.args.clone(),
            env: config.env.clone(),
            cwd: config.cwd.clone(),
            uid: config.user.uid,
            gid: config.user.gid,
            groups: config.user.additional_gids.clone(),
            umask: config.user.umask.unwrap_or(crate::defaults::UMASK) & 0o777,
            capabilities: config.capabilities.as_ref().map(capabilities).unwrap_or_default(),
            no_new_privileges: config.no_new_privileges,
            seccomp: None,
            limits,
            oom_score_adj: config.oom_score_adj,
        };
        let size = config.console_size.unwrap_or_default();
        Ok(Self {
            spec,
            terminal: config.terminal.then_some((size.height, size.width)),
            scheduler: config.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: config.io_priority.as_ref().map(io_priority).transpose()?,
            config,
        })
    }

    /// What only the host's root may do for it.
    pub fn prepare(&self, pid: Pid) -> Result<(), OciError> {
        limits::raise(Some(pid), &self.spec).map_err(OciError::Start)?;
        if let Some(scheduler) = &self.scheduler {
            scheduling::set_scheduler(Some(pid), scheduler).when("set its scheduler")?;
        }
        if let Some(priority) = self.io_priority {
            scheduling::set_io_priority(Some(pid), priority).when("set its I/O priority")?;
        }
        Ok(())
    }
}

fn capabilities(names: &CapabilityNames) -> Capabilities {
    let bits = |names: &Vec<String>| {
        names.iter().filter_map(|name| name.parse::<Capability>().ok()).fold(0, |all, one| all | one.bits())
    };
    let (permitted, inheritable) = (bits(&names.permitted), bits(&names.inheritable));
    Capabilities {
        bounding: bits(&names.bounding),
        effective: bits(&names.effective),
        permitted,
        inheritable,
        // the kernel takes no others (capabilities(7)); `runc spec` writes some, and runc passes them over
        ambient: bits(&names.ambient) & permitted & inheritable,
    }
}

fn limit(limit: &Rlimit) -> Result<ResourceLimit, OciError> {
    let name = limit.kind.strip_prefix("RLIMIT_").map(str::to_ascii_lowercase);
    let resource = name.and_then(|name| name.parse::<Resource>().ok());
    let resource = resource
        .ok_or_else(|| OciError::config("process.rlimits", format!("{:?} is no limit of a process", limit.kind)))?;
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    Ok(ResourceLimit { resource, soft: bound(limit.soft), hard: bound(limit.hard) })
}

fn scheduler(config: &super::config::Scheduler) -> Result<scheduling::Scheduler, OciError> {
    let wrong = |why: String| OciError::config("process.scheduler", why);
    let policy = config.policy.parse().map_err(|_| wrong(format!("{:?} is no policy", config.policy)))?;
    let mut flags = 0;
    for flag in &config.flags {
        flags |= scheduling::flag(flag).ok_or_else(|| wrong(format!("{flag:?} is no flag")))?;
    }
    Ok(scheduling::Scheduler {
        policy,
        flags,
        nice: config.nice,
        priority: u32::try_from(config.priority).map_err(|_| wrong("its priority is negative".into()))?,
        runtime_ns: config.runtime,
        deadline_ns: config.deadline,
        period_ns: config.period,
    })
}

fn io_priority(config: &super::config::IoPriority) -> Result<scheduling::IoPriority, OciError> {
    let wrong = |why: String| OciError::config("process.ioPriority", why);
    let class = config.class.parse().map_err(|_| wrong(format!("{:?} is no class", config.class)))?;
    if config.priority > 7 {
        return Err(wrong(format!("{} is not within 0 and 7", config.priority)));
    }
    Ok(scheduling::IoPriority { class, level: config.priority })
}

/// What `linux.personality` is called here. It was checked.
pub(super) fn personality(config: &Personality) -> process::Personality {
    if config.domain == "LINUX32" { process::Personality::Linux32 } else { process::Personality::Linux }
}

pub(super) fn check_personality(config: &Personality) -> Result<(), OciError> {
    if !matches!(config.domain.as_str(), "LINUX" | "LINUX32") {
        let text = format!("{:?} is no domain: LINUX or LINUX32", config.domain);
        return Err(OciError::config("linux.personality", text));
    }
    match config.flags.first() {
        None => Ok(()),
        Some(flag) => Err(OciError::config("linux.personality", format!("{flag:?} is no flag: there are none"))),
    }
}
