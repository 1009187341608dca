//! Device rules on version 2: a program that the kernel runs when a process of the cgroup opens or makes a node, and that
//! says whether it may (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15). Those of the cgroups above are asked too, and all
//! must agree.
//!
//! ```text
//! r2 = kind, r3 = access, r4 = major, r5 = minor        (struct bpf_cgroup_dev_ctx, linux/bpf.h)
//! for each exception: all that it names is equal ─▶ return the opposite of the default
//! return the default
//! ```
//!
//! The cgroup holds the program; it goes with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::{Access, DeviceKind, Set};

/// The longest jump, and so the longest program that is written here: a jump's distance is a signed 16-bit number.
const INSTRUCTIONS_MAX: usize = 32_000;

/// `struct bpf_insn`: operation, registers (the source in the upper half), jump distance, constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    operation: u8,
    registers: u8,
    distance: i16,
    constant: i32,
}

// bpf(2), Documentation/bpf/standardization/instruction-set.rst
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const IF_NOT_EQUAL: u8 = 0x55;
const IF_NOT_EQUAL_REGISTERS: u8 = 0x5d;
const IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// The context at first, then free.
const FREE: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(operation: u8, to: u8, from: u8, distance: i16, constant: i32) -> Instruction {
    Instruction { operation, registers: to | from << 4, distance, constant }
}

const fn load(to: u8, at: i16) -> Instruction {
    instruction(LOAD_WORD, to, FREE, at, 0)
}

/// The program of a set, `None` where it would be too long.
fn assemble(set: &Set) -> Option<Vec<Instruction>> {
    let mut code = vec![
        load(KIND, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        load(ACCESS, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for (nodes, &access) in &set.exceptions {
        // no device has a number that large
        let numbers = [nodes.major, nodes.minor].map(|number| number.map(i32::try_from));
        let [Ok(major), Ok(minor)] = numbers.map(Option::transpose) else { continue };
        let mut tests = Vec::new();
        match nodes.kind {
            DeviceKind::All => {}
            DeviceKind::Block => tests.push(instruction(IF_NOT_EQUAL, KIND, 0, 0, 1)),
            DeviceKind::Character => tests.push(instruction(IF_NOT_EQUAL, KIND, 0, 0, 2)),
        }
        if access != Access::ALL {
            tests.push(instruction(COPY, FREE, ACCESS, 0, 0));
            tests.push(instruction(AND, FREE, 0, 0, access.bits()));
            // all that is asked for must be allowed; of what is denied nothing may be asked for
            tests.push(if set.allowed_by_default {
                instruction(IF_EQUAL, FREE, 0, 0, 0)
            } else {
                instruction(IF_NOT_EQUAL_REGISTERS, FREE, ACCESS, 0, 0)
            });
        }
        for (register, number) in [(MAJOR, major), (MINOR, minor)] {
            tests.extend(number.map(|number| instruction(IF_NOT_EQUAL, register, 0, 0, number)));
        }
        // past the rest of the tests, and the two that return
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.operation, IF_NOT_EQUAL | IF_NOT_EQUAL_REGISTERS | IF_EQUAL) {
                test.distance = i16::try_from(length - at - 1 + 2).ok()?;
            }
        }
        code.append(&mut tests);
        code.extend(returns(!set.allowed_by_default));
    }
    code.extend(returns(set.allowed_by_default));
    (code.len() <= INSTRUCTIONS_MAX).then_some(code)
}

fn returns(allowed: bool) -> [Instruction; 2] {
    [instruction(SET, RESULT, 0, 0, i32::from(allowed)), instruction(EXIT, 0, 0, 0, 0)]
}

/// A program in the kernel.
#[derive(Debug)]
pub(in crate::cgroup) struct Program(OwnedFd);

impl Program {
    /// Loads the program of a set.
    ///
    /// # Errors
    /// The kernel's: `EPERM` without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), `EINVAL` where it has no such programs.
    pub fn load(set: &Set) -> io::Result<Self> {
        let code = assemble(set).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("more than {INSTRUCTIONS_MAX} instructions"))
        })?;
        let mut attributes = LoadAttributes {
            kind: PROG_TYPE_CGROUP_DEVICE,
            instruction_count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..LoadAttributes::default()
        };
        attributes.name[..NAME.len()].copy_from_slice(NAME);
        // SAFETY: `code` and the license are alive during the call, of the lengths that are said, and only read.
        let fd = unsafe { bpf(PROG_LOAD, &raw mut attributes) }?;
        // SAFETY: a new descriptor, which nobody else knows. The kernel makes it close-on-exec.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches it to a cgroup of version 2, held by its directory, in place of those that were attached to it before.
    /// There is no moment without rules.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> io::Result<()> {
        let before = attached(cgroup)?;
        let (flags, replaced) = match before.as_slice() {
            // since Linux 5.6
            [one] => (ALLOW_MULTI | REPLACE, Some(one.as_fd())),
            _ => (ALLOW_MULTI, None),
        };
        attach(PROG_ATTACH, cgroup, self.0.as_fd(), flags, replaced)?;
        if replaced.is_none() {
            for old in &before {
                attach(PROG_DETACH, cgroup, old.as_fd(), 0, None)?;
            }
        }
        Ok(())
    }

    /// As [`Self::attach`], to a cgroup that was just made: nobody is asked what is attached.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach_first(&self, cgroup: BorrowedFd<'_>) -> io::Result<()> {
        attach(PROG_ATTACH, cgroup, self.0.as_fd(), ALLOW_MULTI, None)
    }
}

const NAME: &[u8] = b"sampan_devices";

// linux/bpf.h
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;
/// The kernel takes no more a cgroup.
const PROGRAMS_MAX: usize = 64;

/// The part of `union bpf_attr` for loading.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part for attaching and detaching.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The part for asking what is attached.
#[repr(C)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    _padding: u32,
}

/// The part for a descriptor of a program that has an id.
#[repr(C)]
struct IdAttributes {
    id: u32,
    _next: u32,
    flags: u32,
}

/// # Safety
/// What `attributes` points to, and what that points to, is what the kernel expects for `command`.
unsafe fn bpf<T>(command: libc::c_int, attributes: *mut T) -> io::Result<RawFd> {
    // SAFETY: as above; the size is the structure's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match RawFd::try_from(result) {
        Ok(fd @ 0..) => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

fn number_of(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn attach(
    command: libc::c_int,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: number_of(cgroup),
        program: number_of(program),
        kind: CGROUP_DEVICE,
        flags,
        replaced: replaced.map_or(0, number_of),
    };
    // SAFETY: numbers only.
    unsafe { bpf(command, &raw mut attributes) }.map(drop)
}

/// The programs of a cgroup itself. One that may not be looked at (by a security module) is left out, and stays.
fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut query = QueryAttributes {
        target: number_of(cgroup),
        kind: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        _padding: 0,
    };
    // SAFETY: `ids` is alive during the call and has room for as many as are said.
    unsafe { bpf(PROG_QUERY, &raw mut query) }?;
    let mut programs = Vec::new();
    for &id in ids.iter().take(query.count as usize) {
        let mut attributes = IdAttributes { id, _next: 0, flags: 0 };
        // SAFETY: numbers only.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &raw mut attributes) } {
            // SAFETY: a new descriptor, which nobody else knows.
            Ok(fd) => programs.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests;
