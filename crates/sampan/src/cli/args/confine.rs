//! Docker's words for what a container is kept from, and what is opened to it.

use std::path::PathBuf;

use clap::Args;
use sampan_model::{ByteSize, Capability, Confinement, Device, DeviceAccess, ResourceLimit, SeccompChoice};

use crate::cli::failure::Failure;

const MAY: &str = "What it may";

/// What `run` and `create` share of it.
#[derive(Debug, Args)]
pub struct ConfineArgs {
    /// Let it do all that root may do here, with every device; for root alone
    #[arg(long, help_heading = MAY)]
    pub privileged: bool,
    /// Give it a capability, in its own user namespace; or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = MAY)]
    pub cap_add: Vec<Capability>,
    /// Take a capability away; or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = MAY)]
    pub cap_drop: Vec<Capability>,
    /// seccomp=unconfined|FILE, no-new-privileges=false, systempaths=unconfined
    #[arg(long, value_name = "WORDS", value_parser = parse_security, help_heading = MAY)]
    pub security_opt: Vec<Security>,
    /// `host`: no user namespace of its own; for root alone
    #[arg(long, value_name = "MODE", value_parser = parse_users, help_heading = MAY)]
    pub userns: Option<Users>,
    /// Its own view of cgroups, as always
    #[arg(long, hide = true, value_name = "MODE", value_parser = parse_cgroups)]
    pub cgroupns: Option<()>,
    /// Its own processes, as always
    #[arg(long, hide = true, value_name = "MODE", value_parser = parse_processes)]
    pub pid: Option<()>,
    /// Its server's memory segments, as always
    #[arg(long, hide = true, value_name = "MODE", value_parser = parse_memory)]
    pub ipc: Option<()>,
    /// A device of this machine; for root alone
    #[arg(long, value_name = "HOST[:PATH[:rwm]]", value_parser = parse_device, help_heading = MAY)]
    pub device: Vec<Device>,
    /// Limit each of its processes, such as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_limit, help_heading = MAY)]
    pub ulimit: Vec<ResourceLimit>,
    /// Set a parameter of its own kernel namespaces, such as net.core.somaxconn=1024
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_sysctl, help_heading = MAY)]
    pub sysctl: Vec<(String, String)>,
    /// How soon it is killed where memory runs out, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, help_heading = MAY)]
    pub oom_score_adj: Option<i32>,
    /// A further group for its user
    #[arg(long, value_name = "GROUP", help_heading = MAY)]
    pub group_add: Vec<String>,
    /// How large /dev/shm is [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = MAY)]
    pub shm_size: Option<ByteSize>,
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// All system calls.
    AllCalls,
    /// The default ones.
    DefaultCalls,
    /// Those of a profile.
    Profile(PathBuf),
    /// Whether nothing in it gains privileges.
    NoNewPrivileges(bool),
    /// Nothing of `/proc` and `/sys` is hidden.
    SystemPaths,
    /// What is so anyway.
    Nothing,
}

/// Whose user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Its server's own.
    Own,
    /// The host's.
    Host,
}

impl ConfineArgs {
    /// As the daemon takes it. Reads a profile's file.
    pub fn confinement(self) -> Result<Confinement, Failure> {
        let mut asked = Confinement {
            privileged: self.privileged,
            host_users: self.userns == Some(Users::Host),
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            devices: self.device,
            limits: last_of_each(self.ulimit),
            sysctls: self.sysctl.into_iter().collect(),
            oom_score_adj: self.oom_score_adj,
            shm_bytes: self.shm_size,
            groups: self.group_add,
            ..Confinement::default()
        };
        for word in self.security_opt {
            match word {
                Security::AllCalls => asked.seccomp = SeccompChoice::Unconfined,
                Security::DefaultCalls => asked.seccomp = SeccompChoice::Default,
                Security::Profile(path) => {
                    let json = std::fs::read_to_string(&path).map_err(|error| {
                        Failure::new(format!("read the seccomp profile {}: {error}", path.display()))
                            .with_hint("give the file of a profile, or seccomp=unconfined for none")
                    })?;
                    asked.seccomp = SeccompChoice::Profile { json };
                }
                Security::NoNewPrivileges(given_up) => asked.new_privileges = !given_up,
                Security::SystemPaths => asked.open_system_paths = true,
                Security::Nothing => {}
            }
        }
        Ok(asked)
    }
}

/// The same limit given twice: the later one counts.
fn last_of_each(limits: Vec<ResourceLimit>) -> Vec<ResourceLimit> {
    let mut kept: Vec<ResourceLimit> = Vec::with_capacity(limits.len());
    for limit in limits {
        kept.retain(|other| other.resource != limit.resource);
        kept.push(limit);
    }
    kept
}

