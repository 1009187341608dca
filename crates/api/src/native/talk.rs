//! A conversation between a client and a process: frames both ways, at the pace of whoever is slower.
//!
//! What the process writes is read when the client has taken what came before; what the client sends is read when the
//! process has, but for [`AHEAD`] frames, so that a signal is heard while the process does not read. The client's going
//! away ends the conversation and not the container.

use std::collections::BTreeMap;
use std::io;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sampan_container::{Attached, ExecSession, Input};
use sampan_model::signal;
use sampan_model::stream::Control;
use sampan_model::view::{ContainerView, ErrorView, Exit, LogFrame, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// An upgraded connection.
pub(super) type Io = TokioIo<Upgraded>;

/// The frames that are read from the client before the process has taken them, of 64 KiB at most each.
const AHEAD: usize = 32;

/// The longest message of an error that is too long, in characters.
const LONGEST_MESSAGE: usize = 4096;

/// Standard input's and control frames' numbers.
const STDIN: u8 = 0;
const CONTROL: u8 = 3;

/// Whom the client speaks with.
pub(super) enum Talk {
    /// A container's first process.
    Container(Attached),
    /// One more process of it.
    Process(ExecSession),
}

/// Talks until the process has ended or the client has gone. `first` is told before anything else.
pub(super) async fn converse(io: Io, first: &[Control], talk: Talk, input: Option<Input>) {
    let (from, to) = tokio::io::split(io);
    let signals = Signals::of(&talk);
    tokio::select! {
        _ = tell(to, first, talk) => {}
        _ = listen(from, input, signals) => {}
    }
}

/// Tells a control frame. What would make it longer than a frame may be is left out.
pub(super) async fn write_control(to: &mut (impl AsyncWrite + Unpin), control: &Control) -> io::Result<()> {
    let fits = |text: &Vec<u8>| text.len() <= LogFrame::LONGEST as usize;
    let mut text = serde_json::to_vec(control)?;
    if !fits(&text) {
        text = serde_json::to_vec(&shortened(control))?;
    }
    let length = u32::try_from(text.len()).ok().filter(|_| fits(&text)).ok_or_else(|| invalid("a frame too long"))?;
    write_frame(to, LogFrame { stream: CONTROL, length, at_ns: 0 }, &text).await
}

/// Without what callers may have made as long as they like, and know.
fn shortened(control: &Control) -> Control {
    match control {
        Control::Created(view) => Control::Created(Box::new(ContainerView {
            user: None,
            command: Vec::new(),
            env: Vec::new(),
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            ..(**view).clone()
        })),
        Control::Failed(error) => Control::Failed(ErrorView {
            message: error.message.chars().take(LONGEST_MESSAGE).collect(),
            ..error.clone()
        }),
        short => short.clone(),
    }
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: LogFrame, payload: &[u8]) -> io::Result<()> {
    to.write_all(&[&frame.encode(), payload].concat()).await?;
    to.flush().await
}

async fn tell(mut to: impl AsyncWrite + Unpin, first: &[Control], mut talk: Talk) -> io::Result<()> {
    for control in first {
        write_control(&mut to, control).await?;
    }
    while let Some((frame, payload)) = match &mut talk {
        Talk::Container(attached) => attached.next().await,
        Talk::Process(session) => session.next().await,
    } {
        write_frame(&mut to, frame, &payload).await?;
    }
    let exit = match &mut talk {
        Talk::Container(attached) => attached.ended().await,
        Talk::Process(session) => Exit { exit_code: session.exit_code(), oom_killed: false },
    };
    write_control(&mut to, &Control::Exited(exit)).await?;
    to.shutdown().await
}

/// What is handed to the process in its order.
enum ToProcess {
    Bytes(Vec<u8>),
    End,
    Size(TerminalSize),
}

/// Hears the client out, until it has gone or says what is no frame.
async fn listen(from: impl AsyncRead + Unpin, input: Option<Input>, signals: Signals) -> io::Result<()> {
    let (queue, queued) = mpsc::channel(AHEAD);
    let read = async move {
        let mut from = from;
        loop {
            let (stream, payload) = read_frame(&mut from).await?;
            let item = match stream {
                STDIN if payload.is_empty() => ToProcess::End,
                STDIN => ToProcess::Bytes(payload),
                CONTROL => match serde_json::from_slice(&payload) {
                    Ok(Control::Resize(size)) => ToProcess::Size(size),
                    Ok(Control::Signal(text)) => {
                        signals.send(&text).await;
                        continue;
                    }
                    // of a later version
                    _ => continue,
                },
                _ => return Err(invalid("a client sends standard input and control frames")),
            };
            // the other end is there for as long as this is
            let _ = queue.send(item).await;
        }
    };
    tokio::select! {
        result = read => result,
        () = feed(input, queued) => Ok(()),
    }
}

/// Hands it on. What a process that reads no more is sent is dropped, as a terminal's window would.
async fn feed(mut input: Option<Input>, mut queued: mpsc::Receiver<ToProcess>) {
    while let Some(item) = queued.recv().await {
        match (item, &input) {
            (ToProcess::Bytes(bytes), Some(open)) => {
                let is_read = open.write(&bytes).await.is_ok();
                if !is_read {
                    input = None;
                }
            }
            (ToProcess::Size(size), Some(open)) => {
                if let Err(error) = open.resize(size) {
                    tracing::debug!(%error, "what is no terminal cannot be resized");
                }
            }
            (ToProcess::End, Some(open)) if !open.is_terminal() => {
                if let Some(open) = input.take()
                    && let Err(error) = open.close().await
                {
                    tracing::debug!(%error, "the end of an input could not be told");
                }
            }
            _ => {}
        }
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; LogFrame::HEAD];
    from.read_exact(&mut head).await?;
    let frame = LogFrame::decode(head).ok_or_else(|| invalid("that is no frame"))?;
    let mut payload = vec![0; frame.length as usize];
    from.read_exact(&mut payload).await?;
    Ok((frame.stream, payload))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Where signals go.
enum Signals {
    Container(sampan_container::Signals),
    Process(sampan_container::Process),
}

impl Signals {
    fn of(talk: &Talk) -> Self {
        match talk {
            Talk::Container(attached) => Self::Container(attached.signals()),
            Talk::Process(session) => Self::Process(session.process()),
        }
    }

    async fn send(&self, text: &str) {
        let Ok(number) = signal::parse(text) else { return };
        let sent = match self {
            Self::Container(container) => container.send(number).await.map_err(|error| error.to_string()),
            Self::Process(process) => process.signal(number).map_err(|error| error.to_string()),
        };
        if let Err(error) = sent {
            tracing::debug!(text, error, "a signal could not be sent");
        }
    }
}
