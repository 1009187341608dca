//! What `spec` writes: a configuration to begin with, runc's as to what it allows.

use serde_json::{Value, json};

/// A configuration that runs a shell.
pub const SPEC: &str = include_str!("template.json");

/// The same for a caller who is not root: a user namespace in which it is, and nothing that only root may have.
pub fn rootless(uid: u32, gid: u32) -> Value {
    // it is ours, and a test reads it
    let mut spec: Value = serde_json::from_str(SPEC).unwrap_or_default();
    let linux = &mut spec["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for mount in mounts {
            if mount["destination"] == "/sys" {
                // the network namespace is the host's, and its sysfs can only be bound
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            } else if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| !matches!(option.as_str(), Some("gid=5")));
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::config::Config;

    #[test]
    fn both_are_read() {
        let config: Config = serde_json::from_str(SPEC).unwrap();
        assert_eq!(config.process.unwrap().args, ["sh"]);
        assert_eq!(config.linux.namespaces.len(), 6);
        let config: Config = serde_json::from_value(rootless(1000, 100)).unwrap();
        assert_eq!((config.linux.uid_mappings[0].host_id, config.linux.gid_mappings[0].host_id), (1000, 100));
        assert!(config.linux.resources.is_none());
        assert!(config.mounts.iter().all(|mount| !mount.options.contains(&"gid=5".to_owned())));
    }
}
