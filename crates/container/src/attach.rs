//! Speaking with a container: what it writes from now on, and what is written to it.
//!
//! Its output comes from the logger ([`Request::Follow`]), which goes on writing the log as well; what is written to it
//! goes straight into its pipe or terminal. Whoever attaches may go away at any time: the container goes on, and its
//! input ends only when somebody says that it does ([`Input::close`]).
//!
//! A logger that is killed is replaced, and its followers with it: what a container wrote in between is in its log, and
//! is missing here.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use sampan_model::view::{Exit, LogFrame, TerminalSize};
use sampan_model::{ContainerId, ContainerState, ContainerStatus};
use sampan_runtime::link::LinkError;
use sampan_runtime::wire::Request;
use tokio::sync::watch;

use crate::containers::{Container, Inner, lock};
use crate::descriptor::{Descriptor, PIECE};
use crate::{ContainerError, Containers};

/// The most that are attached to one container at once.
pub const MOST_ATTACHED: usize = 32;

/// A terminal's size where nobody says one: what programs take for the usual.
pub(crate) const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// What of a container's streams is known before it runs.
#[derive(Default)]
pub(crate) struct Streams {
    /// Pipes of those who want all that its next life writes.
    waiting: Mutex<Vec<OwnedFd>>,
    /// Its terminal's.
    size: Mutex<Option<TerminalSize>>,
    attached: AtomicUsize,
}

impl Streams {
    /// The size that its terminal begins with: the last that it had.
    pub(crate) fn size(&self) -> TerminalSize {
        lock(&self.size).unwrap_or(SIZE)
    }

    /// The pipes of those who want all that its next life writes.
    pub(crate) fn take_waiting(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    /// It was not started: who waits for its output waits for nothing.
    pub(crate) fn give_up(&self) {
        lock(&self.waiting).clear();
    }
}

impl Inner {
    fn follow_output(&self, id: &ContainerId, pipe: &OwnedFd) -> Result<(), ContainerError> {
        let follow = Request::Follow { id: id.clone() };
        match self.foundation.supervisor.call(follow, &[pipe.as_fd()]) {
            Ok(_) => Ok(()),
            Err(LinkError::Refused(failure)) => Err(ContainerError::Unfollowed(failure)),
            Err(error) => Err(error.into()),
        }
    }

    fn input(&self, id: &ContainerId) -> Result<Option<OwnedFd>, ContainerError> {
        let (_, fds) = self.foundation.supervisor.call(Request::Input { id: id.clone() }, &[])?;
        Ok(fds.into_iter().next())
    }
}

impl Containers {
    /// Attaches to a container that runs.
    ///
    /// # Errors
    /// There is no such container, it does not run, or too many are attached to it.
    pub async fn attach(&self, id: &ContainerId) -> Result<Attached, ContainerError> {
        let container = self.inner.get(id)?;
        let pid = container.running_pid()?;
        let mut attached = Attached::new(self, container)?;
        attached.pid = Some(pid);
        attached.output = Frames::new(self.follow_now(id).await?)?;
        Ok(attached)
    }

    /// Attaches to a container before it is started: nothing of what it writes is missed. `size`: its terminal's.
    ///
    /// # Errors
    /// There is no such container, or too many are attached to it.
    pub fn attach_before_start(
        &self,
        id: &ContainerId,
        size: Option<TerminalSize>,
    ) -> Result<Attached, ContainerError> {
        let container = self.inner.get(id)?;
        if let Some(size) = size {
            *lock(&container.streams.size) = Some(size);
        }
        let mut attached = Attached::new(self, Arc::clone(&container))?;
        let (read, write) = new_pipe()?;
        attached.output = Frames::new(read)?;
        let mut waiting = lock(&container.streams.waiting);
        // of those who went away before it was started nothing is to stay
        waiting.retain(has_reader);
        waiting.push(write);
        drop(waiting);
        Ok(attached)
    }

    async fn follow_now(&self, id: &ContainerId) -> Result<OwnedFd, ContainerError> {
        let (read, write) = new_pipe()?;
        let id = id.clone();
        self.blocking("following a container", move |inner| inner.follow_output(&id, &write)).await?;
        Ok(read)
    }
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), ContainerError> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| failed("make a pipe")(error.into()))
}

/// Whether anybody has a pipe's other end.
fn has_reader(pipe: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::new(pipe, PollFlags::empty())];
    !(poll(&mut asked, Some(&now)).is_ok() && asked[0].revents().contains(PollFlags::ERR))
}

pub(crate) fn failed(what: &str) -> impl FnOnce(io::Error) -> ContainerError {
    let what = what.to_owned();
    move |source| ContainerError::Io { what, source }
}

/// One who is attached to a container. Dropping it detaches.
pub struct Attached {
    containers: Containers,
    container: Arc<Container>,
    output: Frames,
    state: watch::Receiver<ContainerState>,
    /// The life that it is attached to; `None` before it has begun.
    pid: Option<u32>,
    _seat: Seat,
}

