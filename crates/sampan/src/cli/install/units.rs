//! The texts of the units: what `systemd.service(5)` and its neighbours are to know of the daemon, and why.
//!
//! Pure: a [`Plan`] in, files out.

use std::path::{Path, PathBuf};

use sampan_client::systemd::Units;
use sampan_client::{Listen, Root};

/// Every file that is written begins with it, and only those are ever removed.
pub const MARK: &str = "# Written by `sampan daemon install`; `sampan daemon uninstall` removes it.\n";
/// Before the path of a binary that was copied for this.
pub const COPIED: &str = "# The binary was copied to ";

/// The group whose members may speak to the daemon.
pub const GROUP: &str = "sampan";

/// `sockaddr_un.sun_path` without its closing zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// What is to be installed.
#[derive(Debug)]
pub struct Plan {
    /// The daemon's root.
    pub root: Root,
    /// The binary that is run.
    pub binary: PathBuf,
    /// Whether it was copied there for this.
    pub copied: bool,
    /// The user that the socket belongs to, beside root's rights to it.
    pub owner: Option<String>,
    /// Whether the group may use the socket.
    pub for_group: bool,
    /// Who becomes a member of the group; it is made where it is missing.
    pub members: Vec<String>,
    /// Whether a file for systemd-sysusers is wanted even where there are no members to add.
    pub makes_group: bool,
    /// Where services are to be reached, where that was asked for.
    pub http: Option<Listen>,
}

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub struct UnitFile {
    /// Absolute, before any prefix.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A root, binary or name that cannot be written into a unit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// systemd's files are lines of text.
    #[error("{path:?} cannot be named in a systemd unit: it has control characters or is no UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// systemd binds sockets by their whole path.
    #[error("systemd cannot listen on {}: a socket's path ends at {LONGEST_SOCKET_PATH} bytes", path.display())]
    SocketPath {
        /// The socket.
        path: PathBuf,
    },
    /// Not a user's name.
    #[error("{name:?} is no user's name")]
    User {
        /// The name.
        name: String,
    },
}

