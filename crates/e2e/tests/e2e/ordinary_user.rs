//! People who are not root: they do what root does, with their own things, and never see another's.
//!
//! Three real users of this machine: 1000, for whom the daemon was started, 1001, of the group `sampan`, and 1002, who is
//! neither. The group is in a private mount namespace of the daemon's, as if `/etc/group` had it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sampan_e2e::sampan::{SOON, body_of, outcome};
use sampan_e2e::terminal::Terminal;
use sampan_e2e::{Outcome, Sampan, sources, tools};
use sampan_testkit::wait_until;
use serde_json::Value;

const OWNER: User = User { uid: 1000, gid: 1000 };
const MEMBER: User = User { uid: 1001, gid: GROUP };
const STRANGER: User = User { uid: 1002, gid: 1002 };
/// Some id that no group of this machine has.
const GROUP: u32 = 424_242;

#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// An instance whose daemon was started by sudo of the owner.
struct House(Sampan);

impl House {
    fn new() -> Self {
        let sampan = Sampan::new();
        // the test's directory is root's alone as it is made
        fs::set_permissions(sampan.dir(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let house = Self(sampan);
        for user in [OWNER, MEMBER, STRANGER] {
            let home = house.home(user);
            fs::create_dir(&home).expect("a home");
            chown(&home, Some(user.uid), Some(user.gid)).expect("its owner");
        }
        let group = house.0.dir().join("group");
        let lines = fs::read_to_string("/etc/group").expect("the machine's groups");
        fs::write(&group, format!("{lines}sampan:x:{GROUP}:\n")).expect("the groups, and one more");
        let start = house.0.command(&["daemon", "start"]);
        let mut private = Command::new("unshare");
        private.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/group && exec \"$@\""]);
        private.arg(&group).arg(start.get_program()).args(start.get_args());
        copy_environment(&start, &mut private);
        private.env("SUDO_UID", OWNER.uid.to_string()).env("SUDO_GID", OWNER.gid.to_string());
        outcome(&mut private).assert_ok();
        house
    }

    fn home(&self, user: User) -> PathBuf {
        self.0.dir().join(format!("home-{}", user.uid))
    }

    /// A command as this user, at home.
    fn command(&self, user: User, words: &[&str]) -> Command {
        let mut command = self.0.command(words);
        let home = self.home(user);
        command.uid(user.uid).gid(user.gid).env("HOME", &home).current_dir(&home);
        command.env("GOCACHE", home.join("go-cache")).env("XDG_CACHE_HOME", home.join("cache"));
        command
    }

    fn run(&self, user: User, words: &[&str]) -> Outcome {
        outcome(&mut self.command(user, words))
    }

    #[track_caller]
    fn ok(&self, user: User, words: &[&str]) -> String {
        self.run(user, words).assert_ok().stdout.trim_end().to_owned()
    }

    #[track_caller]
    fn json(&self, user: User, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(user, words)).expect("JSON")
    }

    #[track_caller]
    fn import(&self, user: User, image: &str) {
        let tar = self.home(user).join("bb.tar");
        fs::copy(sources::busybox_tar(), &tar).expect("busybox");
        fs::set_permissions(&tar, fs::Permissions::from_mode(0o644)).expect("its mode");
        chown(&tar, Some(user.uid), Some(user.gid)).expect("its owner");
        self.ok(user, &["image", "import", "bb.tar", image]);
    }
}

fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Asserts that everything below a directory is this user's.
#[track_caller]
fn assert_owned(directory: &Path, user: User) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("what it is");
        assert_eq!(metadata.uid(), user.uid, "{}", entry.path().display());
        if metadata.is_dir() {
            assert_owned(&entry.path(), user);
        }
    }
}

#[test]
fn their_own_things() {
    let house = House::new();
    house.import(OWNER, "bb");
    assert_eq!(house.ok(OWNER, &["run", "--rm", "bb", "id", "-u"]), "0");
    house.ok(OWNER, &["run", "-d", "--name", "job", "-v", "data:/data", "bb", "sleep", "1000"]);
    house.ok(OWNER, &["exec", "job", "sh", "-c", "echo kept > /data/file"]);
    house.ok(OWNER, &["rm", "-f", "job"]);
    assert_eq!(house.ok(OWNER, &["run", "--rm", "-v", "data:/data", "bb", "cat", "/data/file"]), "kept");
    // what is written at home is theirs
    house.ok(OWNER, &["run", "--rm", "-v", "./:/home", "bb", "sh", "-c", "mkdir /home/made; echo x > /home/made/file"]);
    assert_owned(&house.home(OWNER), OWNER);
    assert_eq!(house.json(OWNER, &["ps", "--json"]), Value::Array(Vec::new()));
}

