//! Which device nodes the processes of a cgroup may open and make: rules in an order, what is left of them as a whole
//! ([`Set`]), and how a cgroup gets there. Version 1 has files for it (cgroup-v1/devices.rst), version 2 a BPF program
//! ([`bpf`]).
//!
//! Rules are read as version 1 does, on both: a rule over all devices forgets those before it and sets the default; any
//! other is an exception from the default, or takes one back. Taking back a part of a wider exception is refused, as by
//! runc: version 1 would quietly not do it.

pub(super) mod bpf;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use super::tree::Place;
use super::{CgroupError, Cgroups, file, path};

/// Which nodes a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// All of them, whatever their numbers, and all that can be done with them.
    All,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// What is done with a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// It is opened for reading.
    pub read: bool,
    /// It is opened for writing.
    pub write: bool,
    /// It is made.
    pub mknod: bool,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Which nodes.
    pub kind: DeviceKind,
    /// Their major number; `None`: any.
    pub major: Option<u32>,
    /// Their minor number; `None`: any.
    pub minor: Option<u32>,
    /// To do what.
    pub access: Access,
}

impl Access {
    /// All three.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// From letters, such as `rwm`; `None` where another is among them.
    pub fn of_letters(letters: &str) -> Option<Self> {
        let mut access = Self::default();
        for letter in letters.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        Some(access)
    }

    fn is_none(self) -> bool {
        self == Self::default()
    }

    fn with(self, other: Self) -> Self {
        Self { read: self.read || other.read, write: self.write || other.write, mknod: self.mknod || other.mknod }
    }

    fn without(self, other: Self) -> Self {
        Self { read: self.read && !other.read, write: self.write && !other.write, mknod: self.mknod && !other.mknod }
    }

    fn covers(self, other: Self) -> bool {
        other.without(self).is_none()
    }

    /// `BPF_DEVCG_ACC_…`
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, has) in [("r", self.read), ("w", self.write), ("m", self.mknod)] {
            if has {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl DeviceRule {
    /// Any node, to do anything: as the first of a list, what the others are exceptions from.
    pub const fn all(allow: bool) -> Self {
        Self { allow, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL }
    }

    /// Allows this.
    pub const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind, major, minor, access }
    }
}

const MAKE: Access = Access { read: false, write: false, mknod: true };

/// What a container may open: Docker's list (`runc`'s `AllowedDevices`), less `/dev/net/tun`, for which no container has
/// a node. `mknod` is free: making a node is harmless where opening it is not allowed.
pub const DOCKER_DEVICES: &[DeviceRule] = {
    use DeviceKind::{Block, Character};
    const fn open(major: u32, minor: Option<u32>) -> DeviceRule {
        DeviceRule::allow(Character, Some(major), minor, Access::ALL)
    }
    &[
        DeviceRule::allow(Character, None, None, MAKE),
        DeviceRule::allow(Block, None, None, MAKE),
        open(1, Some(3)), // null
        open(1, Some(5)), // zero
        open(1, Some(7)), // full
        open(1, Some(8)), // random
        open(1, Some(9)), // urandom
        open(5, Some(0)), // tty
        open(5, Some(1)), // console
        open(5, Some(2)), // ptmx
        open(136, None),  // pts
    ]
};

/// Everything, as exceptions: unlike [`DeviceRule::all`] version 1 takes them also where there are cgroups below.
pub const EVERY_DEVICE: &[DeviceRule] = &[
    DeviceRule::allow(DeviceKind::Character, None, None, Access::ALL),
    DeviceRule::allow(DeviceKind::Block, None, None, Access::ALL),
];

/// Which nodes an exception is about: never [`DeviceKind::All`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Nodes {
    major: Option<u32>,
    minor: Option<u32>,
    kind: DeviceKind,
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            DeviceKind::All => "a",
            DeviceKind::Character => "c",
            DeviceKind::Block => "b",
        };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What rules come to: a default, and the exceptions from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    allowed_by_default: bool,
    exceptions: BTreeMap<Nodes, Access>,
}

/// One write to `devices.allow` or `devices.deny`.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    allow: bool,
    text: String,
}

