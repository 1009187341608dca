//! Which hierarchies there are: `/proc/self/mountinfo` says where they are mounted, `/proc/self/cgroup` which
//! controllers each has (proc(5), cgroups(7)).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CgroupError, Cgroups, Hierarchy, Kind, file};

/// Which version of cgroups a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 alone.
    V1,
    /// Version 1, and the unified hierarchy beside it.
    Hybrid,
    /// Version 2 alone.
    V2,
}

impl Mode {
    /// The word, for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

pub(super) fn detect() -> Result<Cgroups, CgroupError> {
    let read = |path: &str| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|source| CgroupError::Read { path: path.into(), source })
    };
    let mut cgroups = parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
    if let Some(unified) = cgroups.hierarchies.iter_mut().find(|hierarchy| hierarchy.is_unified()) {
        let controllers = file::read(&unified.mount.join("cgroup.controllers"))?;
        Arc::make_mut(unified).controllers = controllers.split_whitespace().map(str::to_owned).collect();
    }
    Ok(cgroups)
}

/// The hierarchies of the two texts; the unified one's controllers are in neither, and left out.
fn parse(mountinfo: &str, own: &str) -> Result<Cgroups, CgroupError> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    let mut hierarchies: Vec<Hierarchy> = own
        .lines()
        .filter_map(|line| v1_hierarchy(line, &mounts))
        // a hierarchy's line in /proc/self/cgroup is the only one; the mount may have been found by two
        .fold(Vec::new(), |mut found, hierarchy| {
            if !found.iter().any(|known: &Hierarchy| known.mount == hierarchy.mount) {
                found.push(hierarchy);
            }
            found
        });
    let v1 = !hierarchies.is_empty();
    let unified = best(mounts.iter().filter(|mount| mount.unified));
    if let Some(mount) = unified {
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        hierarchies.push(Hierarchy {
            mount: mount.point.clone(),
            kind: Kind::Unified,
            controllers: Vec::new(),
            own: mount.below(own),
        });
    }
    let mode = match (v1, unified) {
        (true, Some(_)) => Mode::Hybrid,
        (true, None) => Mode::V1,
        (false, Some(_)) => Mode::V2,
        (false, None) => return Err(CgroupError::NotMounted),
    };
    Ok(Cgroups { mode, hierarchies: hierarchies.into_iter().map(Arc::new).collect() })
}

struct Mount {
    root: PathBuf,
    point: PathBuf,
    unified: bool,
    writable: bool,
    options: Vec<String>,
}

