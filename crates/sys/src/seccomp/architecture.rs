//! Architectures: how the kernel names them to a filter, and what their system calls are numbered.

use std::str::FromStr as _;

use super::{Condition, Test};

/// An architecture whose system calls a filter can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, which a 64-bit kernel runs too.
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI), which a 64-bit kernel may run too.
    Arm,
    /// 64-bit x86 with 32-bit pointers. Numbers here are without the bit 30 that tells them from those of 64-bit x86.
    X32,
}

/// No architecture has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no architecture of system call filters: they are called SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64 and so on"
)]
pub struct UnknownArchitecture(pub String);

/// ARM's own calls, numbered from `__ARM_NR_BASE` (`arch/arm/include/uapi/asm/unistd.h`).
const ARM_PRIVATE: &[(&str, u32)] = &[("breakpoint", 0x0f_0001), ("cacheflush", 0x0f_0002), ("set_tls", 0x0f_0005)];

/// Those whose numbers are not known here: a program of theirs runs on no machine that this one can be.
const FOREIGN: &[&str] = &[
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// What the x32 ABI numbers otherwise than 64-bit x86, in their order from 512 on (`syscall_64.tbl`): calls that take
/// structures with pointers or times in them.
const X32_OWN: &[&str] = &[
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const X32_OWN_BEGIN: u32 = 512;
/// What 64-bit x86 has and x32 has not.
const NOT_X32: &[&str] = &[
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
    "map_shadow_stack",
];

/// The calls that 32-bit x86 also makes through `socketcall`, by the number that is its first argument from 1 on
/// (`linux/net.h`).
const SOCKET_CALLS: &[&str] = &[
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
/// Likewise through `ipc` (`linux/ipc.h`).
const IPC_CALLS: &[(&str, u64)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

impl Architecture {
    /// From its name in an OCI profile (`SCMP_ARCH_…`). `None`: of other machines than these, where nothing of it runs.
    ///
    /// # Errors
    /// [`UnknownArchitecture`].
    pub fn of_name(name: &str) -> Result<Option<Self>, UnknownArchitecture> {
        match name {
            "SCMP_ARCH_X86_64" => Ok(Some(Self::X86_64)),
            "SCMP_ARCH_X86" => Ok(Some(Self::X86)),
            "SCMP_ARCH_X32" => Ok(Some(Self::X32)),
            "SCMP_ARCH_AARCH64" => Ok(Some(Self::Aarch64)),
            "SCMP_ARCH_ARM" => Ok(Some(Self::Arm)),
            "SCMP_ARCH_NATIVE" => Ok(Some(Self::native())),
            foreign if FOREIGN.contains(&foreign) => Ok(None),
            _ => Err(UnknownArchitecture(name.chars().take(80).collect())),
        }
    }

    /// The one that this program is compiled for.
    pub fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Whether a machine whose own architecture is `machine` can run programs of it.
    pub(super) fn runs_on(self, machine: Self) -> bool {
        match machine {
            Self::Aarch64 => matches!(self, Self::Aarch64 | Self::Arm),
            Self::X86_64 => matches!(self, Self::X86_64 | Self::X86 | Self::X32),
            other => self == other,
        }
    }

    /// What programs on this machine may be compiled for: the machine's own, and its 32-bit companion.
    pub fn of_this_machine() -> &'static [Self] {
        if cfg!(target_arch = "aarch64") { &[Self::Aarch64, Self::Arm] } else { &[Self::X86_64, Self::X86] }
    }

    /// The number of a system call; `None` where the architecture has none of this name.
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).map(|call| call.id()),
            Self::X86 => syscalls::x86::Sysno::from_str(name).map(|call| call.id()),
            Self::Aarch64 => syscalls::aarch64::Sysno::from_str(name).map(|call| call.id()),
            Self::Arm => syscalls::arm::Sysno::from_str(name).map(|call| call.id()),
            Self::X32 => return x32_number(name),
        };
        match id {
            Ok(id) => u32::try_from(id).ok(),
            Err(()) if self == Self::Arm => ARM_PRIVATE.iter().find(|(own, _)| *own == name).map(|(_, number)| *number),
            Err(()) => None,
        }
    }

    /// The kernel's number for it (`AUDIT_ARCH_*` in `linux/audit.h`): ELF machine, bit 31 for 64 bits, bit 30 for
    /// little-endian.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The same conditions, as far as a program of this architecture can meet them.
    pub(super) fn conditions(self, conditions: &[Condition]) -> Vec<Condition> {
        let narrow = matches!(self, Self::X86 | Self::Arm);
        let test = |test: Test| if narrow { test.narrowed() } else { test };
        conditions.iter().map(|one| Condition { argument: one.argument, test: test(one.test) }).collect()
    }

    /// The call through which 32-bit x86 makes this one as well, and its first argument then.
    pub(super) fn multiplexed(self, name: &str) -> Option<(&'static str, u64)> {
        if self != Self::X86 {
            return None;
        }
        let socket = (1..).zip(SOCKET_CALLS).find(|(_, own)| **own == name).map(|(number, _)| ("socketcall", number));
        socket.or_else(|| IPC_CALLS.iter().find(|(own, _)| *own == name).map(|&(_, number)| ("ipc", number)))
    }
}

fn x32_number(name: &str) -> Option<u32> {
    if let Some((number, _)) = (X32_OWN_BEGIN..).zip(X32_OWN).find(|(_, own)| **own == name) {
        return Some(number);
    }
    if NOT_X32.contains(&name) { None } else { Architecture::X86_64.number(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (architecture, name, number) in [
            (Architecture::X86_64, "read", Some(0)),
            (Architecture::X86_64, "removexattrat", Some(466)),
            (Architecture::X86_64, "socketcall", None),
            (Architecture::X86, "socketcall", Some(102)),
            (Architecture::X86, "_llseek", Some(140)),
            (Architecture::Aarch64, "openat", Some(56)),
            (Architecture::Aarch64, "open", None),
            (Architecture::Arm, "set_tls", Some(0x0f_0005)),
            (Architecture::X86, "set_tls", None),
            (Architecture::X32, "read", Some(0)),
            (Architecture::X32, "ioctl", Some(514)),
            (Architecture::X32, "pwritev2", Some(547)),
            (Architecture::X32, "uselib", None),
            (Architecture::X32, "socketcall", None),
            (Architecture::X86_64, "no such call", None),
        ] {
            assert_eq!(architecture.number(name), number, "{architecture:?} {name}");
        }
    }

    #[test]
    fn names() {
        for (name, architecture) in [
            ("SCMP_ARCH_X86_64", Some(Architecture::X86_64)),
            ("SCMP_ARCH_X32", Some(Architecture::X32)),
            ("SCMP_ARCH_ARM", Some(Architecture::Arm)),
            ("SCMP_ARCH_S390X", None),
        ] {
            assert_eq!(Architecture::of_name(name), Ok(architecture), "{name}");
        }
        for name in ["", "x86_64", "SCMP_ARCH_PDP11"] {
            assert_eq!(Architecture::of_name(name), Err(UnknownArchitecture(name.into())));
        }
    }

    #[test]
    fn calls_in_calls() {
        for (name, expected) in [
            ("socket", Some(("socketcall", 1))),
            ("sendmmsg", Some(("socketcall", 20))),
            ("shmctl", Some(("ipc", 24))),
            ("read", None),
        ] {
            assert_eq!(Architecture::X86.multiplexed(name), expected, "{name}");
            assert_eq!(Architecture::X86_64.multiplexed(name), None);
        }
    }
}
