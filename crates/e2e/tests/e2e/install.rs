//! systemd's part: the units, the sockets it hands over, what it is told, and what `install` asks of it.
//!
//! The tests are systemd where there is none: they listen, hand over, receive the notifications, and put a `systemctl`
//! of their own into `PATH`. The units themselves are judged by the real `systemd-analyze`.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::sampan::{SOON, body_of, is_gone, outcome};
use sampan_e2e::{Outcome, Sampan, sources, tools};
use sampan_testkit::wait_until;

/// The test as systemd: what it listens on, and where it is told.
struct Systemd {
    native: UnixListener,
    http: TcpListener,
    notify: UnixDatagram,
    notify_path: PathBuf,
    socket: PathBuf,
}

impl Systemd {
    fn new(sampan: &Sampan) -> Self {
        let run = sampan.root().join("run");
        fs::create_dir_all(&run).expect("the directory of the socket");
        let (socket, notify_path) = (run.join("sampan.sock"), sampan.dir().join("notify"));
        let notify = UnixDatagram::bind(&notify_path).expect("a socket to be told on");
        notify.set_read_timeout(Some(SOON)).expect("a limit");
        Self {
            native: UnixListener::bind(&socket).expect("the API's socket"),
            http: TcpListener::bind("127.0.0.1:0").expect("services' socket"),
            notify,
            notify_path,
            socket,
        }
    }

    /// Starts the service as its unit says: sockets as descriptors 3 and 4, and the capabilities that it is left with.
    fn start(&self, sampan: &Sampan) -> Child {
        let root = sampan.root().to_str().expect("a path in UTF-8");
        let script =
            "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=native:http exec \"$@\"";
        let mut command = sampan.command(&[]);
        let binary = command.get_program().to_owned();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", "setpriv", "--bounding-set", &self.dropped(sampan)]).arg(binary);
        shell.args(["daemon", "--root", root]).env("NOTIFY_SOCKET", &self.notify_path).env_remove("SAMPAN_HTTP");
        command.stdin(Stdio::null());
        let (native, http) = (self.native.try_clone(), self.http.try_clone());
        shell.stdin(OwnedFd::from(native.expect("a copy"))).stdout(OwnedFd::from(http.expect("a copy")));
        shell.spawn().expect("the daemon starts")
    }

    /// The capabilities that the unit takes away, in setpriv's words.
    fn dropped(&self, sampan: &Sampan) -> String {
        let units = sampan.ok(&["daemon", "install", "--print", "--binary", "/usr/bin/sampan"]);
        let lines = units.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet=~CAP_"));
        let names: Vec<_> =
            lines.flat_map(|line| line.split(" CAP_")).map(|name| format!("-{}", name.to_lowercase())).collect();
        assert!(names.len() > 10, "{names:?}");
        names.join(",")
    }

