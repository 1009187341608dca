//! Killed at each step: the daemon, the supervisor, the edge, the logger or a container's first process, while the daemon
//! stands at a named point of a create, start, exec, stop, remove, `up`, `down`, upload or prune.
//!
//! Afterwards records, processes, cgroups, wires and files agree, exits that happened meanwhile are known, and the same
//! operation can be done again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::agreement::assert_agreement;
use sampan_e2e::sampan::{SOON, body_of};
use sampan_e2e::{Sampan, sources};
use sampan_testkit::{wait_for, wait_until};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Daemon,
    Supervisor,
    Edge,
    Logger,
    /// The first process of a container: of `kept`, which runs beside, or of the one the operation is about.
    Init,
}

use Victim::{Daemon, Edge, Init, Logger, Supervisor};

const ALL: [Victim; 5] = [Daemon, Supervisor, Edge, Logger, Init];

/// An instance with a container that runs beside, and a point armed for later.
struct Scene {
    sampan: Sampan,
    order: PathBuf,
    /// Holds the order's file; gone at the end.
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(point: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let order = dir.path().join("order");
        let sampan = Sampan::new().with("SAMPAN_FAILPOINT", format!("{point}:{}", order.display()));
        sampan.import_busybox();
        sampan.ok(&["run", "-d", "--name", "kept", "bb", "sleep", "1000"]);
        Self { sampan, order, _dir: dir }
    }

    /// Does the operation, kills the victim while the daemon is at the point, and waits for the operation's end.
    #[track_caller]
    fn kill_during(&self, victim: Victim, about: &str, operation: &[&str]) {
        fs::write(&self.order, if victim == Daemon { "" } else { "hold" }).expect("write the order");
        let target = match victim {
            Daemon => None,
            Supervisor => Some(self.sampan.pid_of("supervisor")),
            Edge => Some(self.sampan.pid_of("edge")),
            Logger => Some(self.sampan.pid_of("logger")),
            Init => Some(self.init_of(about).unwrap_or_else(|| self.init_of("kept").expect("it runs"))),
        };
        let mut command = self.sampan.command(operation);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sampan");
        if let Some(target) = target {
            let held = self.order.with_extension("held");
            wait_until(&format!("the daemon to hold in {operation:?}"), SOON, || held.exists());
            // the operation may just have ended it
            let _ = kill_process(target, Signal::KILL);
            fs::remove_file(&held).expect("let it go on");
        } else {
            wait_until(&format!("the daemon to die in {operation:?}"), SOON, || !self.order.exists());
        }
        wait_for("the operation to end", SOON, || child.try_wait().expect("its status"));
    }

    fn init_of(&self, name: &str) -> Option<Pid> {
        let outcome = self.sampan.run(&["inspect", name]);
        let found: serde_json::Value = serde_json::from_str(&outcome.stdout).ok()?;
        let object = &found[0];
        let pid = object["state"]["pid"].as_i64().or_else(|| object["replicas"][0]["state"]["pid"].as_i64())?;
        Pid::from_raw(i32::try_from(pid).ok()?)
    }

    #[track_caller]
    fn assert_sound(&self, when: &str) {
        assert_agreement(&self.sampan, when);
        let fsck = self.sampan.run(&["image", "fsck"]);
        assert!(fsck.status.success(), "{when}: {fsck}");
    }
}

/// For each point and victim: an instance, the operation with the kill, agreement, and the operation once more.
#[track_caller]
fn each(
    points: &[&str],
    victims: &[Victim],
    about: &str,
    prepare: impl Fn(&Sampan),
    operation: &[&str],
    again: impl Fn(&Sampan, &str),
) {
    for point in points {
        for &victim in victims {
            let when = format!("{victim:?} killed at {point}");
            let scene = Scene::new(point);
            prepare(&scene.sampan);
            scene.kill_during(victim, about, operation);
            scene.assert_sound(&when);
            again(&scene.sampan, &when);
            scene.assert_sound(&format!("{when}, and then again"));
        }
    }
}

fn run_once_more(sampan: &Sampan, when: &str) {
    sampan.run(&["rm", "-f", "made"]);
    let outcome = sampan.run(&["run", "-d", "--name", "made", "bb", "sleep", "1000"]);
    assert!(outcome.status.success(), "{when}: {outcome}");
}

fn made(sampan: &Sampan) {
    sampan.ok(&["run", "-d", "--name", "made", "bb", "sleep", "1000"]);
}

#[test]
fn create_and_start() {
    each(
        &["container_recorded", "container_created", "container_wired", "container_started"],
        &ALL,
        "kept",
        |_| {},
        &["run", "-d", "--name", "made", "bb", "sleep", "1000"],
        run_once_more,
    );
}

#[test]
fn exec() {
    each(&["exec_started"], &ALL, "made", made, &["exec", "made", "sleep", "0.1"], |sampan, when| {
        run_once_more(sampan, when);
        assert_eq!(sampan.ok(&["exec", "made", "echo", "there"]), "there", "{when}");
    });
}

#[test]
fn stop() {
    each(
        &["container_killed", "container_ended"],
        &ALL,
        "made",
        made,
        &["stop", "-t", "1s", "made"],
        |sampan, when| {
            // whoever was killed: it ends, or ended, and how is known or said to be unknown
            sampan.ok(&["stop", "-t", "1s", "made"]);
            let state = &sampan.inspect("made")["state"];
            assert_eq!(state["status"], "exited", "{when}");
            run_once_more(sampan, when);
        },
    );
}