impl Set {
    /// The rules in their order, beginning with nothing allowed.
    pub fn of(rules: &[DeviceRule]) -> Result<Self, CgroupError> {
        let mut set = Self::default();
        rules.iter().try_for_each(|rule| set.apply(rule))?;
        Ok(set)
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<(), CgroupError> {
        if rule.kind == DeviceKind::All {
            *self = Self { allowed_by_default: rule.allow, exceptions: BTreeMap::new() };
            return Ok(());
        }
        let nodes = Nodes { kind: rule.kind, major: rule.major, minor: rule.minor };
        if rule.access.is_none() {
            return Ok(());
        }
        if rule.allow != self.allowed_by_default {
            let access = self.exceptions.entry(nodes).or_default();
            *access = access.with(rule.access);
            return Ok(());
        }
        let wider = [
            Nodes { major: None, ..nodes },
            Nodes { minor: None, ..nodes },
            Nodes { major: None, minor: None, ..nodes },
        ];
        for other in wider.into_iter().filter(|other| *other != nodes) {
            let access = self.exceptions.get(&other).copied().unwrap_or_default();
            if !access.without(access.without(rule.access)).is_none() {
                return Err(CgroupError::DeviceHole {
                    rule: format!("{nodes} {}", rule.access),
                    wider: format!("{other} {access}"),
                });
            }
        }
        if let Some(access) = self.exceptions.get_mut(&nodes) {
            *access = access.without(rule.access);
            if access.is_none() {
                self.exceptions.remove(&nodes);
            }
        }
        Ok(())
    }

    /// From the text of `devices.list`. What is denied where all else is allowed is not in it.
    fn of_list(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for line in text.lines() {
            let mut words = line.split([' ', ':']);
            let mut next = || words.next();
            let (kind, major, minor, access) = (next()?, next()?, next()?, next()?);
            let number = |word: &str| if word == "*" { Some(None) } else { word.parse().ok().map(Some) };
            let kind = match kind {
                "a" => return Some(Self { allowed_by_default: true, exceptions: BTreeMap::new() }),
                "c" => DeviceKind::Character,
                "b" => DeviceKind::Block,
                _ => return None,
            };
            let nodes = Nodes { kind, major: number(major)?, minor: number(minor)? };
            set.exceptions.insert(nodes, Access::of_letters(access)?);
        }
        Some(set)
    }

    /// What to write, and in which order, for a cgroup of version 1 that is at `self` to be at `target`. What is the same
    /// in both is not touched: for a moment nothing would be allowed.
    fn changes_to(&self, target: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let none = BTreeMap::new();
        let mut before = &self.exceptions;
        // of a cgroup that allows by default it cannot be read what it denies
        if self.allowed_by_default || target.allowed_by_default {
            if !(self.allowed_by_default && target.allowed_by_default && target.exceptions.is_empty()) {
                changes.push(Change { allow: target.allowed_by_default, text: "a".into() });
            }
            before = &none;
        }
        for (nodes, access) in before {
            let gone = access.without(target.exceptions.get(nodes).copied().unwrap_or_default());
            if !gone.is_none() {
                changes.push(Change { allow: target.allowed_by_default, text: format!("{nodes} {gone}") });
            }
        }
        for (nodes, access) in &target.exceptions {
            let new = access.without(before.get(nodes).copied().unwrap_or_default());
            if !new.is_none() {
                changes.push(Change { allow: !target.allowed_by_default, text: format!("{nodes} {new}") });
            }
        }
        changes
    }

    /// What a cgroup above, at `self`, must allow besides, for one below it to be at `target`.
    fn widenings_for(&self, target: &Self) -> Vec<Change> {
        if self.allowed_by_default {
            return Vec::new();
        }
        if target.allowed_by_default {
            return vec![Change { allow: true, text: "a".into() }];
        }
        let missing = target
            .exceptions
            .iter()
            .filter(|(nodes, access)| !self.exceptions.get(nodes).is_some_and(|own| own.covers(**access)));
        missing.map(|(nodes, access)| Change { allow: true, text: format!("{nodes} {access}") }).collect()
    }
}

/// [`DOCKER_DEVICES`], ready to be set.
#[derive(Debug, Clone)]
pub(super) struct DefaultDevices {
    set: Set,
    /// On version 2.
    program: Option<Arc<bpf::Program>>,
}

impl DefaultDevices {
    /// Loads the program, where one is needed.
    pub fn load(cgroups: &Cgroups) -> Result<Self, CgroupError> {
        let set = Set::of(DOCKER_DEVICES)?;
        let program = match (cgroups.home("devices"), cgroups.unified()) {
            (None, Some(unified)) => {
                let wrap = |source| CgroupError::DeviceProgram { path: unified.mount.clone(), source };
                Some(Arc::new(bpf::Program::load(&set).map_err(wrap)?))
            }
            _ => None,
        };
        Ok(Self { set, program })
    }