impl Attached {
    fn new(containers: &Containers, container: Arc<Container>) -> Result<Self, ContainerError> {
        let seat = Seat::take(&container)?;
        Ok(Self {
            containers: containers.clone(),
            state: container.state(),
            output: Frames::nothing(),
            container,
            pid: None,
            _seat: seat,
        })
    }

    /// It was started, as this process.
    pub fn started(&mut self, pid: u32) {
        self.pid = Some(pid);
    }

    /// What it wrote next; `None` when it has ended and all was told. Cancel-safe.
    pub async fn next(&mut self) -> Option<(LogFrame, Vec<u8>)> {
        loop {
            match self.output.next().await {
                Ok(Some(frame)) => return Some(frame),
                // the container's end, or the logger's: the next one is asked then
                Ok(None) => {}
                Err(error) => tracing::warn!(id = %self.container.id, %error, "a container cannot be followed"),
            }
            if self.output.is_over || !self.runs() {
                return None;
            }
            let again = self.containers.follow_now(&self.container.id).await;
            match again.and_then(Frames::new) {
                // another life may have begun meanwhile, which is not this one's to tell of
                Ok(output) if self.runs() => self.output = output,
                // ended: the supervisor says so before the state does
                _ => return None,
            }
        }
    }

    /// What is written to; `None` where it has neither a terminal nor an open standard input. It must be started.
    ///
    /// # Errors
    /// It has ended.
    pub async fn input(&self) -> Result<Option<Input>, ContainerError> {
        let spec = &self.container.record().spec;
        if !spec.stdin && !spec.terminal {
            return Ok(None);
        }
        let id = self.container.id.clone();
        let fd = self.containers.blocking("writing to a container", move |inner| inner.input(&id)).await?;
        let Some(fd) = fd else { return Ok(None) };
        let end = Descriptor::writer(fd).map_err(failed("write to a container"))?;
        let source = Source::Container(self.containers.clone(), Arc::clone(&self.container));
        // a terminal is there for its size also where nobody was to type
        let muted = !spec.stdin;
        Ok(Some(Input { end, source, muted }))
    }

    /// How the life that it is attached to ended, when it has.
    pub async fn ended(&mut self) -> Exit {
        let pid = self.pid;
        let is_over = |state: &ContainerState| match state.status {
            ContainerStatus::Exited | ContainerStatus::Removing => true,
            ContainerStatus::Running => pid.is_some() && state.pid != pid,
            ContainerStatus::Created => false,
        };
        let exit = match self.state.wait_for(is_over).await {
            Ok(state) if state.status != ContainerStatus::Running => {
                Exit { exit_code: state.exit_code, oom_killed: state.oom_killed }
            }
            // started again before it was looked at, or removed
            _ => Exit { exit_code: None, oom_killed: false },
        };
        if self.container.record().spec.remove_at_exit {
            self.containers.remove_soon(&self.container);
        }
        exit
    }

    /// Where signals to its first process go.
    pub fn signals(&self) -> Signals {
        Signals { containers: self.containers.clone(), id: self.container.id.clone() }
    }

    fn runs(&self) -> bool {
        let state = self.state.borrow();
        state.status == ContainerStatus::Running && (self.pid.is_none() || state.pid == self.pid)
    }
}

/// A container to be signalled.
pub struct Signals {
    containers: Containers,
    id: ContainerId,
}

impl Signals {
    /// Sends its first process a signal.
    ///
    /// # Errors
    /// It does not run, or there is no such signal.
    pub async fn send(&self, signal: i32) -> Result<(), ContainerError> {
        self.containers.kill(&self.id, signal).await
    }
}

/// One of those that may be attached.
struct Seat(Arc<Container>);

