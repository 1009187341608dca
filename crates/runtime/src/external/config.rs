//! `config.json`: what is asked for, in the words of the runtime-spec (1.0.2, which every runtime reads).

use sampan_model::IdRange;
use serde_json::{Map, Value, json};

use super::Launch;
use crate::child::limits::OPEN_FILES;
use crate::wire::{External, MountKind, MountPoint, ProcessSpec, StartSpec};

/// The capabilities' names, each at its number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `sources`: those of [`StartSpec::mounts`] that have one, in the bundle at `bundle`.
pub(super) fn config(
    spec: &StartSpec,
    external: &External,
    launch: &Launch<'_>,
    bundle: &str,
    sources: &[Option<String>],
) -> Value {
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(spec),
        "root": { "path": format!("{bundle}/rootfs"), "readonly": spec.read_only },
        "hostname": spec.host_name,
        "mounts": mounts(&spec.mounts, sources, external.shm_bytes),
        "linux": linux(external, &launch.namespaces, launch.ids),
    });
    if spec.process.seccomp.is_some() {
        config["linux"]["seccomp"] = external.seccomp.clone();
    }
    config
}

fn process(spec: &StartSpec) -> Value {
    let ProcessSpec { args, env, cwd, uid, gid, groups, umask, capabilities, no_new_privileges, .. } = &spec.process;
    let mut sets = Map::new();
    for (name, set) in [
        ("bounding", capabilities.bounding),
        ("effective", capabilities.effective),
        ("permitted", capabilities.permitted),
        ("inheritable", capabilities.inheritable),
        ("ambient", capabilities.ambient),
    ] {
        let held = CAPABILITIES.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0);
        sets.insert(name.to_owned(), held.map(|(_, name)| format!("CAP_{name}")).collect());
    }
    let mut process = json!({
        "terminal": spec.terminal.is_some(),
        "user": { "uid": uid, "gid": gid, "additionalGids": groups, "umask": umask },
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": sets,
        "noNewPrivileges": no_new_privileges,
        "rlimits": limits(&spec.process),
    });
    if let Some(size) = spec.terminal {
        process["consoleSize"] = json!({ "height": size.rows, "width": size.columns });
    }
    if let Some(adjustment) = spec.process.oom_score_adj {
        process["oomScoreAdj"] = json!(adjustment);
    }
    process
}

fn limits(spec: &ProcessSpec) -> Value {
    // "none" is the greatest number there (getrlimit(2), RLIM_INFINITY)
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let mut limits: Vec<Value> = Vec::new();
    for limit in &spec.limits {
        let name = format!("RLIMIT_{}", limit.resource.to_string().to_uppercase());
        limits.push(json!({ "type": name, "soft": number(limit.soft), "hard": number(limit.hard) }));
    }
    if !spec.limits.iter().any(|limit| limit.resource == sampan_model::Resource::Nofile) {
        let hard = number(rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum);
        limits.push(json!({ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES.min(hard), "hard": hard }));
    }
    Value::Array(limits)
}

fn mounts(asked: &[MountPoint], sources: &[Option<String>], shm_bytes: u64) -> Value {
    let shm = format!("size={shm_bytes}");
    let plain = ["nosuid", "noexec", "nodev"];
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", &plain),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &[&plain[..], &["mode=1777", &shm]].concat()),
        mount("/dev/mqueue", "mqueue", &plain),
        mount("/sys", "sysfs", &[&plain[..], &["ro"]].concat()),
        mount("/sys/fs/cgroup", "cgroup", &[&plain[..], &["ro"]].concat()),
    ];
    for (point, source) in asked.iter().zip(sources) {
        let write = if point.read_only { "ro" } else { "rw" };
        mounts.push(match (&point.kind, source) {
            (MountKind::Tmpfs { size_bytes, mode, owner: (uid, gid), executable }, _) => {
                let mut options = ["nosuid", "nodev", write].map(str::to_owned).to_vec();
                options.extend([format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")]);
                options.push(if *executable { "exec" } else { "noexec" }.to_owned());
                options.extend(size_bytes.map(|size| format!("size={size}")));
                json!({ "destination": point.target, "type": "tmpfs", "source": "tmpfs", "options": options })
            }
            // its attributes, read-only among them, are the mount's own, and a clone has them too
            (MountKind::Handed { .. }, source) => json!({
                "destination": point.target, "type": "bind", "source": source, "options": ["rbind"],
            }),
            (MountKind::File { .. }, source) => json!({
                "destination": point.target, "type": "bind", "source": source,
                "options": ["bind", "nosuid", "nodev", "noexec", write],
            }),
        });
    }
    Value::Array(mounts)
}

fn linux(external: &External, namespaces: &[(&'static str, String)], ids: IdRange) -> Value {
    let own = ["pid", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let joined = namespaces.iter().map(|(kind, path)| json!({ "type": kind, "path": path }));
    let map = json!([{ "containerID": 0, "hostID": ids.start, "size": ids.length }]);
    json!({
        "namespaces": own.into_iter().chain(joined).collect::<Vec<_>>(),
        "uidMappings": map,
        "gidMappings": map,
        "cgroupsPath": external.cgroup_path,
        // the limits are those of the server, above; a runtime adds the devices that every container has
        "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        "sysctl": external.sysctls.iter().map(|(path, value)| (path.replace('/', "."), json!(value))).collect::<Map<_, _>>(),
        "maskedPaths": external.masked_paths,
        "readonlyPaths": external.readonly_paths,
    })
}