/// Trust follows the caller: what stays in the container's own user namespace is anybody's.
#[test]
fn what_reaches_beyond_a_container_is_root_s() {
    let house = House::new();
    house.import(OWNER, "bb");
    for (options, says) in [
        (&["--privileged"][..], "--privileged"),
        (&["--userns", "host"], "--userns host"),
        (&["--device", "/dev/null:/dev/other"], "--device"),
        (&["--oom-score-adj", "-1"], "oom_score_adj"),
    ] {
        let words = [&["run", "--rm"], options, &["bb", "true"]].concat();
        house.run(OWNER, &words).assert_fails(125, &[says, "root alone"]);
    }
    let own = ["run", "--rm", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--ulimit", "core=0"];
    let script =
        "mount -t tmpfs x /tmp && unshare -m true && echo mine; echo 1 > /proc/sys/kernel/panic || echo refused";
    assert_eq!(house.ok(OWNER, &[&own[..], &["bb", "sh", "-c", script]].concat()), "mine\nrefused");
    house.ok(OWNER, &["run", "-d", "--name", "job", "bb", "sleep", "1000"]);
    house.ok(OWNER, &["exec", "--privileged", "job", "true"]);
}

#[test]
fn what_root_alone_may_read_stays_so() {
    let house = House::new();
    house.import(OWNER, "bb");
    let secret = house.0.dir().join("secret");
    fs::create_dir(&secret).expect("a directory");
    fs::write(secret.join("file"), "hidden").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).expect("its mode");
    let run = |volume: &str, script: &str| house.run(OWNER, &["run", "--rm", "-v", volume, "bb", "sh", "-c", script]);
    let shadow = run("/etc:/x", "cat /x/hostname > /dev/null && echo there; cat /x/shadow");
    assert_eq!((shadow.stdout.as_str(), shadow.code()), ("there\n", 1), "{shadow}");
    let written = run("/etc:/x", "echo x >> /x/hostname || echo no");
    assert!(written.stdout.contains("no"), "{written}");
    let path = secret.to_str().expect("a path in UTF-8");
    let directory = run(&format!("{path}:/x"), "ls /x; cat /x/file");
    assert!(!directory.stdout.contains("hidden") && !directory.stdout.contains("file"), "{directory}");
    assert_ne!(run(&format!("{path}/file:/x"), "cat /x").code(), 0);
    let other = house.home(MEMBER).join("diary");
    fs::write(&other, "hidden").expect("a file");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("its mode");
    chown(&other, Some(MEMBER.uid), Some(MEMBER.gid)).expect("its owner");
    let home = house.home(MEMBER);
    let diary = run(&format!("{}:/x", home.display()), "cat /x/diary");
    assert!(!diary.stdout.contains("hidden") && !diary.status.success(), "{diary}");
}

