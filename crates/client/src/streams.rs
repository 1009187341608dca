//! The streams of a process: what it writes as it writes it, and what is written to it, byte for byte.
//!
//! One upgraded connection a process ([`sampan_model::stream`]). Its two halves are used from as many tasks as you like
//! to split them over: [`ProcessInput`] writes, [`ProcessOutput`] reads. Dropping both, or losing the connection, leaves
//! the process as it is. A reader that does not read slows the process down; nothing is dropped.
//!
//! Deliberately absent: going on where a connection was cut. What the process wrote meanwhile is in its log
//! ([`Client::logs`]), not in the stream.

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::Method;
use sampan_model::stream::{Control, PROTOCOL};
use sampan_model::view::{
    ContainerCreate, ContainerView, ErrorView, ExecCreate, ExecView, Exit, LogFrame, TerminalSize, TimingStep,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::connection::{Call, Upgraded};
use crate::containers::path;
use crate::{Client, ClientError, Output};

/// How much is read at once.
const PIECE: usize = 64 * 1024;

impl Client {
    /// Creates a container, attaches to it and starts it, in one request: `POST /v1/containers/attached`. Not a byte that
    /// it writes is missed.
    ///
    /// # Errors
    /// As [`create_container`](Self::create_container) as far as the container could not be created; that it could not
    /// be started is told by [`ProcessEvent::Failed`].
    pub async fn run_attached(&self, create: &ContainerCreate) -> Result<ProcessStream, ClientError> {
        let call = Call::new(Method::POST, "/v1/containers/attached".into()).with_json(create);
        self.upgrade(&call, PROTOCOL).await.map(ProcessStream::new)
    }

    /// Attaches to a running container: `POST /v1/containers/{id}/attach`. With `stdin` its standard input is written to.
    ///
    /// # Errors
    /// `not_running`, `not_found` as [`ClientError::Api`].
    pub async fn attach(&self, container: &str, stdin: bool) -> Result<ProcessStream, ClientError> {
        let call = Call::new(Method::POST, format!("{}/attach?stdin={stdin}", path(container)));
        self.upgrade(&call, PROTOCOL).await.map(ProcessStream::new)
    }

    /// Attaches to a container that does not run and starts it: `POST /v1/containers/{id}/attach?start=true`. Not a byte
    /// that it writes is missed.
    ///
    /// # Errors
    /// `running`, `not_found` as [`ClientError::Api`]; that it could not be started is told by [`ProcessEvent::Failed`].
    pub async fn start_attached(&self, container: &str, stdin: bool) -> Result<ProcessStream, ClientError> {
        let call = Call::new(Method::POST, format!("{}/attach?stdin={stdin}&start=true", path(container)));
        self.upgrade(&call, PROTOCOL).await.map(ProcessStream::new)
    }

    /// Starts one more process in a running container and attaches to it: `POST /v1/containers/{id}/exec`.
    ///
    /// # Errors
    /// `not_running`, `not_found`, `not_found_executable`, `not_executable`… as [`ClientError::Api`].
    pub async fn exec(&self, container: &str, create: &ExecCreate) -> Result<ProcessStream, ClientError> {
        let create = ExecCreate { detach: false, ..create.clone() };
        let call = Call::new(Method::POST, format!("{}/exec", path(container))).with_json(&create);
        self.upgrade(&call, PROTOCOL).await.map(ProcessStream::new)
    }

    /// Starts one more process in a running container, and leaves it to itself: `POST /v1/containers/{id}/exec`.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn exec_detached(&self, container: &str, create: &ExecCreate) -> Result<ExecView, ClientError> {
        let create = ExecCreate { detach: true, ..create.clone() };
        self.ask(&Call::new(Method::POST, format!("{}/exec", path(container))).with_json(&create)).await?.json().await
    }
}

/// What happens to an attached process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// Its container was created. The first event of [`Client::run_attached`].
    Created(Box<ContainerView>),
    /// Its program was executed.
    Started {
        /// It, on the host.
        pid: u32,
        /// Where the time of its start went, in the daemon (a container's first process only).
        timing: Vec<TimingStep>,
    },
    /// It wrote these bytes.
    Output(Output, Bytes),
    /// It has ended, and all that it wrote came before. The last event.
    Exited(Exit),
    /// It could not be started, or its end not be waited for. The last event.
    Failed(ErrorView),
}

/// An attached process.
#[derive(Debug)]
pub struct ProcessStream {
    input: ProcessInput,
    output: ProcessOutput,
}

impl ProcessStream {
    fn new(upgraded: Upgraded) -> Self {
        let Upgraded { request, stream, read } = upgraded;
        let (reader, writer) = stream.into_split();
        let output = ProcessOutput { request, reader, buffer: read.into(), has_ended: false };
        Self { input: ProcessInput { writer }, output }
    }

    /// What is written to it, and what comes from it.
    pub fn split(self) -> (ProcessInput, ProcessOutput) {
        (self.input, self.output)
    }
}

/// Writes to an attached process. Dropping it does not close the process's standard input; [`close`](Self::close) does.
#[derive(Debug)]
pub struct ProcessInput {
    writer: OwnedWriteHalf,
}

