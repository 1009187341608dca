//! What other programs make of our archives and bundles: skopeo, runc, Podman and Docker, from Debian's packages.
//!
//! Each run has mount (and, for Docker, pid and network) namespaces of its own with memory file systems over every
//! directory that it writes to, is given a minute, and leaves nothing: no process, no mount, no file, no cgroup.

use std::path::Path;
use std::process::Command;

use crate::sampan::{Outcome, outcome};
use crate::tools;

/// The longest that one of them may take, in seconds.
const SECONDS: &str = "60";

/// A command of a tool, in the namespaces that these flags of `unshare` ask for, to be given a script for `sh`.
fn shell(tool: &str, flags: &[&str], script: &str, words: &[&str]) -> Command {
    let tool = tools::tool(tool);
    let libraries = ["usr/lib", "lib"].map(|dir| tool.join(dir).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    let programs = ["usr/sbin", "usr/bin"].map(|dir| tool.join(dir));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&path))).expect("a PATH");
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "5", SECONDS, "unshare", "--mount", "--propagation", "private"]).args(flags);
    command.args(["sh", "-ec", script, "sh"]).args(words).env("PATH", path).env("TOOL", tool);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths without colons"));
    command
}

/// `skopeo WORDS`, in a directory.
///
/// # Panics
/// Where it cannot be run.
pub fn skopeo(dir: &Path, words: &[&str]) -> Outcome {
    let script = r#"mount -t tmpfs none /var/lib; exec skopeo --insecure-policy "$@""#;
    outcome(shell("skopeo", &[], script, words).current_dir(dir))
}

/// `runc run` of a bundle, in a container of this name, which must begin with `sampan-`: its cgroup has it too.
///
/// # Panics
/// Where it cannot be run.
pub fn runc(bundle: &Path, name: &str) -> Outcome {
    assert!(name.starts_with("sampan-"), "cgroups of others are not touched");
    let script = r#"mount -t tmpfs none /run; exec runc --root /run/runc run --bundle "$1" "$2""#;
    outcome(&mut shell("runc", &[], script, &[text(bundle), name]))
}

/// The same without root, as the user and group 1000. Its directory is that user's, below which runc notes what it does.
///
/// # Panics
/// Where it cannot be run.
pub fn runc_of_user(dir: &Path, bundle: &Path, name: &str) -> Outcome {
    assert!(name.starts_with("sampan-"), "cgroups of others are not touched");
    let script = r#"
        export XDG_RUNTIME_DIR="$1"
        exec setpriv --reuid 1000 --regid 1000 --clear-groups "$TOOL/usr/sbin/runc" --root "$1/runc" run --bundle "$2" "$3"
    "#;
    outcome(&mut shell("runc", &[], script, &[text(dir), text(bundle), name]))
}

/// `podman load` of an archive, and `podman run` of an image with the words after it.
///
/// # Panics
/// Where it cannot be run.
pub fn podman(archive: &Path, image_and_words: &[&str]) -> Outcome {
    // crun takes no hybrid cgroups, and none are asked for; it is started without our variables
    let script = r#"
        umount /sys/fs/cgroup/unified 2>/dev/null || true
        for dir in /run /var/lib /dev/shm; do mount -t tmpfs none $dir; done
        mkdir /run/bin
        for program in crun conmon; do
            printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$LD_LIBRARY_PATH" "$TOOL/usr/bin/$program" > /run/bin/$program
            chmod +x /run/bin/$program
        done
        echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /run/policy.json
        echo 'short-name-mode="disabled"' > /run/registries.conf
        cat > /run/containers.conf <<END
[engine]
conmon_path=["/run/bin/conmon"]
runtime="crun"
events_logger="file"
cgroup_manager="cgroupfs"
[engine.runtimes]
crun=["/run/bin/crun"]
END
        export CONTAINERS_CONF=/run/containers.conf CONTAINERS_REGISTRIES_CONF=/run/registries.conf
        podman="podman --root /run/root --runroot /run/run --tmpdir /run/tmp --storage-driver vfs"
        $podman load --quiet --signature-policy /run/policy.json --input "$1"
        shift
        # limits above the present ones are not to be had in a sandbox
        $podman run --rm --cgroups disabled --network none --pull never \
            --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@"
    "#;
    outcome(&mut shell("podman", &[], script, &[&[text(archive)], image_and_words].concat()))
}

