//! Who may speak to the daemon: root, the user it was started for, and the group `sampan`.
//!
//! The socket's mode (0660) keeps others from connecting at all; this is the second lock, and it names each caller.

use std::io;
use std::os::fd::AsFd;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Whose things they see: the first part of every record's key.
    pub tenant: String,
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
    /// The caller at the other end of a socket.
    ///
    /// # Errors
    /// The kernel does not tell (the peer is gone).
    pub fn caller(socket: impl AsFd) -> io::Result<Caller> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Caller { uid: credentials.uid.as_raw(), gid: credentials.gid.as_raw(), tenant: "default".to_owned() })
    }

    /// Whether this caller may ask for anything.
    pub fn admits(&self, caller: &Caller) -> bool {
        let in_group = |(gid, members): &(u32, Vec<u32>)| caller.gid == *gid || members.contains(&caller.uid);
        caller.uid == 0 || self.owner == Some(caller.uid) || self.group.as_ref().is_some_and(in_group)
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
        let caller = |uid, gid| Caller { uid, gid, tenant: "default".to_owned() };
        for (uid, gid, admitted) in
            [(0, 0, true), (500, 500, true), (1001, 5, true), (7, 900, true), (7, 7, false), (900, 0, false)]
        {
            assert_eq!(access.admits(&caller(uid, gid)), admitted, "{uid}:{gid}");
        }
    }
}
