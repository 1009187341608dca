//! The profile's lists, by subject: names with spaces between. A name that an architecture lacks does nothing there.

/// What every container may call.
pub(super) const ALWAYS: &[&str] = &[
    FILES,
    TREE,
    ATTRIBUTES,
    DESCRIPTORS,
    WAITING,
    MEMORY,
    PROCESSES,
    IDENTITY,
    SIGNALS,
    TIME,
    SCHEDULING,
    NETWORK,
    QUEUES,
    MACHINE,
];

/// Reading and writing.
const FILES: &str = "\
    _llseek arm_fadvise64_64 arm_sync_file_range cachestat copy_file_range creat fadvise64 fadvise64_64 fallocate \
    fdatasync fsync ftruncate ftruncate64 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
    io_setup io_submit lseek name_to_handle_at open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 \
    read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate \
    truncate64 vmsplice write writev";

/// Directories, links and file systems.
const TREE: &str = "\
    chdir fanotify_mark fchdir fstatfs fstatfs64 getcwd getdents getdents64 inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch link linkat listmount mkdir mkdirat mknod mknodat readlink readlinkat rename \
    renameat renameat2 rmdir statfs statfs64 statmount symlink symlinkat umask unlink unlinkat";

/// What is known about a file.
const ATTRIBUTES: &str = "\
    access chmod chown chown32 faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchown32 fchownat fgetxattr \
    flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 futimesat getxattr getxattrat lchown lchown32 \
    lgetxattr listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 newfstatat removexattr \
    removexattrat setxattr setxattrat stat stat64 statx utime utimensat utimensat_time64 utimes";

/// Descriptors, and what can be asked of any.
const DESCRIPTORS: &str = "\
    close close_range dup dup2 dup3 eventfd eventfd2 fcntl fcntl64 flock ioctl memfd_create memfd_secret pipe pipe2 \
    signalfd signalfd4";

/// Waiting for one of many, and for another thread.
const WAITING: &str = "\
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list pause poll ppoll ppoll_time64 \
    pselect6 pselect6_time64 select set_robust_list";

/// Memory.
const MEMORY: &str = "\
    brk cacheflush madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap \
    mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease process_vm_readv \
    process_vm_writev remap_file_pages";

/// Processes and threads. `clone` and `clone3` have conditions of their own.
const PROCESSES: &str = "\
    arch_prctl breakpoint execve execveat exit exit_group fork get_thread_area getpgid getpgrp getpid getppid \
    getrlimit getrusage getsid gettid landlock_add_rule landlock_create_ruleset landlock_restrict_self modify_ldt \
    pidfd_open prctl prlimit64 ptrace rseq seccomp set_thread_area set_tid_address set_tls setpgid setrlimit setsid \
    ugetrlimit uretprobe vfork wait4 waitid waitpid";

/// Users, groups and capabilities.
const IDENTITY: &str = "\
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
    getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
    setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32";

/// Signals.
const SIGNALS: &str = "\
    kill pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill \
    tkill";

/// Clocks and timers. Setting a clock is CAP_SYS_TIME's; the kernel itself lets `adjtimex` only read without it.
const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64 times";

/// Who runs when.
const SCHEDULING: &str = "\
    getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority";

/// Sockets. `socket` has conditions of its own.
const NETWORK: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

/// System V's and POSIX' queues, semaphores and shared memory.
const QUEUES: &str = "\
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget";

/// The machine as such.
const MACHINE: &str = "getrandom sysinfo uname";

/// What a capability (its number in `linux/capability.h`) adds.
pub(super) const BY_CAPABILITY: &[(u8, &str)] = &[
    // DAC_READ_SEARCH
    (2, "open_by_handle_at"),
    // SYS_MODULE
    (16, "delete_module finit_module init_module"),
    // SYS_RAWIO
    (17, "ioperm iopl"),
    // SYS_CHROOT
    (18, "chroot"),
    // SYS_PTRACE
    (19, "kcmp pidfd_getfd process_madvise"),
    // SYS_PACCT
    (20, "acct"),
    (
        super::SYS_ADMIN,
        "\
         bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    // SYS_BOOT
    (22, "reboot"),
    // SYS_NICE
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    // SYS_TIME
    (25, "clock_settime clock_settime64 settimeofday stime"),
    // SYS_TTY_CONFIG
    (26, "vhangup"),
    // SYSLOG
    (34, "syslog"),
    // PERFMON
    (38, "perf_event_open"),
    // BPF
    (39, "bpf"),
];

/// `personality` of Linux, `PER_LINUX32`, `UNAME26`, both, and the question which one it is.
pub(super) const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The last socket family the profile knows, `AF_MCTP`.
pub(super) const LAST_FAMILY: u64 = 45;

/// Socket families that are closed (`linux/socket.h`): those the kernel no longer has, and two it should not give to
/// a container.
pub(super) const CLOSED_FAMILIES: &[(u64, &str)] = &[
    (12, "DECnet, gone in Linux 6.1"),
    (19, "Econet, gone in 3.5"),
    (20, "ATM SVC, gone in 7.2"),
    (23, "IrDA, gone in 4.17"),
    (25, "WANPIPE, never there"),
    (34, "ISDN, gone in 7.1"),
    (37, "CAIF, gone in 7.1"),
    (38, "ALG: the kernel's ciphers, whose holes have been root's (copy.fail)"),
    (40, "VSOCK: reaches the hypervisor past every network namespace"),
];
