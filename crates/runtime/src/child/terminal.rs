//! A terminal of the container's own: a pair in its own devpts.
//!
//! What is opened is looked at first: a container may have put anything in the place of `/dev/pts/ptmx`. Its other end
//! is asked for by the master (`TIOCGPTPEER`), never by a path, which a container could bend (CVE-2025-52565).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use sampan_model::view::TerminalSize;
use sampan_sys::mount;

use super::Step as _;
use crate::wire::Failure;

/// Both ends.
pub(crate) struct Terminal {
    /// Read and written by whoever sits in front of it. It does not block: all who have it share one open file.
    pub master: OwnedFd,
    /// The program's.
    pub slave: OwnedFd,
}

/// `DEVPTS_SUPER_MAGIC` (linux/magic.h).
const DEVPTS: rustix::fs::FsWord = 0x1cd1;
/// What tells `ptmx` of a devpts from the terminals in it (linux/major.h).
const PTMX: (u32, u32) = (5, 2);

impl Terminal {
    /// Makes one of this size in the container whose root this process is in, for the user `uid`, and takes it as its
    /// session's own. The session must be new.
    pub fn open(size: TerminalSize, uid: u32) -> Result<Self, Failure> {
        let step = "open /dev/pts/ptmx";
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let found =
            rustix::fs::openat2(CWD, "/dev/pts/ptmx", look, Mode::empty(), ResolveFlags::NO_SYMLINKS).step(step)?;
        let stat = rustix::fs::fstat(&found).step(step)?;
        let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && number == PTMX
            && rustix::fs::fstatfs(&found).step(step)?.f_type == DEVPTS;
        if !is_it {
            return Err(Failure::because(step, "the container has something else there than its terminals"));
        }
        // by the same path once more, as there may be no /proc to go by; what it is now is held against what it was
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let master =
            rustix::fs::openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).step(step)?;
        let opened = rustix::fs::fstat(&master).step(step)?;
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Failure::because(step, "the container has put something else there meanwhile"));
        }
        rustix::pty::unlockpt(&master).step("unlock the terminal")?;
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).step("open the terminal")?;
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).step("set the terminal's size")?;
        rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>).step("give the terminal to its user")?;
        rustix::process::ioctl_tiocsctty(&slave).step("take the terminal")?;
        Ok(Self { master, slave })
    }

    /// Shows it as `/dev/console`. What an image may have there is covered; a link is refused, since it would be something
    /// else that is covered (CVE-2025-52565).
    pub fn bind_console(&self) -> Result<(), Failure> {
        let step = "bind the terminal to /dev/console";
        match rustix::fs::mknodat(CWD, c"/dev/console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0) {
            Err(Errno::EXIST) => {}
            made => made.step(step)?,
        }
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let place = rustix::fs::openat2(CWD, c"/dev/console", look, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        let place = place.step(step)?;
        let tree = mount::clone_at(self.slave.as_fd()).step(step)?;
        mount::attach_to(tree.as_fd(), place.as_fd()).step(step)
    }
}
