//! Known ways out of containers, tried: each is named after what was found elsewhere, and does what the attacker did, as
//! the most that a container here can be where that makes it harder to stop (root of the host's user namespace, every
//! capability). `docs/security.md` tells what stops each.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sampan_e2e::null::NullAsItWas;
use sampan_e2e::sampan::{SOON, outcome};
use sampan_e2e::terminal::Terminal;
use sampan_e2e::{Sampan, sources, tools};
use sampan_testkit::wait_until;

fn with_busybox() -> Sampan {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A directory of the host that nobody is to come to, with a secret in it.
fn victim(sampan: &Sampan) -> PathBuf {
    let victim = sampan.dir().join("victim");
    fs::create_dir(&victim).expect("a directory");
    fs::write(victim.join("secret"), "of the host").expect("a file");
    victim
}

/// It is as it was made.
#[track_caller]
fn assert_untouched(victim: &Path) {
    let names: Vec<_> = fs::read_dir(victim).expect("the victim").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(fs::read_to_string(victim.join("secret")).expect("the secret"), "of the host");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the host's mounts");
    assert!(!mounts.contains(text(victim)), "{mounts}");
}

/// An image of busybox's files and what `plant` puts among them.
fn planted(sampan: &Sampan, name: &str, plant: impl FnOnce(&Path)) {
    let rootfs = sampan.dir().join(format!("{name}-rootfs"));
    fs::create_dir(&rootfs).expect("a directory");
    let tar = |words: &[&str]| outcome(Command::new("tar").args(words)).assert_ok();
    tar(&["-C", text(&rootfs), "-xf", text(&sources::busybox_tar())]);
    plant(&rootfs);
    let archive = sampan.dir().join(format!("{name}.tar"));
    tar(&["-C", text(&rootfs), "-cf", text(&archive), "."]);
    sampan.ok(&["image", "import", text(&archive), name]);
}

/// Sampan's own program, opened through `/proc/self/exe` or another process's, and overwritten.
#[test]
fn cve_2019_5736_the_runtime_overwritten_by_what_it_starts() {
    let sampan = with_busybox();
    let program = || {
        let meta = fs::metadata(tools::sampan()).expect("the program");
        (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.mode())
    };
    let before = program();
    for name in ["/proc/self/exe", "/proc/1/../self/exe"] {
        sampan.run(&["run", "--rm", "bb", name]).assert_fails(126, &["Sampan's own program"]);
    }
    let start = |name: &str, options: &[&str]| {
        let words =
            [&["run", "-d", "--name", name, "--init"], options, &["bb", "sh", "-c", "exec sleep 1000"]].concat();
        sampan.ok(&words);
    };
    start("usual", &[]);
    start("mighty", &["--privileged"]);
    for name in ["usual", "mighty"] {
        sampan.run(&["exec", name, "/proc/self/exe"]).assert_fails(126, &["Sampan's own program"]);
        // the attack proper: as a script's interpreter it is executed, whatever is looked at before
        sampan.run(&["exec", name, "sh", "-c", "echo '#!/proc/self/exe' > /x; chmod 755 /x"]).assert_ok();
        assert!(!sampan.run(&["exec", name, "/x"]).status.success());
    }
    // first processes of ours are copies of the supervisor: one may look who may do everything, and nobody may write
    sampan.run(&["exec", "usual", "sh", "-c", "cat /proc/1/exe > /dev/null"]).assert_fails(1, &["Permission denied"]);
    // (to write is refused first because it runs, which ends when nothing of Sampan does; to change its time is not)
    let write = "cat /proc/1/exe > /dev/null && echo seen; touch /proc/1/exe; echo pwned >> /proc/1/exe";
    let tried = sampan.run(&["exec", "mighty", "sh", "-c", write]);
    assert!(tried.stdout.contains("seen") && tried.stderr.contains("Read-only file system"), "{tried}");
    let remount = "mount -o remount,rw,bind /proc/1/exe; mount --bind /proc/1/exe /x && mount -o remount,rw,bind /x; \
                   touch /proc/1/exe";
    let tried = sampan.run(&["exec", "mighty", "sh", "-c", remount]);
    assert!(tried.stderr.contains("Read-only file system"), "{tried}");
    assert_eq!(program(), before);
}

/// A copy out of a container that loads the container's libraries, or asks its files who is who.
#[test]
fn cve_2019_14271_a_copy_that_believes_the_container() {
    let sampan = with_busybox();
    // whoever opens one of these waits for ever
    let traps = "mkdir -p /lib/x86_64-linux-gnu /lib64; \
        for trap in /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.preload /etc/ld.so.cache \
          /lib/x86_64-linux-gnu/libnss_files.so.2 /lib/x86_64-linux-gnu/libc.so.6 /lib64/ld-linux-x86-64.so.2; \
        do rm -f $trap; mkfifo $trap; done; echo mine > /file; touch /ready; exec sleep 1000";
    sampan.ok(&["run", "-d", "--name", "box", "bb", "sh", "-c", traps]);
    wait_until("the traps to be set", SOON, || sampan.run(&["exec", "box", "test", "-e", "/ready"]).status.success());
    let out = sampan.dir().join("out");
    for running in [true, false] {
        if !running {
            sampan.ok(&["stop", "-t", "0s", "box"]);
        }
        sampan.ok(&["cp", "box:/file", text(&out)]);
        assert_eq!(fs::read_to_string(&out).expect("what was copied"), "mine\n");
        sampan.ok(&["cp", text(&out), "box:/tmp/in"]);
    }
}

/// A directory on the way that becomes a link while a copy walks there.
#[test]
fn cve_2018_15664_a_copy_that_is_led_astray() {
    let sampan = with_busybox();
    let victim = victim(&sampan);
    let flip = format!(
        "while :; do mkdir /a; rmdir /a; ln -s {} /a; rm /a; ln -s ../../../../../..{0} /a; rm /a; done",
        victim.display()
    );
    sampan.ok(&["run", "-d", "--name", "box", "bb", "sh", "-c", &flip]);
    let payload = sampan.dir().join("payload");
    fs::write(&payload, "x").expect("a file");
    let out = sampan.dir().join("out");
    for _ in 0..40 {
        // most fail: there is nothing at that moment
        sampan.run(&["cp", text(&payload), "box:/a/payload"]);
        sampan.run(&["cp", text(&payload), "box:/a"]);
        sampan.run(&["cp", "box:/a/secret", text(&out)]);
        assert!(!fs::read_to_string(&out).unwrap_or_default().contains("of the host"));
    }
    assert_untouched(&victim);
}

/// A mount's place, in a volume that two containers share, that becomes a link out while the second one starts; and
/// (CVE-2024-45310) places that are made on the way there.
#[test]
fn cve_2021_30465_and_2024_45310_a_mount_that_is_led_astray() {
    let sampan = with_busybox();
    let victim = victim(&sampan);
    let flip = format!(
        "cd /v; while :; do mkdir t; rmdir t; ln -s {} t; rm t; ln -s ../../../../../../../..{0} t; rm t; \
         ln -s / t; rm t; done",
        victim.display()
    );
    sampan.ok(&["run", "-d", "--name", "flipper", "-v", "shared:/v", "bb", "sh", "-c", &flip]);
    let mut started = 0;
    for _ in 0..25 {
        let words = ["run", "--rm", "-v", "shared:/v", "--tmpfs", "/v/t/made", "-v", "other:/v/t/more/deep"];
        let ran = sampan.run(&[&words[..], &["bb", "sh", "-c", "grep -c tmpfs /proc/self/mountinfo"]].concat());
        started += u32::from(ran.status.success());
        assert_untouched(&victim);
    }
    // the race is one: some came through, where the place was in the container whatever it was
    assert!(started > 0, "none of them started");
}

/// A cgroup of version 1 whose notifier the host's root would execute.
#[test]
fn cve_2022_0492_a_release_agent() {
    let sampan = with_busybox();
    let agents = || {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut agents: Vec<_> = hierarchies
            .filter_map(|one| Some((one.file_name(), fs::read_to_string(one.path().join("release_agent")).ok()?)))
            .collect();
        agents.sort();
        agents
    };
    let before = agents();
    let attack = "mkdir -p /c; for kind in rdma memory cpuset pids freezer devices blkio cpu net_cls misc; do \
        mount -t cgroup -o $kind cgroup /c 2>/dev/null || continue; mkdir -p /c/x; \
        (echo /cmd > /c/release_agent) 2>/dev/null && echo ESCAPED $kind; \
        (echo 1 > /c/x/notify_on_release) 2>/dev/null && echo NOTIFIED $kind; umount /c; done; \
        for agent in /sys/fs/cgroup/*/release_agent; do (echo /cmd > $agent) 2>/dev/null && echo ESCAPED $agent; done; \
        echo tried";
    for options in [
        &[][..],
        &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"],
        &["--userns", "host"],
    ] {
        let said = sampan.ok(&[&["run", "--rm"], options, &["bb", "sh", "-c", attack]].concat());
        assert_eq!(said, "tried", "{options:?}");
        let nested = format!("unshare -UrmC sh -c '{}' || true", attack.replace('\'', "'\\''"));
        let said = sampan.ok(&[&["run", "--rm"], options, &["bb", "sh", "-c", &nested]].concat());
        assert!(!said.contains("ESCAPED") && !said.contains("NOTIFIED"), "{options:?}: {said}");
    }
    assert_eq!(agents(), before);
}

/// A working directory that is a descriptor of the runtime's.
#[test]
fn cve_2024_21626_a_descriptor_that_was_left() {
    let sampan = with_busybox();
    let victim = victim(&sampan);
    sampan.ok(&["run", "-d", "--name", "box", "--userns", "host", "bb", "sleep", "1000"]);
    let look = format!(
        "pwd; for up in .. ../.. ../../.. ../../../.. ../../../../../..; do cat $up{0}/secret; done; cat ./secret",
        victim.display()
    );
    for number in 0..16 {
        let place = format!("/proc/self/fd/{number}");
        for words in [
            &["run", "--rm", "--userns", "host", "-w", &place, "bb", "sh", "-c", &look][..],
            &["exec", "-w", &place, "box", "sh", "-c", &look],
        ] {
            // some numbers are directories of the container's own at that moment: into those it may go
            let tried = sampan.run(words);
            let inside = tried.stdout.starts_with('/') || tried.stderr.contains("working directory");
            assert!(!tried.stdout.contains("of the host") && inside, "{tried}");
        }
    }
}

/// Links in the image where the runtime puts, or takes, `/dev/null`, `/dev/console` and terminals.
#[test]
fn cve_2025_31133_and_52565_masks_and_consoles_over_links() {
    let sampan = Sampan::new();
    let victim = victim(&sampan);
    let secret = victim.join("secret");
    planted(&sampan, "linked", |rootfs| {
        for name in ["null", "console", "ptmx", "pts", "tty"] {
            symlink(&secret, rootfs.join("dev").join(name)).expect("a link");
        }
    });
    let shown = "stat -c %t:%T /dev/null; head -c 1 /proc/interrupts | wc -c; head -c 1 /proc/keys | wc -c";
    assert_eq!(sampan.ok(&["run", "--rm", "linked", "sh", "-c", shown]), "1:3\n0\n0");
    let console = "test -c /dev/console && tty && echo console";
    let mut terminal = Terminal::of(&sampan.command(&["run", "--rm", "-it", "linked", "sh", "-c", console]));
    assert!(terminal.until("console").contains("/dev/pts/0"));

    // what could be everything in its own user namespace puts something else in the terminals' place
    let place = "mount -t tmpfs x /dev/pts && ln -s /proc/sysrq-trigger /dev/pts/ptmx && rm /dev/ptmx && \
        ln -s pts/ptmx /dev/ptmx && rm -f /dev/console; ln -s /proc/kcore /dev/console; touch /ready; exec sleep 1000";
    let words = ["run", "-d", "--name", "bent", "--cap-add", "SYS_ADMIN", "linked", "sh", "-c", place];
    sampan.ok(&words);
    wait_until("the links to be there", SOON, || {
        sampan.run(&["exec", "bent", "test", "-e", "/ready"]).status.success()
    });
    let mut terminal = Terminal::of(&sampan.command(&["exec", "-it", "bent", "sh"]));
    terminal.until("open /dev/pts/ptmx");
    assert_untouched(&victim);
}

/// What the runtime writes to `/proc`, led to another file of it.
#[test]
fn cve_2025_52881_writes_to_proc_led_elsewhere() {
    let sampan = Sampan::new();
    let victim = victim(&sampan);
    let secret = victim.join("secret");
    planted(&sampan, "bent", |rootfs| {
        let proc = rootfs.join("proc");
        for path in ["sys/net/ipv4/ip_default_ttl", "self/oom_score_adj", "self/attr/exec", "self/uid_map"] {
            let path = proc.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            symlink(&secret, path).expect("a link");
        }
    });
    let options = ["--sysctl", "net.ipv4.ip_default_ttl=9", "--oom-score-adj", "300", "--ulimit", "core=0"];
    let shown = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj";
    assert_eq!(sampan.ok(&[&["run", "--rm"], &options[..], &["bent", "sh", "-c", shown]].concat()), "9\n300");

    // a running one lays the same over its /proc; one more process is put into it from outside
    let lay = format!(
        "mount -t tmpfs x /mnt; mkdir /mnt/self; ln -s {} /mnt/self/oom_score_adj; mount --bind /mnt /proc; \
         touch /ready; exec sleep 1000",
        secret.display()
    );
    let words = [
        &["run", "-d", "--name", "box", "--cap-add", "SYS_ADMIN", "--tmpfs", "/mnt"],
        &options[..],
        &["bent", "sh", "-c", &lay],
    ];
    sampan.ok(&words.concat());
    wait_until("the links to be there", SOON, || sampan.run(&["exec", "box", "test", "-e", "/ready"]).status.success());
    sampan.ok(&["exec", "-d", "box", "sleep", "777"]);
    let top = sampan.json(&["top", "box", "--json"]);
    let rows = top.as_array().expect("processes");
    let one = rows.iter().find(|row| row["command"].to_string().contains("777")).expect("the process");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", one["pid"])).expect("its score");
    assert_eq!(score.trim(), "300");
    assert_untouched(&victim);
    sampan.run(&["run", "--rm", "-v", "v:/proc", "bent", "true"]).assert_fails(125, &["/proc"]);
}

/// One more process, and root of the host's user namespace, that change the owner of `/dev/null`.
#[test]
fn runc_3674_the_host_s_null() {
    let sampan = with_busybox();
    let null = NullAsItWas::now();
    sampan.ok(&["run", "-d", "--name", "host", "--userns", "host", "bb", "sleep", "1000"]);
    let change = "chown 5:6 /proc/self/fd/0 /dev/null; chmod 600 /proc/self/fd/0 /dev/null; true";
    sampan.ok(&["exec", "host", "sh", "-c", change]);
    sampan.ok(&["exec", "-u", "1000", "host", "true"]);
    sampan.ok(&["run", "--rm", "--userns", "host", "bb", "sh", "-c", change]);
    sampan.ok(&["run", "--rm", "--privileged", "bb", "sh", "-c", change]);
    null.assert_untouched("a container's exec");
    // nor another container's, though it has no user namespace of its own either
    assert_eq!(sampan.ok(&["run", "--rm", "--userns", "host", "bb", "stat", "-c", "%u:%g %a", "/dev/null"]), "0:0 666");
    assert_eq!(sampan.ok(&["run", "--rm", "bb", "stat", "-c", "%a", "/dev/null"]), "666");
}

/// More output than anybody keeps, and more open files than anybody needs: bounded, and nobody else's trouble.
#[test]
fn floods_stay_inside_their_server() {
    let sampan = with_busybox();
    sampan.ok(&[
        "run",
        "-d",
        "--name",
        "flood",
        "--cpus",
        "0.5",
        "bb",
        "sh",
        "-c",
        "yes 0123456789012345678901234567890123456789",
    ]);
    let open = "for i in $(seq 40); do tail -f $(yes /etc/passwd | head -n 900) > /dev/null 2>&1 & done; \
        tail -f $(yes /etc/passwd | head -n 2000) 2>&1 | head -n 1; wait";
    sampan.ok(&["run", "-d", "--name", "hog", "--memory", "128MiB", "bb", "sh", "-c", open]);
    let logs = || -> Vec<u64> {
        let files = fs::read_dir(sampan.root().join("logs")).expect("the logs").flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).collect()
    };
    // an older file beside the present one says that it was turned over
    wait_until("the log to be turned over", SOON, || logs().iter().filter(|size| **size > 1 << 20).count() >= 2);
    assert!(logs().iter().sum::<u64>() < 64 << 20, "{:?}", logs());
    wait_until("the hog to meet its limit", SOON, || {
        sampan.run(&["logs", "hog"]).stdout.contains("Too many open files")
    });
    // others are started, heard and answered beside them
    assert_eq!(sampan.shell("echo fine"), "fine");
    sampan.ok(&["rm", "-f", "flood", "hog"]);
}
