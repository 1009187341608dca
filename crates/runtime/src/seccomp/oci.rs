//! The default filter in the words of the runtime-spec (`linux.seccomp`, 1.0.2), for another runtime.

use serde_json::{Value, json};

use super::{ENOSYS, EPERM, NEW_NAMESPACES, SYS_ADMIN, table};

/// As [`docker_default`](super::docker_default), for a runtime that compiles it itself. What is newer than the profile
/// gets what that runtime thinks right: runc and crun say ENOSYS.
pub fn docker_default_profile(capabilities: u64) -> Value {
    let has = |capability: u8| capabilities & 1 << capability != 0;
    let granted = table::BY_CAPABILITY.iter().filter(|(capability, _)| has(*capability)).map(|(_, calls)| *calls);
    let names: Vec<&str> = table::ALWAYS.iter().copied().chain(granted).flat_map(str::split_whitespace).collect();
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    if !has(SYS_ADMIN) {
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }));
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    // one rule a value: libseccomp holds several rules of one call together by "or"
    let equals = |name: &str, value: u64| {
        json!({
            "names": [name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }],
        })
    };
    rules.extend(table::PERSONALITIES.iter().map(|&value| equals("personality", value)));
    let open =
        (0..=table::LAST_FAMILY).filter(|family| !table::CLOSED_FAMILIES.iter().any(|(closed, _)| closed == family));
    rules.extend(open.map(|family| equals("socket", family)));
    let architectures = match std::env::consts::ARCH {
        "x86_64" => vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "aarch64" => vec!["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => Vec::new(),
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_and_what_is_not() {
        let profile = docker_default_profile(0);
        let rules = profile["syscalls"].as_array().unwrap();
        let of = |name: &str| {
            rules.iter().filter(|rule| rule["names"].as_array().unwrap().iter().any(|of| of == name)).count()
        };
        assert_eq!((of("read"), of("mount"), of("clone"), of("clone3")), (1, 0, 1, 1));
        assert!(of("socket") > 20, "one a family");
        // AF_ALG
        assert!(!rules.iter().any(|rule| rule["names"][0] == "socket" && rule["args"][0]["value"] == 38));
        let profile = docker_default_profile(1 << SYS_ADMIN);
        assert!(profile.to_string().contains("\"mount\""));
    }
}
