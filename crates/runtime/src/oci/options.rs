//! The words that a mount is asked for with, and what each does to it.
//!
//! They are mount(8)'s, those of the runtime specification ("Linux mount options", the recursive ones too) and runc's
//! `tmpcopyup`. A word that is none of them is the file system's own (`size=64m`, `hidepid=2`).

use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};

/// What the words of one mount say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Of what is there already, and whether with what is mounted below it.
    pub bind: Option<Depth>,
    /// Change a mount that is there.
    pub remount: bool,
    /// Attributes that it gets and loses.
    pub attributes: Attributes,
    /// The same, with the mounts below it.
    pub tree_attributes: Attributes,
    /// In their order.
    pub propagation: Vec<Propagation>,
    /// The file system's own: a word, or a word and its value.
    pub data: Vec<(String, Option<String>)>,
    /// Copy into a `tmpfs` what it covers.
    pub copy_up: bool,
    /// Show its owners through a map of ids.
    pub id_map: Option<Depth>,
}

/// A mount alone, or with those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    One,
    Tree,
}

/// Bits of `struct mount_attr`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub set: u32,
    pub clear: u32,
}

/// What becomes of mounts made on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`.
    pub flag: u32,
    pub depth: Depth,
}

pub(super) const READ_ONLY: u32 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits();
pub(super) const PRIVATE: u32 = MountPropagationFlags::PRIVATE.bits();
pub(super) const SLAVE: u32 = MountPropagationFlags::DOWNSTREAM.bits();
const SHARED: u32 = MountPropagationFlags::SHARED.bits();
const UNBINDABLE: u32 = MountPropagationFlags::UNBINDABLE.bits();
/// `MS_UNBINDABLE`, …, by the specification's words.
const PROPAGATIONS: &[(&str, u32)] =
    &[("private", PRIVATE), ("slave", SLAVE), ("shared", SHARED), ("unbindable", UNBINDABLE)];

/// All the times of access are one field.
const TIMES: u32 = MountAttrFlags::MOUNT_ATTR__ATIME.bits();
const NO_TIMES: u32 = MountAttrFlags::MOUNT_ATTR_NOATIME.bits();
const STRICT_TIMES: u32 = MountAttrFlags::MOUNT_ATTR_STRICTATIME.bits();
const NO_SUID: u32 = MountAttrFlags::MOUNT_ATTR_NOSUID.bits();
const NO_DEV: u32 = MountAttrFlags::MOUNT_ATTR_NODEV.bits();
const NO_EXEC: u32 = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits();
const NO_DIR_TIMES: u32 = MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits();
const NO_LINKS: u32 = MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.bits();

/// Each is there with an `r` before it too, for the whole tree: the word, what it sets and what it clears.
const ATTRIBUTES: &[(&str, u32, u32)] = &[
    ("ro", READ_ONLY, 0),
    ("rw", 0, READ_ONLY),
    ("nosuid", NO_SUID, 0),
    ("suid", 0, NO_SUID),
    ("nodev", NO_DEV, 0),
    ("dev", 0, NO_DEV),
    ("noexec", NO_EXEC, 0),
    ("exec", 0, NO_EXEC),
    ("nodiratime", NO_DIR_TIMES, 0),
    ("diratime", 0, NO_DIR_TIMES),
    ("relatime", 0, TIMES),
    ("norelatime", STRICT_TIMES, TIMES),
    ("noatime", NO_TIMES, TIMES),
    ("atime", 0, TIMES),
    ("strictatime", STRICT_TIMES, TIMES),
    ("nostrictatime", 0, TIMES),
    ("nosymfollow", NO_LINKS, 0),
    ("symfollow", 0, NO_LINKS),
];

/// A file system's as a whole: handed to it as they are.
const SUPERBLOCK: &[&str] =
    &["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion", "silent"];
/// Words that ask for what is so anyway.
const EMPTY: &[&str] = &["defaults", "loud", "acl", "noacl", "user", "nouser", "auto", "noauto", "_netdev", "nofail"];

