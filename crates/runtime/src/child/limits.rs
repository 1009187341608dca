//! The limits of a program: raised by the host's root, who alone may, and set by the program's own process, last, so
//! that none of them is in its own way.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use sampan_model::ResourceLimit;

use super::Step as _;
use crate::wire::{Failure, ProcessSpec};

/// How many files a program that asks for no number may have open: what systemd and Docker (29) give, since some walk
/// through all that they might have. The supervisor needs many more; up to its own number the program may raise it
/// itself.
pub(crate) const OPEN_FILES: u64 = 1024;

/// Sees to it that a process (`None`: this one) may set the limits that are asked for, and sets how soon it is killed for
/// memory. To be called by the host's root, before the process is another user namespace's for itself, or from outside.
pub(crate) fn raise(process: Option<Pid>, spec: &ProcessSpec) -> Result<(), Failure> {
    for limit in &spec.limits {
        let resource = resource(limit.resource);
        // what a child begins with is what its parent has
        let now = getrlimit(resource);
        if above(limit.hard, now.maximum) {
            let raised = Rlimit { current: now.current, maximum: limit.hard };
            prlimit(process, resource, raised).step(&named(limit))?;
        }
    }
    if let Some(adjustment) = spec.oom_score_adj {
        let of = process.map_or_else(|| "self".to_owned(), |pid| pid.as_raw_nonzero().to_string());
        std::fs::write(format!("/proc/{of}/oom_score_adj"), adjustment.to_string())
            .step(&format!("set its oom_score_adj to {adjustment}"))?;
    }
    Ok(())
}

/// As [`OPEN_FILES`] says, unless they are among the limits that are asked for.
pub(super) fn lower_open_files(limits: &[ResourceLimit]) -> Result<(), Failure> {
    if limits.iter().any(|limit| limit.resource == sampan_model::Resource::Nofile) {
        return Ok(());
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum }).step("limit its open files")
}

/// Sets them for this process.
pub(super) fn set(limits: &[ResourceLimit]) -> Result<(), Failure> {
    for limit in limits {
        let wanted = Rlimit { current: limit.soft, maximum: limit.hard };
        rustix::process::setrlimit(resource(limit.resource), wanted).step(&named(limit))?;
    }
    Ok(())
}

/// Whether a limit is above another; `None` is none.
fn above(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

fn named(limit: &ResourceLimit) -> String {
    let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
    format!("set the limit {} to {}:{}", limit.resource, text(limit.soft), text(limit.hard))
}

fn resource(of: sampan_model::Resource) -> Resource {
    use sampan_model::Resource as Model;
    match of {
        Model::As => Resource::As,
        Model::Core => Resource::Core,
        Model::Cpu => Resource::Cpu,
        Model::Data => Resource::Data,
        Model::Fsize => Resource::Fsize,
        Model::Locks => Resource::Locks,
        Model::Memlock => Resource::Memlock,
        Model::Msgqueue => Resource::Msgqueue,
        Model::Nice => Resource::Nice,
        Model::Nofile => Resource::Nofile,
        Model::Nproc => Resource::Nproc,
        Model::Rss => Resource::Rss,
        Model::Rtprio => Resource::Rtprio,
        Model::Rttime => Resource::Rttime,
        Model::Sigpending => Resource::Sigpending,
        Model::Stack => Resource::Stack,
    }
}
