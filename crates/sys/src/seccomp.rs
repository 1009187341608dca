//! System call filters: a [`Filter`] says what becomes of each call, [`Filter::compile`] makes the BPF program that
//! the kernel runs before every one, [`install`] puts it over the calling thread for good.
//!
//! A compiler of our own, because the ones there are lack architectures or per-rule errors, and because a program
//! that compares call numbers one after the other costs 0.99 ms to install where a search tree costs 0.24
//! (`kernel.md` 9). It compiles once and hands the program on as bytes; the process that installs it allocates nothing.
//!
//! Deliberately absent: profiles (which calls are allowed is `runtime::seccomp`'s business), user notification, and
//! big-endian machines.
//!
//! Words: a **rule** is an action under conditions on the arguments, all of which must hold; a number's rules are
//! tried in their order and the first that holds decides; else the filter's **default** does. Numbers beyond
//! `last_known` that have no rule get `unknown`: a program that probes for a newer system call must see ENOSYS
//! and fall back, where EPERM would make it give up (runc does the same since 1.0-rc93). The x32 ABI, whose numbers are
//! those of x86-64 with bit 30 set, ends there as well: it answers ENOSYS, as on a kernel built without it.
//! A call from an architecture that the filter does not name kills the process.

mod architecture;
mod compile;
mod program;

use std::collections::BTreeMap;

pub use architecture::Architecture;
pub use program::{Program, install};

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
    last_known: u32,
    architectures: Vec<(Architecture, BTreeMap<u32, Vec<Rule>>)>,
}

impl Filter {
    /// A filter without rules over these architectures. `default` is for numbers up to and including `last_known`,
    /// `unknown` for those beyond.
    pub fn new(architectures: &[Architecture], default: Action, last_known: u32, unknown: Action) -> Self {
        let architectures = architectures.iter().map(|&architecture| (architecture, BTreeMap::new())).collect();
        Self { default, unknown, last_known, architectures }
    }

    /// Add a rule for the system call of this name, after those it has, on each architecture that has such a call.
    /// Returns on how many: 0 may be a misspelling.
    pub fn rule(&mut self, name: &str, conditions: &[Condition], action: Action) -> usize {
        let mut found = 0;
        for (architecture, rules) in &mut self.architectures {
            if let Some(number) = architecture.number(name) {
                rules.entry(number).or_default().push(Rule { conditions: conditions.to_vec(), action });
                found += 1;
            }
        }
        found
    }

    /// Add a rule for a number of one architecture, after those it has.
    pub fn rule_for_number(&mut self, architecture: Architecture, number: u32, rule: Rule) {
        if let Some((_, rules)) = self.architectures.iter_mut().find(|(named, _)| *named == architecture) {
            rules.entry(number).or_default().push(rule);
        }
    }

    /// The program that says the same. It depends on nothing but the filter: make it once.
    ///
    /// # Errors
    /// When it is longer than [`INSTRUCTIONS_MAX`], or a condition is on an argument past 5.
    pub fn compile(&self) -> Result<Program, SeccompError> {
        compile::compile(self)
    }

    /// What becomes of one call, read rule by rule: what the program must do, and what a test of a profile asks.
    pub fn action(&self, architecture: Architecture, number: u32, arguments: [u64; 6]) -> Action {
        let Some((_, rules)) = self.architectures.iter().find(|(named, _)| *named == architecture) else {
            return Action::KillProcess;
        };
        let holds = |condition: &Condition| {
            arguments.get(usize::from(condition.argument)).is_some_and(|&argument| condition.test.holds(argument))
        };
        rules
            .get(&number)
            .and_then(|rules| rules.iter().find(|rule| rule.conditions.iter().all(holds)))
            .map_or_else(|| self.otherwise(number), |rule| rule.action)
    }

    fn otherwise(&self, number: u32) -> Action {
        if number > self.last_known { self.unknown } else { self.default }
    }
}
