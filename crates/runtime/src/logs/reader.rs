//! Reading a container's log while it is being written: the rotated file, the live one, and those that follow.
//!
//! A reader holds one file open and knows it by its inode. At its end it looks whether the live name still means that
//! file. If not, there was a rotation: what was held is now `ID.log.1` (go on with the live one), or has been replaced
//! there by its successor (go on with that). A reader so slow that two rotations overtake it misses what is gone.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, inotify};
use rustix::io::Errno;
use rustix::time::Timespec;
use sampan_model::ContainerId;

use super::format::{self, ENTRY_MAX, Entry};
use super::tail::start_of_last;
use super::{live_name, open_directory, open_file, rotated_name};

const READ: usize = 64 * 1024;
/// How often a rotation may come between two looks before the rest is left to the next call.
const TRIES: u32 = 8;
/// How often a reader looks that has no inotify instance.
const LOOK: Duration = Duration::from_millis(200);

/// The inotify instances of this process's readers. The kernel gives each user 128, and root's are the whole machine's:
/// however many follow logs, most are left to others.
static INSTANCES: Instances = Instances { taken: AtomicUsize::new(0), most: 32 };

#[derive(Debug)]
struct Instances {
    taken: AtomicUsize,
    most: usize,
}

impl Instances {
    fn take(&'static self) -> Option<Instance> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Instance(self))
    }
}

