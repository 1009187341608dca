//! Docker, by way of containerd and its shim for runc, and Podman, by way of conmon, run their containers with `sampan
//! oci`: Debian's, as people have them.

use sampan_e2e::bundles::{Bundle, Runtime};
use sampan_e2e::peers;

/// Each line of the script says what it found; both are told side by side where they are not the same.
fn same(told: &str, expected: &[&str]) {
    let told: Vec<_> = told.replace('\r', "").lines().map(str::to_owned).collect();
    assert_eq!(told, expected);
}

#[test]
fn docker_runs_its_containers_with_it() {
    let runtime = Runtime::sampan();
    let bundle = Bundle::of("");
    let cgroup = format!("sampan-docker-{}", std::process::id());
    let script = r#"
        run="docker run --rm --network none"
        $run test sh -c 'echo hello; hostname > /dev/null; id -u'
        $run test sh -c 'exit 9' || echo code $?
        $run test nowhere 2> /dev/null || echo code $?
        $run test /etc 2> /dev/null || echo code $?
        $run -u 1000:1001 -w /data -e A=b --hostname there test sh -c 'id -u; id -g; pwd; echo $A; hostname'
        $run --read-only --tmpfs /tmp:size=64k test sh -c 'touch /x 2> /dev/null || touch /tmp/x && echo read-only'
        $run -v /run/data:/host:ro test sh -c 'ls -d /host; touch /host/x 2> /dev/null || echo protected'
        $run -t test sh -c 'test -t 0 && test -t 1 && echo terminal; stat -c %t:%T /dev/console'
        echo typed | $run -i test cat
        $run --memory 64m --pids-limit 40 test sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max'
        $run --security-opt seccomp=unconfined test grep Seccomp: /proc/self/status
        $run test grep Seccomp: /proc/self/status
        $run --cap-drop ALL test grep CapEff /proc/self/status
        $run --cap-drop ALL --cap-add SYS_PTRACE --security-opt no-new-privileges test grep -E 'CapEff|NoNew' /proc/self/status
        $run --device /dev/null:/dev/mine test stat -c %t:%T /dev/mine
        $run --init test sh -c 'exit 3' || echo code $?

        docker run -d --network none --name one test sh -c 'trap "exit 5" TERM; echo up; while :; do sleep 0.05; done' > /dev/null
        docker exec -e B=c -u 7 -w /data one sh -c 'echo $B; id -u; pwd'
        docker exec one sh -c 'exit 6' || echo code $?
        docker exec one nowhere > /dev/null 2>&1 || echo code $?
        docker exec -t one sh -c 'test -t 1 && echo terminal'
        echo typed | docker exec -i one cat
        docker exec -d one sleep 1000
        docker top one | grep -c 'sleep 1000'
        docker run --rm --network container:one --pid container:one test sh -c 'ps | grep -c "sleep 1000" > /dev/null && echo joined'
        docker pause one > /dev/null && docker inspect -f '{{.State.Status}}' one
        docker unpause one > /dev/null && docker inspect -f '{{.State.Status}}' one
        docker update --memory 32m --memory-swap 32m one > /dev/null && docker inspect -f '{{.HostConfig.Memory}}' one
        docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' one | grep -c '/ 32MiB'
        docker stop -t 5 one > /dev/null && docker inspect -f '{{.State.ExitCode}}' one
        docker logs one
        docker start one > /dev/null && docker kill one > /dev/null && docker wait one
        docker rm one
        ls $(dirname $runtime)
        find /sys/fs/cgroup -mindepth 3 -maxdepth 3 -path "*/$cgroup/*" -type d
    "#;
    let told = peers::docker_with_runtime(runtime.program(), &bundle.file("/"), &cgroup, script).assert_ok();
    same(
        &told.stdout,
        &[
            "hello",
            "0",
            "code 9",
            "code 127",
            "code 126",
            "1000",
            "1001",
            "/data",
            "b",
            "there",
            "read-only",
            "/host",
            "protected",
            "terminal",
            "88:0",
            "typed",
            "67108864",
            "40",
            "Seccomp:\t0",
            "Seccomp:\t2",
            "CapEff:\t0000000000000000",
            "CapEff:\t0000000000080000",
            "NoNewPrivs:\t1",
            "1:3",
            "code 3",
            "c",
            "7",
            "/data",
            "code 6",
            "code 126",
            "terminal",
            "typed",
            "1",
            "joined",
            "paused",
            "running",
            "33554432",
            "1",
            "5",
            "up",
            "137",
            "one",
            "sampan-oci",
        ],
    );
}

#[test]
fn podman_runs_its_containers_with_it() {
    let runtime = Runtime::sampan();
    let bundle = Bundle::of("");
    let cgroup = format!("sampan-podman-{}", std::process::id());
    let script = r#"
        run="podman run --rm --network none --cgroup-parent /$cgroup"
        $run test sh -c 'echo hello; id -u'
        $run test sh -c 'exit 9' || echo code $?
        $run test nowhere 2> /dev/null || echo code $?
        $run test /etc 2> /dev/null || echo code $?
        $run -u 1000:1001 -w /data -e A=b --hostname there test sh -c 'id -u; id -g; pwd; echo $A; hostname'
        $run --read-only test sh -c 'touch /x 2> /dev/null || echo read-only'
        $run -t test sh -c 'test -t 1 && echo terminal'
        echo typed | $run -i test cat
        $run --memory 64m --pids-limit 40 test sh -c 'cat /sys/fs/cgroup/pids/pids.max'
        $run --uidmap 0:100000:1000 --gidmap 0:100000:1000 test sh -c 'tr -s " " < /proc/self/uid_map; echo > /dev/null'
        $run --privileged test sh -c 'echo privileged'

        podman run -d --network none --cgroup-parent /$cgroup --name one test \
            sh -c 'trap "exit 5" TERM; echo up; while :; do sleep 0.05; done' > /dev/null
        podman exec -e B=c -u 7 -w /data one sh -c 'echo $B; id -u; pwd'
        podman exec one sh -c 'exit 6' || echo code $?
        podman exec one nowhere > /dev/null 2>&1 || echo code $?
        podman exec -t one sh -c 'test -t 1 && echo terminal'
        podman pause one > /dev/null && podman inspect -f '{{.State.Status}}' one
        podman unpause one > /dev/null && podman inspect -f '{{.State.Status}}' one
        podman stop -t 5 one > /dev/null && podman inspect -f '{{.State.ExitCode}}' one
        podman logs one
        podman start one > /dev/null && podman kill one > /dev/null && podman wait one
        podman rm one > /dev/null && echo gone
    "#;
    let told = peers::podman_with_runtime(runtime.program(), &bundle.file("/"), &cgroup, script).assert_ok();
    same(
        &told.stdout,
        &[
            "hello",
            "0",
            "code 9",
            "code 127",
            "code 126",
            "1000",
            "1001",
            "/data",
            "b",
            "there",
            "read-only",
            "terminal",
            "typed",
            "40",
            " 0 100000 1000",
            "privileged",
            "c",
            "7",
            "/data",
            "code 6",
            "code 127",
            "terminal",
            "paused",
            "running",
            "5",
            "up",
            "137",
            "gone",
        ],
    );
}