impl Options {
    /// Reads the words of a mount.
    pub fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        match word {
            "bind" => self.bind = self.bind.or(Some(Depth::One)),
            "rbind" => self.bind = Some(Depth::Tree),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(Depth::One),
            "ridmap" => self.id_map = Some(Depth::Tree),
            _ if EMPTY.contains(&word) || word.is_empty() => {}
            _ if SUPERBLOCK.contains(&word) => self.data.push((word.to_owned(), None)),
            _ => {
                if let Some(propagation) = propagation(word) {
                    self.propagation.push(propagation);
                } else if let Some(&(_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == word) {
                    self.attributes.add(set, clear);
                } else if let Some(&(_, set, clear)) = recursive(word) {
                    self.tree_attributes.add(set, clear);
                } else {
                    let pair = word.split_once('=');
                    let pair = pair.map_or((word, None), |(key, value)| (key, Some(value.to_owned())));
                    self.data.push((pair.0.to_owned(), pair.1));
                }
            }
        }
    }
}

impl Attributes {
    /// The later word wins.
    fn add(&mut self, set: u32, clear: u32) {
        self.set = self.set & !clear | set;
        // the kernel clears first and sets then, and a field of several bits must be cleared to be set
        self.clear = self.clear & !(set & !TIMES) | clear;
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

fn recursive(word: &str) -> Option<&'static (&'static str, u32, u32)> {
    let plain = word.strip_prefix('r')?;
    ATTRIBUTES.iter().find(|(name, ..)| *name == plain)
}

/// `rprivate`, `slave`, …: also what `rootfsPropagation` may be.
pub(super) fn propagation(word: &str) -> Option<Propagation> {
    let find = |word: &str| PROPAGATIONS.iter().find(|(name, _)| *name == word).map(|&(_, flag)| flag);
    find(word)
        .map(|flag| Propagation { flag, depth: Depth::One })
        .or_else(|| Some(Propagation { flag: find(word.strip_prefix('r')?)?, depth: Depth::Tree }))
}

/// Attributes as `mount(2)` has them.
pub(super) fn mount_flags(attributes: u32) -> MountFlags {
    let flags = [
        (READ_ONLY, MountFlags::RDONLY),
        (NO_SUID, MountFlags::NOSUID),
        (NO_DEV, MountFlags::NODEV),
        (NO_EXEC, MountFlags::NOEXEC),
        (NO_TIMES, MountFlags::NOATIME),
        (STRICT_TIMES, MountFlags::STRICTATIME),
        (NO_DIR_TIMES, MountFlags::NODIRATIME),
    ];
    flags.into_iter().filter(|(bit, _)| attributes & bit != 0).fold(MountFlags::empty(), |all, (_, flag)| all | flag)
}

/// Every word that means something here: what `features` tells.
pub(super) fn words() -> Vec<String> {
    let fixed = ["bind", "rbind", "remount", "defaults", "tmpcopyup", "idmap", "ridmap"];
    let mut words: Vec<String> = fixed.into_iter().chain(SUPERBLOCK.iter().copied()).map(str::to_owned).collect();
    for name in ATTRIBUTES.iter().map(|(name, ..)| *name).chain(PROPAGATIONS.iter().map(|(name, _)| *name)) {
        words.push(name.to_owned());
        words.push(format!("r{name}"));
    }
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let parse = |text: &str| Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let attributes = |text: &str| {
            let Options { attributes: Attributes { set, clear }, .. } = parse(text);
            (set, clear)
        };
        assert_eq!(attributes("ro,nosuid"), (READ_ONLY | NO_SUID, 0));
        assert_eq!(attributes("ro,rw"), (0, READ_ONLY), "the later word wins");
        assert_eq!(attributes("rw,ro"), (READ_ONLY, 0));
        assert_eq!(attributes("noatime,strictatime"), (STRICT_TIMES, TIMES));
        assert_eq!(attributes("strictatime,relatime"), (0, TIMES));
        assert_eq!(parse("rro,rnosuid").tree_attributes.set, READ_ONLY | NO_SUID);
        assert_eq!(parse("rbind,bind").bind, Some(Depth::Tree));
        assert_eq!(
            parse("rslave,shared").propagation,
            [Propagation { flag: SLAVE, depth: Depth::Tree }, Propagation { flag: SHARED, depth: Depth::One }]
        );
        let data = parse("mode=755,size=64m,newinstance,sync,defaults").data;
        let expected = [("mode", Some("755")), ("size", Some("64m")), ("newinstance", None), ("sync", None)];
        assert_eq!(data, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
        assert!(propagation("relatime").is_none() && propagation("r").is_none());
    }

    #[test]
    fn every_word_that_is_told_is_known() {
        for word in words() {
            let options = Options::parse(std::slice::from_ref(&word));
            let data = SUPERBLOCK.contains(&word.as_str());
            assert!(data || options.data.is_empty(), "{word} is taken for the file system's own");
        }
    }
}