impl ProcessInput {
    /// Writes to its standard input; waits where the process does not read. Not cancel-safe: a frame that was begun has
    /// to be finished, and nothing can be written after one that was not.
    ///
    /// # Errors
    /// The connection is gone: [`ProcessOutput::next`] tells why.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(LogFrame::LONGEST as usize) {
            self.frame(STDIN, piece).await?;
        }
        Ok(())
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn close(&mut self) -> std::io::Result<()> {
        self.frame(STDIN, &[]).await
    }

    /// Tells it that its terminal has another size.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn resize(&mut self, size: TerminalSize) -> std::io::Result<()> {
        self.control(&Control::Resize(size)).await
    }

    /// Sends it a signal, by its name or number.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn signal(&mut self, signal: impl Into<String>) -> std::io::Result<()> {
        self.control(&Control::Signal(signal.into())).await
    }

    async fn control(&mut self, control: &Control) -> std::io::Result<()> {
        let payload = serde_json::to_vec(control).expect("controls have only text keys");
        self.frame(CONTROL, &payload).await
    }

    async fn frame(&mut self, stream: u8, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).expect("payloads are cut to the longest frame before");
        let mut bytes = Vec::with_capacity(LogFrame::HEAD + payload.len());
        bytes.extend_from_slice(&LogFrame { stream, length, at_ns: 0 }.encode());
        bytes.extend_from_slice(payload);
        self.writer.write_all(&bytes).await
    }
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const CONTROL: u8 = 3;

/// Reads from an attached process.
#[derive(Debug)]
pub struct ProcessOutput {
    request: String,
    reader: OwnedReadHalf,
    buffer: BytesMut,
    has_ended: bool,
}

impl ProcessOutput {
    /// The next event; `None` after the last one. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Cut`] where the connection ended before the process did, [`ClientError::Answer`] where the bytes
    /// are no stream.
    pub async fn next(&mut self) -> Option<Result<ProcessEvent, ClientError>> {
        if self.has_ended {
            return None;
        }
        let event = self.read().await;
        self.has_ended = matches!(event, Err(_) | Ok(ProcessEvent::Exited(_) | ProcessEvent::Failed(_)));
        Some(event)
    }

    async fn read(&mut self) -> Result<ProcessEvent, ClientError> {
        loop {
            match take_event(&mut self.buffer) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(reason) => return Err(ClientError::Answer { request: self.request.clone(), reason }),
            }
            self.buffer.reserve(PIECE);
            // what was read before the connection broke was told above
            let count = self.reader.read_buf(&mut self.buffer).await.unwrap_or(0);
            if count == 0 {
                return Err(ClientError::Cut { request: self.request.clone() });
            }
        }
    }
}

/// Takes one event off the buffer's front, where a whole one is there.
fn take_event(buffer: &mut BytesMut) -> Result<Option<ProcessEvent>, String> {
    let Some(head) = buffer.first_chunk::<{ LogFrame::HEAD }>() else { return Ok(None) };
    let frame = LogFrame::decode(*head).ok_or("it is no stream")?;
    let end = LogFrame::HEAD + frame.length as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let mut payload = buffer.split_to(end);
    payload.advance(LogFrame::HEAD);
    let payload = payload.freeze();
    let event = match frame.stream {
        STDOUT => ProcessEvent::Output(Output::Stdout, payload),
        STDERR => ProcessEvent::Output(Output::Stderr, payload),
        CONTROL => match serde_json::from_slice(&payload).map_err(|error| error.to_string())? {
            Control::Created(view) => ProcessEvent::Created(view),
            Control::Started { pid, timing } => ProcessEvent::Started { pid, timing },
            Control::Exited(exit) => ProcessEvent::Exited(exit),
            Control::Failed(error) => ProcessEvent::Failed(error),
            Control::Resize(_) | Control::Signal(_) => return Err("it gives orders".into()),
        },
        _ => return Err("it has standard input in it".into()),
    };
    Ok(Some(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let head = LogFrame { stream, length: payload.len() as u32, at_ns: 7 }.encode();
        [&head[..], payload].concat()
    }

    #[test]
    fn events_come_out_whole() {
        let exited = serde_json::to_vec(&Control::Exited(Exit { exit_code: Some(3), oom_killed: false })).unwrap();
        let wire = [frame(1, b"\0out"), frame(2, b"err"), frame(1, b""), frame(3, &exited)].concat();
        let mut buffer = BytesMut::new();
        let mut told = Vec::new();
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            told.extend(take_event(&mut buffer).unwrap());
        }
        let expected = [
            ProcessEvent::Output(Output::Stdout, Bytes::from_static(b"\0out")),
            ProcessEvent::Output(Output::Stderr, Bytes::from_static(b"err")),
            ProcessEvent::Output(Output::Stdout, Bytes::new()),
            ProcessEvent::Exited(Exit { exit_code: Some(3), oom_killed: false }),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_no_stream() {
        let order = serde_json::to_vec(&Control::Signal("TERM".into())).unwrap();
        for wire in [vec![9; 16], frame(0, b"in"), frame(3, b"{}"), frame(3, &order)] {
            assert!(take_event(&mut BytesMut::from(&wire[..])).is_err());
        }
    }
}
