/* The floor under a container's start: what the bare kernel takes to make the namespaces, mount an overlay root with /proc and
 * /dev, pivot into it, execute a static program and reap it. No cgroup, no seccomp, no address, no image store.
 *
 *   cc -O2 -o kernel_floor kernel_floor.c
 *   ./kernel_floor ROOTFS SCRATCH [RUNS]      one line a step: name, median and 99th percentile in milliseconds
 *   ./kernel_floor ROOTFS SCRATCH serve       one start a line read from stdin, answered by its milliseconds; so that starts of
 *                                                others can be measured in between (`cargo xtask bench start`)
 *   ./kernel_floor ROOTFS SCRATCH enter PID   the same, with one exec a line into the namespaces of the process PID
 *
 * ROOTFS holds a static /bin/busybox and the directories proc and dev; SCRATCH is an empty directory on a real disk. Needs root. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *rootfs, *scratch;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void enter_root(int overlay, int id, int own_pids) {
    char root[256], upper[256], work[256], options[1024];
    mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
    if (overlay) {
        snprintf(root, sizeof root, "%s/merged", scratch);
        snprintf(upper, sizeof upper, "%s/upper/%d", scratch, id);
        snprintf(work, sizeof work, "%s/work/%d", scratch, id);
        mkdir(upper, 0755);
        mkdir(work, 0755);
        snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, work);
        if (mount("overlay", root, "overlay", 0, options)) _exit(3);
    } else {
        snprintf(root, sizeof root, "%s", rootfs);
        if (mount(root, root, 0, MS_BIND | MS_REC, 0)) _exit(4);
    }
    if (chdir(root)) _exit(5);
    if (own_pids && mount("proc", "proc", "proc", 0, 0)) _exit(6);
    if (mount("tmpfs", "dev", "tmpfs", 0, "mode=755")) _exit(7);
    if (syscall(SYS_pivot_root, ".", ".")) _exit(8);
    umount2(".", MNT_DETACH);
    if (chdir("/")) _exit(9);
}

static int start_once(unsigned long flags, int overlay, int id) {
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) return 1;
    if (pid == 0) {
        char *argv[] = {"/bin/busybox", "true", 0}, *envp[] = {0};
        if (flags & CLONE_NEWNS) enter_root(overlay, id, !!(flags & CLONE_NEWPID));
        execve(argv[0], argv, envp);
        _exit(10);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
}

static const unsigned long four = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;

/* A child joins the process's namespaces, and so its own child is in its pid namespace: two clones, as with every exec. */
static int enter_once(int pidfd) {
    pid_t pid = vfork();
    if (pid < 0) return 1;
    if (pid == 0) {
        if (setns(pidfd, CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWNET | four)) _exit(11);
        pid_t inner = vfork();
        if (inner < 0) _exit(12);
        if (inner == 0) {
            char *argv[] = {"/bin/busybox", "true", 0}, *envp[] = {0};
            execve(argv[0], argv, envp);
            _exit(10);
        }
        int status = 0;
        waitpid(inner, &status, 0);
        _exit(!WIFEXITED(status) || WEXITSTATUS(status));
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
}

static int serve(int pidfd) {
    char line[16];
    for (int id = 0; fgets(line, sizeof line, stdin); id++) {
        double start = now_ms();
        if (pidfd < 0 ? start_once(four | CLONE_NEWNET, 1, id) : enter_once(pidfd)) return fprintf(stderr, "start %d failed\n", id), 1;
        printf("%.4f\n", now_ms() - start);
        fflush(stdout);
    }
    return 0;
}

static int steps(int runs) {
    const struct { const char *name; unsigned long flags; int overlay; } steps[] = {
        {"clone+exec", 0, 0},
        {"+mnt,pid,ipc,uts", four, 0},
        {"+overlay", four, 1},
        {"+net (the floor)", four | CLONE_NEWNET, 1},
    };
    double *took = malloc(sizeof *took * runs);
    for (int s = 0; took && s < 4; s++) {
        int failed = 0;
        for (int i = 0; i < runs; i++) {
            double start = now_ms();
            failed += start_once(steps[s].flags, steps[s].overlay, s * runs + i);
            took[i] = now_ms() - start;
        }
        qsort(took, runs, sizeof *took, by_value);
        printf("%-18s p50 %.2f p99 %.2f ms failed %d\n", steps[s].name, took[runs / 2], took[runs * 99 / 100], failed);
    }
    free(took);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: kernel_floor ROOTFS SCRATCH [RUNS | serve | enter PID]\n"), 2;
    rootfs = argv[1];
    scratch = argv[2];
    const char *folders[] = {"upper", "work", "merged"};
    for (int i = 0; i < 3; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", scratch, folders[i]);
        mkdir(path, 0755);
    }
    if (argc > 3 && !strcmp(argv[3], "serve")) return serve(-1);
    if (argc > 4 && !strcmp(argv[3], "enter")) {
        int pidfd = syscall(SYS_pidfd_open, atoi(argv[4]), 0);
        return pidfd < 0 ? perror(argv[4]), 1 : serve(pidfd);
    }
    int runs = argc > 3 ? atoi(argv[3]) : 200;
    if (runs < 1) return fprintf(stderr, "no number of runs: %s\n", argv[3]), 2;
    return steps(runs);
}