#[test]
fn remove() {
    each(
        &["container_removing", "container_down", "container_files_removed"],
        &ALL,
        "kept",
        made,
        &["rm", "-f", "made"],
        run_once_more,
    );
}

#[test]
fn up_and_down() {
    let probe = sources::fixture("probe");
    let probe = probe.to_str().expect("a path in UTF-8");
    each(
        &["service_recorded", "routes_set", "deploy_ready"],
        &[Supervisor, Edge, Logger, Init],
        "probe",
        |_| {},
        &["up", probe],
        |sampan, when| {
            let outcome = sampan.run(&["up", probe]);
            assert!(outcome.status.success(), "{when}: {outcome}");
            assert_eq!(body_of(outcome.stdout.trim_end()), "probe one", "{when}");
        },
    );
    each(
        &["service_removing", "container_removing"],
        &ALL,
        "probe",
        |sampan| drop(sampan.up(sources::fixture("probe").as_path(), &[])),
        &["down", "probe"],
        |sampan, when| {
            let outcome = sampan.run(&["down", "probe"]);
            // it is gone already, or goes now
            assert!(outcome.status.success() || outcome.stderr.contains("probe"), "{when}: {outcome}");
            wait_until(&format!("{when}: the service to be gone"), SOON, || {
                !sampan.run(&["inspect", "probe"]).status.success()
            });
        },
    );
}

#[test]
fn upload_and_prune() {
    let tar = sources::busybox_tar();
    let tar = tar.to_str().expect("a path in UTF-8");
    each(
        &["blob_committed", "image_named"],
        &[Daemon, Supervisor],
        "kept",
        // its bytes are to be uploaded anew
        |sampan| {
            sampan.ok(&["rm", "-f", "kept"]);
            sampan.ok(&["image", "rm", "bb"]);
        },
        &["image", "import", tar, "other"],
        |sampan, when| {
            let outcome = sampan.run(&["image", "import", tar, "other"]);
            assert!(outcome.status.success(), "{when}: {outcome}");
            assert_eq!(sampan.ok(&["run", "--rm", "other", "echo", "there"]), "there", "{when}");
        },
    );
}

#[test]
fn prune() {
    let dir = tempfile::tempdir().expect("a directory");
    let tar = dir.path().join("unused.tar");
    fs::write(dir.path().join("unused"), "an image that nothing uses").expect("a file");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).arg("unused").status();
    assert!(made.expect("tar").success());
    let tar = tar.to_str().expect("a path in UTF-8");
    each(
        &["prune_name_removed", "garbage_blob_removed", "prune_collected"],
        &ALL,
        "kept",
        |sampan| drop(sampan.ok(&["image", "import", tar, "unused"])),
        &["image", "prune", "-a"],
        |sampan, when| {
            sampan.ok(&["image", "prune", "-a"]);
            let images = sampan.ok(&["image", "ls"]);
            assert!(images.contains("bb:latest") && !images.contains("unused"), "{when}: {images}");
            sampan.ok(&["image", "import", tar, "unused"]);
        },
    );
}

#[test]
fn servers_and_volumes() {
    each(
        &["server_recorded", "server_made"],
        &ALL,
        "kept",
        |_| {},
        &["server", "create", "north"],
        |sampan, when| {
            // it is there, or it is made now
            sampan.run(&["server", "create", "north"]);
            let said = sampan.run(&["server", "run", "north", "bb", "echo", "there"]);
            assert_eq!(said.stdout.trim_end(), "there", "{when}: {said}");
            sampan.ok(&["server", "close", "north"]);
        },
    );
    each(
        &["volume_new"],
        &ALL,
        "kept",
        |_| {},
        &["run", "--rm", "-v", "data:/d", "bb", "true"],
        |sampan, when| {
            let said = sampan.run(&["run", "--rm", "-v", "data:/d", "bb", "sh", "-c", "echo kept > /d/f; cat /d/f"]);
            assert_eq!(said.stdout.trim_end(), "kept", "{when}: {said}");
        },
    );
    each(
        &["volume_set_aside"],
        &ALL,
        "kept",
        |sampan| drop(sampan.ok(&["volume", "create", "data"])),
        &["volume", "rm", "data"],
        |sampan, when| {
            sampan.run(&["volume", "rm", "data"]);
            assert_eq!(sampan.json(&["volume", "ls", "--json"]), serde_json::json!([]), "{when}");
            sampan.ok(&["volume", "create", "data"]);
        },
    );
}

/// An exit that nobody saw is known: `kill -9` of the daemon, and of the supervisor.
#[test]
fn exits_that_happened_meanwhile_are_known() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    for victim in ["daemon", "supervisor"] {
        sampan.ok(&["run", "-d", "--name", victim, "bb", "sh", "-c", script]);
        wait_until("the trap to be set", SOON, || sampan.ok(&["logs", victim]) == "ready");
        let pid = sampan.inspect(victim)["state"]["pid"].as_i64().expect("a pid");
        sampan.kill(victim);
        kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::TERM).expect("it can be signalled");
        let exit = wait_for("its end to be known", SOON, || {
            let state = &sampan.inspect(victim)["state"];
            (state["status"] == "exited").then(|| state["exit_code"].clone())
        });
        // Linux 6.15 and later tell it of an orphan too; before, it is unknown
        assert!(exit == 7 || (victim == "supervisor" && exit.is_null()), "{victim}: {exit}");
    }
    assert_agreement(&sampan, "after both");
}
