//! What logger and edge may call: all that they need and more, but nothing that makes another process, program,
//! mount or namespace, reaches into another process, or opens a part of the kernel that they have no use for.
//!
//! A list of what is forbidden, not of what is allowed: their calls are those of the standard library and tokio, which
//! change with every version of either; what an intruder wants does not. Calls that are newer than the list answer
//! ENOSYS, and so do those of the x32 ABI; one of another architecture kills the role, which the supervisor starts again.

use std::io;

use sampan_sys::process;
use sampan_sys::seccomp::{Action, Architecture, Filter, Program, Test, install};

use super::{ENOSYS, EPERM, LAST_KNOWN, NEW_NAMESPACES, first};

/// Names with spaces between; one that an architecture lacks does nothing there.
const FORBIDDEN: &[&str] = &[
    // programs and processes; `clone` and `clone3` have conditions of their own
    "execve execveat fork vfork",
    // other processes
    "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    // namespaces, mounts and roots
    "chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_by_handle_at open_tree pivot_root setns \
     umount umount2 unshare",
    // the parts of the kernel that most holes have been in
    "add_key bpf io_uring_enter io_uring_register io_uring_setup keyctl perf_event_open request_key userfaultfd",
    // the machine
    "delete_module finit_module init_module kexec_file_load kexec_load reboot swapoff swapon",
    // on 32 bits, `socket` with its arguments behind a pointer
    "socketcall",
];

/// `AF_UNIX`, `AF_INET`, `AF_INET6` (`linux/socket.h`).
const FAMILIES: &[u64] = &[1, 2, 10];

/// `linux/sched.h`.
const CLONE_THREAD: u64 = 0x0001_0000;

/// The filter of the roles that handle strangers' bytes, for this machine's own architecture.
pub fn role() -> Program {
    filter(&Architecture::of_this_machine()[..1]).compile().expect("the list is short, which the tests see to")
}

fn filter(architectures: &[Architecture]) -> Filter {
    let refused = Action::Errno(EPERM);
    let mut filter = Filter::new(architectures, Action::Allow, LAST_KNOWN, Action::Errno(ENOSYS));
    for name in FORBIDDEN.iter().flat_map(|names| names.split_whitespace()) {
        filter.rule(name, &[], refused);
    }
    let thread = Test::MaskedEqual { mask: CLONE_THREAD | NEW_NAMESPACES, value: CLONE_THREAD };
    filter.rule("clone", &[first(thread)], Action::Allow);
    filter.rule("clone", &[], refused);
    // its flags are behind a pointer; libc makes its threads by `clone` then
    filter.rule("clone3", &[], Action::Errno(ENOSYS));
    for &family in FAMILIES {
        filter.rule("socket", &[first(Test::Equal(family))], Action::Allow);
    }
    filter.rule("socket", &[], refused);
    filter
}

/// Why a role is not confined, and must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Others of its user could look into it.
    #[error("cannot close itself to other processes of its user: {0}")]
    Dumpable(io::Error),
    /// Its filter.
    #[error("cannot install its system call filter (CONFIG_SECCOMP_FILTER; it is started by the supervisor): {0}")]
    Filter(io::Error),
}

/// Closes this process to others of its user, which `execve` has undone, and puts [`role`] over it for good. To be
/// called first, while it has one thread: the filter is that thread's, and of all that it starts.
///
/// # Errors
/// The kernel's. The role must end then.
pub fn confine_role() -> Result<(), ConfineError> {
    process::set_dumpable(false).map_err(ConfineError::Dumpable)?;
    install(&role()).map_err(|errno| ConfineError::Filter(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Architecture] = &[Architecture::X86_64, Architecture::X86, Architecture::Aarch64, Architecture::Arm];

    #[test]
    fn every_name_is_a_call_of_some_architecture() {
        let mut filter = Filter::new(ALL, Action::Allow, 0, Action::Allow);
        for name in FORBIDDEN.iter().flat_map(|names| names.split_whitespace()) {
            assert!(filter.rule(name, &[], Action::Allow) > 0, "{name}");
        }
    }

    #[test]
    fn it_is_short() {
        for architecture in ALL {
            let length = filter(&[*architecture]).compile().unwrap().len();
            assert!(length < 200, "{architecture:?}: {length}");
        }
    }

    #[test]
    fn what_is_decided() {
        const SIGCHLD: u64 = 17;
        // what glibc's pthread_create asks for
        const THREAD: u64 = 0x003d_0f00;
        let (refused, absent) = (Action::Errno(EPERM), Action::Errno(ENOSYS));
        for (name, argument, expected) in [
            ("read", 0, Action::Allow),
            ("openat", 0, Action::Allow),
            ("epoll_pwait", 0, Action::Allow),
            ("kill", 0, Action::Allow),
            ("socketpair", 1, Action::Allow),
            ("clone", THREAD, Action::Allow),
            ("clone", SIGCHLD, refused),
            ("clone", THREAD | 0x4000_0000, refused),
            ("clone3", 0, absent),
            ("execve", 0, refused),
            ("execveat", 0, refused),
            ("vfork", 0, refused),
            ("ptrace", 0, refused),
            ("process_vm_readv", 0, refused),
            ("unshare", 0, refused),
            ("mount", 0, refused),
            ("bpf", 0, refused),
            ("io_uring_setup", 0, refused),
            ("open_by_handle_at", 0, refused),
            ("socketcall", 1, refused),
            ("socket", 1, Action::Allow),
            ("socket", 2, Action::Allow),
            ("socket", 10, Action::Allow),
            ("socket", 0, refused),
            ("socket", 16, refused),
            ("socket", 17, refused),
            ("socket", 38, refused),
            ("socket", 1 << 32 | 16, refused),
            // newer than the list
            ("open_tree_attr", 0, absent),
        ] {
            let mut checked = 0;
            for &architecture in ALL {
                if let Some(number) = architecture.number(name) {
                    let action = filter(&[architecture]).action(architecture, number, [argument, 0, 0, 0, 0, 0]);
                    assert_eq!(action, expected, "{name}({argument:#x}) on {architecture:?}");
                    checked += 1;
                }
            }
            assert!(checked > 0, "{name}");
        }
        let own = filter(&ALL[..1]);
        assert_eq!(own.action(Architecture::X86, 1, [0; 6]), Action::KillProcess);
        assert_eq!(own.action(Architecture::X86_64, 0x4000_0000 | 59, [0; 6]), absent, "x32's execve");
    }

    /// The real thing: a thread takes the filter and tries.
    #[test]
    fn the_kernel_obeys() {
        use rustix::net::{AddressFamily, SocketType, socket};

        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(&role()).unwrap();
            let open = |family| socket(family, SocketType::DGRAM, None).map(drop);
            for family in [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6] {
                assert_eq!(open(family), Ok(()));
            }
            assert_eq!(open(AddressFamily::NETLINK), Err(rustix::io::Errno::PERM));
            let program = std::process::Command::new("/proc/self/exe").spawn().map(drop);
            assert_eq!(program.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        })
        .join()
        .unwrap();
    }
}