/// `36 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:12 - cgroup cgroup rw,cpu,cpuacct`
fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point, mount_options) = (front.next()?, front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, _source, options) = (back.next()?, back.next()?, back.next()?);
    let unified = match kind {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        unified,
        writable: mount_options.split(',').any(|option| option == "rw"),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

impl Mount {
    /// Where a cgroup is below the mount point, by its path in the hierarchy: the mount may show a part of that only.
    fn below(&self, path: &str) -> PathBuf {
        Path::new(path).strip_prefix(&self.root).map(Path::to_owned).unwrap_or_default()
    }
}

/// `4:cpu,cpuacct:/user.slice` or `1:name=systemd:/init.scope`; `0::/` is the unified one.
fn v1_hierarchy(line: &str, mounts: &[Mount]) -> Option<Hierarchy> {
    let (_, rest) = line.split_once(':')?;
    let (list, own) = rest.split_once(':')?;
    let words: Vec<&str> = list.split(',').filter(|word| !word.is_empty()).collect();
    let matching = |mount: &&Mount| {
        !mount.unified
            && !words.is_empty()
            && words.iter().all(|word| mount.options.iter().any(|option| option == word))
    };
    let mount = best(mounts.iter().filter(matching))?;
    let name = words.iter().find_map(|word| word.strip_prefix("name=")).map(str::to_owned);
    let controllers = words.iter().filter(|word| !word.starts_with("name=")).map(|&word| word.to_owned()).collect();
    Some(Hierarchy { mount: mount.point.clone(), kind: Kind::V1 { name }, controllers, own: mount.below(own) })
}

/// The mount to use where a hierarchy has several, as with containers' own below `/var/lib`: one that can be written to
/// and is below `/sys/fs/cgroup`, if there is one.
fn best<'mount>(mounts: impl Iterator<Item = &'mount Mount>) -> Option<&'mount Mount> {
    mounts.min_by_key(|mount| {
        (!mount.point.starts_with(Path::new("/sys/fs/cgroup")), !mount.writable, mount.point.as_os_str().len())
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.map(|digits| u8::from_str_radix(digits, 8)) {
            Some(Ok(value)) if byte == b'\\' => {
                bytes.push(value);
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Mounts;

    fn check(mountinfo: &str, own: &str, mode: Mode, expected: &[(&str, &str)]) {
        let cgroups = parse(mountinfo, own).unwrap();
        assert_eq!(cgroups.mode, mode);
        let found: Vec<(String, String)> = cgroups
            .hierarchies
            .iter()
            .map(|hierarchy| {
                let kind = match &hierarchy.kind {
                    Kind::V1 { name: Some(name) } => format!("name={name}"),
                    Kind::V1 { name: None } => hierarchy.controllers.join(","),
                    Kind::Unified => "unified".into(),
                };
                (hierarchy.mount.to_str().unwrap().into(), kind)
            })
            .collect();
        let expected: Vec<(String, String)> = expected.iter().map(|&(at, kind)| (at.into(), kind.into())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn debian_12() {
        check(
            "22 27 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n\
             31 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
             rw,nsdelegate,memory_recursiveprot\n",
            "0::/user.slice/user-1000.slice/session-2.scope\n",
            Mode::V2,
            &[("/sys/fs/cgroup", "unified")],
        );
    }

    #[test]
    fn ubuntu_18_04() {
        check(
            "30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup rw,nsdelegate\n\
             32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
             35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct\n\
             36 30 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory\n\
             37 30 0:33 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,net_cls,net_prio\n\
             38 30 0:34 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:18 - cgroup cgroup rw,cpuset,clone_children\n\
             99 30 0:32 / /var/lib/containers/x/memory rw,relatime shared:16 - cgroup cgroup rw,memory\n",
            "12:cpuset:/\n9:memory:/user.slice\n7:net_cls,net_prio:/\n5:cpu,cpuacct:/user.slice\n\
             1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/user.slice/user-0.slice/session-1.scope\n",
            Mode::Hybrid,
            &[
                ("/sys/fs/cgroup/cpuset", "cpuset"),
                ("/sys/fs/cgroup/memory", "memory"),
                ("/sys/fs/cgroup/net_cls,net_prio", "net_cls,net_prio"),
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
                ("/sys/fs/cgroup/systemd", "name=systemd"),
                ("/sys/fs/cgroup/unified", "unified"),
            ],
        );
    }

    #[test]
    fn centos_7() {
        check(
            "24 17 0:20 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup \
             rw,seclabel,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd\n\
             27 17 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,seclabel,cpuacct,cpu\n",
            "4:cpuacct,cpu:/\n3:hugetlb:/\n1:name=systemd:/user.slice\n",
            Mode::V1,
            &[("/sys/fs/cgroup/cpu,cpuacct", "cpuacct,cpu"), ("/sys/fs/cgroup/systemd", "name=systemd")],
        );
    }

    #[test]
    fn docker_in_docker_without_a_namespace() {
        // the mount's root is the container's own group: what is seen at the mount point is what there is
        check(
            "700 690 0:31 /docker/8a1f /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory\n\
             702 690 0:33 /docker/8a1f /sys/fs/cgroup/pids ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,pids\n",
            "6:pids:/docker/8a1f\n4:memory:/docker/8a1f\n",
            Mode::V1,
            &[("/sys/fs/cgroup/pids", "pids"), ("/sys/fs/cgroup/memory", "memory")],
        );
    }

    #[test]
    fn where_one_is_oneself() {
        let own = |mountinfo: &str, own: &str| {
            let cgroups = parse(mountinfo, own).unwrap();
            cgroups.hierarchies.iter().map(|h| h.own.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mounts = "1 0 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      2 0 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own(mounts, "6:pids:/docker/8a1f\n0::/user.slice\n"), ["docker/8a1f", "user.slice"]);
        assert_eq!(own(mounts, "6:pids:/\n0::/\n"), ["", ""]);
        let part = "1 0 0:1 /docker/8a1f /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(own(part, "6:pids:/docker/8a1f/inner\n"), ["inner"]);
        assert_eq!(own(part, "6:pids:/elsewhere\n"), [""]);
    }

    #[test]
    fn odd_lines_do_no_harm() {
        check(
            "\n1 2\nnonsense - cgroup\n5 4 0:1 / /a\\040b rw - cgroup2 none rw\n6 4 0:1 / /\\99 rw - proc proc rw\n",
            "::\n:\n7:\n0::/\n",
            Mode::V2,
            &[("/a b", "unified")],
        );
        assert!(matches!(parse("", ""), Err(CgroupError::NotMounted)));
        assert!(matches!(parse("1 1 0:1 / / rw - ext4 /dev/vda rw", "0::/"), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn what_containers_mount() {
        let cgroups = parse(
            "1 0 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             3 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n",
        )
        .unwrap();
        let pair = |directory: &str, option: &str| (directory.to_owned(), option.to_owned());
        let hierarchies = vec![pair("cpu,cpuacct", "cpu,cpuacct"), pair("systemd", "name=systemd")];
        assert_eq!(cgroups.mounts(), Mounts::V1 { hierarchies, unified: true });
        assert_eq!(cgroups.missing(), ["memory", "pids"]);
    }

    #[test]
    fn this_machine() {
        let cgroups = Cgroups::detect().unwrap();
        assert_eq!(cgroups.missing(), [""; 0], "{cgroups:?}");
    }
}
