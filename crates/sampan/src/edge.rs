//! The edge's role: frames from the supervisor in, the edge's status out; the work is [`sampan_edge`]'s.
//!
//! The supervisor says, on descriptor 3: `{"sockets": [KEY, …]}` with a descriptor for each, and
//! `{"table": REVISION, "keep": [KEY, …]}` with a memfd that holds the table. It is told the status, as it is.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use sampan_edge::{Control, EdgeError, Limits};
use sampan_model::{EdgeStatus, EdgeTable};
use sampan_sys::frame;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::process;

/// The descriptor that the supervisor left us.
const CONTROL: i32 = 3;
/// Tables and sockets on their way.
const CONTROLS: usize = 64;

/// Runs the edge until the supervisor closes its end.
pub fn main() -> ExitCode {
    if let Err(error) = sampan_runtime::seccomp::confine_role() {
        eprintln!("sampan edge: {error}");
        return ExitCode::FAILURE;
    }
    let socket = match sampan_sys::process::inherited(CONTROL) {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            eprintln!("sampan edge: is started by the supervisor, with its socket as descriptor {CONTROL}: {error}");
            return ExitCode::from(2);
        }
    };
    process::log_to_stderr();
    process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| Ok(runtime.block_on(run(socket))?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the edge ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(socket: Arc<OwnedFd>) -> Result<(), EdgeError> {
    let (sender, controls) = mpsc::channel(CONTROLS);
    let reader = Arc::clone(&socket);
    // a thread of its own: it blocks on the socket for the whole of the edge's life
    std::thread::spawn(move || {
        while let Some(control) = next(&reader) {
            if sender.blocking_send(control).is_err() {
                return;
            }
        }
    });
    sampan_edge::run(controls, Limits::default(), move |status| tell(&socket, &status)).await
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Order {
    Sockets { sockets: Vec<String> },
    Table { table: u64 },
}

/// The next thing that the supervisor says; `None` when it has gone, or says what cannot be understood: a fresh edge
/// is then better than this one.
fn next(socket: &OwnedFd) -> Option<Control> {
    let frame = frame::receive(socket.as_fd()).ok()??;
    match serde_json::from_slice(&frame.body).ok()? {
        Order::Sockets { sockets } => Some(Control::Sockets(sockets.into_iter().zip(frame.fds).collect())),
        Order::Table { table } => {
            let text = read_all(frame.fds.into_iter().next()?)?;
            let parsed: EdgeTable = serde_json::from_slice(&text).ok()?;
            (parsed.revision == table).then_some(Control::Table(parsed))
        }
    }
}

/// A memfd's bytes. It is shared with the supervisor, and so is its offset: read by position.
fn read_all(memfd: OwnedFd) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = File::from(memfd);
    let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn tell(socket: &OwnedFd, status: &EdgeStatus) {
    let text = serde_json::to_vec(status).expect("a status has only text keys");
    // a status that is not taken now is replaced by the next one
    if let Err(error) = frame::send(socket.as_fd(), &text, &[]) {
        tracing::warn!(%error, "the status could not be told");
    }
}
