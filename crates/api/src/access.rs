//! Who may speak to the daemon: root, the user it was started for, and the group `sampan`; and who may do what.
//!
//! The socket's mode (0660) keeps others from connecting at all; this is the second lock, and it names each caller. What
//! callers see and change of what is there is in `owners`. `docs/design/owners.md` has the whole.

use std::io;
use std::os::fd::AsFd;

use sampan_model::Owner;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Whose things they see: the first part of every record's key.
    pub tenant: String,
    /// They may ask for what is everybody's ([`Access::governs`]).
    pub governs: bool,
}

impl Caller {
    /// As things of theirs are marked.
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid, groups: self.groups.clone() }
    }
}

/// Who may ask.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The user that the daemon was started for, beside root.
    pub owner: Option<u32>,
    /// The members of the group `sampan`, and its own id.
    pub group: Option<(u32, Vec<u32>)>,
}

impl Access {
    /// The caller at the other end of a socket, as they were when they connected.
    ///
    /// # Errors
    /// The kernel does not tell (the peer is gone).
    pub fn caller(socket: impl AsFd) -> io::Result<Caller> {
        let groups = sampan_sys::peer::groups(&socket)?;
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let (uid, gid) = (credentials.uid.as_raw(), credentials.gid.as_raw());
        Ok(Caller { uid, gid, groups, tenant: "default".to_owned(), governs: uid == 0 })
    }

    /// Whether this caller may ask for anything.
    pub fn admits(&self, caller: &Caller) -> bool {
        let in_group = |(gid, members): &(u32, Vec<u32>)| {
            caller.gid == *gid || caller.groups.contains(gid) || members.contains(&caller.uid)
        };
        self.governs(caller) || self.group.as_ref().is_some_and(in_group)
    }

    /// Whether this caller may ask for what is everybody's: the daemon's end, its restart, a purge, the examination of all
    /// images.
    pub fn governs(&self, caller: &Caller) -> bool {
        caller.uid == 0 || self.owner == Some(caller.uid)
    }

    /// The group `sampan` of this machine, from the texts of `/etc/group` and `/etc/passwd`.
    pub fn group_of(group: &str, passwd: &str) -> Option<(u32, Vec<u32>)> {
        let line = group.lines().find(|line| line.starts_with("sampan:"))?;
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        let names: Vec<&str> = fields.next()?.split(',').filter(|name| !name.is_empty()).collect();
        let members = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            names.contains(&name).then_some(uid)
        });
        Some((gid, members.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_the_owner_and_the_group_are_admitted() {
        let group =
            Access::group_of("root:x:0:\nsampan:x:900:ann,bob\n", "ann:x:1001:1001::/:/bin/sh\nbob:x:1002:1:::\n");
        assert_eq!(group, Some((900, vec![1001, 1002])));
        let access = Access { owner: Some(500), group };
        for (uid, gid, groups, admitted, governs) in [
            (0, 0, vec![], true, true),
            (500, 500, vec![], true, true),
            (1001, 5, vec![], true, false),
            (7, 900, vec![], true, false),
            (7, 7, vec![4, 900], true, false),
            (7, 7, vec![4, 901], false, false),
            (900, 0, vec![0], false, false),
        ] {
            let caller = Caller { uid, gid, groups, tenant: "default".to_owned(), governs: false };
            assert_eq!((access.admits(&caller), access.governs(&caller)), (admitted, governs), "{caller:?}");
        }
    }
}
