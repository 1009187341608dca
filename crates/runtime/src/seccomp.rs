//! Which system calls a container may make: Docker's default profile, by meaning. And which the roles may that handle
//! strangers' bytes, logger and edge: [`role`].
//!
//! The source is `seccomp/default_linux.go` of [moby/profiles](https://github.com/moby/profiles) as of summer 2026,
//! read for what it allows and written anew in `table`. The default is EPERM; what is newer than the profile gets
//! ENOSYS, so that programs fall back ([`sampan_sys::seccomp`]); conditions:
//!
//! | call | allowed |
//! |---|---|
//! | `clone` | without any `CLONE_NEW…` flag; with CAP_SYS_ADMIN always |
//! | `clone3` | with CAP_SYS_ADMIN; else ENOSYS: its flags are behind a pointer, and libc falls back to `clone` |
//! | `personality` | the four values that ordinary programs use, and asking |
//! | `socket` | every family but the withdrawn ones, `AF_ALG` and `AF_VSOCK` |
//! | `ptrace`, `process_vm_…` | always: the kernels we run on have no hole there (≥ 4.8) |
//!
//! As in Docker, a 32-bit x86 program's `socketcall` is allowed whole: its arguments are behind a pointer, and no filter
//! sees them.

mod oci;
mod profile;
mod role;
mod table;

pub use oci::docker_default_profile;
pub use profile::{ProfileError, profile};
pub use role::{ConfineError, confine_role, role};
use sampan_sys::seccomp::{Action, Architecture, Condition, Filter, Program, Test};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// The newest system call the profile takes a stand on: `removexattrat`, Linux 6.13. From 424 on, the numbers are the
/// same on every architecture.
const LAST_KNOWN: u32 = 466;

