//! Filter → BPF: a search tree over ranges of system call numbers.
//!
//! ```text
//!         ld arch
//!         jeq X86_64 ─▶ ld nr ─▶ tree of `jge` over ranges that share an outcome ─▶ ret | rules of one number
//!                                (x32 is in it, from bit 30 on)
//!         jeq X86    ─▶ ld nr ─▶ …
//!         ret kill
//! ```
//!
//! BPF jumps go forward only, so the program is laid out from its end: whatever is jumped to is already there, and a
//! place is known by its distance from the end. Conditional jumps reach 255 instructions; a target farther away gets
//! an unconditional one on the way, or, where it only returns, is written again nearby, which costs the same.

use std::collections::{BTreeMap, HashMap};

use super::{Action, Architecture, Condition, Filter, NO_X32, Program, Rule, SeccompError, Table, Test, X32_BEGIN};

// `struct seccomp_data`: number, architecture, instruction pointer, six arguments
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

// a 64-bit argument is read as two words, the lower one first
#[cfg(not(target_endian = "little"))]
compile_error!("system call filters are written for little-endian machines only");

pub(super) const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub(super) const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
pub(super) const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
pub(super) const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
pub(super) const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
pub(super) const IF_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
pub(super) const IF_GREATER_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

pub(super) fn compile(filter: &Filter) -> Result<Program, SeccompError> {
    filter.tables.iter().try_for_each(|table| check(&table.rules))?;
    let mut code = Code::default();
    let mut next = code.ret(Action::KillProcess);
    let mut audits: Vec<u32> = filter.tables.iter().map(|table| table.architecture.audit()).collect();
    // x32 is not told apart by the kernel's number of the architecture
    audits.sort_unstable();
    audits.dedup();
    // the machine's own is asked for first
    audits.sort_by_key(|&audit| audit == Architecture::native().audit());
    for audit in audits {
        let tree = code.tree(&outcomes(filter, audit));
        let begin = code.op(LOAD, NUMBER, tree);
        let kill = code.near(next);
        next = code.branch(IF_EQUAL, audit, begin, kill);
    }
    code.op(LOAD, ARCHITECTURE, next);
    code.finish()
}

/// The outcomes of all numbers of what the kernel takes for one architecture.
fn outcomes(filter: &Filter, audit: u32) -> Vec<(u32, Outcome<'_>)> {
    let of = |architecture| filter.table(architecture).map(|table| ranges(filter, table));
    if audit != Architecture::X32.audit() {
        let table = filter.tables.iter().find(|table| table.architecture.audit() == audit);
        return table.map(|table| ranges(filter, table)).unwrap_or_default();
    }
    let mut all = of(Architecture::X86_64).unwrap_or_else(|| vec![(0, Outcome::Action(Action::KillProcess))]);
    all.retain(|(begin, _)| *begin < X32_BEGIN);
    match of(Architecture::X32) {
        Some(x32) => {
            all.extend(x32.into_iter().filter_map(|(begin, outcome)| Some((begin.checked_add(X32_BEGIN)?, outcome))))
        }
        None => all.push((X32_BEGIN, Outcome::Action(NO_X32))),
    }
    all.dedup_by(|later, earlier| later.1 == earlier.1);
    all
}

fn check(rules: &BTreeMap<u32, Vec<Rule>>) -> Result<(), SeccompError> {
    let mut conditions = rules.iter().flat_map(|(&number, rules)| {
        rules.iter().flat_map(move |r| r.conditions.iter().map(move |c| (number, c.argument)))
    });
    match conditions.find(|&(_, argument)| argument > 5) {
        Some((number, argument)) => Err(SeccompError::BadArgument { number, argument }),
        None => Ok(()),
    }
}

/// What becomes of the numbers from one on.
#[derive(Debug, PartialEq)]
enum Outcome<'filter> {
    Action(Action),
    Rules(&'filter [Rule], Action),
}

/// The outcomes of all numbers from 0 on, each with the number it begins at, neighbours of one outcome merged.
fn ranges<'filter>(filter: &Filter, table: &'filter Table) -> Vec<(u32, Outcome<'filter>)> {
    let rules = &table.rules;
    let mut ranges: Vec<(u32, Outcome<'_>)> = Vec::new();
    let mut push = |begin: u32, outcome: Outcome<'filter>| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((begin, outcome));
        }
    };
    let mut starts: Vec<u32> =
        rules.keys().flat_map(|&number| [Some(number), number.checked_add(1)]).flatten().collect();
    starts.extend([Some(0), table.last_known.checked_add(1)].into_iter().flatten());
    starts.sort_unstable();
    starts.dedup();
    for start in starts {
        let otherwise = filter.otherwise(table, start);
        push(
            start,
            match rules.get(&start).map(Vec::as_slice) {
                None | Some([]) => Outcome::Action(otherwise),
                Some([first, ..]) if first.conditions.is_empty() => Outcome::Action(first.action),
                Some(rules) => Outcome::Rules(rules, otherwise),
            },
        );
    }
    ranges
}

/// A place in the program: how many instructions follow it, itself included.
type Place = usize;

