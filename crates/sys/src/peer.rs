//! Who is at the other end of a Unix socket, as the kernel noted when it connected.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The most groups that a process can be in (`NGROUPS_MAX`, linux/limits.h).
const MOST_GROUPS: usize = 65_536;

/// The peer's supplementary groups: `SO_PEERGROUPS` (socket(7), Linux 4.13). They are those of the moment when it
/// connected: unlike what `/proc` says of its pid, no other process's.
///
/// # Errors
/// The kernel's: no Unix socket, or no peer.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let socket = socket.as_fd();
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the buffer is as long as `length` says, and the kernel writes no more than that; `length` is a valid
        // pointer for the call's time.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        match result {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            // too short: `length` says how many there are
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE)
                && count > groups.len()
                && count <= MOST_GROUPS =>
            {
                groups.resize(count, 0);
            }
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pair_s_peer_is_in_our_groups() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let mut own: Vec<u32> =
            rustix::process::getgroups().expect("our groups").into_iter().map(|group| group.as_raw()).collect();
        let mut told = groups(&one).expect("the peer's groups");
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
    }

    #[test]
    fn what_has_no_peer() {
        assert!(groups(std::io::stdin()).is_err());
    }
}
