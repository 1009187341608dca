//! Reading and writing the small files cgroups are made of.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::CgroupError;

/// Write a value, in one call: each write to a cgroup file is a command of its own.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::Write { path: path.into(), value: value.into(), source })
}

/// As [`write`], where the file exists: some are there with some kernel options only.
pub(super) fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    match write(path, value) {
        Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    let text = fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })?;
    Ok(text.trim_end().to_owned())
}

/// As [`read`], `None` where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, CgroupError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(CgroupError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that holds one number, in which `max` is none.
pub(super) fn number(path: &Path) -> Result<u64, CgroupError> {
    let text = read(path)?;
    text.parse().map_err(|_| CgroupError::Parse { path: path.into(), text: text.chars().take(80).collect() })
}

/// The number behind a word, in a file of lines `word number`; 0 where there is no such line.
pub(super) fn field(path: &Path, word: &str) -> Result<u64, CgroupError> {
    let text = read(path)?;
    Ok(find_field(&text, word))
}

fn find_field(text: &str, word: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == word)
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Make a directory. Returns whether it is new.
pub(super) fn make(path: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(CgroupError::Make { path: path.into(), source }),
    }
}

/// The processes of a cgroup, without its children's; none where the cgroup is gone. A process that cannot be seen from
/// this pid namespace is listed as 0 and left out.
pub(super) fn pids(directory: &Path) -> Result<Vec<u32>, CgroupError> {
    let of = |name: &str| {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(String::new())),
            Err(error) => match Errno::from_io_error(&error) {
                // the cgroup was removed between open and read
                Some(Errno::NODEV) => Ok(Some(String::new())),
                // a threaded one of version 2, which anybody may make below one of their own
                Some(Errno::OPNOTSUPP) => Ok(None),
                _ => Err(CgroupError::Read { path, source: error }),
            },
        }
    };
    let numbers = |text: String| -> Vec<u32> {
        text.lines().filter_map(|line| line.parse().ok()).filter(|&number| number != 0).collect()
    };
    if let Some(text) = of("cgroup.procs")? {
        return Ok(numbers(text));
    }
    let threads = numbers(of("cgroup.threads")?.unwrap_or_default());
    Ok(threads.into_iter().filter_map(process_of).collect::<BTreeSet<u32>>().into_iter().collect())
}

/// The process that a thread is of; `None` where it has ended.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The names of its files.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, CgroupError> {
    let wrap = |source| CgroupError::Read { path: directory.into(), source };
    let entries = fs::read_dir(directory).map_err(wrap)?;
    entries.map(|entry| Ok(entry.map_err(wrap)?.file_name().to_string_lossy().into_owned())).collect()
}

/// The child cgroups; none where the cgroup is gone.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let wrap = |source| CgroupError::Read { path: directory.into(), source };
    // its own entry, "." in it, and ".." in each below it: reading its forty files takes ten times as long
    match fs::metadata(directory) {
        Ok(status) if status.nlink() == 2 => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrap(error)),
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrap(error)),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrap)?;
        if entry.file_type().map_err(wrap)?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "oom_kill_disable 0\nunder_oom 1\noom_kill 7\nbroken x";
        for (word, number) in [("oom_kill", 7), ("under_oom", 1), ("oom", 0), ("broken", 0)] {
            assert_eq!(find_field(text, word), number, "{word}");
        }
    }
}
