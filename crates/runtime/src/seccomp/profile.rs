//! Profiles that somebody wrote, in Docker's JSON, of which the OCI's (`linux.seccomp`) is a part: what Docker adds is
//! that a rule may hold for some capabilities, architectures and kernels only (moby/profiles, `seccomp_linux.go`). That
//! is decided here, and an OCI profile is left.

use sampan_model::Capability;
use sampan_sys::seccomp::{self, Argument, Call, Compiled};
use serde::Deserialize;

/// The longest text that is read.
const LONGEST: usize = 1 << 20;

/// A profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// More than anybody writes.
    #[error("it has {0} bytes: at most {LONGEST} are read")]
    TooLong(usize),
    /// It is not JSON, or not a profile.
    #[error("read it")]
    Read(#[source] serde_json::Error),
    /// Two ways to say one thing, both taken.
    #[error("it has both {0}: use one of them")]
    Both(&'static str),
    /// A text that is no version of a kernel.
    #[error("{0:?} is no version of a kernel, such as 4.8")]
    Kernel(String),
    /// A rule notifies.
    #[error("its rules notify (SCMP_ACT_NOTIFY), and nobody answers here: `sampan oci run` knows a listener")]
    Notifies,
    /// What it says.
    #[error(transparent)]
    Profile(#[from] seccomp::ProfileError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Family>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Condition>>,
    #[serde(default)]
    includes: Option<Where>,
    #[serde(default)]
    excludes: Option<Where>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Where a rule holds, or does not.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Where {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The filter that a profile's text means for a container with these capabilities (bit N for capability N), on this
/// machine. `None`: it says nothing, which to Docker is no filter.
///
/// # Errors
/// [`ProfileError`].
pub fn profile(json: &str, capabilities: u64) -> Result<Option<Compiled>, ProfileError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let machine = Machine { capabilities, architecture: ARCHITECTURE, kernel: version(&release)? };
    match read(json, &machine)? {
        Some(profile) => {
            let compiled = profile.compile()?;
            if compiled.flags.listener { Err(ProfileError::Notifies) } else { Ok(Some(compiled)) }
        }
        None => Ok(None),
    }
}

/// As Docker calls it, and as libseccomp does.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");

/// What a rule's conditions are held against.
struct Machine {
    capabilities: u64,
    architecture: (&'static str, &'static str),
    kernel: (u32, u32),
}

fn read(json: &str, machine: &Machine) -> Result<Option<seccomp::Profile>, ProfileError> {
    if json.len() > LONGEST {
        return Err(ProfileError::TooLong(json.len()));
    }
    let profile: Profile = serde_json::from_str(json).map_err(ProfileError::Read)?;
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(None);
    }
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(ProfileError::Both("architectures and archMap"));
    }
    let mut architectures = profile.architectures;
    if let Some(family) = profile.arch_map.into_iter().find(|family| family.architecture == machine.architecture.1) {
        architectures.push(family.architecture);
        architectures.extend(family.sub_architectures.into_iter().flatten());
    }
    let mut calls = Vec::with_capacity(profile.syscalls.len());
    for rule in profile.syscalls {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(ProfileError::Both("name and names in a rule"));
        }
        if !machine.is_held_to(&rule)? {
            continue;
        }
        let names = if rule.name.is_empty() { rule.names } else { vec![rule.name] };
        let argument = |condition: Condition| Argument {
            index: condition.index,
            value: condition.value,
            value_two: condition.value_two,
            operator: condition.op,
        };
        let arguments = rule.args.into_iter().flatten().map(argument).collect();
        calls.push(Call { names, action: rule.action, errno: rule.errno_ret, arguments });
    }
    Ok(Some(seccomp::Profile {
        default_action: profile.default_action,
        default_errno: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        calls,
    }))
}

