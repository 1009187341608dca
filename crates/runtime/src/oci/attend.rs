//! In front of a process: its signals, its terminal, its end.
//!
//! One loop, one thread: signals come as readable events and are handed on, what is typed goes to the terminal and what
//! it shows comes back, and when the process has ended and all was shown, its code is told.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios};
use sampan_sys::pidfd;
use sampan_sys::signal::SignalEvents;

use super::error::{OciError, When as _};

/// Signals that are handed on, from the time this is made: before that they end this process, as they end any.
#[derive(Debug)]
pub(super) struct Signals(SignalEvents);

impl Signals {
    pub fn watch() -> Result<Self, OciError> {
        // what cannot be caught, and what a fault of our own is told by, stays as it is
        let kept = [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE, Signal::ABORT];
        let kept = kept.map(Signal::as_raw);
        let watched: Vec<i32> = (1..=64).filter(|signal| !kept.contains(signal)).collect();
        SignalEvents::watch(&watched).map(Self).when("watch for signals")
    }
}

/// Stays until the process ends; its code, 128 + N for signal N.
pub(super) fn attend(signals: &Signals, process: BorrowedFd<'_>, terminal: Option<OwnedFd>) -> Result<u8, OciError> {
    let terminal = terminal.map(Front::new).transpose()?;
    let mut front = terminal;
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
        ];
        if let Some(front) = &front {
            front.watch(&mut fds);
        }
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            result => result.when("wait for it")?,
        };
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        while let Some(signal) = signals.0.next().when("read a signal")? {
            match signal {
                _ if signal == Signal::CHILD.as_raw() || signal == Signal::URG.as_raw() => {}
                _ if signal == Signal::WINCH.as_raw() && front.is_some() => {
                    front.iter().for_each(Front::resize);
                }
                _ => drop(pidfd::signal(process, signal)),
            }
        }
        if let Some(front) = &mut front {
            front.pass_on(&events[2..]).when("pass on what its terminal shows")?;
        }
        if !events[0].is_empty() {
            if let Some(front) = &mut front {
                front.show_rest();
            }
            return wait(process);
        }
    }
}

/// Reaps a child that has ended.
pub(super) fn wait(process: BorrowedFd<'_>) -> Result<u8, OciError> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(process), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            result => break result.when("wait for its end")?,
        }
    };
    Ok(status.map_or(255, |status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128_u8.wrapping_add(signal.unwrap_or_default() as u8),
    }))
}

/// This process's own terminal, or whatever its standard streams are, in front of the container's.
struct Front {
    master: OwnedFd,
    /// What this terminal was like before.
    before: Option<Termios>,
    /// What was typed and not taken yet.
    typed: Vec<u8>,
    input: Input,
    shows: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

impl Front {
    fn new(master: OwnedFd) -> Result<Self, OciError> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)
                .when("make the terminal raw")?;
        }
        let front = Self { master, before, typed: Vec::new(), input: Input::Open, shows: true };
        front.resize();
        Ok(front)
    }

    /// The container's terminal is as large as this one.
    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    fn watch<'fds>(&'fds self, fds: &mut Vec<PollFd<'fds>>) {
        let mut wanted = PollFlags::empty();
        if self.shows {
            wanted |= PollFlags::IN;
        }
        if !self.typed.is_empty() {
            wanted |= PollFlags::OUT;
        }
        fds.push(PollFd::new(&self.master, wanted));
        if self.input == Input::Open && self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
    }

    fn pass_on(&mut self, events: &[PollFlags]) -> io::Result<()> {
        if self.shows && events.first().is_some_and(|event| event.intersects(PollFlags::IN | PollFlags::HUP)) {
            self.show()?;
        }
        if events.get(1).is_some_and(|event| !event.is_empty()) {
            let mut buffer = [0_u8; 4096];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) | Err(Errno::IO) => {
                    self.input = Input::Ended;
                    // what a terminal's reader takes for the end
                    self.typed.push(END_OF_INPUT);
                }
                Ok(count) => self.typed.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.typed.clear(), // nobody has it open any more
            }
        }
        Ok(())
    }

    /// Once; whether there may be more.
    fn show(&mut self) -> io::Result<bool> {
        let mut buffer = [0_u8; 16 * 1024];
        match rustix::io::read(&self.master, &mut buffer) {
            // EIO: nobody has it open any more
            Ok(0) | Err(Errno::IO) => {
                self.shows = false;
                Ok(false)
            }
            Ok(count) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    match rustix::io::write(rustix::stdio::stdout(), rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What was shown before the end.
    fn show_rest(&mut self) {
        while self.shows && self.show().is_ok_and(|more| more) {}
    }
}

/// Control-D.
const END_OF_INPUT: u8 = 4;

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