impl Plan {
    /// The files, in the order in which they are written.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn files(&self) -> Result<Vec<UnitFile>, PlanError> {
        let units = Units::of(&self.root);
        let mut files = vec![
            UnitFile { path: unit_path(&units.socket()), text: self.socket(&units)? },
            UnitFile { path: unit_path(&units.service()), text: self.service(&units)? },
        ];
        if let Some(text) = self.http_socket(&units) {
            files.push(UnitFile { path: unit_path(&units.http_socket()), text });
        }
        if self.makes_group || !self.members.is_empty() {
            files.push(UnitFile { path: sysusers_path(), text: self.sysusers()? });
        }
        Ok(files)
    }

    /// Whether systemd listens for services' HTTP. A port of the kernel's choice is nothing that it could write down.
    fn has_http_socket(&self) -> bool {
        match self.http {
            None => false,
            Some(Listen::Port(port)) => port != 0,
            Some(Listen::Address(address)) => address.port() != 0,
        }
    }

    fn socket(&self, units: &Units) -> Result<String, PlanError> {
        let path = self.root.socket();
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(PlanError::SocketPath { path });
        }
        let mut text = format!(
            "{MARK}\
             [Unit]\n\
             Description=The native API of Sampan at {root}\n\
             Documentation=man:sampan(1)\n\
             \n\
             [Socket]\n\
             ListenStream={path}\n\
             FileDescriptorName={native}\n\
             DirectoryMode=0711\n\
             # who may connect may do as root on this machine: its owner, and the group's members\n\
             SocketMode=0660\n",
            root = unit_text(self.root.path())?,
            path = unit_text(&path)?,
            native = crate::daemon::NATIVE_SOCKET,
        );
        if let Some(owner) = &self.owner {
            text.push_str(&format!("SocketUser={}\n", user(owner)?));
        }
        if self.for_group {
            text.push_str(&format!("SocketGroup={GROUP}\n"));
        }
        text.push_str(&format!("Service={}\n\n[Install]\nWantedBy=sockets.target\n", units.service()));
        Ok(text)
    }

    fn http_socket(&self, units: &Units) -> Option<String> {
        let listen = self.http.filter(|_| self.has_http_socket())?;
        let (streams, is_loopback) = match listen {
            Listen::Port(port) => (vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")], true),
            Listen::Address(address) => (vec![address.to_string()], address.ip().is_loopback()),
        };
        let streams: String = streams.iter().map(|stream| format!("ListenStream={stream}\n")).collect();
        // an address that this machine is yet to be given is listened on all the same
        let free_bind = if is_loopback { "" } else { "FreeBind=yes\n" };
        let (service, http) = (units.service(), crate::daemon::HTTP_SOCKET);
        Some(format!(
            "{MARK}\
             [Unit]\n\
             Description=Where services of Sampan are reached\n\
             Documentation=man:sampan(1)\n\
             \n\
             [Socket]\n\
             {streams}\
             BindIPv6Only=ipv6-only\n\
             {free_bind}\
             Backlog=4096\n\
             FileDescriptorName={http}\n\
             Service={service}\n\
             \n\
             [Install]\n\
             WantedBy=sockets.target\n"
        ))
    }

    fn service(&self, units: &Units) -> Result<String, PlanError> {
        let (root, binary) = (exec_word(self.root.path())?, exec_word(&self.binary)?);
        let mut text = MARK.to_owned();
        if self.copied {
            text.push_str(&format!("{COPIED}{}\n", self.binary.display()));
        }
        let mut sockets = units.socket();
        if self.has_http_socket() {
            sockets.push_str(&format!(" {}", units.http_socket()));
        }
        let http = match self.http {
            Some(listen) if !self.has_http_socket() => format!(" --http {listen}"),
            _ => String::new(),
        };
        text.push_str(&format!(
            "[Unit]\n\
             Description=Sampan, a container cloud in one binary\n\
             Documentation=man:sampan(1)\n\
             # Firewalls first: their forwarding rules are looked at, and starting nftables.service empties every table.\n\
             After=network.target nftables.service firewalld.service ufw.service docker.service\n\
             Requires={socket}\n\
             After={sockets}\n",
            socket = units.socket(),
        ));
        if self.has_http_socket() {
            text.push_str(&format!("Wants={}\n", units.http_socket()));
        }
        text.push_str(&format!(
            "RequiresMountsFor={root}\n\
             StartLimitIntervalSec=60\n\
             StartLimitBurst=5\n\
             \n\
             [Service]\n\
             Type=notify\n\
             # SAMPAN_HTTP and SAMPAN_LOG may be set there.\n\
             EnvironmentFile=-/etc/default/{stem}\n\
             ExecStart={binary} daemon --root {root}{http}\n\
             # A fresh daemon of the binary that is there now, in the same process; apps run on.\n\
             ExecReload=/bin/kill -HUP $MAINPID\n\
             Restart=on-failure\n\
             RestartSec=1\n\
             TimeoutStartSec=90\n\
             # `systemctl stop` ends every app first, and each may take its ten seconds.\n\
             TimeoutStopSec=150\n",
            stem = units.stem(),
        ));
        text.push_str(CONFINEMENT);
        text.push_str(&format!("\n[Install]\nWantedBy=multi-user.target\nAlso={sockets}\n"));
        Ok(text)
    }

    fn sysusers(&self) -> Result<String, PlanError> {
        let mut text = format!("{MARK}g {GROUP} -\n");
        for member in &self.members {
            text.push_str(&format!("m {} {GROUP}\n", user(member)?));
        }
        Ok(text)
    }
}

/// What the daemon may and may not, with the reasons that an administrator will ask for.
const CONFINEMENT: &str = "
# Apps are the supervisor's, in control groups of their own: a daemon that dies or is replaced takes none with it.
KillMode=process
# Keeps every controller on in the tree above ours, and systemd's hands off what is below.
Delegate=yes
LimitNOFILE=1048576
# Apps inherit this one; what they may have is the size of their server (`--memory`, `--pids-limit`).
LimitNPROC=infinity
TasksMax=infinity
OOMPolicy=continue

# What neither the daemon nor a container ever needs. (A container's own capabilities are those of its user namespace,
# which this does not reach.)
CapabilityBoundingSet=~CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_BLOCK_SUSPEND CAP_LEASE CAP_MAC_ADMIN CAP_MAC_OVERRIDE
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_MODULE CAP_SYS_PACCT CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_TTY_CONFIG
CapabilityBoundingSet=~CAP_SYSLOG CAP_WAKE_ALARM
KeyringMode=private
UMask=0022

# What is left out on purpose, because a container runtime cannot live with it:
# - ProtectSystem, ProtectHome, ProtectProc, ProtectKernel*, ProtectControlGroups, Private*, *Paths: each is a mount
#   namespace of the daemon's own. Directories that a container mounts (-v) would be that namespace's, not the
#   machine's; and with anything mounted over /proc the kernel allows no container a /proc of its own.
# - SystemCallFilter, Restrict*, LockPersonality, MemoryDenyWriteExecute, ProtectClock, ProtectHostname: seccomp filters,
#   which every container would inherit and none could take off. Containers, logger and edge have their own.
# - NoNewPrivileges: inherited as well; no setuid program would work in any container.
# - DevicePolicy: the supervisor makes the few device nodes that containers have.
# - OOMScoreAdjust: inherited; the supervisor sets its own, and apps keep the usual one.
";

/// Where a unit of this name is written.
pub fn unit_path(name: &str) -> PathBuf {
    Path::new("/etc/systemd/system").join(name)
}

