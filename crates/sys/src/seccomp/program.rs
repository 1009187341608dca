//! The compiled program, and its installation.

use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::{INSTRUCTIONS_MAX, SeccompError};

const INSTRUCTION_BYTES: usize = 8;

/// A compiled filter: `struct sock_filter`s, at least one and at most [`INSTRUCTIONS_MAX`].
#[derive(Clone)]
pub struct Program {
    instructions: Vec<libc::sock_filter>,
}

impl Program {
    pub(super) fn new(instructions: Vec<libc::sock_filter>) -> Result<Self, SeccompError> {
        match instructions.len() {
            1..=INSTRUCTIONS_MAX => Ok(Self { instructions }),
            length => Err(SeccompError::TooLong(length)),
        }
    }

    /// How many instructions it has: never none.
    #[expect(clippy::len_without_is_empty, reason = "a program is never empty")]
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// The instructions as the kernel has them in memory: 8 bytes each, `code`, `jt`, `jf`, `k`, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * INSTRUCTION_BYTES);
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_le_bytes());
        }
        bytes
    }

    /// A program from [`Program::to_bytes`]' form. Only its length is checked here; the kernel checks the rest when it
    /// is installed.
    ///
    /// # Errors
    /// When the length is not that of 1 to [`INSTRUCTIONS_MAX`] instructions.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeccompError> {
        let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if chunks.is_empty() || chunks.len() > INSTRUCTIONS_MAX || !rest.is_empty() {
            return Err(SeccompError::BadLength(bytes.len()));
        }
        let instructions = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Ok(Self { instructions })
    }

    /// [`Program::to_bytes`] in lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.to_bytes()
            .into_iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]))
            .collect()
    }

    /// A program from [`Program::to_hex`]' form.
    ///
    /// # Errors
    /// When it is not hexadecimal or not of a program's length.
    pub fn from_hex(text: &str) -> Result<Self, SeccompError> {
        let digits = text.as_bytes();
        if digits.len() > 2 * INSTRUCTIONS_MAX * INSTRUCTION_BYTES || !digits.len().is_multiple_of(2) {
            return Err(SeccompError::BadLength(digits.len() / 2));
        }
        let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or(SeccompError::BadHex(at));
        let bytes: Result<Vec<u8>, _> =
            (0..digits.len()).step_by(2).map(|at| Ok((digit(at)? << 4 | digit(at + 1)?) as u8)).collect();
        Self::from_bytes(&bytes?)
    }

    #[cfg(test)]
    pub(super) fn instructions(&self) -> &[libc::sock_filter] {
        &self.instructions
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        let parts = |one: &libc::sock_filter| (one.code, one.jt, one.jf, one.k);
        self.instructions.iter().map(parts).eq(other.instructions.iter().map(parts))
    }
}

impl Eq for Program {}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.instructions.len())
    }
}

/// How a program is installed (`SECCOMP_FILTER_FLAG_…`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Everything but what is allowed is written to the audit log.
    pub log: bool,
    /// Speculation stays as it is: without this, x86 kernels before 5.16 turn some of it off for the thread.
    pub speculation_allowed: bool,
    /// The program has [`Action::Notify`](super::Action::Notify): installing gives the listener that answers it.
    pub listener: bool,
    /// A thread that waits for the listener's answer, which has begun to be handled, can only be killed (Linux 5.19).
    /// Without a listener it means nothing.
    pub wait_killable: bool,
}

