//! What a process is called in lists of processes.

use std::ffi::CStr;
use std::io;

/// Gives this process another name and another command line (`/proc/PID/comm`, `/proc/PID/cmdline`), of as many bytes of
/// `title` as the old command line had. The old one, which anybody may read, is gone. For a process that was cloned and
/// executes no program of its own; its arguments are not to be asked for afterwards.
///
/// # Errors
/// `/proc` is not there, or says nothing of this process.
pub fn set(title: &CStr) -> io::Result<()> {
    rustix::thread::set_name(title)?;
    let stat = std::fs::read("/proc/self/stat")?;
    let (start, end) = arguments(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let length = end - start;
    // the last byte stays zero: one that is not would make the kernel read on into the environment
    let shown = title.to_bytes().len().min(length.saturating_sub(1));
    // SAFETY: the kernel says that this process's arguments lie there: `length` bytes of its stack, which live as long as
    // it does and which `execve` made writable. Nothing of ours refers to them while this runs: the standard library
    // copies an argument when it is asked for. Threads that ask meanwhile are none (documented).
    unsafe {
        let bytes = std::ptr::with_exposed_provenance_mut::<u8>(start);
        bytes.write_bytes(0, length);
        bytes.copy_from_nonoverlapping(title.as_ptr().cast(), shown);
    }
    Ok(())
}

/// Fields 48 and 49 of `/proc/PID/stat` (proc_pid_stat(5)). The second field is the program's name and may hold anything.
fn arguments(stat: &[u8]) -> Option<(usize, usize)> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(45).map(|field| field.parse::<usize>().ok());
    let (start, end) = (fields.next()??, fields.next()??);
    (start != 0 && start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_found() {
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let (start, end) = arguments(&stat).unwrap();
        assert_eq!(end - start, std::fs::read("/proc/self/cmdline").unwrap().len());
        assert_eq!(arguments(b"1 (a) b) S 0"), None);
    }
}
