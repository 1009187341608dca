//! OCI bundles, and the runtimes that run them: `sampan oci`, and Debian's runc as the measure. What is expected of one is
//! expected of both, so that a test which is wrong fails too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::sampan::{Outcome, outcome};
use crate::tools;

/// A runtime, with a root of its own.
#[derive(Debug)]
pub struct Runtime {
    /// `sampan` or `runc`.
    pub name: &'static str,
    program: PathBuf,
    libraries: Option<std::ffi::OsString>,
    root: tempfile::TempDir,
}

impl Runtime {
    /// The one under test, under the name by which callers have it.
    ///
    /// # Panics
    /// Where it was not built.
    pub fn sampan() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let program = root.path().join("sampan-oci");
        std::os::unix::fs::symlink(tools::sampan(), &program).expect("a link");
        Self { name: "sampan", program, libraries: None, root }
    }

    /// Debian's runc.
    ///
    /// # Panics
    /// Where it was not fetched.
    pub fn runc() -> Self {
        let tool = tools::tool("runc");
        let program = tool.join("usr/sbin/runc");
        assert!(program.exists(), "{} is missing: run `cargo xtask tools`", program.display());
        let dirs = ["usr/lib", "lib"].map(|dir| tool.join(dir).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
        let libraries = Some(std::env::join_paths(dirs).expect("paths without colons"));
        Self { name: "runc", program, libraries, root: tempfile::tempdir().expect("a directory") }
    }

    /// Both.
    pub fn both() -> [Self; 2] {
        [Self::sampan(), Self::runc()]
    }

    /// Its file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where it notes its containers.
    pub fn root(&self) -> PathBuf {
        self.root.path().join("containers")
    }

    /// It, to be given words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root()).args(words);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// What it says to words.
    pub fn say(&self, words: &[&str]) -> Outcome {
        outcome(&mut self.command(words))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // what a test that failed has left
        for id in self.say(&["list", "-q"]).stdout.split_whitespace() {
            self.say(&["delete", "--force", id]);
        }
    }
}

/// A bundle: a root file system with a busybox, and a configuration.
#[derive(Debug)]
pub struct Bundle {
    dir: tempfile::TempDir,
    /// The configuration; written when it is run.
    pub config: Value,
    id: String,
}

/// The capabilities that a configuration of these tests has.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

impl Bundle {
    /// One whose program is this script of busybox' shell.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn of(script: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("bundle").tempdir_in(tools::scratch()).expect("a directory");
        let root = dir.path().join("rootfs");
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "masked", "data"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        let busybox = root.join("bin/busybox");
        fs::copy(tools::busybox(), &busybox).expect("busybox");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
            .expect("a file");
        fs::write(root.join("masked/file"), "secret\n").expect("a file");
        fs::write(root.join("data/file"), "data\n").expect("a file");
        // users of user namespaces walk to it
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let id = format!("sampan-oci-{}-{number}", std::process::id());
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                },
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                 "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                 "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("/{id}"),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            },
        });
        Self { dir, config, id }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of its root file system.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(path.trim_start_matches('/'))
    }

    /// The name of its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// One mount more.
    pub fn mount(&mut self, mount: Value) -> &mut Self {
        self.config["mounts"].as_array_mut().expect("a list").push(mount);
        self
    }

    /// A user namespace of 1,000 ids from 100,000 on.
    pub fn with_users(&mut self) -> &mut Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        self.config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
        self
    }

    /// Another namespace of that kind: a new one, or the one at a path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        let list = self.config["linux"]["namespaces"].as_array_mut().expect("a list");
        list.retain(|namespace| namespace["type"] != kind);
        list.push(path.map_or_else(|| json!({"type": kind}), |path| json!({"type": kind, "path": path})));
        self
    }

    /// Writes its configuration; its directory as a word.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self) -> &str {
        fs::write(self.dir().join("config.json"), self.config.to_string()).expect("a configuration");
        self.dir().to_str().expect("a path in UTF-8")
    }

    /// Runs it to its end.
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.say(&["run", "--bundle", self.write(), self.id()])
    }
}

const APPLETS: [&str; 35] = [
    "[", "cat", "chmod", "chown", "cp", "cut", "dd", "echo", "env", "grep", "head", "hostname", "id", "ip", "kill",
    "ln", "ls", "mkdir", "mknod", "mount", "printf", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort",
    "stat", "stty", "touch", "tr", "uname", "umount",
];