/// Where systemd-sysusers is told of the group.
pub fn sysusers_path() -> PathBuf {
    "/etc/sysusers.d/sampan.conf".into()
}

/// A path as a value: `%` begins a specifier (`systemd.unit(5)`).
fn unit_text(path: &Path) -> Result<String, PlanError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.map(|text| text.replace('%', "%%")).ok_or_else(|| PlanError::Path { path: path.into() })
}

/// A path as one word of a command line or a list: quoted, and `$` begins a variable (`systemd.service(5)`).
fn exec_word(path: &Path) -> Result<String, PlanError> {
    let text = unit_text(path)?.replace('$', "$$");
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:%$".contains(c));
    Ok(if is_plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) })
}

/// A user's name that can stand in a unit (useradd(8), and dots, which many a directory service has).
fn user(name: &str) -> Result<&str, PlanError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && name.chars().all(fits);
    if is_name { Ok(name) } else { Err(PlanError::User { name: name.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(root: &str) -> Plan {
        Plan {
            root: Root::at(Path::new(root)).unwrap(),
            binary: "/usr/bin/sampan".into(),
            copied: false,
            owner: None,
            for_group: false,
            members: Vec::new(),
            makes_group: false,
            http: None,
        }
    }

    fn text(plan: &Plan, name: &str) -> String {
        let files = plan.files().unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
        let found = files.into_iter().find(|file| file.path.ends_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {names:?}")).text
    }

    #[track_caller]
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn the_machine_s_own() {
        let plan = plan("/var/lib/sampan");
        assert_eq!(plan.files().unwrap().len(), 2);
        let socket = text(&plan, "sampan.socket");
        has(&socket, &["ListenStream=/run/sampan/sampan.sock", "SocketMode=0660", "FileDescriptorName=native"]);
        assert!(!socket.contains("SocketGroup") && !socket.contains("SocketUser"), "{socket}");
        let exec = "ExecStart=/usr/bin/sampan daemon --root /var/lib/sampan";
        has(&text(&plan, "sampan.service"), &[exec, "Type=notify", "Delegate=yes", "WantedBy=multi-user.target"]);
    }

    #[test]
    fn users_and_addresses_that_are_asked_for() {
        let plan = Plan {
            owner: Some("alice".into()),
            for_group: true,
            members: vec!["bob".into(), "carol.c".into()],
            http: Some("0.0.0.0:80".parse().unwrap()),
            copied: true,
            ..plan("/var/lib/sampan")
        };
        has(&text(&plan, "sampan.socket"), &["SocketUser=alice", "SocketGroup=sampan"]);
        has(
            &text(&plan, "sampan-http.socket"),
            &["ListenStream=0.0.0.0:80", "FreeBind=yes", "FileDescriptorName=http"],
        );
        let service = text(&plan, "sampan.service");
        has(&service, &["Wants=sampan-http.socket", "Also=sampan.socket sampan-http.socket"]);
        has(&service, &["# The binary was copied to /usr/bin/sampan"]);
        has(&text(&plan, "sysusers.d/sampan.conf"), &["g sampan -", "m bob sampan", "m carol.c sampan"]);
    }

    #[test]
    fn a_port_on_loopback_and_one_of_the_kernel_s_choice() {
        let with = |http: &str| Plan { http: Some(http.parse().unwrap()), ..plan("/var/lib/sampan") };
        let socket = text(&with("8080"), "sampan-http.socket");
        has(&socket, &["ListenStream=127.0.0.1:8080", "ListenStream=[::1]:8080"]);
        assert!(!socket.contains("FreeBind"));
        let free = with("0");
        assert_eq!(free.files().unwrap().len(), 2);
        has(&text(&free, "sampan.service"), &["ExecStart=/usr/bin/sampan daemon --root /var/lib/sampan --http 0"]);
    }

    #[test]
    fn odd_paths_and_names() {
        let odd = plan("/srv/50% $a \"b\"");
        let stem = Units::of(&odd.root).service();
        let service = text(&odd, &stem);
        has(&service, &["ExecStart=/usr/bin/sampan daemon --root \"/srv/50%% $$a \\\"b\\\"\""]);
        has(&text(&odd, &Units::of(&odd.root).socket()), &["ListenStream=/srv/50%% $a \"b\"/run/sampan.sock"]);
        let long = plan(&format!("/srv/{}", "x".repeat(100)));
        assert!(matches!(long.files(), Err(PlanError::SocketPath { .. })));
        assert!(matches!(plan("/srv/a\nb").files(), Err(PlanError::Path { .. })));
        for name in ["", "-x", "a b", "a\nb", "a%b"] {
            let plan = Plan { members: vec![name.into()], ..plan("/var/lib/sampan") };
            assert_eq!(plan.files(), Err(PlanError::User { name: name.into() }), "{name:?}");
        }
    }
}
