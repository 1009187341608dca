//! The machine as a whole, item by item: what there is before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that an instance could leave behind somewhere, a line each: mounts, cgroups, interfaces, routes, firewall
/// tables, kernel settings, loop devices, processes.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// As it is at this moment.
    ///
    /// # Panics
    /// Where the kernel cannot be asked.
    pub fn look() -> Self {
        let mut items = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the list of mounts");
        // without the ids, which are given anew to each
        items.extend(mounts.lines().map(|line| format!("mount {}", line.splitn(3, ' ').nth(2).unwrap_or(line))));
        items.extend(
            directories(Path::new("/sys/fs/cgroup"), 5).into_iter().map(|dir| format!("cgroup {}", dir.display())),
        );
        items.extend(names("/sys/class/net").map(|name| format!("interface {name}")));
        for (what, file) in [("route", "/proc/net/route"), ("IPv6 route", "/proc/net/ipv6_route")] {
            let text = fs::read_to_string(file).unwrap_or_default();
            // destination, mask and interface; the counters between them change
            let fields = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                [0, 1, words.len().saturating_sub(1), 7].map(|at| words.get(at).copied().unwrap_or("")).join(" ")
            };
            items.extend(text.lines().map(|line| format!("{what} {}", fields(line))));
        }
        for setting in [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/route_localnet",
            "net/ipv6/conf/all/forwarding",
            "kernel/core_pattern",
        ] {
            let value = fs::read_to_string(Path::new("/proc/sys").join(setting)).unwrap_or_default();
            items.insert(format!("setting {setting} {}", value.trim()));
        }
        for device in names("/sys/block").filter(|name| name.starts_with("loop")) {
            if let Ok(file) = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")) {
                items.insert(format!("loop device of {}", file.trim()));
            }
        }
        let tables = sampan_testkit::leftovers::firewall_tables();
        items.extend(tables.into_iter().map(|table| format!("firewall table {table}")));
        items.extend(processes());
        Self(items)
    }

    /// What is here and was not there.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0
            .difference(&before.0)
            .map(|item| format!("new: {item}"))
            .chain(before.0.difference(&self.0).map(|item| format!("gone: {item}")))
            .collect()
    }
}

/// Those that the machine itself, the test or whoever watches it do not come and go with: Sampan's, by their names.
fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for name in names("/proc").filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let words = fs::read_to_string(format!("/proc/{name}/cmdline")).unwrap_or_default().replace('\0', " ");
        let groups = fs::read_to_string(format!("/proc/{name}/cgroup")).unwrap_or_default();
        let is_ours = groups.contains("/sampan-") || words.starts_with("sampan ");
        if is_ours && !is_dead(&name) {
            found.push(format!("process {name} {}", words.trim_end()));
        }
    }
    found
}

fn is_dead(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn names(dir: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn directories(dir: &Path, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below: Vec<PathBuf> =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
    let deeper = below.iter().filter(|_| depth > 0).flat_map(|dir| directories(dir, depth - 1));
    let deeper: Vec<PathBuf> = deeper.collect();
    below.into_iter().chain(deeper).collect()
}