/// One of them.
#[derive(Debug)]
struct Instance(&'static Instances);

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why [`Reader::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// There may be more to read.
    Changed,
    /// The caller's stop descriptor is readable.
    Stopped,
    /// The time is over.
    TimedOut,
}

/// Reads one container's log, oldest entry first.
#[derive(Debug)]
pub struct Reader {
    directory: OwnedFd,
    live: String,
    rotated: String,
    current: Option<Current>,
    buffer: Vec<u8>,
    /// Up to where the buffer has been handed out.
    taken: usize,
    /// Within an entry that is too long to be one: to be skipped up to its newline.
    skipping: bool,
    /// How many bytes are to be read yet, where the log is not read for ever.
    left: Option<u64>,
    watch: Option<Watch>,
    instances: &'static Instances,
}

#[derive(Debug)]
struct Current {
    file: File,
    inode: u64,
}

#[derive(Debug)]
struct Watch {
    inotify: OwnedFd,
    directory: i32,
    file: Option<i32>,
    _instance: Instance,
}

impl Reader {
    /// Open a container's log in the logs' directory, from its beginning, or from its last `tail` lines on (0: only
    /// what comes from now on). There need not be a log yet.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub fn open(dir: &Path, id: &ContainerId, tail: Option<usize>) -> io::Result<Self> {
        let mut reader = Self {
            directory: open_directory(dir)?,
            live: live_name(id),
            rotated: rotated_name(id),
            current: None,
            buffer: Vec::new(),
            taken: 0,
            skipping: false,
            left: None,
            watch: None,
            instances: &INSTANCES,
        };
        if let Some(lines) = tail {
            reader.seek_to_last(lines)?;
        }
        Ok(reader)
    }

    fn seek_to_last(&mut self, lines: usize) -> io::Result<()> {
        let mut wanted = lines;
        for name in [&self.live, &self.rotated] {
            let Some((mut file, inode)) = open_file(&self.directory, name)? else { continue };
            // a rotation between the two opens gives the same file twice
            if self.current.as_ref().is_some_and(|current| current.inode == inode) {
                break;
            }
            let (start, found) = start_of_last(&file, wanted)?;
            file.seek(SeekFrom::Start(start))?;
            self.current = Some(Current { file, inode });
            wanted -= found;
            if wanted == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Ends the log where it ends at this moment: one that floods is written faster than it is read.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn end_here(&mut self) -> io::Result<()> {
        let mut left = 0;
        let mut is_past = self.current.is_none();
        for name in [&self.rotated, &self.live] {
            let Some((file, inode)) = open_file(&self.directory, name)? else { continue };
            let length = file.metadata()?.len();
            match &self.current {
                Some(current) if current.inode == inode => {
                    is_past = true;
                    left += length.saturating_sub((&current.file).stream_position()?);
                }
                _ if is_past => left += length,
                _ => {}
            }
        }
        self.left = Some(left);
        Ok(())
    }

    /// The next entry; `None` when there is none now. It does not wait.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "after None there may be more: it is no iterator")]
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            while let Some(length) = self.buffer[self.taken..].iter().position(|&byte| byte == b'\n') {
                let record = &self.buffer[self.taken..self.taken + length];
                let entry = if self.skipping { None } else { format::parse(record) };
                self.skipping = false;
                self.taken += length + 1;
                if entry.is_some() {
                    return Ok(entry);
                }
            }
            if self.fill()? == 0 && !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Read more of the current file. Returns how many bytes.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() > ENTRY_MAX {
            self.buffer.clear();
            self.skipping = true;
        }
        let before = self.buffer.len();
        let most = self.left.map_or(READ as u64, |left| left.min(READ as u64));
        (&mut current.file).take(most).read_to_end(&mut self.buffer)?;
        let read = self.buffer.len() - before;
        self.left = self.left.map(|left| left - read as u64);
        Ok(read)
    }

    /// At the end of the current file: go to the one after it. Returns whether there may be more to read.
    fn advance(&mut self) -> io::Result<bool> {
        if self.left == Some(0) {
            return Ok(false);
        }
        for _ in 0..TRIES {
            let live = open_file(&self.directory, &self.live)?;
            let rotated = self.inode_of_rotated()?;
            let next = match (&self.current, live) {
                (Some(current), Some((_, inode))) if current.inode == inode => return Ok(false),
                // ours is the rotated one, or there is none: what follows is the live one
                (current, live) if rotated.is_none_or(|inode| current.as_ref().is_some_and(|c| c.inode == inode)) => {
                    let Some(live) = live else { return Ok(false) };
                    if self.inode_of_rotated()? != rotated {
                        // it was rotated meanwhile, and `live` may be the next but one
                        continue;
                    }
                    live
                }
                _ => match open_file(&self.directory, &self.rotated)? {
                    Some(file) => file,
                    None => continue,
                },
            };
            // what was written between our reading its end and its being renamed
            if self.fill()? > 0 {
                return Ok(true);
            }
            let (file, inode) = next;
            self.buffer.clear();
            self.taken = 0;
            self.skipping = false;
            if let Some(watch) = &mut self.watch {
                watch.follow(&file)?;
            }
            self.current = Some(Current { file, inode });
            return Ok(true);
        }
        Ok(false)
    }

    fn inode_of_rotated(&self) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.directory, &self.rotated, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Wait until there may be more to read, until `stop` is readable, or until the time is over. Call it when
    /// [`Reader::next`] has given `None`; nothing that is written in between is missed.
    ///
    /// # Errors
    /// When the kernel gives no inotify watch. Without an instance of its own it wakes every now and then.
    pub fn wait(&mut self, stop: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Woken> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let Some(watch) = &self.watch else {
            let file = self.current.as_ref().map(|current| &current.file);
            self.watch = Watch::new(self.instances, &self.directory, file)?;
            return match self.watch {
                // what came before the watch was there makes no event: the caller looks once more
                Some(_) => Ok(Woken::Changed),
                None => look_later(stop, timeout),
            };
        };
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            let mut ready = [PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::new(&watch.inotify, PollFlags::IN)];
            match poll(&mut ready, left.as_ref()) {
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) if !ready[0].revents().is_empty() => return Ok(Woken::Stopped),
                Ok(_) if watch.concerns(&[&self.live, &self.rotated])? => return Ok(Woken::Changed),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Waits where nothing tells of a change.
fn look_later(stop: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Woken> {
    let wait = timeout.map_or(LOOK, |timeout| timeout.min(LOOK));
    let time = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(stop, PollFlags::IN)], Some(&time)) {
        Ok(0) if timeout == Some(wait) => Ok(Woken::TimedOut),
        Ok(0) | Err(Errno::INTR) => Ok(Woken::Changed),
        Ok(_) => Ok(Woken::Stopped),
        Err(errno) => Err(errno.into()),
    }
}

impl Watch {
    /// `None` where no instance is to be had.
    fn new(instances: &'static Instances, directory: &OwnedFd, file: Option<&File>) -> io::Result<Option<Self>> {
        use inotify::{CreateFlags, WatchFlags};
        let Some(instance) = instances.take() else { return Ok(None) };
        let inotify = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Err(Errno::MFILE) => return Ok(None),
            made => made?,
        };
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let directory = inotify::add_watch(&inotify, path_of(directory.as_fd()), flags)?;
        let mut watch = Self { inotify, directory, file: None, _instance: instance };
        if let Some(file) = file {
            watch.follow(file)?;
        }
        Ok(Some(watch))
    }

    /// Watch this file from now on, and the one before no more. It is known by its descriptor: the name may mean
    /// another by now.
    fn follow(&mut self, file: &File) -> io::Result<()> {
        if let Some(before) = self.file.take() {
            // the kernel has dropped it already where the file is gone
            let _ = inotify::remove_watch(&self.inotify, before);
        }
        let watch = inotify::add_watch(&self.inotify, path_of(file.as_fd()), inotify::WatchFlags::MODIFY)?;
        self.file = Some(watch);
        Ok(())
    }

    /// Take all events there are. Returns whether one was about our file or these names.
    fn concerns(&self, names: &[&str]) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut concerned = false;
        loop {
            match events.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => concerned = true,
                Ok(event) if event.wd() == self.directory => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    concerned |= name.is_some_and(|name| names.contains(&name));
                }
                Ok(event) => concerned |= Some(event.wd()) == self.file,
                Err(Errno::AGAIN) => return Ok(concerned),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests;
