//! What the machine allows: kernel features and limits that are felt later, other guards of the system, the clock, and
//! who starts the daemon.

use std::path::Path;

use jiff::Timestamp;
use sampan_client::Root;
use sampan_client::systemd::{Units, is_booted};

use super::Finding;

/// The first id of servers' users on the machine (`model::instance`).
const FIRST_SERVER_ID: u64 = 1_000_000_000;
/// A clock before the first day of 2026 is one that was never set.
const EARLIEST: i64 = 1_767_225_600;
/// What systemd-timesyncd leaves when it has reached a server.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

pub(super) fn overlay(filesystems: &str) -> Finding {
    match filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) {
        true => Finding::ok("overlay", "images' layers can be stacked"),
        false => Finding::warn(
            "overlay",
            "the kernel has not loaded it: it is loaded at the first container, if it is there at all",
            "modprobe overlay; where that fails, use a kernel with CONFIG_OVERLAY_FS",
        ),
    }
}

pub(super) fn seccomp(actions: &str) -> Finding {
    match actions.split_whitespace().any(|action| action == "errno") {
        true => Finding::ok("seccomp", "containers' system calls are filtered"),
        false => Finding::fail("seccomp", "this kernel has no filters", "use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

/// Servers' ids are taken from a range that nobody else has: `/etc/subuid` is not needed, unless it claims that range.
pub(super) fn ids(subuid: &str) -> Finding {
    const WHAT: &str = "user ids";
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u64>().ok());
        Some((line.split(':').next()?.to_owned(), fields.next()?? + fields.next()??))
    };
    match subuid.lines().filter_map(end).find(|(_, end)| *end > FIRST_SERVER_ID) {
        None => {
            Finding::ok(WHAT, format!("servers' are {FIRST_SERVER_ID} and above; nothing in /etc/subuid is needed"))
        }
        Some((name, _)) => Finding::warn(
            WHAT,
            format!("/etc/subuid gives {name} ids that servers use as well: its containers could reach ours' files"),
            format!("give {name} ids below {FIRST_SERVER_ID} in /etc/subuid and /etc/subgid"),
        ),
    }
}

/// Each `logs -f` takes one, and so do many an app's own watches.
pub(super) fn inotify(instances: &str) -> Finding {
    const WHAT: &str = "inotify";
    match instances.trim().parse::<u32>() {
        Ok(most @ ..64) => Finding::warn(
            WHAT,
            format!("at most {most} instances a user: `logs -f` and apps that watch files run out of them"),
            "sysctl -w fs.inotify.max_user_instances=1024",
        ),
        Ok(most) => Finding::ok(WHAT, format!("at most {most} instances a user")),
        Err(_) => Finding::warn(WHAT, "this kernel has none", "use a kernel with CONFIG_INOTIFY_USER"),
    }
}

/// SELinux judges by labels, which containers have none of; AppArmor by profiles, which nobody is given here.
pub(super) fn security_modules(selinux_enforce: &str, apparmor_enabled: &str) -> Finding {
    const WHAT: &str = "SELinux, AppArmor";
    match (selinux_enforce.trim(), apparmor_enabled.trim()) {
        ("1", _) => Finding::warn(
            WHAT,
            "SELinux enforces: where its policy does not know containers, they are refused files or ports",
            "`ausearch -m avc -ts recent` shows what it refused; `setenforce 0` tells whether it is that",
        ),
        ("0", _) => Finding::ok(WHAT, "SELinux is permissive"),
        (_, "Y") => Finding::ok(WHAT, "AppArmor is on, and has no profile for what runs here"),
        _ => Finding::ok(WHAT, "neither is on"),
    }
}

pub(super) fn clock(now: Timestamp) -> Finding {
    if now.as_second() < EARLIEST {
        let detail = format!("it says {now}: certificates are judged by it, and logs are dated with it");
        return Finding::warn("clock", detail, "set it: `timedatectl set-ntp true`, or `date -s`");
    }
    match Path::new(SYNCHRONISED).exists() {
        true => Finding::ok("clock", "kept right by systemd-timesyncd"),
        false => Finding::ok("clock", format!("it says {now:.0}")),
    }
}

/// Whether anybody starts the daemon at boot.
pub(super) fn systemd(root: &Root) -> Finding {
    let units = Units::of(root);
    let detail = match (is_booted(), units.are_installed()) {
        (false, _) => "it does not run here: after a reboot apps come up with the first command".to_owned(),
        (true, true) => format!("{} runs the daemon, from boot on", units.service()),
        (true, false) => {
            "after a reboot apps come up with the first command; `sampan daemon install` has them come up at boot"
                .to_owned()
        }
    };
    Finding::ok("systemd", detail)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn levels() {
        let check = |finding: Finding, level| assert_eq!(finding.level, level, "{finding:?}");
        check(overlay("nodev\tproc\n\text4\nnodev\toverlay\n"), Level::Ok);
        check(overlay("\text4\n"), Level::Warn);
        check(seccomp("kill_process kill_thread trap errno user_notif trace log allow\n"), Level::Ok);
        check(seccomp(""), Level::Fail);
        check(ids(""), Level::Ok);
        check(ids("alice:100000:65536\n# a remark\nbob:165536:65536\n"), Level::Ok);
        check(ids("alice:999999999:65536\n"), Level::Warn);
        check(inotify("128\n"), Level::Ok);
        check(inotify("8\n"), Level::Warn);
        check(inotify(""), Level::Warn);
        check(security_modules("1", ""), Level::Warn);
        check(security_modules("0\n", ""), Level::Ok);
        check(security_modules("", "Y\n"), Level::Ok);
        check(clock(Timestamp::from_second(0).unwrap()), Level::Warn);
        check(clock(Timestamp::from_second(EARLIEST).unwrap()), Level::Ok);
    }
}