    /// The next thing that the service tells.
    #[track_caller]
    fn told(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.notify.recv(&mut bytes).expect("systemd is told");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    #[track_caller]
    fn told_ready(&self, service: &Child) {
        let told = self.told();
        assert!(told.starts_with(&format!("READY=1\nMAINPID={}\n", service.id())), "{told}");
    }

    fn inode(&self) -> u64 {
        self.socket.symlink_metadata().expect("the socket's file").ino()
    }

    /// Lets go of everything, so that the instance is taken down by a daemon of its own.
    fn end(self) {
        fs::remove_file(&self.socket).expect("the socket's file is there to the end");
    }
}

fn signal(service: &Child, signal: Signal) {
    let pid = Pid::from_raw(service.id() as i32).expect("a pid");
    kill_process(pid, signal).expect("the daemon can be signalled");
}

#[test]
fn a_daemon_on_systemd_s_sockets() {
    let sampan = Sampan::new();
    let systemd = Systemd::new(&sampan);
    let inode = systemd.inode();
    // the user that it was installed for
    chown(&systemd.socket, Some(1000), None).expect("the unit's SocketUser=");
    fs::set_permissions(&systemd.socket, Permissions::from_mode(0o660)).expect("the unit's SocketMode=");

    // whoever comes before there is a daemon waits for it
    let early = sampan.command(&["ps", "--json"]).stdout(Stdio::piped()).spawn().expect("sampan ps");
    let mut service = systemd.start(&sampan);
    systemd.told_ready(&service);
    let early = early.wait_with_output().expect("its end");
    assert_eq!(String::from_utf8_lossy(&early.stdout).trim(), "[]");

    let address = systemd.http.local_addr().expect("its address");
    let status = sampan.json(&["daemon", "status", "--json"]);
    assert_eq!(status["http"], serde_json::json!([address.to_string()]));
    assert_eq!(sampan.pid_of("daemon").as_raw_nonzero().get() as u32, service.id());
    let url = sampan.up(&sources::fixture("probe"), &[]);
    assert_eq!(url, format!("http://probe.localhost:{}/", address.port()));
    assert_eq!(body_of(&url), "probe one");
    // without the capabilities that the unit takes away, containers have all of their own
    sampan.import_busybox();
    let capabilities = || sampan.shell("chown 5:6 /tmp && grep Cap /proc/self/status");
    let under_systemd = capabilities();

    // the owner may speak to it
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(tools::sampan());
    command.args(["ps", "--quiet"]).env("SAMPAN_ROOT", sampan.root()).current_dir("/");
    outcome(&mut command).assert_ok();

    // `systemctl reload`: another daemon in the same process, on the same sockets
    let app = sampan.inspect("probe")["replicas"][0]["state"]["pid"].clone();
    let before = sampan.json(&["daemon", "status", "--json"])["started_at"].clone();
    signal(&service, Signal::HUP);
    assert!(systemd.told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    systemd.told_ready(&service);
    assert_ne!(sampan.json(&["daemon", "status", "--json"])["started_at"], before);
    assert_eq!(sampan.inspect("probe")["replicas"][0]["state"]["pid"], app);

    // a crash: the next one is given the same sockets, and the app has been reachable all along
    signal(&service, Signal::KILL);
    service.wait().expect("its end");
    assert_eq!(body_of(&url), "probe one");
    let mut service = systemd.start(&sampan);
    systemd.told_ready(&service);
    assert_eq!(sampan.inspect("probe")["replicas"][0]["state"]["pid"], app);
    assert_eq!(body_of(&url), "probe one");

    // `systemctl stop`: apps first, and the sockets stay
    signal(&service, Signal::TERM);
    assert!(systemd.told().starts_with("STOPPING=1\n"));
    assert!(service.wait().expect("its end").success());
    assert!(is_gone(Pid::from_raw(app.as_i64().expect("a pid") as i32).expect("a pid")));
    assert_eq!(systemd.inode(), inode);

    // the next start brings back what ran
    let mut service = systemd.start(&sampan);
    systemd.told_ready(&service);
    wait_until("the service to be back", SOON, || sampan.inspect("probe")["health"] == "ready");
    assert_eq!(body_of(&url), "probe one");
    sampan.ok(&["daemon", "stop"]);
    assert!(service.wait().expect("its end").success());
    systemd.end();
    assert_eq!(capabilities(), under_systemd, "as under a daemon with every capability");
}

/// `systemd-analyze verify` of what an install with these words writes; it must find nothing to say.
#[track_caller]
fn verify(sampan: &Sampan, words: &[&str]) {
    let prefix = sampan.dir().join("prefix");
    let units = prefix.join("etc/systemd/system");
    let install = ["daemon", "install", "--binary", "/bin/true", "--prefix", prefix.to_str().expect("a path in UTF-8")];
    let written = asked_for_alone(sampan.command(&[&install[..], words].concat())).assert_ok().stdout;
    let files: Vec<&str> = written.lines().filter(|line| !line.ends_with(".conf")).collect();
    assert!(files.len() >= 2, "{written}");
    let systemd = tools::systemd();
    let libraries = ["lib", "usr/lib", "usr/lib/systemd"].map(|dir| match dir.strip_suffix("/systemd") {
        Some(dir) => systemd.join(dir).join(format!("{}-linux-gnu/systemd", std::env::consts::ARCH)),
        None => systemd.join(dir).join(format!("{}-linux-gnu", std::env::consts::ARCH)),
    });
    let path = |paths: &[PathBuf]| std::env::join_paths(paths).expect("paths without a colon");
    let mut command = Command::new(systemd.join("usr/bin/systemd-analyze"));
    // the manual is not installed for this
    command.args(["verify", "--man=no"]).args(&files);
    command.env("LD_LIBRARY_PATH", path(&libraries));
    command.env("SYSTEMD_UNIT_PATH", path(&[units, systemd.join("lib/systemd/system")]));
    let verified = outcome(&mut command).assert_ok();
    assert_eq!((verified.stdout.as_str(), verified.stderr.as_str()), ("", ""), "{words:?}");
    // it goes as it came
    let removed = sampan.ok(&["daemon", "uninstall", "--prefix", prefix.to_str().expect("a path in UTF-8")]);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&removed), sorted(&written));
    assert!(files.iter().all(|file| !Path::new(file).exists()));
}

