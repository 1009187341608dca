//! Files as disks: loop devices (loop(4)), which let go of their file by themselves when nobody uses them any more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A loop device, held: it keeps its file at least as long as this is held, or a file system on it is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    device: OwnedFd,
    path: PathBuf,
}

/// How often another process may be faster to take a free device.
const TRIES: usize = 64;

impl LoopDevice {
    /// The device that has this file, a new one where none has. Two file systems must never be mounted from one file, but
    /// one may be mounted any number of times, by the same device: callers for one file take turns.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where it has no loop devices.
    pub fn of(file: &File) -> io::Result<Self> {
        match Self::find(file)? {
            Some(found) => Ok(found),
            None => Self::attach(file),
        }
    }

    /// Where it is: `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(number: u32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { device, path })
    }

    fn find(file: &File) -> io::Result<Option<Self>> {
        let wanted = file.metadata()?;
        for entry in std::fs::read_dir("/sys/block")?.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
            let Some(number) = number.filter(|_| entry.path().join("loop").exists()) else { continue };
            // held from here on: what it has now it keeps, and only now it is asked what that is
            let Ok(device) = Self::open(number) else { continue };
            match device.status() {
                Ok(info) if (info.lo_device, info.lo_inode) == (encoded(wanted.dev()), wanted.ino()) => {
                    return Ok(Some(device));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn attach(file: &File) -> io::Result<Self> {
        let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..TRIES {
            // SAFETY: this request takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            let number = u32::try_from(number).map_err(|_| io::Error::last_os_error())?;
            let device = Self::open(number)?;
            match device.configure(file) {
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                result => return result.map(|()| device),
            }
        }
        Err(Errno::BUSY.into())
    }

    fn status(&self) -> io::Result<Information> {
        let mut info = std::mem::MaybeUninit::<Information>::zeroed();
        // SAFETY: the kernel writes a whole structure of this type.
        let got = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is numbers and bytes, all of which were zero before the kernel wrote them.
        Ok(unsafe { info.assume_init() })
    }

    fn configure(&self, file: &File) -> io::Result<()> {
        // SAFETY: `loop_config` is numbers and bytes, for which zero is "as usual".
        let mut config: Configuration = unsafe { std::mem::zeroed() };
        config.fd = file.as_fd().as_raw_fd().unsigned_abs();
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
        // SAFETY: the kernel reads a whole structure of this type, which outlives the call.
        let done = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// As `lo_device` has it (`huge_encode_dev`, linux/kdev_t.h).
fn encoded(device: u64) -> u64 {
    let (major, minor) = (u64::from(rustix::fs::major(device)), u64::from(rustix::fs::minor(device)));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// `struct loop_config` (linux/loop.h).
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    info: Information,
    reserved: [u64; 8],
}

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
struct Information {
    lo_device: u64,
    lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
/// Linux 5.8.
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_the_kernel_s() {
        assert_eq!((size_of::<Information>(), size_of::<Configuration>()), (232, 304));
    }

    #[test]
    fn a_file_has_one_device_and_lets_go_of_it() {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("SKIPPED: needs root and loop devices");
            return;
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let first = LoopDevice::of(&file).unwrap();
        let second = LoopDevice::of(&file).unwrap();
        assert_eq!(first.path(), second.path());
        let name = first.path().file_name().unwrap().to_owned();
        drop((first, second));
        assert!(LoopDevice::find(&file).unwrap().is_none(), "{name:?} still has the file");
    }
}
