//! What this runtime can do: features.md of the runtime specification.

use sampan_model::capability::NAMES;
use sampan_sys::seccomp;
use serde_json::{Value, json};

use super::config::VERSION;
use super::{labels, namespaces, options};

/// What `features` prints.
pub fn features() -> Value {
    let capabilities: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::words(),
        "linux": {
            "namespaces": namespaces::KINDS.map(|kind| kind.word),
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::FLAGS,
                "supportedFlags": seccomp::supported_flags(),
            },
            "apparmor": {"enabled": labels::has_apparmor()},
            "selinux": {"enabled": labels::has_selinux()},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {},
    })
}