#[test]
fn others_things_are_not_there() {
    let house = House::new();
    house.import(OWNER, "bb");
    house.ok(OWNER, &["run", "-d", "--name", "mine", "-v", "data:/data", "bb", "sleep", "1000"]);
    let id = house.json(OWNER, &["inspect", "mine"])[0]["id"].as_str().expect("an id").to_owned();
    house.ok(OWNER, &["server", "create", "box", "--memory", "64MiB"]);

    for words in [&["ps", "-a"][..], &["image", "ls"], &["volume", "ls"], &["server", "ls"]] {
        let listed = house.json(MEMBER, &[words, &["--json"]].concat());
        assert_eq!(listed, Value::Array(Vec::new()), "{words:?}");
    }
    for name in ["mine", id.as_str(), &id[..6]] {
        for words in [
            &["inspect", name][..],
            &["logs", name],
            &["stop", name],
            &["rm", name],
            &["kill", name],
            &["pause", name],
            &["restart", name],
            &["rename", name, "stolen"],
            &["update", "--cpus", "1", name],
            &["wait", name],
            &["top", name],
            &["stats", "--no-stream", name],
            &["attach", name],
            &["exec", name, "true"],
            &["ssh", name],
            &["cp", &format!("{name}:/bin/sh"), "stolen"],
        ] {
            let refused = house.run(MEMBER, words);
            assert_ne!(refused.code(), 0, "{refused}");
            assert!(refused.stderr.contains("there is no container"), "{refused}");
        }
    }
    house.run(MEMBER, &["run", "--rm", "bb", "true"]).assert_fails(125, &["there is no image"]);
    house.run(MEMBER, &["server", "inspect", "box"]).assert_fails(1, &["no server"]);
    house.run(MEMBER, &["server", "close", "box"]).assert_fails(1, &["no server"]);
    house.run(MEMBER, &["volume", "inspect", "data"]).assert_fails(1, &["no volume"]);

    // names that are taken say so, and nothing else
    house.import(MEMBER, "own");
    let taken = house.run(MEMBER, &["run", "-d", "--name", "mine", "own", "true"]).assert_fails(125, &["taken"]);
    assert!(!taken.stderr.contains(&id[..6]), "{taken}");
    house.run(MEMBER, &["image", "import", "bb.tar", "bb"]).assert_fails(1, &["taken"]);
    assert_ne!(house.run(MEMBER, &["run", "--rm", "-v", "data:/data", "own", "true"]).code(), 0);
    assert_ne!(house.run(MEMBER, &["run", "--rm", "--server", "box", "own", "true"]).code(), 0);

    // so do ports
    house.ok(OWNER, &["run", "-d", "--name", "web", "-p", "80", "bb", "sleep", "1000"]);
    let port = house.json(OWNER, &["inspect", "web"])[0]["ports"][0]["host_port"].to_string();
    let taken = house.run(MEMBER, &["run", "-d", "-p", &format!("{port}:80"), "own", "true"]);
    taken.assert_fails(125, &["taken by another user's container"]);
    house.ok(OWNER, &["rm", "-f", "web"]);

    // root sees all, and the owner's goes on
    assert_eq!(house.0.containers().len(), 1);
    assert_eq!(house.json(OWNER, &["inspect", "mine"])[0]["state"]["status"], "running");
    assert_eq!(house.json(OWNER, &["inspect", "mine"])[0]["owner"]["uid"], OWNER.uid);
}

/// A container that was never started has what `cp` reads in a volume, too.
#[test]
fn naming_another_s_volume_gives_nothing_of_it() {
    let house = House::new();
    house.import(OWNER, "bb");
    house.import(MEMBER, "own");
    house.ok(OWNER, &["volume", "create", "data"]);
    let create = |name: &str, mount: &str| house.run(MEMBER, &["create", "--name", name, "-v", mount, "own", "true"]);
    create("thief", "data:/v").assert_fails(1, &["in use"]);
    // the name was free when it was said
    create("early", "later:/v").assert_ok();
    house.ok(OWNER, &["run", "--rm", "-v", "later:/v", "bb", "sh", "-c", "echo hidden > /v/file"]);
    assert_ne!(house.run(MEMBER, &["cp", "early:/v/file", "stolen"]).code(), 0);
    assert!(!house.home(MEMBER).join("stolen").exists());
    fs::write(house.home(MEMBER).join("file"), "other").expect("a file");
    house.run(MEMBER, &["cp", "file", "early:/v/"]);
    assert_eq!(house.ok(OWNER, &["run", "--rm", "-v", "later:/v", "bb", "cat", "/v/file"]), "hidden");
    house.run(MEMBER, &["start", "early"]).assert_fails(1, &["in use"]);
    // nor is it in its owner's way
    let listed = house.json(OWNER, &["volume", "inspect", "later"]);
    assert_eq!(listed[0]["used_by"], serde_json::json!([]), "{listed}");
    house.ok(OWNER, &["volume", "rm", "later"]);
}

/// A service has its image's name, but not where that is another's already: by its digest anybody may use an image.
#[test]
fn a_service_takes_no_image_s_name_away_from_another() {
    let house = House::new();
    for user in [OWNER, MEMBER] {
        // the same bytes are the same image, whoever makes it
        let site = house.home(user).join("shop");
        fs::create_dir(&site).expect("a directory");
        fs::write(site.join("index.html"), "<p>shop").expect("a file");
    }
    house.ok(OWNER, &["build", "shop", "-t", "shop"]);
    let before = house.json(OWNER, &["image", "ls", "--json"]);
    assert_eq!(before[0]["name"], "shop:latest");
    house.ok(MEMBER, &["up", "shop", "--name", "shop"]);
    assert_eq!(house.json(MEMBER, &["inspect", "shop"])[0]["image"], before[0]["digest"]);
    house.ok(MEMBER, &["down", "shop"]);
    assert_eq!(house.json(OWNER, &["image", "ls", "--json"]), before);
}

