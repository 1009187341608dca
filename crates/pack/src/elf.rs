//! What the head of an ELF file says: whether it is a program, and for which processor.
//!
//! Only the file header, the program headers and the dynamic flags are read (System V ABI, chapters 4 and 5); which
//! libraries a program needs is the business of [`collect`](crate::collect).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No ELF file at all, or one too short or too odd to be loaded.
    Other,
    /// An object file or a shared library.
    NoProgram,
    /// A program for the machine of this `e_machine` and class.
    Program(Architecture),
}

/// A processor architecture as ELF has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    machine: u16,
    wide: bool,
    little_endian: bool,
}

/// A program that this machine cannot execute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is a program for {theirs}, and this machine is {}: build it for this machine", path.display(), Architecture::HOST)]
pub struct WrongArchitecture {
    /// The program.
    pub path: PathBuf,
    /// What it was built for.
    pub theirs: Architecture,
}

impl Architecture {
    /// The machine that we were built for, which is the one we run on.
    pub const HOST: Self = Self {
        machine: if cfg!(target_arch = "x86_64") {
            62
        } else if cfg!(target_arch = "aarch64") {
            183
        } else if cfg!(target_arch = "riscv64") {
            243
        } else {
            0
        },
        wide: cfg!(target_pointer_width = "64"),
        little_endian: cfg!(target_endian = "little"),
    };

    /// The name that OCI images use: Go's `GOARCH`.
    pub fn oci_name(self) -> &'static str {
        match (self.machine, self.wide, self.little_endian) {
            (3, _, _) => "386",
            (8, true, _) => "mips64",
            (8, false, _) => "mips",
            (20, _, _) => "ppc",
            (21, _, true) => "ppc64le",
            (21, _, false) => "ppc64",
            (22, _, _) => "s390x",
            (40, _, _) => "arm",
            // x32: the amd64 processor with pointers of 32 bits
            (62, false, _) => "amd64p32",
            (62, true, _) => "amd64",
            (183, _, _) => "arm64",
            (243, true, _) => "riscv64",
            (243, false, _) => "riscv",
            (258, _, _) => "loong64",
            _ => "another architecture",
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.oci_name())
    }
}

const ET_EXEC: u64 = 2;
const ET_DYN: u64 = 3;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
/// The kernel's own limits are one page of program headers; a dynamic section has a few dozen entries.
const MOST_HEADERS: u64 = 512;
const MOST_DYNAMIC: u64 = 4096;
/// The kernel's `PATH_MAX`.
const LONGEST_PATH: u64 = 4096;

/// Reads what `path` is.
///
/// # Errors
/// Those of opening and reading the file.
pub fn kind(path: &Path) -> io::Result<Kind> {
    match Head::open(path)? {
        Some(head) => Ok(head.kind()?.unwrap_or(Kind::Other)),
        None => Ok(Kind::Other),
    }
}

/// The loader that a program asks for; `None` where it asks for none, or the file is cut short.
///
/// # Errors
/// Those of opening and reading the file.
pub fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    match Head::open(path)? {
        Some(head) => head.interpreter(),
        None => Ok(None),
    }
}

/// Whether this machine can execute `path`; a file that is no ELF program is left for the kernel to judge.
///
/// # Errors
/// [`WrongArchitecture`] names both architectures.
pub(crate) fn check_architecture(path: &Path, kind: Kind) -> Result<(), WrongArchitecture> {
    match kind {
        Kind::Program(theirs) if theirs != Architecture::HOST => Err(WrongArchitecture { path: path.into(), theirs }),
        _ => Ok(()),
    }
}

/// A program header.
struct Segment {
    kind: u64,
    offset: u64,
    size: u64,
}

struct Head {
    file: File,
    wide: bool,
    little_endian: bool,
}

