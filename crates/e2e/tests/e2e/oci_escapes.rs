//! The known ways out of a container of an OCI runtime, each tried: CVE-2019-5736, CVE-2024-21626, runc issue 3674,
//! CVE-2025-31133, CVE-2025-52565. (CVE-2021-30465 and CVE-2019-19921 are among the cases of `oci_bundles`.)

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use sampan_e2e::bundles::{Bundle, Runtime};
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
    for runtime in Runtime::both() {
        let null = || fs::metadata("/dev/null").map(|stat| (stat.uid(), stat.gid(), stat.mode())).expect("/dev/null");
        let before = null();
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
            assert_eq!(null(), before, "{}", runtime.name);
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
