//! A terminal with a program at it, as a person's: what is typed, what is shown, and its size.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use sampan_testkit::wait_for;

use crate::sampan::SOON;

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    program: Child,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// One of 30 lines of 99 characters, at which this command runs.
    ///
    /// # Panics
    /// Where there is none, or no such program.
    pub fn of(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("its other side");
        unlockpt(&master).expect("its other side");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("a name in UTF-8");
        let open = || File::options().read(true).write(true).open(&name).expect("its other side");
        // a session of its own, so that the terminal can be its controlling one
        let mut at = Command::new("setsid");
        at.arg("-c").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at.env(name, value),
                None => at.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            at.current_dir(dir);
        }
        at.stdin(Stdio::from(open())).stdout(Stdio::from(open())).stderr(Stdio::from(open()));
        tcsetwinsize(&master, size(30, 99)).expect("its size");
        let program = at.spawn().expect("setsid, of util-linux");
        drop(at);
        let (teller, shown) = channel();
        let mut reader = File::from(master.try_clone().expect("a descriptor"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: nobody holds the other side any more
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if teller.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master: File::from(master), program, shown, seen: String::new() }
    }

    /// Types.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("keys can be typed");
    }

    /// Waits until these words are shown, after those that were waited for before; returns what came before them.
    ///
    /// # Panics
    /// Where they do not come soon.
    #[track_caller]
    pub fn until(&mut self, words: &str) -> String {
        let end = Instant::now() + SOON;
        loop {
            if let Some(at) = self.seen.find(words) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + words.len());
                return before;
            }
            match self.shown.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("never shown: {words:?}; shown: {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {words:?}: {:?}", self.seen),
            }
        }
    }

    /// Makes it another size.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).expect("its size");
    }

    /// Whether keys are echoed and taken by lines, as a terminal that nobody has made raw does.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.master).expect("its mode").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// The program at it.
    pub fn program(&self) -> &Child {
        &self.program
    }

    /// Waits for the program's end; returns its exit code, -1 where a signal ended it.
    ///
    /// # Panics
    /// Where it does not end soon.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let status =
            wait_for("the program at the terminal to end", SOON, || self.program.try_wait().expect("its status"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.program.try_wait(), Ok(None)) {
            // a failed test's: it must not outlive it
            let _ = self.program.kill();
            let _ = self.program.wait();
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