impl Seat {
    fn take(container: &Arc<Container>) -> Result<Self, ContainerError> {
        let seat = Self(Arc::clone(container));
        if seat.0.streams.attached.fetch_add(1, Ordering::SeqCst) >= MOST_ATTACHED {
            let name = container.record().spec.name.to_string();
            return Err(ContainerError::TooManyAttached { name, most: MOST_ATTACHED });
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.attached.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is written to a process.
pub struct Input {
    end: Descriptor,
    source: Source,
    /// It is there for its size alone.
    muted: bool,
}

/// Whose it is.
pub(crate) enum Source {
    /// A container's: held by its supervisor too.
    Container(Containers, Arc<Container>),
    /// A further process's: nobody else has it.
    Process,
}

impl Input {
    /// A further process's.
    pub(crate) fn of_process(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { end: Descriptor::writer(fd)?, source: Source::Process, muted: false })
    }

    /// From here on it is there for its size alone: what is written to it is dropped.
    pub fn mute(&mut self) {
        self.muted = true;
    }

    /// Whether it is a terminal's.
    pub fn is_terminal(&self) -> bool {
        rustix::termios::tcgetwinsize(&self.end).is_ok()
    }

    /// Writes all of it. It waits for as long as the process does not read.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if self.muted { Ok(()) } else { self.end.write_all(bytes).await }
    }

    /// That was all: the process sees the end of its standard input. A terminal has none; its programs take Ctrl-D.
    ///
    /// # Errors
    /// The container has ended.
    pub async fn close(self) -> Result<(), ContainerError> {
        let is_terminal = self.is_terminal();
        let Self { end, source, .. } = self;
        drop(end);
        match source {
            Source::Container(containers, container) if !is_terminal => {
                let close = Request::CloseInput { id: container.id.clone() };
                let closed = move |inner: &Inner| Ok(inner.foundation.supervisor.call(close, &[]).map(drop)?);
                containers.blocking("closing a container's input", closed).await
            }
            _ => Ok(()),
        }
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// It is no terminal.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        if let Source::Container(_, container) = &self.source {
            *lock(&container.streams.size) = Some(size);
        }
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.end, size)?)
    }
}

/// Frames as the logger writes them.
struct Frames {
    pipe: Option<Descriptor>,
    /// What has come and is not a whole frame yet, and further ones.
    buffer: Vec<u8>,
    /// How much of that has been taken.
    taken: usize,
    piece: Vec<u8>,
    /// That was all.
    is_over: bool,
}

impl Frames {
    fn nothing() -> Self {
        Self { pipe: None, buffer: Vec::new(), taken: 0, piece: Vec::new(), is_over: false }
    }

    fn new(pipe: OwnedFd) -> Result<Self, ContainerError> {
        let pipe = Descriptor::reader(pipe).map_err(failed("read what a container writes"))?;
        Ok(Self { pipe: Some(pipe), ..Self::nothing() })
    }

    /// The next; `None` at the end, where half a frame is dropped (its logger was killed within it). Cancel-safe.
    async fn next(&mut self) -> io::Result<Option<(LogFrame, Vec<u8>)>> {
        loop {
            if let Some(frame) = self.take()? {
                if frame.0 == LogFrame::END {
                    (self.pipe, self.is_over) = (None, true);
                    return Ok(None);
                }
                return Ok(Some(frame));
            }
            let Some(pipe) = &self.pipe else { return Ok(None) };
            self.piece.resize(PIECE, 0);
            match pipe.read(&mut self.piece).await? {
                0 => self.pipe = None,
                count => {
                    self.buffer.drain(..self.taken);
                    self.taken = 0;
                    self.buffer.extend_from_slice(&self.piece[..count]);
                }
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<(LogFrame, Vec<u8>)>> {
        let buffer = &self.buffer[self.taken..];
        let Some((head, rest)) = buffer.split_first_chunk::<{ LogFrame::HEAD }>() else { return Ok(None) };
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the logger has written what is no frame");
        let frame = LogFrame::decode(*head).ok_or_else(invalid)?;
        let Some(payload) = rest.get(..frame.length as usize) else { return Ok(None) };
        self.taken += LogFrame::HEAD + payload.len();
        Ok(Some((frame, payload.to_vec())))
    }
}

/// A frame of bytes that were just read.
pub(crate) fn frame_of(stream: u8, bytes: &[u8]) -> (LogFrame, Vec<u8>) {
    let at_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    let length = u32::try_from(bytes.len()).unwrap_or(LogFrame::LONGEST);
    (LogFrame { stream, length, at_ns }, bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_whole_and_half_a_one_never() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let mut frames = Frames::new(read).expect("frames");
        let payloads: [&[u8]; 4] = [b"one\n", b"", &[b'x'; 20_000], b"cut"];
        let mut bytes = Vec::new();
        for payload in payloads {
            let length = u32::try_from(payload.len()).expect("short");
            bytes.extend(LogFrame { stream: 2, length, at_ns: 7 }.encode());
            bytes.extend_from_slice(payload);
        }
        bytes.pop();
        // in pieces that begin and end anywhere
        for piece in bytes.chunks(777) {
            rustix::io::write(&write, piece).expect("room");
        }
        drop(write);
        for payload in &payloads[..3] {
            let (frame, told) = frames.next().await.expect("a frame").expect("not the end");
            assert_eq!((frame.stream, frame.at_ns, &*told), (2, 7, *payload));
        }
        assert_eq!(frames.next().await.expect("the end"), None);
    }

    #[test]
    fn who_has_gone_is_known() {
        let (read, write) = new_pipe().expect("a pipe");
        assert!(has_reader(&write));
        drop(read);
        assert!(!has_reader(&write));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        rustix::io::write(&write, &[9; 64]).expect("room");
        assert!(Frames::new(read).expect("frames").next().await.is_err());
    }
}