fn parse_security(text: &str) -> Result<Security, String> {
    const RULE: &str = "use seccomp=unconfined, seccomp=FILE.json, no-new-privileges[=false] or systempaths=unconfined";
    // Docker has taken both signs since there is the option
    let (name, value) = match text.find(['=', ':']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    match (name, value) {
        ("seccomp", Some("unconfined")) => Ok(Security::AllCalls),
        ("seccomp", Some("builtin" | "default")) => Ok(Security::DefaultCalls),
        ("seccomp", Some(path)) if !path.is_empty() => Ok(Security::Profile(path.into())),
        ("no-new-privileges", None | Some("true" | "1")) => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false" | "0")) => Ok(Security::NoNewPrivileges(false)),
        ("systempaths", Some("unconfined")) => Ok(Security::SystemPaths),
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(Security::Nothing),
        ("apparmor", _) => {
            Err("no profile of AppArmor is put over a container: apparmor=unconfined is how it is".into())
        }
        ("label", _) => Err("no label of SELinux is put on a container: label=disable is how it is".into()),
        ("writable-cgroups", Some("false")) => Ok(Security::Nothing),
        _ => Err(RULE.into()),
    }
}

fn parse_users(text: &str) -> Result<Users, String> {
    match text {
        "host" => Ok(Users::Host),
        "" | "private" | "auto" => Ok(Users::Own),
        other => Err(format!("{other:?} is neither host nor private: every server has a user namespace of its own")),
    }
}

fn parse_cgroups(text: &str) -> Result<(), String> {
    match text {
        "" | "private" => Ok(()),
        _ => Err("a container sees its own cgroup only: --cgroupns private is how it is".into()),
    }
}

fn parse_processes(text: &str) -> Result<(), String> {
    match text {
        "" | "private" => Ok(()),
        _ => Err("a container sees its own processes only; `sampan exec` enters another's".into()),
    }
}

fn parse_memory(text: &str) -> Result<(), String> {
    match text {
        "" | "private" | "shareable" => Ok(()),
        _ => Err("containers on one server (--server NAME) share its memory segments; others never do".into()),
    }
}

fn parse_device(text: &str) -> Result<Device, String> {
    const RULE: &str = "use /dev/NAME, /dev/NAME:/dev/OTHER or /dev/NAME:/dev/OTHER:rwm";
    let mut parts = text.split(':');
    let (host, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if !host.starts_with('/') || parts.next().is_some() {
        return Err(RULE.into());
    }
    let access = |text: &str| text.parse::<DeviceAccess>().map_err(|error| error.to_string());
    let (inside, access) = match (second, third) {
        (None, _) => (host, DeviceAccess::default()),
        // `/dev/x:rw`, as Docker takes it
        (Some(word), None) if !word.starts_with('/') => (host, access(word)?),
        (Some(inside), None) => (inside, DeviceAccess::default()),
        (Some(inside), Some(word)) => (inside, access(word)?),
    };
    Ok(Device { host: host.into(), inside: inside.to_owned(), access })
}

fn parse_limit(text: &str) -> Result<ResourceLimit, String> {
    const RULE: &str = "use NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096; -1 is no limit";
    let (name, values) = text.split_once('=').ok_or(RULE)?;
    let resource = name.parse().map_err(|error: sampan_model::limit::ResourceError| error.to_string())?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        number => number.parse().map(Some).map_err(|_| RULE),
    };
    let limit = ResourceLimit { resource, soft: value(soft)?, hard: value(hard)? };
    if limit.hard.is_some_and(|hard| limit.soft.is_none_or(|soft| soft > hard)) {
        return Err(format!("what holds ({soft}) is above what it may be raised to ({hard})"));
    }
    Ok(limit)
}

fn parse_sysctl(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("use NAME=VALUE, such as net.core.somaxconn=1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use sampan_model::Resource;

    use super::*;

    #[test]
    fn security_options() {
        for (text, expected) in [
            ("seccomp=unconfined", Security::AllCalls),
            ("seccomp:unconfined", Security::AllCalls),
            ("seccomp=builtin", Security::DefaultCalls),
            ("seccomp=./p.json", Security::Profile("./p.json".into())),
            ("no-new-privileges", Security::NoNewPrivileges(true)),
            ("no-new-privileges:true", Security::NoNewPrivileges(true)),
            ("no-new-privileges=false", Security::NoNewPrivileges(false)),
            ("systempaths=unconfined", Security::SystemPaths),
            ("apparmor=unconfined", Security::Nothing),
            ("label:disable", Security::Nothing),
        ] {
            assert_eq!(parse_security(text), Ok(expected), "{text}");
        }
        for (text, says) in [
            ("apparmor=docker-default", "AppArmor"),
            ("label=type:x", "SELinux"),
            ("seccomp=", "seccomp=FILE"),
            ("no-new-privileges=maybe", "no-new-privileges"),
            ("x", "systempaths"),
        ] {
            assert!(parse_security(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn devices() {
        for (text, inside, access) in [
            ("/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:rw", "/dev/fuse", "rw"),
            ("/dev/sda:/dev/xvdc", "/dev/xvdc", "rwm"),
            ("/dev/sda:/dev/xvdc:r", "/dev/xvdc", "r"),
        ] {
            let device = parse_device(text).unwrap();
            assert_eq!((device.inside.as_str(), device.access.to_string().as_str()), (inside, access), "{text}");
        }
        for bad in ["fuse", "/dev/a:/dev/b:x", "/dev/a:/dev/b:r:w", ""] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        let check = |text: &str, soft: Option<u64>, hard: Option<u64>| {
            assert_eq!(parse_limit(text), Ok(ResourceLimit { resource: Resource::Nofile, soft, hard }), "{text}");
        };
        check("nofile=5", Some(5), Some(5));
        check("nofile=5:6", Some(5), Some(6));
        check("nofile=5:-1", Some(5), None);
        check("nofile=-1", None, None);
        for (bad, says) in [
            ("nofile", "NAME=SOFT"),
            ("files=1", "nofile"),
            ("nofile=x", "1024:4096"),
            ("nofile=6:5", "above"),
            ("nofile=-1:5", "above"),
        ] {
            assert!(parse_limit(bad).unwrap_err().contains(says), "{bad}");
        }
        let twice = ["nofile=1", "core=0", "nofile=2"].map(|text| parse_limit(text).unwrap());
        assert_eq!(last_of_each(twice.to_vec()), [twice[1], twice[2]]);
    }
}