#[test]
fn units_that_systemd_has_nothing_to_say_about() {
    let sampan = Sampan::new();
    verify(&sampan, &[]);
    verify(&sampan, &["--http", "80"]);
    verify(&sampan, &["--http", "[::]:443", "--user", "alice", "--user", "bob"]);
    verify(&sampan, &["--http", "0"]);
    let odd = Sampan::within(|dir| dir.join("a root with 100% $blanks"));
    verify(&odd, &["--http", "80"]);
}

/// Runs a command of the instance on a machine where systemd runs: one with the real files below `/etc` and
/// `/usr/local`, where what is written is kept in `dir`, and with a `systemctl` that notes what it is asked.
fn with_systemd(sampan: &Sampan, words: &[&str]) -> Outcome {
    let dir = sampan.dir();
    let script = "
        set -e
        for sub in etc usr/local; do
            mkdir -p $0/upper/$sub $0/work/$sub
            mount -t overlay -o lowerdir=/$sub,upperdir=$0/upper/$sub,workdir=$0/work/$sub overlay /$sub
        done
        mount -t tmpfs run /run
        mkdir -p /run/systemd/system
        PATH=$0/bin:$PATH
        exec \"$@\"";
    let bin = dir.join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).expect("a directory for programs");
        let note = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> {}/asked\n", dir.display());
        for program in ["systemctl", "systemd-sysusers"] {
            let path = bin.join(program);
            fs::write(&path, &note).expect("a program");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
        }
    }
    let inner = sampan.command(words);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&dir);
    command.arg(inner.get_program()).args(words).stdin(Stdio::null()).current_dir(&dir);
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("SUDO_USER");
    asked_for_alone(command)
}

/// Runs a command to whose words nothing is added by the harness' environment.
fn asked_for_alone(mut command: Command) -> Outcome {
    outcome(command.env_remove("SAMPAN_HTTP"))
}

