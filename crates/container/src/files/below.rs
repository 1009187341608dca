//! Paths below a root that they cannot leave, whoever makes links in it meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FsWord, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens a path as if `root` were the root: neither `..` nor a link leads out of it (openat2(2)).
pub(super) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let relative = &path[path.iter().position(|&byte| byte != b'/').unwrap_or(path.len())..];
    let relative = if relative.is_empty() { b"." } else { relative };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename somewhere on the machine while a ".." was resolved (openat2(2)); it ends by itself
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(&root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < 128 => tries += 1,
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// File systems in which no file is a file: `proc`, `sysfs`, `cgroup`, `cgroup2`, `devpts`, `mqueue` (linux/magic.h).
const KERNELS: [FsWord; 6] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1cd1, 0x1980_0202];

/// Refuses what the kernel only seems to have as files: read by root, it would say more than a container is told.
pub(super) fn refuse_kernel(open: impl AsFd) -> io::Result<()> {
    if KERNELS.contains(&rustix::fs::fstatfs(open)?.f_type) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is the kernel's (/proc, /sys), and no file"));
    }
    Ok(())
}

/// The parts of a path, without those that say nothing.
pub(super) fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}