impl Flags {
    fn bits(self) -> libc::c_ulong {
        const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
        [
            (self.log, libc::SECCOMP_FILTER_FLAG_LOG),
            (self.speculation_allowed, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            (self.listener, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
            (self.listener && self.wait_killable, WAIT_KILLABLE_RECV),
        ]
        .into_iter()
        .filter_map(|(wanted, bit)| wanted.then_some(bit))
        .sum()
    }

    /// One number for all of them, for the wire.
    pub fn to_number(self) -> u8 {
        u8::from(self.log)
            | u8::from(self.speculation_allowed) << 1
            | u8::from(self.listener) << 2
            | u8::from(self.wait_killable) << 3
    }

    /// From [`Flags::to_number`]; other bits mean nothing.
    pub fn from_number(number: u8) -> Self {
        let bit = |at: u8| number & 1 << at != 0;
        Self { log: bit(0), speculation_allowed: bit(1), listener: bit(2), wait_killable: bit(3) }
    }
}

/// Put the program over the calling thread and all it will ever start, for good. Allocates nothing and takes no lock:
/// it may be called between fork and exec. The thread needs `no_new_privs` or CAP_SYS_ADMIN in its user namespace.
///
/// # Errors
/// EACCES without that right; EINVAL for a program the kernel does not accept, or a kernel without filters.
pub fn install(program: &Program) -> Result<(), Errno> {
    install_with(program, Flags::default()).map(drop)
}

/// As [`install`], with flags. Gives the listener where [`Flags::listener`] asks for one (`seccomp_unotify(2)`): it is
/// readable when a call waits for an answer.
///
/// # Errors
/// As there; EINVAL also for a flag that the kernel does not know, EBUSY where the thread has a listener already.
pub fn install_with(program: &Program, flags: Flags) -> Result<Option<OwnedFd>, Errno> {
    let descriptor = libc::sock_fprog {
        // at most 4096: `Program` holds no more
        len: program.instructions.len() as u16,
        // the kernel copies the program and never writes to it; the type lacks the const
        filter: program.instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `descriptor` points to `len` initialised instructions that live until the call returns, in the layout the
    // kernel declares; the call reads them and changes nothing in this process but its filter.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags.bits(), std::ptr::from_ref(&descriptor))
    };
    match i32::try_from(result) {
        // SAFETY: with that flag the kernel returns a new descriptor (close-on-exec), which nobody else knows.
        Ok(fd @ 0..) if flags.listener => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Ok(0) => Ok(None),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

/// Whether the kernel knows these flags. It is asked to install nothing, which it refuses for want of a program only
/// after it has looked at the flags.
pub(super) fn supported(flags: Flags) -> bool {
    // SAFETY: a null program is refused (EFAULT) before anything is changed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.bits(),
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{Action, Architecture, Condition, Filter, Test};

    #[test]
    fn bytes_and_hex_come_back() {
        let mut filter =
            Filter::new(Architecture::of_this_machine(), Action::Errno(1), 466, Action::Errno(libc::ENOSYS as u16));
        filter.rule("getpid", &[], Action::Allow);
        let program = filter.compile().unwrap();
        assert_eq!(Program::from_bytes(&program.to_bytes()).unwrap(), program);
        assert_eq!(Program::from_hex(&program.to_hex()).unwrap(), program);
        assert_eq!(program.to_bytes().len(), program.len() * 8);
    }

    #[test]
    fn broken_forms_are_refused() {
        for length in [0, 1, 7, 9, 8 * (INSTRUCTIONS_MAX + 1)] {
            assert_eq!(Program::from_bytes(&vec![0; length]), Err(SeccompError::BadLength(length)));
        }
        for (text, error) in [
            ("", SeccompError::BadLength(0)),
            ("0", SeccompError::BadLength(0)),
            ("00x0000000000000", SeccompError::BadHex(2)),
            ("ü0", SeccompError::BadLength(1)),
            ("é00000000000000", SeccompError::BadHex(0)),
        ] {
            assert_eq!(Program::from_hex(text), Err(error), "{text}");
        }
    }

    /// A thread of its own carries the filter to its grave; the others of this process stay free.
    #[test]
    fn the_kernel_obeys() {
        let mut filter =
            Filter::new(Architecture::of_this_machine(), Action::Allow, 466, Action::Errno(libc::ENOSYS as u16));
        filter.rule("getpgid", &[Condition { argument: 0, test: Test::Equal(1 << 33) }], Action::Errno(77));
        filter.rule("getppid", &[], Action::Errno(78));
        let program = filter.compile().unwrap();
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(&program).unwrap();
            let errno = |number: libc::c_long, argument: u64| {
                // SAFETY: getpgid, getppid and a number without a call touch no memory
                let result = unsafe { libc::syscall(number, argument) };
                if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
            };
            assert_eq!(errno(libc::SYS_getpgid, 0), None);
            assert_eq!(errno(libc::SYS_getpgid, 1 << 33), Some(77));
            assert_eq!(errno(libc::SYS_getppid, 0), Some(78));
            assert_eq!(errno(9999, 0), Some(libc::ENOSYS));
        })
        .join()
        .unwrap();
    }
}