/// What systemd has been asked since the last look.
fn asked(sampan: &Sampan) -> Vec<String> {
    let path = sampan.dir().join("asked");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn install_and_uninstall() {
    let sampan = Sampan::new();
    let words = ["daemon", "install", "--copy", "--http", "8099"];
    let installed = with_systemd(&sampan, &words).assert_ok();
    let written: Vec<&str> = installed.stdout.lines().collect();
    let stem = Path::new(written[0]).file_stem().and_then(|stem| stem.to_str()).expect("a unit's name").to_owned();
    assert!(stem.starts_with("sampan-") && written.len() == 3, "{installed}");
    let names = format!("{stem}.socket {stem}.service {stem}-http.socket");
    let expected = [
        "systemctl daemon-reload".to_owned(),
        format!("systemctl show --property=MainPID --value {stem}.service"),
        format!("systemctl enable --now {names}"),
    ];
    assert_eq!(asked(&sampan), expected);
    let copy = sampan.dir().join("upper/usr/local/bin/sampan");
    assert_eq!(fs::read(&copy).expect("the copy"), fs::read(tools::sampan()).expect("the binary"));
    let meta = copy.metadata().expect("the copy");
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755));

    // once more is as once
    with_systemd(&sampan, &words).assert_ok();
    assert_eq!(asked(&sampan), expected);
    // services' sockets are no longer asked for
    with_systemd(&sampan, &["daemon", "install", "--copy"]).assert_ok();
    assert_eq!(asked(&sampan)[0], format!("systemctl disable --now {stem}-http.socket"));
    assert!(!sampan.dir().join(format!("upper/etc/systemd/system/{stem}-http.socket")).exists());

    // a daemon that runs already is taken over with its apps
    let url = Sampan::up(&sampan, &sources::fixture("probe"), &[]);
    let (daemon, app) = (sampan.pid_of("daemon"), sampan.inspect("probe")["replicas"][0]["state"]["pid"].clone());
    let outcome = with_systemd(&sampan, &["daemon", "install", "--copy"]).assert_ok();
    assert!(outcome.stderr.contains("apps run on"), "{outcome}");
    assert!(is_gone(daemon));
    assert_eq!(body_of(&url), "probe one");
    assert_eq!(sampan.inspect("probe")["replicas"][0]["state"]["pid"], app);
    asked(&sampan);

    // everything goes but what was installed: systemd listens anew, and is who starts the next daemon
    with_systemd(&sampan, &["purge", "--yes"]).assert_ok();
    assert_eq!(asked(&sampan), [format!("systemctl restart {stem}.socket")]);
    with_systemd(&sampan, &["daemon", "start"]).assert_fails(1, &["no sampan daemon answers"]);
    let start = format!("systemctl start {stem}.socket {stem}.service");
    assert!(asked(&sampan).contains(&start), "the daemon was started behind systemd's back");

    let removed = with_systemd(&sampan, &["daemon", "uninstall"]).assert_ok();
    assert!(removed.stderr.contains("stopping every app"), "{removed}");
    let expected =
        [format!("systemctl disable --now {stem}.socket {stem}.service"), "systemctl daemon-reload".to_owned()];
    assert_eq!(asked(&sampan), expected);
    assert!(!copy.exists());
    let left = with_systemd(&sampan, &["daemon", "uninstall", "--json"]).assert_ok();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&left.stdout).expect("JSON")["removed"],
        serde_json::json!([])
    );
    assert_eq!(asked(&sampan), [""; 0]);
}

#[test]
fn installs_that_are_refused() {
    let sampan = Sampan::new();
    let binary = sampan.dir().join("anybody-s");
    fs::copy(tools::sampan(), &binary).expect("a copy");
    fs::set_permissions(&binary, Permissions::from_mode(0o777)).expect("its mode");
    let binary = binary.to_str().expect("a path in UTF-8");
    let refused = |words: &[&str], says: &[&str]| {
        with_systemd(&sampan, &[&["daemon", "install"], words].concat()).assert_fails(1, says);
        assert_eq!(asked(&sampan), [""; 0], "{words:?}");
    };
    refused(&["--binary", binary], &["others than root can change", binary, "--copy"]);
    refused(&["--binary", "/no/such/binary"], &["/no/such/binary"]);
    refused(&["--copy", "--user", "nobody-of-that-name"], &["nobody-of-that-name", "getent passwd"]);
    // what somebody else wrote stays as it is
    let stem = with_systemd(&sampan, &["daemon", "install", "--print"]).assert_ok().stdout;
    let path = stem.lines().next().expect("a file").trim_start_matches("# ").to_owned();
    let foreign = sampan.dir().join("upper").join(path.trim_start_matches('/'));
    fs::create_dir_all(foreign.parent().expect("a directory")).expect("the units' directory");
    fs::write(&foreign, "[Socket]\n").expect("somebody's unit");
    refused(&["--copy"], &[&path, "was not written by"]);
    assert_eq!(fs::read_to_string(&foreign).expect("somebody's unit"), "[Socket]\n");
}