    /// Sets them where they belong, of a cgroup that was just made.
    pub fn set(&self, place: &Place) -> Result<(), CgroupError> {
        if place.has("devices") {
            return set_v1(&place.directory, &self.set);
        }
        let Some(program) = self.program.as_ref().filter(|_| place.hierarchy.is_unified()) else { return Ok(()) };
        let wrap = |source| CgroupError::DeviceProgram { path: place.directory.clone(), source };
        program.attach_first(path::open(&place.directory)?.as_fd()).map_err(wrap)
    }
}

/// Brings a cgroup of version 1 to these rules.
pub(super) fn set_v1(directory: &Path, target: &Set) -> Result<(), CgroupError> {
    write(directory, &current(directory)?.changes_to(target))
}

/// Lets a cgroup of version 1 allow what one below it is going to.
pub(super) fn widen_v1(directory: &Path, target: &Set) -> Result<(), CgroupError> {
    write(directory, &current(directory)?.widenings_for(target))
}

fn current(directory: &Path) -> Result<Set, CgroupError> {
    let path = directory.join("devices.list");
    let text = file::read(&path)?;
    Set::of_list(&text).ok_or_else(|| CgroupError::Parse { path, text: text.chars().take(80).collect() })
}

/// Each write is one rule; the files are opened once.
fn write(directory: &Path, changes: &[Change]) -> Result<(), CgroupError> {
    let mut open: [Option<std::fs::File>; 2] = [None, None];
    for change in changes {
        let path = directory.join(if change.allow { "devices.allow" } else { "devices.deny" });
        let slot = &mut open[usize::from(change.allow)];
        let result = match slot {
            Some(file) => Ok(file),
            None => std::fs::File::options().write(true).open(&path).map(|file| slot.insert(file)),
        };
        result
            .and_then(|file| file.write_all(change.text.as_bytes()))
            .map_err(|source: io::Error| CgroupError::Write { path, value: change.text.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> DeviceRule {
        let (allow, text) = text.split_at(1);
        let words: Vec<&str> = text.split([' ', ':']).collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
        let kind = match words[0] {
            "a" => return DeviceRule::all(allow == "+"),
            "c" => DeviceKind::Character,
            _ => DeviceKind::Block,
        };
        let access = Access::of_letters(words[3]).unwrap();
        DeviceRule { allow: allow == "+", kind, major: number(1), minor: number(2), access }
    }

    fn set(rules: &[&str]) -> Set {
        Set::of(&rules.iter().map(|text| rule(text)).collect::<Vec<_>>()).unwrap()
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| format!("{}{}", if change.allow { '+' } else { '-' }, change.text)).collect()
    }

    #[test]
    fn rules_come_to_a_set() {
        let check = |rules: &[&str], default: bool, exceptions: &[&str]| {
            let set = set(rules);
            let found: Vec<String> = set.exceptions.iter().map(|(nodes, access)| format!("{nodes} {access}")).collect();
            assert_eq!((set.allowed_by_default, found), (default, exceptions.iter().map(|&e| e.into()).collect()));
        };
        check(&[], false, &[]);
        check(&["-a", "+c 1:3 r", "+c 1:3 w"], false, &["c 1:3 rw"]);
        check(&["+c 1:3 rwm", "-c 1:3 m"], false, &["c 1:3 rw"]);
        check(&["+c 1:3 rwm", "-c 1:3 rwm", "-b 8:0 r"], false, &[]);
        check(&["+c 1:3 rwm", "+a", "-b 8:0 w"], true, &["b 8:0 w"]);
        check(&["+a", "-b 8:* rw", "+b 8:* rw"], true, &[]);
        check(&["+c *:* m", "-c 1:3 r"], false, &["c *:* m"]);
    }

    #[test]
    fn a_hole_is_refused() {
        for (rules, wider) in [
            (["+c *:* rw", "-c 1:3 r"], "c *:* rw"),
            (["+c 1:* r", "-c 1:3 rw"], "c 1:* r"),
            (["+c *:3 w", "-c 1:3 w"], "c *:3 w"),
        ] {
            let rules = rules.map(rule);
            assert!(matches!(Set::of(&rules), Err(CgroupError::DeviceHole { wider: found, .. }) if found == wider));
        }
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(Set::of_list("c *:* m\nb *:* m\nc 136:* rwm"), Some(set(&["+c *:* m", "+b *:* m", "+c 136:* rwm"])));
        assert_eq!(Set::of_list("a *:* rwm"), Some(set(&["+a"])));
        assert_eq!(Set::of_list(""), Some(Set::default()));
        for broken in ["c 1 rwm", "x 1:1 r", "c 1:1 q", "c -1:1 r"] {
            assert_eq!(Set::of_list(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let check = |from: &[&str], to: &[&str], expected: &[&str]| {
            assert_eq!(texts(&set(from).changes_to(&set(to))), expected, "{from:?} to {to:?}");
        };
        check(&["+a"], &["+c 1:3 rwm"], &["-a", "+c 1:3 rwm"]);
        check(&["+a"], &["+a"], &[]);
        check(&["+a"], &["+a", "-b 8:0 w"], &["+a", "-b 8:0 w"]);
        check(&["+c 1:3 rwm"], &["+c 1:3 rwm"], &[]);
        check(&["+c 1:3 rwm", "+c 5:0 r"], &["+c 1:3 r", "+b 8:0 r"], &["-c 1:3 wm", "-c 5:0 r", "+b 8:0 r"]);
        check(&["+c 1:3 r"], &["+a"], &["+a"]);
    }

    #[test]
    fn above_only_what_is_missing_is_added() {
        let check = |above: &[&str], below: &[&str], expected: &[&str]| {
            assert_eq!(texts(&set(above).widenings_for(&set(below))), expected, "{above:?} for {below:?}");
        };
        check(&["+a"], &["+c 1:3 rwm"], &[]);
        check(&["+c 1:3 rwm"], &["+c 1:3 r"], &[]);
        check(&["+c 1:3 r"], &["+c 1:3 rw", "+c 10:200 rwm"], &["+c 1:3 rw", "+c 10:200 rwm"]);
    }
}
