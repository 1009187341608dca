//! The one question asked of a network driver: whether there is somebody at the other end (`linux/ethtool.h`).

use std::io;
use std::os::fd::AsRawFd as _;

use super::netlink::Socket;

const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether interface `name`, in the socket's network namespace, has its other end, once the kernel has acted upon it.
///
/// That is what it is for: the end of a wire that is switched on first learns of the other's switching on by a work item
/// that waits in line with others, and drops everything until then, such as the first packet of a connection, which is
/// repeated a second later. This question has the work done before it is answered.
///
/// # Errors
/// There is no such interface, or its driver does not know.
pub fn has_carrier(socket: &Socket, name: &str) -> io::Result<bool> {
    let mut value = Value { command: ETHTOOL_GLINK, data: 0 };
    // SAFETY: all fields are numbers and pointers, for which zero is a value
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the descriptor is open; `request` is a whole ifreq with a name that is ended by a zero, and its pointer
    // leads to a `Value`, which this command reads and writes; both live through the call
    match unsafe { libc::ioctl(socket.fd().as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } {
        0.. => Ok(value.data != 0),
        _ => Err(io::Error::last_os_error()),
    }
}
