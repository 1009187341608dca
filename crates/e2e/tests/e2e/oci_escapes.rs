//! The known ways out of a container of an OCI runtime, each tried: CVE-2019-5736, CVE-2024-21626, runc issue 3674,
//! CVE-2025-31133, CVE-2025-52565. (CVE-2021-30465 and CVE-2019-19921 are among the cases of `oci_bundles`.)

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use sampan_e2e::bundles::{Bundle, Runtime};
use sampan_e2e::null::NullAsItWas;
use serde_json::json;

/// A container's root that may look into every process tries to write to the runtime's own file, while its first process
/// still is the runtime: a hook of its start runs just then.
#[test]
fn the_runtimes_own_file_cannot_be_written_to() {
    let runtime = Runtime::sampan();
    let own = fs::metadata(runtime.program()).expect("the runtime");
    let mut bundle = Bundle::of("cat /data/told");
    let all = ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT"];
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    // emptied, which the kernel asks the mount about first; that the file is being executed is only for now
    let script = "readlink /proc/1/exe > /data/told; (: > /proc/1/exe) 2>> /data/told; \
                  mount -o remount,rw,bind /proc/1/exe /proc/1/exe 2>> /data/told; true";
    bundle.config["hooks"] = json!({"startContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]},
    ]});
    let told = bundle.run(&runtime).assert_ok().stdout;
    // it is looked at (so this is a test), and it is on a mount that is read-only and cannot be made another
    assert!(told.starts_with('/'), "{told}");
    assert!(told.contains("Read-only file system") && told.contains("mounting /proc/1/exe on"), "{told}");
    let now = fs::metadata(runtime.program()).expect("the runtime");
    assert_eq!((own.len(), own.mtime_nsec(), own.ino()), (now.len(), now.mtime_nsec(), now.ino()));
}

/// The same where the runtime's file is on a mount that is read-only for now: the host may make it writable again, while
/// somebody holds on to the file.
#[test]
fn the_runtimes_own_file_on_a_read_only_mount() {
    let runtime = Runtime::sampan();
    let bundle = Bundle::of("true");
    let dir = tempfile::tempdir().expect("a directory");
    fs::copy(runtime.program(), dir.path().join("sampan-oci")).expect("a copy");
    // in a mount namespace that goes with the shell; whether a mount is one of it is what mountinfo says
    let script = r#"
        set -e
        dir=$1 state=$2 bundle=$3 id=$4
        oci() { "$dir/sampan-oci" --root "$state" "$@"; }
        mount --bind "$dir" "$dir"
        mount -o remount,ro,bind "$dir"
        oci create --bundle "$bundle" --pid-file "$state.pid" "$id" < /dev/null > /dev/null
        exec 9< "/proc/$(cat "$state.pid")/exe"
        mount=$(sed -n 's/^mnt_id:[^0-9]*//p' /proc/self/fdinfo/9)
        exec 9<&-
        oci delete --force "$id"
        test -n "$mount"
        if grep "^$mount " /proc/self/mountinfo; then echo "the first process's file is on that"; exit 7; fi
    "#;
    let state = tempfile::tempdir().expect("a directory");
    let (dir, state) = (dir.path().to_str().expect("a path"), state.path().join("oci"));
    let words = ["--mount", "--propagation", "private", "sh", "-c", script, "sh", dir];
    let mut command = std::process::Command::new("unshare");
    command.args(words).arg(&state).args([bundle.write(), bundle.id()]);
    sampan_e2e::sampan::outcome(&mut command).assert_ok();
}

/// What is joined becomes the container's: the whole machine's root would be a bundle's. Tried where the runtime and the
/// first process are in mount namespaces of the test's.
#[test]
fn the_hosts_mount_namespace_is_not_joined() {
    let runtime = Runtime::sampan();
    for (path, whose) in [("/proc/self/ns/mnt", "the runtime's own"), ("/proc/1/ns/mnt", "the machine's first process")]
    {
        let mut bundle = Bundle::of("echo taken");
        bundle.namespace("mount", Some(path));
        let mut command = std::process::Command::new("unshare");
        // a shell that stays is the first process
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "sh", "-c"]);
        command.args(["unshare --mount --propagation private \"$@\"; exit $?", "sh"]).arg(runtime.program());
        command.arg("--root").arg(runtime.root()).args(["run", "--bundle", bundle.write(), bundle.id()]);
        let told = sampan_e2e::sampan::outcome(&mut command);
        assert!(!told.status.success() && told.stderr.contains(whose) && !told.stdout.contains("taken"), "{told}");
    }
}

