//! The daemon's end of its conversation with the supervisor: any number of threads ask, each waits for its own answer.
//!
//! One thread reads (`supervisor-link`), hands answers to whoever asked and events to the one callback. Everything
//! here blocks; from asynchronous code call it on a thread that may.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use sampan_sys::frame;

use crate::supervisor::{SOCKET, StartError};
use crate::wire::{Call, Event, Failure, Reply, Request, Told, VERSION, Welcome};

/// A request was not done.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens there: no supervisor runs. [`supervisor::start`](crate::supervisor::start) starts one.
    #[error("no supervisor listens at {path}")]
    NoSupervisor {
        /// Where it would.
        path: std::path::PathBuf,
    },
    /// None ran, and none could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The supervisor is gone, or listens to another daemon now.
    #[error("the supervisor has closed the connection")]
    Closed,
    /// The supervisor could not do it.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The supervisor answered something else than what was asked.
    #[error("the supervisor gave an answer that does not belong to the question")]
    OutOfTurn,
    /// Asking itself failed.
    #[error("speak to the supervisor")]
    Speak(#[source] io::Error),
}

type Answer = (Reply, Vec<OwnedFd>);

/// A connection that has said hello. Dropping it closes it and waits for its thread, if it is not that thread that
/// drops it.
pub struct Link {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    socket: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    last_number: u64,
    waiting: HashMap<u64, mpsc::SyncSender<Answer>>,
    on_closed: Vec<Box<dyn FnOnce() + Send>>,
}

impl Link {
    /// Connects to the supervisor of `run_dir` and takes over from the daemon before. `on_event` is called on the
    /// link's own thread, one event at a time, possibly before this returns; it must not call back into the link.
    ///
    /// # Errors
    /// [`LinkError::NoSupervisor`] where none runs; else as [`call`](Self::call).
    pub fn connect(run_dir: &Path, on_event: impl Fn(Event) + Send + 'static) -> Result<(Self, Welcome), LinkError> {
        let path = run_dir.join(SOCKET);
        let socket = frame::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => LinkError::NoSupervisor { path },
            _ => LinkError::Speak(error),
        })?;
        let shared = Arc::new(Shared { socket, state: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("supervisor-link".into())
            .spawn(move || theirs.read(&on_event))
            .map_err(LinkError::Speak)?;
        let link = Self { shared, reader: Some(reader) };
        match link.call(Request::Hello { version: VERSION }, &[])? {
            (Reply::Welcome(welcome), _) => Ok((link, welcome)),
            _ => Err(LinkError::OutOfTurn),
        }
    }

    /// Asks, and waits for the answer: microseconds for most, a program's start for [`Request::Go`].
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the supervisor's reason; [`LinkError::Closed`] where it is gone.
    pub fn call(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Answer, LinkError> {
        self.ask(request, fds)?.answer()
    }

    /// Asks, and leaves the time until the answer comes to the caller.
    ///
    /// # Errors
    /// [`LinkError::Closed`] where the supervisor is gone; [`LinkError::Speak`].
    pub fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Question, LinkError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let number = {
            let mut state = self.shared.state();
            if state.closed {
                return Err(LinkError::Closed);
            }
            state.last_number += 1;
            let number = state.last_number;
            state.waiting.insert(number, sender);
            number
        };
        let body = serde_json::to_vec(&Call { number, request }).expect("texts and numbers are always JSON");
        if let Err(error) = frame::send(self.shared.socket.as_fd(), &body, fds) {
            self.shared.state().waiting.remove(&number);
            return Err(if error.kind() == io::ErrorKind::BrokenPipe {
                LinkError::Closed
            } else {
                LinkError::Speak(error)
            });
        }
        Ok(Question(receiver))
    }

    /// Has `then` called once when the connection is closed: at once where it is already, else on the link's thread.
    pub fn on_closed(&self, then: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.closed {
            drop(state);
            then();
        } else {
            state.on_closed.push(Box::new(then));
        }
    }
}

/// What was asked and is to be answered. Dropped, nobody hears the answer, and what came beside it is closed.
#[derive(Debug)]
#[must_use = "what is asked is not known to be done before it is answered"]
pub struct Question(mpsc::Receiver<Answer>);

impl Question {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As of [`Link::call`].
    pub fn answer(self) -> Result<Answer, LinkError> {
        match self.0.recv() {
            Ok((Reply::Failed(failure), _)) => Err(LinkError::Refused(failure)),
            Ok(answer) => Ok(answer),
            Err(mpsc::RecvError) => Err(LinkError::Closed),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // fails where the other end is gone, and then the thread is on its way out anyway
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
        if let Some(reader) = self.reader.take()
            && reader.thread().id() != std::thread::current().id()
        {
            // a callback that panicked has said so
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // nothing panics while it is held
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, on_event: &impl Fn(Event)) {
        // however this ends, callers must not wait for ever
        let _closing = Closing(self);
        while let Ok(Some(frame)) = frame::receive(self.socket.as_fd()) {
            match serde_json::from_slice(&frame.body) {
                Ok(Told::Event { event }) => on_event(event),
                Ok(Told::Reply { number, reply }) => {
                    let asker = self.state().waiting.remove(&number);
                    if let Some(asker) = asker {
                        // one that has stopped waiting does not want it
                        let _ = asker.send((reply, frame.fds));
                    }
                }
                // of a later version: as if it had not been said
                Err(_) => {}
            }
        }
    }
}

struct Closing<'link>(&'link Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let callbacks = {
            let mut state = self.0.state();
            state.closed = true;
            state.waiting.clear();
            std::mem::take(&mut state.on_closed)
        };
        callbacks.into_iter().for_each(|then| then());
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