/// `docker load` of an archive, `docker run` of an image with the words after it, and `docker save` of that image to
/// `saved`. The cgroup's name must begin with `sampan-`.
///
/// # Panics
/// Where it cannot be run.
pub fn docker(archive: &Path, saved: &Path, cgroup: &str, image_and_words: &[&str]) -> Outcome {
    assert!(cgroup.starts_with("sampan-"), "cgroups of others are not touched");
    let script = r#"
        archive=$1 saved=$2 cgroup=$3 image=$4
        shift 3
        mount -t proc proc /proc
        for dir in /run /var/lib; do mount -t tmpfs none $dir; done
        export HOME=/run DOCKER_HOST=unix:///run/d.sock
        echo '{"deprecated-key-path":"/run/key.json"}' > /run/docker.json # or it is /etc/docker/key.json
        dockerd --data-root /run/data --exec-root /run/exec --pidfile /run/d.pid --host $DOCKER_HOST --bridge none \
            --iptables=false --ip6tables=false --storage-driver vfs --cgroup-parent /$cgroup \
            --config-file /run/docker.json > /run/log 2>&1 &
        daemon=$!
        until docker version > /dev/null 2>&1; do
            kill -0 $daemon || { cat /run/log >&2; exit 1; }
            sleep 0.1
        done
        code=0
        { docker load --quiet --input $archive && docker run --rm --network none "$@" && docker save --output $saved $image; } || code=$?
        kill $daemon
        wait $daemon || true
        find /sys/fs/cgroup -maxdepth 2 -name $cgroup -exec rmdir {} + || true
        exit $code
    "#;
    let words = [&[text(archive), text(saved), cgroup], image_and_words].concat();
    // the first process of a pid namespace takes all others with it
    outcome(&mut shell("docker", &["--net", "--pid", "--fork", "--kill-child"], script, &words))
}

/// A dockerd whose containers a runtime of ours runs: `docker` is given a script that uses the image `test`, made of a root
/// file system. The cgroup's name must begin with `sampan-`.
///
/// # Panics
/// Where it cannot be run.
pub fn docker_with_runtime(runtime: &Path, rootfs: &Path, cgroup: &str, script: &str) -> Outcome {
    assert!(cgroup.starts_with("sampan-"), "cgroups of others are not touched");
    let begin = r#"
        runtime=$1 rootfs=$2 cgroup=$3
        mount -t proc proc /proc
        for dir in /run /var/lib; do mount -t tmpfs none $dir; done
        export HOME=/run DOCKER_HOST=unix:///run/d.sock
        echo '{"deprecated-key-path":"/run/key.json"}' > /run/docker.json # or it is /etc/docker/key.json
        dockerd --data-root /run/data --exec-root /run/exec --pidfile /run/d.pid --host $DOCKER_HOST --bridge none \
            --iptables=false --ip6tables=false --storage-driver vfs --cgroup-parent /$cgroup \
            --add-runtime sampan=$runtime --default-runtime sampan --config-file /run/docker.json > /run/log 2>&1 &
        daemon=$!
        finish() {
            code=$?
            docker ps -aq | xargs -r docker rm -f > /dev/null
            kill $daemon
            wait $daemon || true
            find /sys/fs/cgroup -maxdepth 2 -name $cgroup -exec rmdir {} + || true
            test $code = 0 || tail -n 20 /run/log >&2
            exit $code
        }
        until docker version > /dev/null 2>&1; do
            kill -0 $daemon || { cat /run/log >&2; exit 1; }
            sleep 0.05
        done
        trap finish EXIT
        tar -C $rootfs -c . | docker import - test > /dev/null
    "#;
    let words = [text(runtime), text(rootfs), cgroup];
    // the first process of a pid namespace takes all others with it
    let flags = ["--net", "--pid", "--fork", "--kill-child"];
    outcome(&mut shell("docker", &flags, &format!("{begin}\n{script}"), &words))
}

/// As [`docker_with_runtime`], with Podman: `podman` in the script is one that uses the runtime.
///
/// # Panics
/// Where it cannot be run.
pub fn podman_with_runtime(runtime: &Path, rootfs: &Path, cgroup: &str, script: &str) -> Outcome {
    assert!(cgroup.starts_with("sampan-"), "cgroups of others are not touched");
    let begin = r#"
        runtime=$1 rootfs=$2 cgroup=$3
        mount -t proc proc /proc
        for dir in /run /var/lib /dev/shm; do mount -t tmpfs none $dir; done
        mkdir /run/bin
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$LD_LIBRARY_PATH" "$TOOL/usr/bin/conmon" > /run/bin/conmon
        chmod +x /run/bin/conmon
        echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /run/policy.json
        cat > /run/containers.conf <<END
[containers]
default_ulimits=["nofile=1024:1024", "nproc=1024:1024"]
[engine]
conmon_path=["/run/bin/conmon"]
events_logger="file"
cgroup_manager="cgroupfs"
END
        export CONTAINERS_CONF=/run/containers.conf
        podman() {
            command podman --root /run/root --runroot /run/run --tmpdir /run/tmp --storage-driver vfs --runtime $runtime "$@"
        }
        finish() {
            code=$?
            podman rm -fa -t 0 > /dev/null || true
            find /sys/fs/cgroup -depth -path "*/$cgroup*" -type d -exec rmdir {} + || true
            exit $code
        }
        trap finish EXIT
        tar -C $rootfs -c . | podman import --signature-policy /run/policy.json - test > /dev/null
    "#;
    let words = [text(runtime), text(rootfs), cgroup];
    let flags = ["--pid", "--fork", "--kill-child"];
    outcome(&mut shell("podman", &flags, &format!("{begin}\n{script}"), &words))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