#[test]
fn no_descriptor_leads_out() {
    for runtime in Runtime::both() {
        for number in 3..16 {
            let mut bundle = Bundle::of("ls -d ../../../../../../../../..; cat ../../../../../../../../etc/passwd");
            bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
            let told = bundle.run(&runtime);
            let inside = told.stdout.contains("user:x:1000:1000::/home/user:/bin/sh");
            assert!(!told.status.success() || inside, "{}: {told}", runtime.name);
        }
    }
}

#[test]
fn devices_of_the_host_stay_the_hosts() {
    let null = NullAsItWas::now();
    for runtime in Runtime::both() {
        for users in [false, true] {
            let mut bundle = Bundle::of("chown 5:5 /dev/null; chmod 600 /dev/null; echo done");
            if users {
                bundle.with_users();
            }
            bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0});
            let mut command = runtime.command(&["run", "--bundle", bundle.write(), bundle.id()]);
            // nobody's streams are given to anybody
            let status = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
            assert!(status.expect("a runtime").success() || (users && runtime.name == "runc"));
            bundle.config["process"]["user"] = json!({"uid": 500, "gid": 500});
            bundle.config["process"]["args"] = json!(["sh", "-c", "exit 0"]);
            let mut command = runtime.command(&["run", "--bundle", bundle.write(), bundle.id()]);
            let status = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
            assert!(status.expect("a runtime").success());
            null.assert_untouched(runtime.name);
        }
    }
}

/// CVE-2025-52881: what the runtime writes to `/proc`, led to another file by what the image or the bundle brings.
#[test]
fn writes_to_proc_are_not_led_elsewhere() {
    const LED: [&str; 4] = ["sys/net/ipv4/ip_default_ttl", "self/oom_score_adj", "self/attr/exec", "self/gid_map"];
    for runtime in Runtime::both() {
        let mut bundle = Bundle::of("cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj /data/file");
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "9"});
        bundle.config["process"]["oomScoreAdj"] = json!(432);
        let plant = |below: std::path::PathBuf| {
            for path in LED {
                let path = below.join(path);
                fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
                // the same file, by the host's name for it and by the container's
                let victim =
                    if path.ends_with("ip_default_ttl") { bundle.file("data/file") } else { "/data/file".into() };
                symlink(victim, path).expect("a link");
            }
        };
        plant(bundle.file("proc"));
        let outside = bundle.dir().join("proc");
        plant(outside.clone());
        let told = bundle.run(&runtime).assert_ok().stdout;
        assert_eq!(told, "9\n432\ndata\n", "{}", runtime.name);

        // by the bundle, instead of the kernel's and over it; runc of Debian 12 is older than its mending
        if runtime.name == "runc" {
            continue;
        }
        let config = bundle.config.clone();
        for keep in [false, true] {
            bundle.config = config.clone();
            let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
            mounts.retain(|mount| keep || mount["destination"] != "/proc");
            let led = json!({"destination": "/proc", "type": "bind", "source": outside, "options": ["rbind"]});
            mounts.insert(usize::from(keep), led);
            let told = bundle.run(&runtime);
            assert!(!keep || told.stderr.contains("it is inside /proc"), "{told}");
            assert_eq!(fs::read_to_string(bundle.file("data/file")).expect("the file"), "data\n", "{told}");
        }
    }
}

/// An image that brings links where devices and the console are to be.
#[test]
fn links_in_place_of_devices_are_not_followed() {
    let runtime = Runtime::sampan();
    let mut bundle = Bundle::of("stat -c '%F %t:%T' /dev/null /dev/console; cat /etc/passwd; cat /masked/file");
    bundle.config["mounts"].as_array_mut().expect("a list").retain(|mount| mount["destination"] != "/dev");
    bundle.config["linux"]["maskedPaths"] = json!(["/masked/file"]);
    symlink("/etc/passwd", bundle.file("dev/null")).expect("a link");
    symlink("/etc/passwd", bundle.file("dev/console")).expect("a link");
    let told = bundle.run(&runtime).assert_ok().stdout;
    assert_eq!(
        told,
        "character special file 1:3\nsymbolic link 0:0\nroot:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
    );
    // with a terminal, the console is a link: it is refused, and nothing is mounted on what it names
    bundle.config["process"]["terminal"] = json!(true);
    let told = bundle.run(&runtime);
    assert!(!told.status.success() && told.stderr.contains("/dev/console"), "{told}");
}
