//! What an instance holds on the machine at one moment, counted: to be the same before a churn and after it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use sampan_model::Instance;

use super::sampan::Sampan;

/// How long what is removed in the background may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// How long a moment must last to count as settled: a pool that is being filled changes meanwhile.
const SETTLED_FOR: Duration = Duration::from_millis(500);

/// How many there are, by kind.
pub type Traces = BTreeMap<String, usize>;

/// Counts what there is, once it has not changed for a while.
pub fn settled(sampan: &Sampan) -> Result<Traces> {
    let end = Instant::now() + SETTLED_WITHIN;
    let (mut last, mut since) = (count(sampan)?, Instant::now());
    loop {
        std::thread::sleep(SETTLED_FOR / 10);
        let now = count(sampan)?;
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= SETTLED_FOR {
            return Ok(last);
        }
        if Instant::now() >= end {
            return Ok(last);
        }
    }
}

/// Waits until everything of `before` is as it was; tells what is not. No trace may be more than it was.
pub fn left_since(sampan: &Sampan, before: &Traces) -> Result<Vec<String>> {
    let end = Instant::now() + SETTLED_WITHIN;
    loop {
        let left = more(before, &settled(sampan)?);
        if left.is_empty() || Instant::now() >= end {
            return Ok(left);
        }
    }
}

fn more(before: &Traces, now: &Traces) -> Vec<String> {
    let grown = now.iter().filter(|(kind, count)| before.get(*kind).copied().unwrap_or_default() < **count);
    let words = |(kind, count): (&String, &usize)| {
        format!("{count} {kind}, {} before", before.get(kind).copied().unwrap_or_default())
    };
    grown.map(words).collect()
}

fn count(sampan: &Sampan) -> Result<Traces> {
    let instance = Instance::of_root(sampan.root());
    let mut traces = Traces::new();
    let mut add = |kind: String, count: usize| *traces.entry(kind).or_default() += count;
    add("cgroups".into(), cgroups(&instance.cgroup_name()));
    let interfaces = fs::read_dir("/sys/class/net")?.flatten();
    let own = |name: &str| name.starts_with(&instance.server_interface_prefix());
    add("interfaces".into(), interfaces.filter(|entry| entry.file_name().to_str().is_some_and(own)).count());
    for name in ["containers", "logs"] {
        add(format!("entries of {name}/"), entries(&sampan.root().join(name)));
    }
    let containers = sampan.connect()?.json("GET", "/v1/containers", "")?;
    add("containers in the list".into(), containers.as_array().map_or(0, Vec::len));
    for (role, pid) in sampan.processes()? {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        add(format!("mounts of the {role}"), fs::read_to_string(proc.join("mountinfo"))?.lines().count());
        add(format!("namespaces held by the {role}"), namespaces(&proc.join("fd")));
        let children = fs::read_to_string(proc.join(format!("task/{pid}/children")))?;
        add(format!("children of the {role}"), children.split_whitespace().count());
    }
    Ok(traces)
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// The cgroups below those of this name, in all hierarchies.
fn cgroups(name: &str) -> usize {
    fn below(dir: &Path) -> usize {
        let dirs = fs::read_dir(dir).into_iter().flatten().flatten();
        dirs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|dir| 1 + below(&dir.path())).sum()
    }
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let tops = hierarchies.map(|entry| entry.path().join(name)).chain([Path::new("/sys/fs/cgroup").join(name)]);
    tops.map(|top| below(&top)).sum()
}

/// Descriptors of namespaces, and of processes, which hold theirs.
fn namespaces(fds: &Path) -> usize {
    let links = fs::read_dir(fds).into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let held = |target: &PathBuf| {
        let target = target.to_string_lossy();
        ["net:[", "user:[", "mnt:[", "ipc:[", "uts:[", "pid:[", "cgroup:["].iter().any(|kind| target.starts_with(kind))
    };
    links.filter(held).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_is_left() {
        let traces = |counts: &[(&str, usize)]| counts.iter().map(|&(kind, count)| (kind.to_owned(), count)).collect();
        let before: Traces = traces(&[("cgroups", 9), ("mounts", 3)]);
        assert_eq!(more(&before, &before), Vec::<String>::new());
        assert_eq!(more(&before, &traces(&[("cgroups", 8), ("mounts", 3)])), Vec::<String>::new());
        let now = traces(&[("cgroups", 11), ("interfaces", 1), ("mounts", 3)]);
        assert_eq!(more(&before, &now), ["11 cgroups, 9 before", "1 interfaces, 0 before"]);
    }
}
