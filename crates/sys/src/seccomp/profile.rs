//! Profiles as the OCI runtime-spec has them (1.2, config-linux.md, "Seccomp"), in its own words, which are Docker's and
//! Podman's too: [`Profile::compile`] makes the program.
//!
//! What runc (with libseccomp) makes of a profile is the measure, also where the specification says nothing:
//!
//! - The machine's own architecture is always meant, named or not. Those of other machines are accepted and mean
//!   nothing here; a name that nobody knows is refused.
//! - A rule whose action is the default one says nothing. Of a call's other rules one without conditions decides alone,
//!   wherever it stands; else the first whose conditions hold.
//! - Conditions are AND; but where two are on one argument, each is a rule of its own (OR).
//! - Names that no architecture has are left out: a profile is written for newer kernels too.
//! - Where the default forbids, a number beyond the highest that the profile names is ENOSYS, an architecture each.
//! - What 32-bit x86 can also do through `socketcall` and `ipc` is ruled there too. Behind those no argument can be seen:
//!   a rule that permits under conditions is not carried over, one that forbids is, without them.

use std::collections::{BTreeMap, BTreeSet};

use super::program::supported;
use super::{Action, Architecture, Condition, Filter, Flags, Program, Rule, SeccompError, Test, UnknownArchitecture};

/// The actions that a profile may name.
pub const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The operators of its conditions.
pub const OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// The architectures whose calls can be told apart; others are accepted and ignored.
pub const ARCHITECTURES: &[&str] =
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// The flags that a profile may name. TSYNC means nothing: a process that is about to execute a program has one thread.
pub const FLAGS: &[&str] = &[LOG, SPEC_ALLOW, TSYNC, WAIT_KILLABLE];

const LOG: &str = "SECCOMP_FILTER_FLAG_LOG";
const SPEC_ALLOW: &str = "SECCOMP_FILTER_FLAG_SPEC_ALLOW";
const TSYNC: &str = "SECCOMP_FILTER_FLAG_TSYNC";
const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// What a process hands its listener over by, here and in runc: nobody could answer yet.
const HANDING_OVER: &[&str] = &["sendmsg", "write"];

const EPERM: u32 = 1;
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);

/// `linux.seccomp` of a bundle's configuration, its strings as they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `defaultAction`.
    pub default_action: String,
    /// `defaultErrnoRet`.
    pub default_errno: Option<u32>,
    /// `architectures`.
    pub architectures: Vec<String>,
    /// `flags`.
    pub flags: Vec<String>,
    /// `syscalls`.
    pub calls: Vec<Call>,
}

/// One of `syscalls`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// `names`.
    pub names: Vec<String>,
    /// `action`.
    pub action: String,
    /// `errnoRet`.
    pub errno: Option<u32>,
    /// `args`.
    pub arguments: Vec<Argument>,
}

/// One of `args`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Argument {
    /// `index`, from 0 to 5.
    pub index: u32,
    /// `value`; of `SCMP_CMP_MASKED_EQ` the mask.
    pub value: u64,
    /// `valueTwo`; of `SCMP_CMP_MASKED_EQ` what the masked argument must be.
    pub value_two: u64,
    /// `op`.
    pub operator: String,
}

/// A profile's program, and how to install it ([`install_with`](super::install_with)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The program.
    pub program: Program,
    /// With [`Flags::listener`] where a rule notifies.
    pub flags: Flags,
}

/// Why a profile is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No such architecture.
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    /// No such action.
    #[error("{0:?} is no action of a seccomp profile: use one of {list}", list = ACTIONS.join(", "))]
    Action(String),
    /// No such operator.
    #[error("{0:?} is no operator of a seccomp profile: use one of {list}", list = OPERATORS.join(", "))]
    Operator(String),
    /// No such flag.
    #[error("{0:?} is no flag of a seccomp profile: use some of {list}", list = FLAGS.join(", "))]
    Flag(String),
    /// There are six arguments.
    #[error("the seccomp profile has a condition on argument {index} of {name}: there are 0 to 5")]
    Index {
        /// The call.
        name: String,
        /// The argument.
        index: u32,
    },
    /// A call has no name.
    #[error("the seccomp profile has a system call without a name")]
    Nameless,
    /// SCMP_ACT_NOTIFY where it can only end in waiting for ever.
    #[error(
        "SCMP_ACT_NOTIFY is not possible for {0}: the container's own start would wait for an answer that nobody gives"
    )]
    Notify(String),
    /// It has no program.
    #[error(transparent)]
    Program(#[from] SeccompError),
}

/// Those of [`FLAGS`] that the running kernel knows.
pub fn supported_flags() -> Vec<&'static str> {
    let known = |flag: &str| match flag {
        LOG => supported(Flags { log: true, ..Flags::default() }),
        SPEC_ALLOW => supported(Flags { speculation_allowed: true, ..Flags::default() }),
        WAIT_KILLABLE => supported(Flags { listener: true, wait_killable: true, ..Flags::default() }),
        _ => true,
    };
    FLAGS.iter().copied().filter(|flag| known(flag)).collect()
}

impl Profile {
    /// The program that says the same. Compiling takes about a millisecond.
    ///
    /// # Errors
    /// [`ProfileError`]: what is not understood is refused, never left out.
    pub fn compile(&self) -> Result<Compiled, ProfileError> {
        let flags = self.flags()?;
        let program = self.filter(Architecture::native())?.compile()?;
        Ok(Compiled { program, flags })
    }

