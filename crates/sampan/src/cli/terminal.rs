//! The caller's own terminal: its size, and its raw mode, which ends on every way out.
//!
//! In raw mode each key goes to the process as a byte, Ctrl-C too; what it means is for the process's own terminal to
//! say. The mode before is put back when [`Raw`] is dropped, and by a panic's hook before anything is printed. Signals
//! are heard by whoever holds it (`attend`), who then drops it; one that nobody hears, SIGKILL, leaves the terminal as
//! it is: `stty sane` mends that.

use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use sampan_model::view::TerminalSize;

use super::failure::Failure;

/// The terminal's mode before it was made raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of the terminal at standard input, while it is held.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes it raw.
    pub fn enter() -> Result<Self, Failure> {
        static HOOK: Once = Once::new();
        let failed = |error| Failure::new(format!("put the terminal into raw mode: {error}"));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        HOOK.call_once(|| {
            let said = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                said(panic);
            }));
        });
        // the guard first: a failure half-way is undone too
        let guard = Self(());
        tcsetattr(stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // a terminal that is gone needs no mode
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

/// The size of the terminal that is looked at, where there is one.
pub fn size() -> Option<TerminalSize> {
    let sizes = [tcgetwinsize(stdout()), tcgetwinsize(stdin()), tcgetwinsize(stderr())];
    let Winsize { ws_row: rows, ws_col: columns, .. } = sizes.into_iter().flatten().next()?;
    Some(TerminalSize { rows, columns })
}

/// Refuses a terminal for a process whose input would come from none, as Docker does: what is typed into a pipe has no
/// keys, and a program that believes it had would wait for them.
pub fn require(tty: bool, interactive: bool) -> Result<(), Failure> {
    if tty && interactive && !stdin().is_terminal() {
        return Err(Failure::new("standard input is not a terminal, and -t needs one")
            .with_hint("leave -t out: `-i` alone passes a pipe or a file on, byte for byte"));
    }
    Ok(())
}
