//! Connecting to a Unix socket whose path may be longer than the 107 bytes that `sockaddr_un` has room for.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use crate::ClientError;

/// What fits into `sockaddr_un.sun_path` with its closing zero (unix(7)).
const LONGEST_PATH: usize = 107;

/// Connects to the daemon's socket. Cancel-safe.
pub(crate) async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let connected = match short_name(socket) {
        Ok(None) => UnixStream::connect(socket).await,
        Ok(Some((_directory, path))) => UnixStream::connect(path).await,
        Err(error) => Err(error),
    };
    connected.map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            // reset: it was killed before it had accepted
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                ClientError::NoDaemon { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            _ => ClientError::Connect { socket, source },
        }
    })
}

/// Another name for a socket whose path is too long: below its directory's descriptor, which must stay open.
fn short_name(socket: &Path) -> io::Result<Option<(rustix::fd::OwnedFd, PathBuf)>> {
    if socket.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return Ok(None);
    }
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else { return Ok(None) };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(Some((directory, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_paths_connect() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("sampan.sock");
        assert!(matches!(connect(&socket).await, Err(ClientError::NoDaemon { .. })));
        let (_directory, short) = short_name(&socket).unwrap().unwrap();
        let _listener = tokio::net::UnixListener::bind(short).unwrap();
        connect(&socket).await.unwrap();
    }
}