impl Head {
    /// `None` where it is no ELF file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let head = Self { file: File::open(path)?, little_endian: true, wide: true };
        Ok(match head.bytes::<6>(0)? {
            Some([0x7f, b'E', b'L', b'F', class @ (1 | 2), order @ (1 | 2)]) => {
                Some(Self { wide: class == 2, little_endian: order == 1, ..head })
            }
            _ => None,
        })
    }

    /// `None` where the file is cut short.
    fn kind(&self) -> io::Result<Option<Kind>> {
        let (Some(e_type), Some(machine)) = (self.half(16)?, self.half(18)?) else { return Ok(None) };
        let architecture = Architecture { machine: machine as u16, wide: self.wide, little_endian: self.little_endian };
        Ok(match e_type {
            ET_EXEC => Some(Kind::Program(architecture)),
            // a shared library is ET_DYN too; what has an interpreter or says that it is a PIE is a program
            ET_DYN => self.is_pie()?.map(|pie| if pie { Kind::Program(architecture) } else { Kind::NoProgram }),
            _ => Some(Kind::NoProgram),
        })
    }

    fn is_pie(&self) -> io::Result<Option<bool>> {
        let Some(segments) = self.segments()? else { return Ok(None) };
        for segment in segments {
            if segment.kind == PT_INTERP
                || segment.kind == PT_DYNAMIC && self.dynamic_flags(segment.offset, segment.size)? & DF_1_PIE != 0
            {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    fn interpreter(&self) -> io::Result<Option<PathBuf>> {
        let segments = self.segments()?.unwrap_or_default();
        let Some(segment) = segments.into_iter().find(|segment| segment.kind == PT_INTERP) else { return Ok(None) };
        let mut path = vec![0; segment.size.min(LONGEST_PATH) as usize];
        let read = read_up_to(&self.file, &mut path, segment.offset)?;
        path.truncate(path[..read].iter().position(|byte| *byte == 0).unwrap_or(read));
        Ok(Some(OsString::from_vec(path).into()))
    }

    /// The program headers that count; `None` where the file is cut short.
    fn segments(&self) -> io::Result<Option<Vec<Segment>>> {
        let (table, entry_size, count) = if self.wide {
            (self.word(32)?, self.half(54)?, self.half(56)?)
        } else {
            (self.word(28)?, self.half(42)?, self.half(44)?)
        };
        let (Some(table), Some(entry_size), Some(count)) = (table, entry_size, count) else { return Ok(None) };
        let (offset_at, size_at) = if self.wide { (8, 32) } else { (4, 16) };
        let mut segments = Vec::new();
        for index in 0..count.min(MOST_HEADERS) {
            let Some(at) = table.checked_add(index * entry_size) else { return Ok(None) };
            let Some(kind) = self.u32(at)? else { return Ok(None) };
            if kind == PT_DYNAMIC || kind == PT_INTERP {
                let (offset, size) = (self.word(at + offset_at)?, self.word(at + size_at)?);
                let (Some(offset), Some(size)) = (offset, size) else { return Ok(None) };
                segments.push(Segment { kind, offset, size });
            }
        }
        Ok(Some(segments))
    }

    fn dynamic_flags(&self, offset: u64, size: u64) -> io::Result<u64> {
        let step = if self.wide { 16 } else { 8 };
        for index in 0..(size / step).min(MOST_DYNAMIC) {
            let Some(at) = offset.checked_add(index * step) else { break };
            match (self.word(at)?, self.word(at + step / 2)?) {
                (Some(DT_FLAGS_1), Some(flags)) => return Ok(flags),
                (None | Some(0), _) | (_, None) => break,
                _ => {}
            }
        }
        Ok(0)
    }

    /// A machine word: 8 bytes, or 4 in files of class 32.
    fn word(&self, at: u64) -> io::Result<Option<u64>> {
        if !self.wide {
            return self.u32(at);
        }
        let order = if self.little_endian { u64::from_le_bytes } else { u64::from_be_bytes };
        Ok(self.bytes(at)?.map(order))
    }

    fn u32(&self, at: u64) -> io::Result<Option<u64>> {
        let order = if self.little_endian { u32::from_le_bytes } else { u32::from_be_bytes };
        Ok(self.bytes(at)?.map(order).map(u64::from))
    }

    fn half(&self, at: u64) -> io::Result<Option<u64>> {
        let order = if self.little_endian { u16::from_le_bytes } else { u16::from_be_bytes };
        Ok(self.bytes(at)?.map(order).map(u64::from))
    }

    fn bytes<const N: usize>(&self, at: u64) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            // an offset past what pread can say is a lie of the file's, not a failure to read it
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads what there is at `at`; nothing where that is past the end, or past any.
fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    match file.read_at(bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(at: usize, bytes: &[u8]) -> Kind {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let mut program = std::fs::read(std::env::current_exe().expect("ourselves")).expect("read ourselves");
        program.truncate(1 << 16);
        program[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(file.path(), program).expect("write");
        kind(file.path()).expect("kind")
    }

    #[test]
    fn programs_are_told_from_other_files() {
        assert_eq!(kind(Path::new("/bin/sh")).expect("sh"), Kind::Program(Architecture::HOST));
        assert_eq!(patched(0, &[0x7f]), Kind::Program(Architecture::HOST));
        assert_eq!(patched(0, b"#!/bin/sh\n"), Kind::Other);
        // a relocatable object
        assert_eq!(patched(16, &[1, 0]), Kind::NoProgram);
        // program headers that are not there
        assert_eq!(patched(32, &[0xff; 8]), Kind::Other);
    }

    #[test]
    fn the_loader_is_named() {
        let loader = interpreter(Path::new("/bin/sh")).expect("sh").expect("a loader");
        assert!(loader.is_file(), "{loader:?}");
        let nothing = tempfile::NamedTempFile::new().expect("temporary file");
        assert_eq!(interpreter(nothing.path()).expect("an empty file"), None);
    }

    #[test]
    fn a_foreign_program_names_both_architectures() {
        let kind = patched(18, &[22, 0]);
        let error = check_architecture(Path::new("app"), kind).expect_err("s390x");
        assert!(error.to_string().starts_with("app is a program for s390x, and this machine is "), "{error}");
    }
}