#[test]
fn who_may_ask_and_who_may_order() {
    let house = House::new();
    house.run(STRANGER, &["ps"]).assert_fails(1, &["not open to this user", "group 'sampan'"]);
    house.ok(MEMBER, &["ps"]);
    for words in [&["daemon", "stop"][..], &["daemon", "restart"], &["purge", "--yes"]] {
        house.run(MEMBER, words).assert_fails(1, &["every user", "sudo"]);
    }
    house.ok(OWNER, &["daemon", "restart"]);
    house.ok(MEMBER, &["ps"]);
}

/// Where no daemon runs, the first command asks for root's rights once, for the daemon alone, and says so. What plays
/// sudo here hands the command to the test, which is root and knows who asked.
#[test]
fn the_daemon_is_started_through_sudo_and_that_is_announced() {
    let sampan = Sampan::new();
    fs::set_permissions(sampan.dir(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let home = sampan.dir().join("home");
    fs::create_dir(&home).expect("a home");
    chown(&home, Some(OWNER.uid), Some(OWNER.gid)).expect("its owner");
    let sudo = home.join("sudo");
    let script = "#!/bin/sh\ncd \"${0%/*}\" && printf '%s\\n' \"$@\" > words && mv words asked\n\
        until [ -e code ]; do sleep 0.02; done\nexit \"$(cat code)\"\n";
    fs::write(&sudo, script).expect("what plays sudo");
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).expect("its mode");

    // without a terminal nobody is asked, and it is said what to do
    let mut alone = sampan.command(&["ps"]);
    alone.uid(OWNER.uid).gid(OWNER.gid).env("HOME", &home);
    outcome(&mut alone).assert_fails(1, &["sudo sampan daemon start --root"]);

    let inner = sampan.command(&["ps", "--json"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(&home);
    copy_environment(&inner, &mut command);
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", home.display())).env("HOME", &home);
    let mut terminal = Terminal::of(&command);
    terminal.until("the daemon needs root; running: sudo ");
    let asked = home.join("asked");
    wait_until("sudo to be run", SOON, || asked.exists());
    let words = fs::read_to_string(&asked).expect("what is asked");
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(
        words[1..],
        ["daemon", "start", "--quiet", "--root", sampan.root().to_str().expect("UTF-8"), "--http", "0"]
    );
    let mut root = Command::new(words[0]);
    root.args(&words[1..]).env("SUDO_UID", OWNER.uid.to_string()).env("SUDO_GID", OWNER.gid.to_string());
    let started = outcome(&mut root).assert_ok();
    fs::write(home.join("code"), started.code().to_string()).expect("its exit code");
    terminal.until("[]");
    let status: Value = serde_json::from_str(
        &outcome(sampan.command(&["daemon", "status", "--json"]).uid(OWNER.uid).gid(OWNER.gid)).assert_ok().stdout,
    )
    .expect("JSON");
    let daemon = status["processes"][0]["pid"].as_u64().expect("a pid");
    assert_eq!(fs::metadata(format!("/proc/{daemon}")).expect("the daemon").uid(), 0);
}

#[test]
fn source_is_compiled_as_its_owner() {
    let house = House::new();
    let source = house.home(OWNER).join("hello");
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join("go.mod"), "module hello\n\ngo 1.19\n").expect("a file");
    fs::write(source.join("main.go"), HELLO).expect("a file");
    for path in [source.clone(), source.join("go.mod"), source.join("main.go")] {
        chown(path, Some(OWNER.uid), Some(OWNER.gid)).expect("its owner");
    }
    let url = house.ok(OWNER, &["up", "hello"]);
    assert_eq!(body_of(&url), "hello");
    assert_owned(&house.home(OWNER), OWNER);
    assert_eq!(house.json(OWNER, &["inspect", "hello"])[0]["replicas"][0]["owner"]["uid"], OWNER.uid);
    // another's service is neither seen nor replaced
    assert_eq!(house.json(MEMBER, &["ps", "--json"]), Value::Array(Vec::new()));
    for words in [&["inspect", "hello"][..], &["logs", "hello"], &["down", "hello"]] {
        house.run(MEMBER, words).assert_fails(1, &["hello"]);
    }
    let binary = house.home(MEMBER).join("hello");
    fs::copy(tools::busybox(), &binary).expect("a program");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("its mode");
    house.run(MEMBER, &["up", "hello"]).assert_fails(1, &["taken"]);
    assert_eq!(body_of(&url), "hello");
    house.ok(OWNER, &["down", "hello"]);
}

/// Answers HTTP with as little of Go's library as that takes: it is compiled here without a cache.
const HELLO: &str = r#"package main

import (
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		os.Exit(1)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		connection.Read(make([]byte, 4096))
		connection.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"))
		connection.Close()
	}
}
"#;