    fn flags(&self) -> Result<Flags, ProfileError> {
        let mut flags = Flags::default();
        for flag in &self.flags {
            match flag.as_str() {
                LOG => flags.log = true,
                SPEC_ALLOW => flags.speculation_allowed = true,
                TSYNC => {}
                WAIT_KILLABLE => flags.wait_killable = true,
                _ => return Err(ProfileError::Flag(shown(flag))),
            }
        }
        flags.listener = self.calls.iter().any(|call| call.action == "SCMP_ACT_NOTIFY");
        Ok(flags)
    }

    /// On a machine whose own architecture is `machine`.
    fn filter(&self, machine: Architecture) -> Result<Filter, ProfileError> {
        let default = action(&self.default_action, self.default_errno)?;
        if default == Action::Notify {
            return Err(ProfileError::Notify("every call".into()));
        }
        let mut architectures = vec![machine];
        for name in &self.architectures {
            let named = Architecture::of_name(name)?.filter(|named| named.runs_on(machine));
            architectures.extend(named.filter(|named| !architectures.contains(named)));
        }
        let permits = matches!(default, Action::Allow | Action::Log | Action::Trace(_));
        let mut filter = Filter::new(&architectures, default, u32::MAX, ENOSYS);
        let calls = self.calls.iter().map(Rules::of).collect::<Result<Vec<_>, _>>()?;
        for &architecture in &architectures {
            // each name is looked up once: that is most of the time
            let numbered = |call| {
                move |name: &String| Named {
                    call,
                    through: architecture.multiplexed(name),
                    number: architecture.number(name),
                }
            };
            let named: Vec<Named<'_>> = calls.iter().flat_map(|call| call.names.iter().map(numbered(call))).collect();
            let highest = named.iter().filter_map(|named| named.number).max();
            // without a single call that it has, nothing is known of it
            if let (false, Some(highest)) = (permits, highest) {
                filter.known_to(architecture, highest);
            }
            for (number, rules) in rules_of(architecture, &named, default) {
                for rule in rules {
                    filter.rule_for_number(architecture, number, rule);
                }
            }
        }
        Ok(filter)
    }
}

/// What one of `syscalls` says of each of its calls.
struct Rules<'profile> {
    names: &'profile [String],
    action: Action,
    /// One of them must hold, all of its conditions.
    alternatives: Vec<Vec<Condition>>,
}

impl<'profile> Rules<'profile> {
    fn of(call: &'profile Call) -> Result<Self, ProfileError> {
        let action = action(&call.action, call.errno)?;
        if call.names.is_empty() || call.names.iter().any(String::is_empty) {
            return Err(ProfileError::Nameless);
        }
        if action == Action::Notify
            && let Some(name) = call.names.iter().find(|name| HANDING_OVER.contains(&name.as_str()))
        {
            return Err(ProfileError::Notify(name.clone()));
        }
        let mut conditions = Vec::with_capacity(call.arguments.len());
        let mut arguments = BTreeSet::new();
        for argument in &call.arguments {
            let test = test(argument)?;
            match u8::try_from(argument.index) {
                Ok(index @ 0..=5) => conditions.push(Condition { argument: index, test }),
                _ => return Err(ProfileError::Index { name: shown(&call.names[0]), index: argument.index }),
            }
            arguments.insert(argument.index);
        }
        let alternatives = if arguments.len() == conditions.len() {
            vec![conditions]
        } else {
            conditions.into_iter().map(|condition| vec![condition]).collect()
        };
        Ok(Self { names: &call.names, action, alternatives })
    }
}

/// One of its calls, on one architecture.
struct Named<'profile> {
    call: &'profile Rules<'profile>,
    number: Option<u32>,
    /// The call that it can be made through as well, and the first argument of that.
    through: Option<(&'static str, u64)>,
}

/// The rules of each number, those that decide.
fn rules_of(architecture: Architecture, named: &[Named<'_>], default: Action) -> BTreeMap<u32, Vec<Rule>> {
    let mut found: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for &Named { call, number, through } in named.iter().filter(|named| named.call.action != default) {
        for conditions in &call.alternatives {
            let rule = |conditions: &[Condition]| Rule {
                conditions: architecture.conditions(conditions),
                action: call.action,
            };
            if let Some(number) = number {
                found.entry(number).or_default().push(rule(conditions));
            }
            let Some((through, first)) = through else { continue };
            let forbids = !matches!(call.action, Action::Allow | Action::Log | Action::Trace(_));
            if let Some(number) = architecture.number(through).filter(|_| forbids || conditions.is_empty()) {
                let which = Condition { argument: 0, test: Test::Equal(first) };
                found.entry(number).or_default().push(rule(&[which]));
            }
        }
    }
    for rules in found.values_mut() {
        if let Some(alone) = rules.iter().find(|rule| rule.conditions.is_empty()).cloned() {
            *rules = vec![alone];
        }
    }
    found
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    let number = || u16::try_from(errno.unwrap_or(EPERM)).unwrap_or(u16::MAX);
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number()),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        "SCMP_ACT_TRACE" => Action::Trace(number()),
        "SCMP_ACT_TRAP" => Action::Trap,
        _ => return Err(ProfileError::Action(shown(name))),
    })
}

fn test(argument: &Argument) -> Result<Test, ProfileError> {
    let value = argument.value;
    Ok(match argument.operator.as_str() {
        "SCMP_CMP_EQ" => Test::Equal(value),
        "SCMP_CMP_GE" => Test::GreaterEqual(value),
        "SCMP_CMP_GT" => Test::Greater(value),
        "SCMP_CMP_LE" => Test::LessEqual(value),
        "SCMP_CMP_LT" => Test::Less(value),
        "SCMP_CMP_MASKED_EQ" => Test::MaskedEqual { mask: value, value: argument.value_two & value },
        "SCMP_CMP_NE" => Test::NotEqual(value),
        other => return Err(ProfileError::Operator(shown(other))),
    })
}

/// What a message quotes of somebody's text.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