const SYS_ADMIN: u8 = 21;

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET` (`linux/sched.h`). `CLONE_NEWTIME` is a
/// flag of `clone3` and `unshare` only: in `clone` its bit is part of the exit signal.
const NEW_NAMESPACES: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// Docker's default filter for a container with these capabilities (bit N for capability N), over this machine's
/// architectures. Compiling takes about a millisecond: make it once a set of capabilities and keep it.
pub fn docker_default(capabilities: u64) -> Program {
    filter(Architecture::of_this_machine(), capabilities)
        .compile()
        .expect("the table fits the kernel's limit, which the tests see to for every capability")
}

fn filter(architectures: &[Architecture], capabilities: u64) -> Filter {
    let has = |capability: u8| capabilities & 1 << capability != 0;
    let mut filter = Filter::new(architectures, Action::Errno(EPERM), LAST_KNOWN, Action::Errno(ENOSYS));
    let granted = table::BY_CAPABILITY.iter().filter(|(capability, _)| has(*capability)).map(|(_, calls)| *calls);
    for name in table::ALWAYS.iter().copied().chain(granted).flat_map(str::split_whitespace) {
        filter.rule(name, &[], Action::Allow);
    }
    if !has(SYS_ADMIN) {
        filter.rule("clone", &[first(Test::MaskedEqual { mask: NEW_NAMESPACES, value: 0 })], Action::Allow);
        filter.rule("clone3", &[], Action::Errno(ENOSYS));
    }
    for &persona in table::PERSONALITIES {
        filter.rule("personality", &[first(Test::Equal(persona))], Action::Allow);
    }
    for &(family, _) in table::CLOSED_FAMILIES {
        filter.rule("socket", &[first(Test::Equal(family))], Action::Errno(EPERM));
    }
    filter.rule("socket", &[first(Test::LessEqual(table::LAST_FAMILY))], Action::Allow);
    filter
}

fn first(test: Test) -> Condition {
    Condition { argument: 0, test }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: &[Architecture] = &[Architecture::X86_64, Architecture::X86, Architecture::Aarch64, Architecture::Arm];

    /// Docker's default capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
    /// net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
    const DOCKER: u64 = 0xa804_25fb;

    #[test]
    fn every_name_is_a_call_of_some_architecture() {
        let mut filter = Filter::new(ALL, Action::Allow, 0, Action::Allow);
        let capability = table::BY_CAPABILITY.iter().map(|(_, calls)| *calls);
        for name in table::ALWAYS.iter().copied().chain(capability).flat_map(str::split_whitespace) {
            assert!(filter.rule(name, &[], Action::Allow) > 0, "{name}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut seen = BTreeSet::new();
        for name in table::ALWAYS.iter().flat_map(|names| names.split_whitespace()) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn it_fits_for_every_set_of_capabilities_that_matters() {
        let bits: Vec<u8> = table::BY_CAPABILITY.iter().map(|(capability, _)| *capability).collect();
        let single = bits.iter().map(|bit| 1 << bit);
        for capabilities in single.chain([0, u64::MAX, DOCKER]) {
            for architectures in [ALL, &ALL[..2], &ALL[2..]] {
                assert!(filter(architectures, capabilities).compile().is_ok(), "{capabilities:#x}");
            }
        }
        assert!(docker_default(DOCKER).len() < 1500, "{}", docker_default(DOCKER).len());
    }

    #[test]
    fn what_is_decided() {
        const SIGCHLD: u64 = 17;
        const NEW_USER: u64 = 0x1000_0000;
        let check = |capabilities: u64, name: &str, argument: u64, expected: Action| {
            let filter = filter(ALL, capabilities);
            let mut checked = 0;
            for &architecture in ALL {
                if let Some(number) = architecture.number(name) {
                    let action = filter.action(architecture, number, [argument, u64::MAX, 0, 0, 0, 0]);
                    assert_eq!(action, expected, "{name}({argument:#x}) on {architecture:?} with {capabilities:#x}");
                    checked += 1;
                }
            }
            assert!(checked > 0, "{name}");
        };
        let (refused, absent) = (Action::Errno(EPERM), Action::Errno(ENOSYS));
        let admin = DOCKER | 1 << SYS_ADMIN;
        for (capabilities, name, argument, expected) in [
            (DOCKER, "read", 0, Action::Allow),
            (DOCKER, "ptrace", 0, Action::Allow),
            (DOCKER, "chroot", 0, Action::Allow),
            (0, "chroot", 0, refused),
            (DOCKER, "clone", SIGCHLD, Action::Allow),
            (DOCKER, "clone", SIGCHLD | NEW_USER, refused),
            (admin, "clone", SIGCHLD | NEW_USER, Action::Allow),
            (DOCKER, "clone3", 0, absent),
            (admin, "clone3", 0, Action::Allow),
            (DOCKER, "unshare", 0, refused),
            (admin, "unshare", 0, Action::Allow),
            (DOCKER, "mount", 0, refused),
            (DOCKER, "bpf", 0, refused),
            (DOCKER | 1 << 39, "bpf", 0, Action::Allow),
            (DOCKER, "keyctl", 0, refused),
            (DOCKER, "io_uring_setup", 0, refused),
            (DOCKER, "userfaultfd", 0, refused),
            (DOCKER, "personality", 0, Action::Allow),
            (DOCKER, "personality", 0x2_0008, Action::Allow),
            (DOCKER, "personality", 0xffff_ffff, Action::Allow),
            // ADDR_NO_RANDOMIZE
            (DOCKER, "personality", 0x4_0000, refused),
            (DOCKER, "socket", 1, Action::Allow),
            (DOCKER, "socket", 16, Action::Allow),
            (DOCKER, "socket", 45, Action::Allow),
            (DOCKER, "socket", 38, refused),
            (DOCKER, "socket", 40, refused),
            (DOCKER, "socket", 46, refused),
            (DOCKER, "socket", 1 << 32 | 40, refused),
            // newer than the profile
            (DOCKER, "open_tree_attr", 0, absent),
            (DOCKER, "file_getattr", 0, absent),
        ] {
            check(capabilities, name, argument, expected);
        }
    }

    /// The real thing: a thread takes the filter and tries.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_kernel_obeys() {
        use rustix::io::Errno;
        use rustix::mount::UnmountFlags;
        use rustix::net::{AddressFamily, SocketType, socket};
        use rustix::thread::set_no_new_privs;

        std::thread::spawn(|| {
            set_no_new_privs(true).unwrap();
            sampan_sys::seccomp::install(&docker_default(DOCKER)).unwrap();
            let open = |number| socket(AddressFamily::from_raw(number), SocketType::STREAM, None).map(drop);
            assert_eq!(open(family::UNIX), Ok(()));
            assert_eq!(open(family::INET6), Ok(()));
            for closed in [family::VSOCK, family::ALG] {
                assert_eq!(open(closed), Err(Errno::PERM));
            }
            assert_eq!(open(46), Err(Errno::PERM), "a family newer than the profile");
            assert_eq!(rustix::system::sethostname(b"x"), Err(Errno::PERM));
            assert_eq!(rustix::mount::unmount("/nowhere", UnmountFlags::empty()), Err(Errno::PERM));
            // threads are made by clone3, which falls back to clone
            std::thread::spawn(|| ()).join().unwrap();
        })
        .join()
        .unwrap();
    }

    #[cfg(target_arch = "x86_64")]
    mod family {
        pub const UNIX: u16 = 1;
        pub const INET6: u16 = 10;
        pub const ALG: u16 = 38;
        pub const VSOCK: u16 = 40;
    }
}
