//! What an instance has on the machine: files, mounts, cgroups, interfaces, routes, firewall tables, processes.
//!
//! After `purge` there must be none. This looks with other eyes than the code that removes them: at `/proc`, `/sys`
//! and the kernel's own lists.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sampan_model::Instance;
use sampan_model::instance::{BLOCKS, Block};
use sampan_sys::net::netlink::{Protocol, Socket};
use sampan_sys::net::{nftables, rtnetlink};

/// Everything of the instance of this root (a canonical path) that there is, a line each.
///
/// # Panics
/// Where the kernel cannot be asked.
pub fn leftovers(root: &Path) -> Vec<String> {
    let instance = Instance::of_root(root);
    let mut found = Vec::new();
    found.extend(files(root));
    found.extend(mounts(root));
    found.extend(cgroups(&instance));
    found.extend(interfaces(&instance));
    found.extend(tables(&instance));
    found.extend(processes(root, &instance));
    found
}

/// The blocks of addresses that instances claim on this machine, as `unreachable` routes of their /20s. A claim does
/// not say whose it is: compare before and after.
///
/// # Panics
/// Where the kernel cannot be asked.
pub fn claimed_blocks() -> Vec<Ipv4Addr> {
    let mut socket = Socket::open(Protocol::Route).expect("a netlink socket");
    let routes = rtnetlink::destinations(&mut socket).expect("the list of routes");
    let blocks: Vec<Ipv4Addr> = (0..BLOCKS).map(|number| Block(number).network()).collect();
    let claims = routes.iter().filter(|route| route.prefix == 20 && blocks.contains(&route.network));
    claims.map(|route| route.network).collect()
}

/// The names of all firewall tables of the machine that have a chain.
///
/// # Panics
/// Where the kernel cannot be asked.
pub fn firewall_tables() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Netfilter).expect("a netlink socket");
    let chains = nftables::chains(&mut socket).expect("the list of firewall chains");
    let mut names: Vec<String> = chains.into_iter().map(|chain| chain.table).collect();
    names.sort();
    names.dedup();
    names
}

fn files(root: &Path) -> Vec<String> {
    match fs::read_dir(root) {
        Ok(entries) => entries.flatten().map(|entry| format!("file {}", entry.path().display())).collect(),
        Err(_) => Vec::new(),
    }
}

fn mounts(root: &Path) -> Vec<String> {
    let mounts = fs::read("/proc/self/mountinfo").expect("the list of mounts");
    let root = root.as_os_str().as_bytes();
    let names_root = |line: &&[u8]| line.windows(root.len()).any(|part| part == root);
    // a root that is a mount of the test's own is named in the fifth field, and is no leftover
    let is_root = |line: &&[u8]| line.split(|&byte| byte == b' ').nth(4) == Some(root);
    let lines = mounts.split(|&byte| byte == b'\n').filter(names_root).filter(|line| !is_root(line));
    lines.map(|line| format!("mount {}", String::from_utf8_lossy(line))).collect()
}

fn cgroups(instance: &Instance) -> Vec<String> {
    let name = instance.cgroup_name();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    // controllers' hierarchies one floor down, services' groups a few more where a delegated group is used
    for _ in 0..4 {
        let below = |dir: &PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let subdirs = dirs.iter().flat_map(below).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let subdirs: Vec<PathBuf> = subdirs.map(|entry| entry.path()).collect();
        let own = subdirs.iter().filter(|dir| dir.file_name().is_some_and(|last| *last == *name));
        found.extend(own.map(|dir| format!("cgroup {}", dir.display())));
        dirs = subdirs;
    }
    found
}

fn interfaces(instance: &Instance) -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).expect("a netlink socket");
    let links = rtnetlink::links(&mut socket).expect("the list of interfaces");
    let own = links.iter().filter(|link| link.name.starts_with("sp") && link.name.contains(instance.tag()));
    own.map(|link| format!("interface {}", link.name)).collect()
}

fn tables(instance: &Instance) -> Vec<String> {
    let mut socket = Socket::open(Protocol::Netfilter).expect("a netlink socket");
    let chains = nftables::chains(&mut socket).expect("the list of firewall chains");
    let own = chains.iter().filter(|chain| chain.table == instance.table_name());
    own.map(|chain| format!("firewall chain {} of {}", chain.name, chain.table)).collect()
}

fn processes(root: &Path, instance: &Instance) -> Vec<String> {
    let group = instance.cgroup_name();
    let root = root.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("the list of processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // a process may end while it is looked at
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let has_root = line.windows(root.len()).any(|part| part == root);
        let in_group = groups.lines().any(|line| line.split(['/', ':']).any(|part| part == group));
        if pid != std::process::id() && (has_root || in_group) && !is_dead(pid) {
            let words = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process {pid} {}", words.trim_end()));
        }
    }
    found
}

/// Whether it is gone, or has ended and waits for its parent.
fn is_dead(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // PID (NAME) STATE, where a name may hold brackets
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_empty_root_has_none_and_a_file_is_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        assert_eq!(leftovers(&path), Vec::<String>::new());
        fs::write(path.join("left"), "").unwrap();
        assert_eq!(leftovers(&path), [format!("file {}/left", path.display())]);
    }

    #[test]
    fn a_process_that_names_the_root_is_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let mut child =
            std::process::Command::new("tail").arg("-f").arg(path.join("none")).arg("/dev/null").spawn().unwrap();
        // a process has no words yet for a moment after it was executed
        let is_it = |found: &Vec<String>| matches!(&found[..], [line] if line.starts_with("process "));
        crate::wait_for("the process to be found", Duration::from_secs(10), || Some(leftovers(&path)).filter(is_it));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(leftovers(&path), Vec::<String>::new());
    }
}