impl Machine {
    fn is_held_to(&self, rule: &Rule) -> Result<bool, ProfileError> {
        let none = Where::default();
        let (includes, excludes) = (rule.includes.as_ref().unwrap_or(&none), rule.excludes.as_ref().unwrap_or(&none));
        // of those it is for it needs all, of those it is not for any is enough
        let included = list(&includes.caps).iter().all(|name| self.has(name))
            && (list(&includes.arches).is_empty() || list(&includes.arches).iter().any(|name| self.is(name)))
            && self.is_newer(&includes.min_kernel)?.unwrap_or(true);
        let excluded = list(&excludes.caps).iter().any(|name| self.has(name))
            || list(&excludes.arches).iter().any(|name| self.is(name))
            || self.is_newer(&excludes.min_kernel)?.unwrap_or(false);
        Ok(included && !excluded)
    }

    /// A capability that nobody knows is one that it does not have.
    fn has(&self, name: &str) -> bool {
        name.parse::<Capability>().is_ok_and(|capability| self.capabilities & capability.bits() == capability.bits())
    }

    fn is(&self, architecture: &str) -> bool {
        self.architecture.0 == architecture
    }

    fn is_newer(&self, than: &Option<String>) -> Result<Option<bool>, ProfileError> {
        than.as_deref().map(|text| Ok(self.kernel >= version(text)?)).transpose()
    }
}

fn list(names: &Option<Vec<String>>) -> &[String] {
    names.as_deref().unwrap_or_default()
}

/// The first two numbers of a kernel's version.
fn version(text: &str) -> Result<(u32, u32), ProfileError> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(ProfileError::Kernel(text.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(capabilities: u64) -> Machine {
        Machine { capabilities, architecture: ("amd64", "SCMP_ARCH_X86_64"), kernel: (6, 1) }
    }

    #[test]
    fn rules_hold_where_docker_lets_them() {
        let names = |rule: &str, capabilities: u64| -> usize {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["x"],"action":"SCMP_ACT_ALLOW",{rule}}}]}}"#
            );
            read(&json, &machine(capabilities)).unwrap().unwrap().calls.len()
        };
        const ADMIN: u64 = 1 << 21;
        for (rule, capabilities, expected) in [
            (r#""includes":{}"#, 0, 1),
            (r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#, 0, 0),
            (r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#, ADMIN, 1),
            (r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_CHOWN"]}"#, ADMIN, 0),
            (r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#, ADMIN, 0),
            (r#""excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}"#, 0, 1),
            (r#""includes":{"arches":["arm","arm64"]}"#, 0, 0),
            (r#""includes":{"arches":["amd64","x32"]}"#, 0, 1),
            (r#""excludes":{"arches":["amd64"]}"#, 0, 0),
            (r#""includes":{"minKernel":"4.8"}"#, 0, 1),
            (r#""includes":{"minKernel":"6.2"}"#, 0, 0),
            (r#""excludes":{"minKernel":"6.1"}"#, 0, 0),
            (r#""includes":{"caps":["CAP_OF_TOMORROW"]}"#, u64::MAX, 0),
        ] {
            assert_eq!(names(rule, capabilities), expected, "{rule} with {capabilities:#x}");
        }
    }

    #[test]
    fn what_is_left_is_the_oci_s() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "archMap":[{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
                       {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"name":"personality","action":"SCMP_ACT_ALLOW",
                         "args":[{"index":0,"value":8,"valueTwo":0,"op":"SCMP_CMP_EQ"}],"comment":"","includes":{}}]}"#;
        let profile = read(json, &machine(0)).unwrap().unwrap();
        assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        assert_eq!((profile.default_action.as_str(), profile.default_errno), ("SCMP_ACT_ERRNO", Some(38)));
        assert_eq!(profile.calls[0].names, ["personality"]);
        assert_eq!(profile.calls[0].arguments[0].value, 8);
        assert!(super::profile(json, 0).unwrap().is_some());
        assert!(super::profile("{}", 0).unwrap().is_none());
    }

    #[test]
    fn what_is_no_profile() {
        let says = |json: &str, expected: &str| {
            let error = profile(json, 0).unwrap_err();
            let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.contains(expected), "{json}: {text}");
        };
        says("not json", "expected");
        says(r#"{"defaultAction":"ALLOW","syscalls":[]}"#, "no action");
        says(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"x"}]}"#,
            "both",
        );
        says(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY"}]}"#, "notify");
        says(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}"#,
            "no version",
        );
        says(&" ".repeat(LONGEST + 1), "bytes");
    }
}
