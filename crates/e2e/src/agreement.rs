//! Whether what the daemon says and what there is agree: containers, processes, cgroups, wires, files.
//!
//! It looks at the machine with other eyes than the daemon: at `/proc`, `/sys` and the root's directories. What is being
//! taken down is given its time: disagreement counts once it lasts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sampan_model::Instance;
use serde_json::Value;

use crate::Sampan;

/// How long taking down may take until it counts.
const SETTLED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// Asserts that the daemon answers, that its four processes run and that everything agrees.
///
/// # Panics
/// Where it still does not after 20 seconds; it tells what does not.
#[track_caller]
pub fn assert_agreement(sampan: &Sampan, when: &str) {
    let until = Instant::now() + SETTLED;
    loop {
        let found = disagreements(sampan);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{when}: it does not agree:\n{}", found.join("\n"));
        std::thread::sleep(LOOK);
    }
}

/// What does not agree at this moment, a line each.
fn disagreements(sampan: &Sampan) -> Vec<String> {
    let mut found = Vec::new();
    // any command starts a daemon where there is none
    sampan.run(&["ps"]);
    let status = sampan.run(&["daemon", "status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    for role in ["daemon", "supervisor", "logger", "edge"] {
        let processes = status["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pid = processes.iter().find(|process| process["role"] == role).and_then(|process| process["pid"].as_u64());
        if !pid.is_some_and(is_alive) {
            found.push(format!("there is no {role}"));
        }
    }
    if !found.is_empty() {
        return found;
    }

    let parked: Vec<&str> = status["parked"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let instance = Instance::of_root(sampan.root());
    let containers = sampan.containers();
    let running: Vec<&Value> =
        containers.iter().filter(|container| container["state"]["status"] == "running").collect();
    let mut addresses = BTreeSet::new();
    for container in &running {
        let (name, id) = (&container["name"], container["id"].as_str().unwrap_or_default());
        let pid = container["state"]["pid"].as_u64().unwrap_or(0);
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if !groups.contains(&instance.cgroup_name()) {
            found.push(format!("{name} ({id}) runs as process {pid}, which is none of this instance's"));
        }
        addresses.insert(container["server"]["address"].as_str().unwrap_or_default().to_owned());
    }
    for container in containers.iter().filter(|container| container["state"]["status"] == "created") {
        found.push(format!("{} was created and neither runs nor ended", container["name"]));
    }
    // a server by name has its wire also while nothing runs on it
    let servers = sampan.run(&["server", "ls", "--json"]);
    let servers: Value = serde_json::from_str(&servers.stdout).unwrap_or_default();
    for server in servers.as_array().map(Vec::as_slice).unwrap_or_default() {
        addresses.extend(server["address"].as_str().map(str::to_owned));
    }

    let wires = names_in(Path::new("/sys/class/net"));
    let wires = wires.iter().filter(|name| name.starts_with(&instance.server_interface_prefix())).count();
    if wires != addresses.len() + parked.len() {
        found.push(format!("{wires} wires for {} servers and {} that wait ready", addresses.len(), parked.len()));
    }
    for (dir, ends) in [("containers", ""), ("logs", ".log")] {
        let ids: BTreeSet<&str> = containers.iter().filter_map(|container| container["id"].as_str()).collect();
        for name in names_in(&sampan.root().join(dir)) {
            let id = name.trim_end_matches(".1").trim_end_matches(ends);
            if !ids.contains(id) {
                found.push(format!("{dir}/{name} belongs to no container"));
            }
        }
    }
    found.extend(strange_processes(&instance, &running, &parked));
    found
}

/// Processes in a server's cgroup that are of no running container.
fn strange_processes(instance: &Instance, running: &[&Value], parked: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for group in groups(&instance.cgroup_name()) {
        let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let path = group.display().to_string();
        let of_running = |container: &&&Value| {
            let id = container["id"].as_str().unwrap_or_default();
            let pid = container["state"]["pid"].as_u64().unwrap_or(0).to_string();
            path.contains(&id[..id.len().min(12)]) || procs.lines().any(|line| line == pid)
        };
        let is_known = path.contains("/role-") || parked.iter().any(|id| path.contains(&id[..12]));
        if !procs.is_empty() && !is_known && !running.iter().any(|container| of_running(&container)) {
            let processes = procs.split_whitespace().collect::<Vec<_>>().join(" ");
            found.push(format!("processes {processes} in {path} are of no running container"));
        }
    }
    found
}

/// The instance's cgroups in the hierarchy that has most to say of processes, with all below.
fn groups(name: &str) -> Vec<PathBuf> {
    let of = |hierarchy: &str| PathBuf::from("/sys/fs/cgroup").join(hierarchy).join(name);
    let mut dirs = vec![if of("pids").exists() { of("pids") } else { of("") }];
    let mut all = Vec::new();
    while let Some(dir) = dirs.pop() {
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        all.push(dir);
    }
    all
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
