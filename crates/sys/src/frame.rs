//! Frames: whole messages with descriptors beside them, on Unix sockets of kind `SOCK_SEQPACKET`. What Sampan's own
//! processes talk over.
//!
//! The kernel keeps messages whole and in order, so there is no length prefix, no buffering and no half-read message.
//! What it does not do is carry large ones: a body over [`LONGEST_INLINE`] travels in a sealed memfd that is sent as
//! the last descriptor. On the socket:
//!
//! ```text
//! 00 BODY…       the body itself
//! 01 LENGTH      8 bytes, little-endian; the last descriptor is a memfd that holds the body
//! ```
//!
//! Nothing here knows what a body means. A socket is read by one thread at a time; sending is atomic and may be done
//! by many. Sockets block unless their owner has made them not to: then both [`send`] and [`receive`] fail with
//! [`io::ErrorKind::WouldBlock`].

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The longest body that travels on the socket itself, in bytes.
pub const LONGEST_INLINE: usize = 64 * 1024;
/// The longest body, in bytes.
pub const LONGEST: usize = 4 * 1024 * 1024;
/// The most descriptors beside one body (the kernel's `SCM_MAX_FD`, less one for the memfd of a long body).
pub const MOST_DESCRIPTORS: usize = 252;

const INLINE: u8 = 0;
const IN_MEMFD: u8 = 1;
/// Nobody can change or shorten a body while it is read.
const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);
/// The longest path that fits `struct sockaddr_un`.
const LONGEST_PATH: usize = 107;
const BACKLOG: i32 = 64;

/// One message.
#[derive(Debug)]
pub struct Frame {
    /// The body.
    pub body: Vec<u8>,
    /// The descriptors beside it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Who is at the other end of a socket, as the kernel noted when it was connected (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Two ends of one socket.
///
/// # Errors
/// The kernel's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens at `path`, any length of it, with the file mode `mode`, in place of a socket that was there. Whoever owns
/// the directory has made sure that nobody listens on that one any more.
///
/// # Errors
/// The kernel's; `AlreadyExists` where `path` is something else than a socket.
pub fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let (directory, name) = split(path)?;
    if rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
    {
        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
    }
    let socket = socket()?;
    rustix::net::bind(&socket, &address(&directory, name)?)
        .map_err(|errno| if errno == Errno::ADDRINUSE { Errno::EXIST } else { errno })?;
    // before `listen`, nobody can connect: there is no moment at which the wrong people may
    rustix::fs::chmodat(&directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The next connection.
///
/// # Errors
/// The kernel's.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// Connects to the socket at `path`, any length of it.
///
/// # Errors
/// The kernel's: `NotFound` and `ConnectionRefused` where nobody listens.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (directory, name) = split(path)?;
    let socket = socket()?;
    rustix::net::connect(&socket, &address(&directory, name)?)?;
    Ok(socket)
}

/// Who is at the other end.
///
/// # Errors
/// The kernel's.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer {
        pid: credentials.pid.as_raw_nonzero().get(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// Sends one frame.
///
/// # Errors
/// `InvalidInput` beyond [`LONGEST`] and [`MOST_DESCRIPTORS`]; `BrokenPipe` where the peer is gone (no signal);
/// `WouldBlock` where its queue is full and the socket does not block; else the kernel's.
pub fn send(socket: BorrowedFd<'_>, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if body.len() > LONGEST || fds.len() > MOST_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a frame of {} bytes and {} descriptors: the limits are {LONGEST} and {MOST_DESCRIPTORS}",
                body.len(),
                fds.len()
            ),
        ));
    }
    if body.len() <= LONGEST_INLINE {
        return send_parts(socket, &[&[INLINE], body], fds);
    }
    let memory = in_memfd(body)?;
    let mut all = fds.to_vec();
    all.push(memory.as_fd());
    send_parts(socket, &[&[IN_MEMFD], &(body.len() as u64).to_le_bytes()], &all)
}

