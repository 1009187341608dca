//! The first process of a container that was asked to have one of ours (`--init`): it hands signals on to the program,
//! which is its child, reaps whatever is left to it, and ends as the program does.
//!
//! It is the sealed child itself, which clones the program instead of becoming it: nothing is executed, so there is no
//! file of the host's in the container. It keeps nothing of the host's in reach either: no descriptor, no name, and
//! nobody may look into it (it was closed to others at its birth). The program's filter holds for it too.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitOptions;
use sampan_sys::clone::{Namespaces, clone};
use sampan_sys::seccomp::Compiled;
use sampan_sys::signal::SignalEvents;
use sampan_sys::{pidfd, process, title};

use super::program::Program;
use super::{FAILED, Step as _, Stopped};
use crate::wire::Failure;

const CHILD_ENDED: i32 = rustix::process::Signal::CHILD.as_raw();

/// Makes the process that runs `program`, which keeps the descriptors `keep`, and stays. Returns only where there could
/// be none. `terminal` is the program's own, where it has one.
pub(super) fn stay(
    keep: &[BorrowedFd<'_>],
    terminal: Option<BorrowedFd<'_>>,
    what: &Program<'_>,
    filter: Option<&Compiled>,
    program: impl FnOnce() -> u8,
) -> Result<Infallible, Stopped> {
    let step = "make its first process";
    // before there is anybody who could read another one
    title::set(c"sampan-init").step(step)?;
    // from here on they wait: the program's process lets them through again when it executes
    let waiting = watch_all().step(step)?;
    let cloned = clone(Namespaces::NONE, None, keep, || {
        // what a terminal's keys end is the program, not this process too
        let alone = rustix::process::setpgid(None, None);
        if let (Ok(()), Some(terminal)) = (alone, terminal) {
            let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpid());
        }
        program()
    })
    .step(step)?;
    drop(waiting);
    let pid = cloned.pid;
    std::mem::forget(cloned); // its descriptor goes with all others
    process::exit(hand_on(pid, what, filter).unwrap_or(FAILED))
}

fn watch_all() -> std::io::Result<SignalEvents> {
    SignalEvents::watch(&(1..=64).collect::<Vec<_>>())
}

fn hand_on(program: rustix::process::Pid, what: &Program<'_>, filter: Option<&Compiled>) -> Result<u8, Failure> {
    let step = "be its first process";
    // with its end of the supervisor's socket: whether the program was executed is the program's to tell
    process::close_from(0).step(step)?;
    what.confine(filter)?;
    let signals = watch_all().step(step)?;
    // nobody but this process reaps it, so the pid is still its own
    let program_fd = pidfd::open(program.as_raw_nonzero().get().cast_unsigned()).step(step)?;
    loop {
        while let Some(signal) = signals.next().step(step)? {
            if signal != CHILD_ENDED {
                // one that has just ended is reaped next
                let _ = pidfd::signal(program_fd.as_fd(), signal);
                continue;
            }
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if pid == program {
                    return Ok(pidfd::code_of_status(status.as_raw()));
                }
            }
        }
        match rustix::event::poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::at(step, &errno.into())),
        }
    }
}
