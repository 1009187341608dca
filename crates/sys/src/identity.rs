//! Who a thread is: users, groups, capabilities. Everything here is of the calling *thread*, as in the kernel, not of
//! the process as libc has it.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Becomes `uid`, `gid` and `groups` in all their forms. Coming from user 0, any other user loses the effective and
/// permitted capabilities on the way.
///
/// # Errors
/// The kernel's.
pub fn assume(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Which capabilities are in this thread's bounding set, bit N for capability N.
pub fn bounding_capabilities() -> u64 {
    let is_in = |number: u32| {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false)
    };
    (0..64).filter(|number| is_in(*number)).fold(0, |all, number| all | 1 << number)
}

/// Removes every capability but `kept` (bit N for capability N) from the bounding set, for good.
///
/// # Errors
/// The kernel's.
pub fn limit_capabilities(kept: u64) -> io::Result<()> {
    for number in 0..64 {
        if kept & (1 << number) != 0 {
            continue;
        }
        // the kernel's last capability ends the list
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Err(rustix::io::Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Makes these the capabilities, and `ambient` (bit N for capability N) the ambient ones: those must be permitted and
/// inheritable too. Ambient ones that the kernel does not know are passed over, as it passes over all others.
///
/// # Errors
/// The kernel's; `EPERM` where more is asked for than is permitted now.
pub fn set_capabilities(sets: CapabilitySets, ambient: u64) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, sets)?;
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        match rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true) {
            Err(rustix::io::Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Gives up all capabilities.
///
/// # Errors
/// The kernel's.
pub fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(CapabilitySets { effective: none, permitted: none, inheritable: none }, 0)
}

/// The permitted capabilities outlast the next change of the user ([`assume`]), until a program is executed.
///
/// # Errors
/// The kernel's.
pub fn keep_capabilities() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

/// No program executed from here on gains a privilege (setuid, file capabilities).
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// While it lives, what this thread creates in file systems belongs to another user and group, with all of the
/// thread's capabilities as before. Root's own again when it is dropped.
///
/// The other's capabilities *over files* go with a change of the file system user (capabilities(7), "effect of user
/// ID changes"), which is why they are raised again.
#[derive(Debug)]
pub struct FileOwner {
    before: (u32, u32),
    capabilities: CapabilitySets,
    // what was changed is this thread's
    _not_send: std::marker::PhantomData<*const ()>,
}

impl FileOwner {
    /// Becomes `uid` and `gid` for file systems.
    ///
    /// # Errors
    /// `PermissionDenied` where this thread may not; the kernel's.
    pub fn assume(uid: u32, gid: u32) -> io::Result<Self> {
        let capabilities = rustix::thread::capabilities(None)?;
        let before = (set_file_user(uid), set_file_group(gid));
        let owner = Self { before, capabilities, _not_send: std::marker::PhantomData };
        // neither call tells whether it did; asking with the invalid id changes nothing and answers
        if (set_file_user(u32::MAX), set_file_group(u32::MAX)) != (uid, gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        rustix::thread::set_capabilities(None, CapabilitySets { effective: capabilities.permitted, ..capabilities })?;
        Ok(owner)
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        set_file_user(self.before.0);
        set_file_group(self.before.1);
        // cannot fail: it asks for no more than what is permitted
        let _ = rustix::thread::set_capabilities(None, self.capabilities);
    }
}

fn set_file_user(uid: u32) -> u32 {
    // SAFETY: takes and returns numbers.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) as u32 }
}

fn set_file_group(gid: u32) -> u32 {
    // SAFETY: takes and returns numbers.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) as u32 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn files_are_the_other_owners_while_it_lives_and_rights_stay() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let before = rustix::thread::capabilities(None).unwrap();
        {
            let _owner = FileOwner::assume(1234, 5678).unwrap();
            // root's directory, mode 0700: only the capabilities let this through
            std::fs::write(root.path().join("theirs"), "").unwrap();
        }
        std::fs::write(root.path().join("ours"), "").unwrap();
        for (name, owner) in [("theirs", (1234, 5678)), ("ours", (0, 0))] {
            let file = std::fs::metadata(root.path().join(name)).unwrap();
            assert_eq!((file.uid(), file.gid()), owner, "{name}");
        }
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before);
    }
}
