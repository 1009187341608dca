//! Terminals and standard streams, from the runtime's side.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::error::{OciError, When as _};
use super::init::streams;

/// A connection to whoever listens at that path: for a terminal, or the listener of a filter.
pub(super) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends bytes (some must be) and descriptors beside them.
pub(super) fn send(socket: BorrowedFd<'_>, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(fds));
    let mut sent = rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut beside, SendFlags::NOSIGNAL)?;
    while sent < text.len() {
        sent += rustix::net::send(socket, &text[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Hands a terminal to whoever asked for it with `--console-socket`. It blocks, as everybody's.
pub(super) fn hand_over(master: BorrowedFd<'_>, path: &Path) -> Result<(), OciError> {
    let step = || format!("send the terminal to the console socket {}", path.display());
    rustix::io::ioctl_fionbio(master, false).when(step())?;
    let socket = connect(path).when(step())?;
    send(socket.as_fd(), b"/dev/ptmx", &[master]).when(step())
}

/// Gives the pipes among our standard streams to a user of the host, so that the program may open them again
/// (`/dev/stdout`). Nothing else: a device is everybody's (runc issue 3674), and a file is whose it is.
pub(super) fn own_streams(uid: u32) -> Result<(), OciError> {
    for stream in streams() {
        let stat = rustix::fs::fstat(stream).when("look at the standard streams")?;
        if stat.st_uid == uid || FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            result => result.when("give the standard streams to the container's user")?,
        }
    }
    Ok(())
}
