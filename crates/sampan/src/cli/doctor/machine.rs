//! What the machine is: kernel, namespaces, cgroups, disk, limits, rights, toolchains.

use std::fs;
use std::path::Path;

use sampan_client::Root;

use super::super::age::bytes;
use super::super::connect::on_path;
use super::Finding;

/// Idmapped overlay layers came with 5.19. The oldest kernel that the tests run on is 6.1.
pub(super) fn kernel(release: &str) -> Finding {
    const FIX: &str = "use Linux 6.1 or newer";
    let release = release.trim();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (1, 0) {
        return Finding::warn("kernel", format!("its release {release:?} is not understood"), FIX);
    }
    if version < (5, 19) {
        return Finding::fail("kernel", format!("Linux {release} has no idmapped layers"), FIX);
    }
    if version < (6, 1) {
        return Finding::warn("kernel", format!("Linux {release} is older than any that Sampan is tested on"), FIX);
    }
    Finding::ok("kernel", format!("Linux {release}"))
}

pub(super) fn user_namespaces() -> Finding {
    const WHAT: &str = "user namespaces";
    if !Path::new("/proc/self/ns/user").exists() {
        return Finding::fail(WHAT, "this kernel has none", "use a kernel with CONFIG_USER_NS");
    }
    match fs::read_to_string("/proc/sys/user/max_user_namespaces").ok().and_then(|text| text.trim().parse().ok()) {
        Some(0u64) => Finding::fail(WHAT, "they are switched off", "sysctl -w user.max_user_namespaces=10000"),
        Some(most @ 1..100) => Finding::warn(
            WHAT,
            format!("at most {most}, and each server takes one"),
            "sysctl -w user.max_user_namespaces=10000",
        ),
        Some(most) => Finding::ok(WHAT, format!("at most {most}")),
        None => Finding::ok(WHAT, "available"),
    }
}

pub(super) fn cgroups() -> Finding {
    match sampan_sys::cgroup::Cgroups::detect() {
        Ok(cgroups) => Finding::ok("cgroups", cgroups.mode().as_str()),
        Err(error) => Finding::fail("cgroups", error.to_string(), "mount cgroup2 at /sys/fs/cgroup"),
    }
}

pub(super) fn machine() -> Finding {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = rustix::system::sysinfo();
    let memory = info.totalram as u64 * u64::from(info.mem_unit);
    let detail = format!("{cpus} CPU{}, {} of memory", if cpus == 1 { "" } else { "s" }, bytes(memory));
    if memory < 1 << 30 {
        return Finding::warn("machine", detail, "servers have 512 MiB each unless --memory says less");
    }
    Finding::ok("machine", detail)
}

/// A host whose own /proc is covered in places (a container, most often) refuses a new proc to its user namespaces.
pub(super) fn proc_mounts(mountinfo: &str) -> Finding {
    let mount_point = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    let covers: Vec<_> = mountinfo
        .lines()
        .filter_map(mount_point)
        .filter(|point| point.starts_with("/proc/") && point != "/proc/sys/fs/binfmt_misc")
        .collect();
    match covers.as_slice() {
        [] => Finding::ok("/proc", "nothing is mounted over it"),
        [first, rest @ ..] => Finding::fail(
            "/proc",
            format!("{first} is mounted over it{}, so no server can have its own", and_others(rest.len())),
            "run sampan outside of the container it is in, or give that container an uncovered /proc",
        ),
    }
}

fn and_others(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more)") }
}

