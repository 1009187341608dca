//! System call filters: a [`Filter`] says what becomes of each call, [`Filter::compile`] makes the BPF program that
//! the kernel runs before every one, [`install`] puts it over the calling thread for good.
//!
//! A compiler of our own, because the ones there are lack architectures or per-rule errors, and because a program
//! that compares call numbers one after the other costs 0.99 ms to install where a search tree costs 0.24
//! (`kernel.md` 9). It compiles once and hands the program on as bytes; the process that installs it allocates nothing.
//!
//! Deliberately absent: which calls are good for whom (`runtime::seccomp` has Docker's table, a [`Profile`] what somebody
//! else wrote), who answers the notifications of a listener, and big-endian machines.
//!
//! Words: a **rule** is an action under conditions on the arguments, all of which must hold; a number's rules are
//! tried in their order and the first that holds decides; else the filter's **default** does. Numbers beyond an
//! architecture's `last_known` that have no rule get `unknown`: a program that probes for a newer system call must see
//! ENOSYS and fall back, where EPERM would make it give up (runc does the same since 1.0-rc93). The x32 ABI, whose
//! numbers are those of x86-64 with bit 30 set, answers ENOSYS, as on a kernel built without it, unless the filter names
//! it: a list of what is forbidden must not be got around through it.
//! A call from an architecture that the filter does not name kills the process.

mod architecture;
mod compile;
mod profile;
mod program;
#[cfg(test)]
mod simulator;

use std::collections::BTreeMap;

pub use architecture::{Architecture, UnknownArchitecture};
pub use profile::{
    ACTIONS, ARCHITECTURES, Argument, Call, Compiled, FLAGS, OPERATORS, Profile, ProfileError, supported_flags,
};
pub use program::{Flags, Program, install, install_with};

/// The longest program the kernel takes, in instructions (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Why a filter or a program is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// The filter compiles to more than the kernel takes.
    #[error("the system call filter needs {0} instructions, the kernel takes {INSTRUCTIONS_MAX}")]
    TooLong(usize),
    /// The bytes are no program.
    #[error("a system call filter of {0} bytes is not 1 to {INSTRUCTIONS_MAX} instructions of 8 bytes")]
    BadLength(usize),
    /// The text is not hexadecimal.
    #[error("the system call filter is not hexadecimal at character {0}")]
    BadHex(usize),
    /// A condition names an argument that no system call has.
    #[error("system call {number} has no argument {argument}: there are 0 to 5")]
    BadArgument {
        /// The system call.
        number: u32,
        /// The argument.
        argument: u8,
    },
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It runs.
    Allow,
    /// It fails with this error number (at most 4095).
    Errno(u16),
    /// It runs and is written to the audit log.
    Log,
    /// The thread gets SIGSYS.
    Trap,
    /// A tracer is asked, and gets this number; without one it fails with ENOSYS.
    Trace(u16),
    /// Who holds the filter's listener decides ([`install_with`]).
    Notify,
    /// The thread is killed.
    KillThread,
    /// The whole process is killed.
    KillProcess,
}

impl Action {
    /// What the program returns to the kernel for it (`SECCOMP_RET_*`).
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno.min(4095)),
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// A test of one 64-bit argument, unsigned. (A 32-bit program's arguments are zero-extended by the kernel.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// It is this.
    Equal(u64),
    /// It is not this.
    NotEqual(u64),
    /// It is greater.
    Greater(u64),
    /// It is greater or this.
    GreaterEqual(u64),
    /// It is less.
    Less(u64),
    /// It is less or this.
    LessEqual(u64),
    /// Its bits under the mask are these.
    MaskedEqual {
        /// The bits to look at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

impl Test {
    /// The same of an argument of 32 bits: what a 32-bit program can pass, and libseccomp compares.
    fn narrowed(self) -> Self {
        let low = |value: u64| value & 0xffff_ffff;
        match self {
            Self::Equal(value) => Self::Equal(low(value)),
            Self::NotEqual(value) => Self::NotEqual(low(value)),
            Self::Greater(value) => Self::Greater(low(value)),
            Self::GreaterEqual(value) => Self::GreaterEqual(low(value)),
            Self::Less(value) => Self::Less(low(value)),
            Self::LessEqual(value) => Self::LessEqual(low(value)),
            Self::MaskedEqual { mask, value } => Self::MaskedEqual { mask: low(mask), value: low(value) },
        }
    }

    /// Whether it holds of an argument.
    pub fn holds(self, argument: u64) -> bool {
        match self {
            Self::Equal(value) => argument == value,
            Self::NotEqual(value) => argument != value,
            Self::Greater(value) => argument > value,
            Self::GreaterEqual(value) => argument >= value,
            Self::Less(value) => argument < value,
            Self::LessEqual(value) => argument <= value,
            Self::MaskedEqual { mask, value } => argument & mask == value,
        }
    }
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// What must hold of it.
    pub test: Test,
}

/// An action, if every condition holds (none: always).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What becomes of the call then.
    pub action: Action,
}

