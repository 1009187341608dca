//! The machine's `/dev/null`, which some of the known attacks are after.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

/// Its owner, its group and its mode. When this is dropped they are so again, also where an attack has come through:
/// everything on the machine needs that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NullAsItWas(Null);

/// User, group, mode.
type Null = (u32, u32, u32);

impl NullAsItWas {
    /// As it is now.
    pub fn now() -> Self {
        Self(null())
    }

    /// Asserts that it still is.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn assert_untouched(&self, whose: &str) {
        assert_eq!(null(), self.0, "/dev/null of the host, after {whose}");
    }
}

impl Drop for NullAsItWas {
    fn drop(&mut self) {
        let (uid, gid, mode) = self.0;
        if null() != self.0 {
            chown("/dev/null", Some(uid), Some(gid)).expect("the owner of /dev/null, as it was");
            fs::set_permissions("/dev/null", Permissions::from_mode(mode & 0o7777)).expect("its mode, as it was");
        }
    }
}

/// # Panics
/// Where the machine has none.
fn null() -> Null {
    let meta = fs::metadata("/dev/null").expect("/dev/null");
    (meta.uid(), meta.gid(), meta.mode())
}
