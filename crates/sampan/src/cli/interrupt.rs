//! Ctrl-C, and its like from programs.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// SIGINT and SIGTERM from now on.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    count: u32,
}

impl Interrupts {
    /// Listens: from now on they do not end this process by themselves.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("listen for Ctrl-C: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, count: 0 })
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.count += 1;
    }

    /// Waits for the next one, or not at all where one came already. Cancel-safe.
    pub async fn first(&mut self) {
        if self.count == 0 {
            self.next().await;
        }
    }

    /// Waits until there were two: somebody insists. Cancel-safe.
    pub async fn second(&mut self) {
        while self.count < 2 {
            self.next().await;
        }
    }

    /// Does work that must not be left half-done for one interrupt, but is for two.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = work => Ok(done),
            () = self.second() => Err(Failure::silent(INTERRUPTED)),
        }
    }
}

/// The exit code after Ctrl-C: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;
