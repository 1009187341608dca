//! Doing something with files as somebody else.
//!
//! For what a user names and root opens: a path is walked with the rights of whoever named it, so that there is nothing
//! to check beforehand and no moment between the check and the use.

use std::io;

use rustix::fs::Gid;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::identity::FileOwner;

/// Whose rights over files.
#[derive(Debug, Clone, Copy)]
pub struct FileRights<'a> {
    /// The user.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Further groups.
    pub groups: &'a [u32],
    /// The capabilities that it keeps of this process's.
    pub capabilities: CapabilitySet,
}

impl FileRights<'_> {
    /// Runs `work` on a thread of its own, which has these rights and ends with it.
    ///
    /// Only the *file system* user changes: the real one stays this process's, or the user in question could send the
    /// thread a signal, and so end the whole process (kill(2)).
    ///
    /// # Errors
    /// The thread could not be made, or may not take the rights on.
    ///
    /// # Panics
    /// Where `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("rights".into()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, || {
                let owner = self.take_on()?;
                let result = work();
                drop(owner);
                Ok(result)
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn take_on(&self) -> io::Result<FileOwner> {
        let groups: Vec<Gid> = self.groups.iter().map(|&group| Gid::from_raw(group)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        let owner = FileOwner::assume(self.uid, self.gid)?;
        let sets = rustix::thread::capabilities(None)?;
        let kept = sets.permitted & self.capabilities;
        // for good: this thread is never root over files again
        rustix::thread::set_capabilities(
            None,
            CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
        )?;
        Ok(owner)
    }
}

/// What a thread that walks paths and copies files needs.
const STACK: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn files_are_opened_as_the_other() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("closed");
        std::fs::write(&closed, "").unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o640)).unwrap();
        let before = rustix::thread::capabilities(None).unwrap();
        let rights = |uid, groups: &'static [u32], capabilities| FileRights { uid, gid: 1234, groups, capabilities };
        let none = CapabilitySet::empty();
        let opens = |rights: FileRights<'_>| rights.run(|| std::fs::File::open(&closed).is_ok()).unwrap();
        assert!(!opens(rights(1234, &[], none)));
        assert!(opens(rights(1234, &[0], none)), "by its group");
        assert!(opens(rights(1234, &[], CapabilitySet::DAC_OVERRIDE)));
        let made = root.path().join("made");
        rights(1234, &[], none).run(|| std::fs::write(&made, "")).unwrap().unwrap();
        let made = std::fs::metadata(&made).unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 1234));
        // this thread is what it was
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before);
        assert!(std::fs::File::open(&closed).is_ok());
    }
}