/// The nearest directory of the root that exists.
fn existing(root: &Root) -> &Path {
    root.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Layers are idmapped, which not every file system can.
pub(super) fn root_file_system(root: &Root) -> Finding {
    const WHAT: &str = "file system";
    // linux/magic.h
    let known = |magic: i64| match magic {
        0xEF53 => Some(("ext4", true)),
        0x5846_5342 => Some(("xfs", true)),
        0x9123_683E => Some(("btrfs", true)),
        0x0102_1994 => Some(("tmpfs", true)),
        0xF2F5_2010 => Some(("f2fs", true)),
        0xCA45_1A4E => Some(("bcachefs", true)),
        0x794C_7630 => Some(("overlay", false)),
        0x6969 => Some(("nfs", false)),
        0x6573_5546 => Some(("fuse", false)),
        _ => None,
    };
    let path = existing(root);
    match rustix::fs::statfs(path).map(|stat| known(stat.f_type)) {
        Ok(Some((name, true))) => Finding::ok(WHAT, format!("{name} at {}", path.display())),
        Ok(Some((name, false))) => Finding::fail(
            WHAT,
            format!("{} is on {name}, which cannot hold idmapped layers", path.display()),
            "choose a root on ext4, xfs or btrfs with --root",
        ),
        Ok(None) => Finding::warn(
            WHAT,
            format!("{} is on a file system that is not known to hold idmapped layers", path.display()),
            "if containers cannot be started, choose a root on ext4, xfs or btrfs with --root",
        ),
        Err(error) => Finding::warn(WHAT, format!("{}: {error}", path.display()), "choose another root with --root"),
    }
}

pub(super) fn space(root: &Root) -> Finding {
    let path = existing(root);
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let detail = format!("{} free at {}", bytes(free), path.display());
            match free {
                ..0x400_0000 => Finding::fail("disk space", detail, "make room, or choose another root with --root"),
                0x400_0000..0x4000_0000 => Finding::warn("disk space", detail, "make room: images and logs need some"),
                _ => Finding::ok("disk space", detail),
            }
        }
        Err(error) => Finding::warn("disk space", format!("{}: {error}", path.display()), "look at it with df"),
    }
}

/// The supervisor holds about ten descriptors a container.
pub(super) fn descriptors() -> Finding {
    const WHAT: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.maximum {
        Some(most @ ..4096) => {
            let detail = format!("at most {most}, enough for {} containers", most / 10);
            Finding::warn(WHAT, detail, "raise the hard limit: LimitNOFILE= in the unit, or limits.conf")
        }
        Some(most) => Finding::ok(WHAT, format!("at most {most}, enough for {} containers", most / 10)),
        None => Finding::ok(WHAT, "no limit"),
    }
}

pub(super) fn privilege() -> Finding {
    const WHAT: &str = "privilege";
    if !rustix::process::geteuid().is_root() {
        let detail = "not root: the network and some limits were not looked at";
        return Finding::warn(WHAT, detail, "run `sudo sampan doctor` to look at everything");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing_capabilities(&status).as_slice() {
        [] => Finding::ok(WHAT, "root, with all that is needed"),
        missing if missing.contains(&"CAP_SYS_ADMIN") || missing.contains(&"CAP_NET_ADMIN") => Finding::fail(
            WHAT,
            format!("root without {}", missing.join(", ")),
            "start sampan outside of the container it is in",
        ),
        missing => Finding::warn(
            WHAT,
            format!("root without {}", missing.join(", ")),
            "some limits cannot be raised; start sampan outside of the container it is in",
        ),
    }
}

/// Capabilities that the daemon uses and that are not in the effective set.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    // linux/capability.h
    const NEEDED: [(u32, &str); 8] = [
        (0, "CAP_CHOWN"),
        (1, "CAP_DAC_OVERRIDE"),
        (5, "CAP_KILL"),
        (6, "CAP_SETGID"),
        (7, "CAP_SETUID"),
        (12, "CAP_NET_ADMIN"),
        (21, "CAP_SYS_ADMIN"),
        (24, "CAP_SYS_RESOURCE"),
    ];
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

pub(super) fn toolchain(program: &str, language: &str, fix: &str) -> Finding {
    match on_path(program) {
        true => Finding::ok(program, format!("found, so {language} sources can be built")),
        false => Finding::warn(program, format!("not found: {language} sources cannot be built"), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn kernels() {
        for (release, level) in [
            ("6.18.0\n", Level::Ok),
            ("6.1.0-13-amd64", Level::Ok),
            ("5.19.17", Level::Warn),
            ("5.15.0", Level::Fail),
            ("", Level::Warn),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn covered_proc() {
        let line = |point: &str| format!("1 2 0:3 / {point} rw - proc proc rw\n");
        let check = |points: &[&str], level| {
            let text: String = points.iter().map(|point| line(point)).collect();
            assert_eq!(proc_mounts(&text).level, level, "{points:?}");
        };
        check(&["/", "/proc", "/proc/sys/fs/binfmt_misc"], Level::Ok);
        check(&["/proc", "/proc/kcore", "/proc/keys"], Level::Fail);
    }

    #[test]
    fn capabilities() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(
            missing_capabilities("CapEff:\t000001fffedfefff\n"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]
        );
        assert_eq!(missing_capabilities("").len(), 8);
    }
}
