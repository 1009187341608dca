//! Architectures: how the kernel names them to a filter, and what their system calls are numbered.

use std::str::FromStr as _;

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
}

/// ARM's own calls, numbered from `__ARM_NR_BASE` (`arch/arm/include/uapi/asm/unistd.h`).
const ARM_PRIVATE: &[(&str, u32)] = &[("breakpoint", 0x0f_0001), ("cacheflush", 0x0f_0002), ("set_tls", 0x0f_0005)];

impl Architecture {
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
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }
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
            (Architecture::X86_64, "no such call", None),
        ] {
            assert_eq!(architecture.number(name), number, "{architecture:?} {name}");
        }
    }
}