/// What becomes of every system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    default: Action,
    unknown: Action,
    tables: Vec<Table>,
}

/// What becomes of the calls of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    architecture: Architecture,
    last_known: u32,
    rules: BTreeMap<u32, Vec<Rule>>,
}

/// Where the numbers of the x32 ABI begin (`__X32_SYSCALL_BIT`).
const X32_BEGIN: u32 = 0x4000_0000;
/// What they get where the filter does not name that ABI.
const NO_X32: Action = Action::Errno(libc::ENOSYS as u16);

impl Filter {
    /// A filter without rules over these architectures. `default` is for numbers up to and including `last_known`,
    /// `unknown` for those beyond.
    pub fn new(architectures: &[Architecture], default: Action, last_known: u32, unknown: Action) -> Self {
        let table = |&architecture: &Architecture| Table { architecture, last_known, rules: BTreeMap::new() };
        Self { default, unknown, tables: architectures.iter().map(table).collect() }
    }

    /// The last number of one architecture that gets `default`.
    pub fn known_to(&mut self, architecture: Architecture, last_known: u32) {
        if let Some(table) = self.tables.iter_mut().find(|table| table.architecture == architecture) {
            table.last_known = last_known;
        }
    }

    /// Add a rule for the system call of this name, after those it has, on each architecture that has such a call.
    /// Returns on how many: 0 may be a misspelling.
    pub fn rule(&mut self, name: &str, conditions: &[Condition], action: Action) -> usize {
        let mut found = 0;
        for table in &mut self.tables {
            if let Some(number) = table.architecture.number(name) {
                let conditions = table.architecture.conditions(conditions);
                table.rules.entry(number).or_default().push(Rule { conditions, action });
                found += 1;
            }
        }
        found
    }

    /// Add a rule for a number of one architecture, after those it has.
    pub fn rule_for_number(&mut self, architecture: Architecture, number: u32, rule: Rule) {
        if let Some(table) = self.tables.iter_mut().find(|table| table.architecture == architecture) {
            table.rules.entry(number).or_default().push(rule);
        }
    }

    /// The program that says the same. It depends on nothing but the filter: make it once.
    ///
    /// # Errors
    /// When it is longer than [`INSTRUCTIONS_MAX`], or a condition is on an argument past 5.
    pub fn compile(&self) -> Result<Program, SeccompError> {
        compile::compile(self)
    }

    /// What becomes of one call, read rule by rule: what the program must do, and what a test of a profile asks. The
    /// number is as the kernel has it: an x32 call is one of x86-64 with bit 30 set.
    pub fn action(&self, architecture: Architecture, number: u32, arguments: [u64; 6]) -> Action {
        let x32 = architecture.audit() == Architecture::X32.audit() && number >= X32_BEGIN;
        let architecture = match architecture {
            Architecture::X86_64 if x32 => Architecture::X32,
            Architecture::X32 if !x32 => Architecture::X86_64,
            same => same,
        };
        let Some(table) = self.table(architecture) else {
            return if x32 && self.table(Architecture::X86_64).is_some() { NO_X32 } else { Action::KillProcess };
        };
        let number = if x32 { number - X32_BEGIN } else { number };
        let holds = |condition: &Condition| {
            arguments.get(usize::from(condition.argument)).is_some_and(|&argument| condition.test.holds(argument))
        };
        table
            .rules
            .get(&number)
            .and_then(|rules| rules.iter().find(|rule| rule.conditions.iter().all(holds)))
            .map_or_else(|| self.otherwise(table, number), |rule| rule.action)
    }

    fn table(&self, architecture: Architecture) -> Option<&Table> {
        self.tables.iter().find(|table| table.architecture == architecture)
    }

    fn otherwise(&self, table: &Table, number: u32) -> Action {
        if number > table.last_known { self.unknown } else { self.default }
    }
}