/// The program, its last instruction first.
#[derive(Default)]
struct Code {
    backwards: Vec<libc::sock_filter>,
    returns: HashMap<Action, Place>,
}

impl Code {
    /// How far a conditional jump reaches, less what the two detours of one branch take.
    const REACH: usize = 250;

    fn put(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Place {
        // the operation codes are all below 0x100
        self.backwards.push(libc::sock_filter { code: code as u16, jt, jf, k });
        self.backwards.len()
    }

    fn is_next(&self, place: Place) -> bool {
        place == self.backwards.len()
    }

    /// Return this action; the last such instruction, if it is near enough.
    fn ret(&mut self, action: Action) -> Place {
        match self.returns.get(&action) {
            Some(&place) if self.backwards.len() - place < Self::REACH => place,
            _ => {
                let place = self.put(RETURN, 0, 0, action.code());
                self.returns.insert(action, place);
                place
            }
        }
    }

    /// A place from which a conditional jump just before here gets to `target`.
    fn near(&mut self, target: Place) -> Place {
        match self.backwards.len() - target {
            ..Self::REACH => target,
            distance => self.put(JUMP, 0, 0, distance as u32),
        }
    }

    /// An instruction that is not a jump, and goes on at `next`.
    fn op(&mut self, code: u32, k: u32, next: Place) -> Place {
        if !self.is_next(next) {
            let distance = self.backwards.len() - next;
            self.put(JUMP, 0, 0, distance as u32);
        }
        self.put(code, 0, 0, k)
    }

    fn branch(&mut self, test: u32, k: u32, yes: Place, no: Place) -> Place {
        let yes = self.near(yes);
        let no = self.near(no);
        let distance = |target| u8::try_from(self.backwards.len() - target).expect("`near` keeps it below 253");
        let (jt, jf) = (distance(yes), distance(no));
        self.put(test, jt, jf, k)
    }

    fn tree(&mut self, ranges: &[(u32, Outcome<'_>)]) -> Place {
        match ranges {
            [] => unreachable!("there is a range from 0 on"),
            [(_, Outcome::Action(action))] => self.ret(*action),
            [(_, Outcome::Rules(rules, otherwise))] => self.rules(rules, *otherwise),
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let yes = self.tree(upper);
                let no = self.tree(lower);
                self.branch(IF_GREATER_EQUAL, upper[0].0, yes, no)
            }
        }
    }

    /// The first rule that holds decides.
    fn rules(&mut self, rules: &[Rule], otherwise: Action) -> Place {
        let mut next = self.ret(otherwise);
        for rule in rules.iter().rev() {
            let mut holds = self.ret(rule.action);
            for condition in rule.conditions.iter().rev() {
                holds = self.condition(condition, holds, next);
            }
            next = holds;
        }
        next
    }

    fn condition(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        let low = ARGUMENTS + ARGUMENT_BYTES * u32::from(condition.argument);
        match condition.test {
            Test::Equal(value) => self.equal(low, None, value, yes, no),
            Test::NotEqual(value) => self.equal(low, None, value, no, yes),
            Test::MaskedEqual { mask, value } => self.equal(low, Some(mask), value, yes, no),
            Test::Greater(value) => self.greater(low, IF_GREATER, value, yes, no),
            Test::GreaterEqual(value) => self.greater(low, IF_GREATER_EQUAL, value, yes, no),
            Test::Less(value) => self.greater(low, IF_GREATER_EQUAL, value, no, yes),
            Test::LessEqual(value) => self.greater(low, IF_GREATER, value, no, yes),
        }
    }

    fn equal(&mut self, at: u32, mask: Option<u64>, value: u64, yes: Place, no: Place) -> Place {
        let low = self.word_equal(at, mask.map(|m| m as u32), value as u32, yes, no);
        self.word_equal(at + 4, mask.map(|m| (m >> 32) as u32), (value >> 32) as u32, low, no)
    }

    fn word_equal(&mut self, at: u32, mask: Option<u32>, value: u32, yes: Place, no: Place) -> Place {
        let mut begin = self.branch(IF_EQUAL, value, yes, no);
        if let Some(mask) = mask {
            begin = self.op(AND, mask, begin);
        }
        self.op(LOAD, at, begin)
    }

    /// The upper words decide, unless they are equal: then `test` on the lower ones does.
    fn greater(&mut self, at: u32, test: u32, value: u64, yes: Place, no: Place) -> Place {
        let low = self.branch(test, value as u32, yes, no);
        let low = self.op(LOAD, at, low);
        let equal = self.branch(IF_EQUAL, (value >> 32) as u32, low, no);
        let high = self.branch(IF_GREATER, (value >> 32) as u32, yes, equal);
        self.op(LOAD, at + 4, high)
    }

    fn finish(mut self) -> Result<Program, SeccompError> {
        self.backwards.reverse();
        Program::new(self.backwards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::simulator::{Dice, run};

    const ENOSYS: Action = Action::Errno(38);
    const BOTH: &[Architecture] = &[Architecture::X86_64, Architecture::X86];
    const ALL: &[Architecture] =
        &[Architecture::X86, Architecture::X32, Architecture::Arm, Architecture::X86_64, Architecture::Aarch64];

    impl Dice {
        fn action(&mut self) -> Action {
            [
                Action::Allow,
                Action::Errno(1),
                Action::Errno(77),
                Action::Log,
                Action::Trap,
                Action::Trace(7),
                Action::Notify,
                Action::KillThread,
            ][self.below(8) as usize]
        }

        fn rule(&mut self) -> Rule {
            let conditions = (0..self.below(4))
                .map(|_| {
                    let (value, mask) = (self.value(), self.value());
                    let test = match self.below(7) {
                        0 => Test::Equal(value),
                        1 => Test::NotEqual(value),
                        2 => Test::Greater(value),
                        3 => Test::GreaterEqual(value),
                        4 => Test::Less(value),
                        5 => Test::LessEqual(value),
                        _ => Test::MaskedEqual { mask, value: value & mask },
                    };
                    Condition { argument: self.below(6) as u8, test }
                })
                .collect();
            Rule { conditions, action: self.action() }
        }
    }

    fn agree(filter: &Filter, dice: &mut Dice) {
        let program = filter.compile().unwrap();
        for architecture in [Architecture::X86_64, Architecture::X86, Architecture::Aarch64] {
            let x32 = (X32_BEGIN..X32_BEGIN + 600).filter(|_| architecture == Architecture::X86_64);
            for number in (0..600).chain(x32).chain([0x0f_0005, 0x4000_0000, 0x4000_0001, 0x8000_0000, u32::MAX]) {
                for _ in 0..4 {
                    let arguments = std::array::from_fn(|_| dice.value());
                    assert_eq!(
                        run(&program, architecture.audit(), number, arguments),
                        filter.action(architecture, number, arguments).code(),
                        "{architecture:?} {number} {arguments:x?} in {filter:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn random_filters_compile_to_what_they_say() {
        let mut dice = Dice(0x5a_17_9a_11);
        for round in 0..40 {
            // 64-bit x86 may be missing beside x32, and the other way round
            let architectures = &ALL[..1 + dice.below(5) as usize];
            let mut filter = Filter::new(architectures, dice.action(), dice.below(500) as u32, ENOSYS);
            for &architecture in architectures {
                filter.known_to(architecture, dice.below(700) as u32);
            }
            // from a handful of numbers to hundreds with rules: far jumps in both kinds of trees
            for _ in 0..dice.below(10 + 6 * round) {
                let architecture = architectures[dice.below(architectures.len() as u64) as usize];
                let number = dice.below(600) as u32;
                let rule = dice.rule();
                filter.rule_for_number(architecture, number, rule);
            }
            agree(&filter, &mut dice);
        }
    }

    #[test]
    fn borders() {
        let mut dice = Dice(7);
        let everything = Rule { conditions: vec![], action: Action::Log };
        let mut edges = Filter::new(BOTH, Action::Errno(1), u32::MAX, ENOSYS);
        edges.rule_for_number(Architecture::X86, 0, everything.clone());
        edges.rule_for_number(Architecture::X86, u32::MAX, everything);
        for filter in [Filter::new(&[], Action::Allow, 0, ENOSYS), Filter::new(BOTH, Action::Allow, 0, ENOSYS), edges] {
            agree(&filter, &mut dice);
        }
    }

    #[test]
    fn x32_is_unknown() {
        let mut filter = Filter::new(BOTH, Action::Errno(1), 466, ENOSYS);
        filter.rule("read", &[], Action::Allow);
        let program = filter.compile().unwrap();
        let of = |number| run(&program, Architecture::X86_64.audit(), number, [0; 6]);
        assert_eq!([of(0), of(1), of(467), of(0x4000_0000)].map(|code| code & 0xffff), [0, 1, 38, 38]);
    }

    #[test]
    fn too_much_is_refused() {
        let mut filter = Filter::new(BOTH, Action::Errno(1), 466, ENOSYS);
        let condition = |value| Condition { argument: 0, test: Test::Equal(value) };
        for value in 0..2000 {
            filter.rule("read", &[condition(value)], Action::Allow);
        }
        assert!(matches!(filter.compile(), Err(SeccompError::TooLong(length)) if length > 4096));
        let mut filter = Filter::new(BOTH, Action::Errno(1), 466, ENOSYS);
        filter.rule("close", &[Condition { argument: 6, test: Test::Equal(0) }], Action::Allow);
        assert_eq!(filter.compile(), Err(SeccompError::BadArgument { number: 3, argument: 6 }));
    }

    #[test]
    fn a_number_takes_few_steps() {
        let mut filter = Filter::new(BOTH, Action::Errno(1), 466, ENOSYS);
        for number in (0..460).step_by(2) {
            filter.rule_for_number(Architecture::X86_64, number, Rule { conditions: vec![], action: Action::Allow });
        }
        // 461 ranges: a list would be walked for hundreds of instructions, the tree is 9 deep
        assert!(filter.compile().unwrap().len() < 1000);
    }
}