/// The next frame; `None` where the peer is gone.
///
/// # Errors
/// `InvalidData` where what came is no frame, or where its descriptors found no room in this process; `WouldBlock`
/// where there is none and the socket does not block; else the kernel's.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Frame>> {
    // its length first: bodies of a hundred bytes are not worth buffers of 64 KiB
    let mut nothing = [0_u8; 1];
    let length = match retry(|| rustix::net::recv(socket, &mut nothing[..], RecvFlags::PEEK | RecvFlags::TRUNC)) {
        Ok((_, length)) => length,
        Err(errno) => return Err(errno.into()),
    };
    if length == 0 {
        return Ok(None);
    }
    if length > LONGEST_INLINE + 1 {
        return Err(invalid("a message longer than a frame may be"));
    }
    let mut kind = [0_u8; 1];
    let mut body = vec![0; length - 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        let mut parts = [io::IoSliceMut::new(&mut kind), io::IoSliceMut::new(&mut body)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid("descriptors were lost: this process may not open more (RLIMIT_NOFILE)"));
    }
    match kind {
        [INLINE] => Ok(Some(Frame { body, fds })),
        [IN_MEMFD] => {
            let length = body[..].try_into().map(u64::from_le_bytes);
            let length = length.map_err(|_| invalid("a long frame without its length"))?;
            let memory = fds.pop().ok_or_else(|| invalid("a long frame without its memfd"))?;
            Ok(Some(Frame { body: from_memfd(&memory, length)?, fds }))
        }
        _ => Err(invalid("a message that is no frame")),
    }
}

/// `ECONNRESET` is told once, where the peer has gone without reading all it was sent. What it had said before that is
/// still there, and the end after it.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => return other,
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn send_parts(socket: BorrowedFd<'_>, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
    retry(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        rustix::net::sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

fn in_memfd(body: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(c"sampan-frame", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while written < body.len() {
        written += retry(|| rustix::io::write(&memory, &body[written..]))?;
    }
    rustix::fs::fcntl_add_seals(&memory, SEALS)?;
    Ok(memory)
}

fn from_memfd(memory: &OwnedFd, length: u64) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(memory)?.contains(SEALS) {
        return Err(invalid("a long frame whose memfd is not sealed"));
    }
    let length = usize::try_from(length).ok().filter(|length| (LONGEST_INLINE + 1..=LONGEST).contains(length));
    let length = length.ok_or_else(|| invalid("a long frame of a length that none may have"))?;
    let mut body = vec![0; length];
    let mut read = 0;
    while read < length {
        match retry(|| rustix::io::pread(memory, &mut body[read..], read as u64))? {
            0 => return Err(invalid("a long frame that is shorter than it says")),
            count => read += count,
        }
    }
    Ok(body)
}

fn split(path: &Path) -> io::Result<(OwnedFd, &std::ffi::OsStr)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(parent, flags, Mode::empty())?, name))
}

/// Socket paths end at 107 bytes; a directory's descriptor makes any path a short one.
fn address(directory: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<SocketAddrUnix> {
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket's name may have about 80 bytes"));
    }
    Ok(SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_with_their_descriptors() {
        let (here, there) = pair().unwrap();
        for (length, descriptors) in [(0, 0), (1, 3), (LONGEST_INLINE, 1), (LONGEST_INLINE + 1, 0), (LONGEST, 252)] {
            let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
            send(here.as_fd(), &body, &vec![there.as_fd(); descriptors]).unwrap();
            let frame = receive(there.as_fd()).unwrap().unwrap();
            assert!(frame.body == body, "{length}");
            assert_eq!(frame.fds.len(), descriptors, "{length}");
        }
        drop(here);
        assert!(receive(there.as_fd()).unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard() {
        let (here, there) = pair().unwrap();
        send(here.as_fd(), b"never read", &[]).unwrap();
        send(there.as_fd(), b"last words", &[]).unwrap();
        drop(there);
        assert_eq!(receive(here.as_fd()).unwrap().unwrap().body, b"last words");
        assert!(receive(here.as_fd()).unwrap().is_none());
        assert_eq!(send(here.as_fd(), b"too late", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn limits_are_named() {
        let (here, _there) = pair().unwrap();
        for (length, descriptors) in [(LONGEST + 1, 0), (0, MOST_DESCRIPTORS + 1)] {
            let error = send(here.as_fd(), &vec![0; length], &vec![here.as_fd(); descriptors]).unwrap_err();
            assert!(error.to_string().contains("limits"), "{error}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let (here, there) = pair().unwrap();
        for message in [&[2_u8, 1][..], &[IN_MEMFD], &[IN_MEMFD, 0, 0, 0, 0, 0, 0, 0, 1]] {
            rustix::net::send(&here, message, SendFlags::empty()).unwrap();
            assert_eq!(receive(there.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{message:?}");
        }
    }

    #[test]
    fn long_paths_are_listened_on_and_connected_to() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("d".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("supervisor.sock");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(listen(&path, 0o600).unwrap());
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = listen(&path, 0o600).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        assert_eq!(peer(server.as_fd()).unwrap().pid, std::process::id() as i32);
        send(client.as_fd(), b"hello", &[]).unwrap();
        assert_eq!(receive(server.as_fd()).unwrap().unwrap().body, b"hello");

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "no socket").unwrap();
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
