//! A process in the foreground: what it writes is written here, what is typed here reaches it, and signals are handed on.
//!
//! ```text
//! standard input ──▶ detach keys ──▶ frames ──▶ the process ──▶ frames ──▶ standard output, standard error
//! SIGINT, SIGTERM… ──▶ a request of their own (what is typed may be waiting to be read)
//! SIGWINCH ──▶ a frame
//! ```
//!
//! Bytes are passed on as they are. Standard output that does not take them makes the process wait, and nothing else:
//! signals are heard all the while.
//!
//! A signal is handed on as it is. A second Ctrl-C (or SIGTERM) within a second kills the process; a third one ends this
//! command, whatever the process does.

use std::time::{Duration, Instant};

use sampan_client::{Client, ClientError, Output, ProcessEvent, ProcessInput, ProcessOutput, ProcessStream};
use sampan_model::view::{ErrorView, Exit};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::args::AttendArgs;
use super::detach::{DetachKeys, Typed};
use super::failure::Failure;
use super::interrupt::INTERRUPTED;
use super::terminal::{self, Raw};

/// How soon after the first the second Ctrl-C has to come.
const INSISTING: Duration = Duration::from_secs(1);
/// The most signals that wait to be handed on.
const SIGNALS: usize = 16;

/// How a process is attended to.
#[derive(Debug, Clone)]
pub struct Attention {
    /// What is typed reaches it.
    pub stdin: bool,
    /// It has a terminal, and so do we.
    pub terminal: bool,
    /// Signals are handed on to it.
    pub proxy: bool,
    /// These leave it to itself.
    pub keys: DetachKeys,
}

impl Attention {
    pub fn new(args: AttendArgs, stdin: bool, terminal: bool) -> Self {
        Self { stdin, terminal, proxy: args.sig_proxy, keys: args.detach_keys.unwrap_or_default() }
    }
}

/// Whom signals go to.
#[derive(Debug)]
pub enum Target {
    /// A container's first process, by its name; `None` until the stream tells which it is.
    Container(Option<String>),
    /// The stream's process itself.
    Process,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// The process has ended.
    Exited(Exit),
    /// It could not be started.
    Failed(ErrorView),
    /// The keys were typed: it goes on.
    Detached,
    /// Nobody reads our own output any more; it goes on.
    Unread,
    /// The connection to the daemon was lost; it goes on.
    Lost(ClientError),
}

/// Attends to a process until it ends or is left. What happens to it before its output is told to `told`; `held` is a
/// signal that came before there was anything to hand it on to.
pub async fn attend(
    client: &Client,
    stream: ProcessStream,
    target: Target,
    attention: &Attention,
    signals: &mut Signals,
    held: Option<&'static str>,
    mut told: impl FnMut(&ProcessEvent),
) -> Result<End, Failure> {
    let (input, output) = stream.split();
    // dropped first on whichever way out, and before anything is said
    let _raw = if attention.terminal && attention.stdin { Some(Raw::enter()?) } else { None };
    let mut insistence = Insistence::default();
    let (names, taken) = mpsc::channel(SIGNALS);
    if let Some(name) = held {
        // the first of a channel that holds more
        let _ = names.try_send(insistence.take(name, Instant::now())?);
    }
    let (orders, mut ordered) = mpsc::channel(SIGNALS);
    let (started, starts) = oneshot::channel();
    let writing = copy_output(output, &mut told, started);
    let typing = copy_input(input, attention, &mut ordered);
    let handing = hand_on(client, target, taken, starts, orders);
    tokio::pin!(writing, typing, handing);
    let (mut is_typing, mut is_handing) = (true, true);
    loop {
        tokio::select! {
            end = &mut writing => return Ok(end),
            typed = &mut typing, if is_typing => match typed {
                Typing::Detached => return Ok(End::Detached),
                // why is told by the output's side
                Typing::Cut => is_typing = false,
            },
            () = &mut handing, if is_handing => is_handing = false,
            name = signals.next() => {
                if !attention.proxy {
                    return Err(Failure::silent(INTERRUPTED));
                }
                // more than that many at once say nothing more
                let _ = names.try_send(insistence.take(name, Instant::now())?);
            }
        }
    }
}

/// The signals that are handed on.
#[derive(Debug)]
pub struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    /// Listens: from now on they do not end this process by themselves.
    pub fn listen() -> Result<Self, Failure> {
        let kinds = [
            ("INT", SignalKind::interrupt()),
            ("TERM", SignalKind::terminate()),
            ("HUP", SignalKind::hangup()),
            ("QUIT", SignalKind::quit()),
            ("USR1", SignalKind::user_defined1()),
            ("USR2", SignalKind::user_defined2()),
        ];
        let listen = |(name, kind)| match signal(kind) {
            Ok(signal) => Ok((name, signal)),
            Err(error) => Err(Failure::new(format!("listen for signals: {error}"))),
        };
        kinds.into_iter().map(listen).collect::<Result<_, _>>().map(Self)
    }

    /// The next one's name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            let ready = signals.find_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Does work that must not be left half-done for one signal, but is for two. The one is told with what came of it.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<(T, Option<&'static str>), Failure> {
        tokio::pin!(work);
        let mut held = None;
        loop {
            tokio::select! {
                done = &mut work => return Ok((done, held)),
                name = self.next() => if held.replace(name).is_some() {
                    return Err(Failure::silent(INTERRUPTED));
                },
            }
        }
    }
}

/// Which signal is meant: who insists wants an end.
#[derive(Debug, Default)]
struct Insistence {
    /// When the last Ctrl-C came, and how many came so soon after another.
    last: Option<Instant>,
    count: u32,
}

impl Insistence {
    /// The signal to hand on; an error where this command is to end.
    fn take(&mut self, name: &'static str, now: Instant) -> Result<&'static str, Failure> {
        if !matches!(name, "INT" | "TERM") {
            return Ok(name);
        }
        let is_soon = self.last.replace(now).is_some_and(|last| now.duration_since(last) <= INSISTING);
        self.count = if is_soon { self.count + 1 } else { 0 };
        match self.count {
            0 => Ok(name),
            1 => Ok("KILL"),
            _ => Err(Failure::silent(INTERRUPTED)),
        }
    }
}

/// Hands signals on, one after the other: by requests of their own, since what is typed may be waiting to be read; those
/// for a process that has no name, by its stream.
async fn hand_on(
    client: &Client,
    target: Target,
    mut names: mpsc::Receiver<&'static str>,
    started: oneshot::Receiver<String>,
    orders: mpsc::Sender<&'static str>,
) {
    let container = match target {
        Target::Container(Some(name)) => Some(name),
        Target::Container(None) => match started.await {
            Ok(name) => Some(name),
            Err(_) => return,
        },
        Target::Process => None,
    };
    while let Some(name) = names.recv().await {
        match &container {
            // it has just ended, or the stream says what is the matter
            Some(container) => drop(client.kill_container(container, name).await),
            None => drop(orders.send(name).await),
        }
    }
}

/// Why nothing is typed any more.
enum Typing {
    Detached,
    Cut,
}

/// Passes on what is typed, the terminal's size, and signals that go by the stream. Comes back only where the keys were
/// typed or the connection is gone; the end of standard input is not the end of sizes.
async fn copy_input(
    mut input: ProcessInput,
    attention: &Attention,
    orders: &mut mpsc::Receiver<&'static str>,
) -> Typing {
    let mut resized = signal(SignalKind::window_change()).ok().filter(|_| attention.terminal);
    let mut stdin = tokio::io::stdin();
    let mut typed = Typed::new(if attention.terminal { attention.keys.clone() } else { DetachKeys::none() });
    let (mut buffer, mut through) = (vec![0; 64 * 1024], Vec::new());
    let mut is_open = attention.stdin;
    if attention.terminal
        && let Some(size) = terminal::size()
        && input.resize(size).await.is_err()
    {
        return Typing::Cut;
    }
    loop {
        let sent = tokio::select! {
            () = next_resize(&mut resized) => match terminal::size() {
                Some(size) => input.resize(size).await,
                None => Ok(()),
            },
            Some(name) = orders.recv() => input.signal(name).await,
            count = stdin.read(&mut buffer), if is_open => {
                through.clear();
                // one that cannot be read is at its end
                let count = count.unwrap_or(0);
                if count == 0 {
                    is_open = false;
                    match input.write(&typed.rest()).await {
                        Ok(()) => input.close().await,
                        error => error,
                    }
                } else if typed.take(&buffer[..count], &mut through) {
                    let _ = input.write(&through).await;
                    return Typing::Detached;
                } else {
                    input.write(&through).await
                }
            }
        };
        if sent.is_err() {
            return Typing::Cut;
        }
    }
}

async fn next_resize(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Writes what the process writes, byte for byte, until it has ended. The name of a container that was created is told to
/// `started` when it runs: before, there is nothing to send a signal to.
async fn copy_output(
    mut output: ProcessOutput,
    told: &mut impl FnMut(&ProcessEvent),
    started: oneshot::Sender<String>,
) -> End {
    let (mut started, mut name) = (Some(started), None);
    // on threads of their own: a reader that does not read must not keep us from hearing Ctrl-C
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let event = match output.next().await {
            Some(Ok(event)) => event,
            Some(Err(error)) => return End::Lost(error),
            None => unreachable!("the stream ends with one of the events below"),
        };
        if matches!(event, ProcessEvent::Created(_) | ProcessEvent::Started { .. }) {
            told(&event);
        }
        let written = match event {
            ProcessEvent::Created(view) => {
                name = Some(view.name.to_string());
                Ok(())
            }
            ProcessEvent::Started { .. } => {
                if let (Some(started), Some(name)) = (started.take(), name.take()) {
                    // whoever hands signals on may have been told before
                    let _ = started.send(name);
                }
                Ok(())
            }
            ProcessEvent::Output(Output::Stdout, bytes) => write(&mut stdout, &bytes).await,
            ProcessEvent::Output(Output::Stderr, bytes) => write(&mut stderr, &bytes).await,
            ProcessEvent::Exited(exit) => return End::Exited(exit),
            ProcessEvent::Failed(error) => return End::Failed(error),
        };
        if written.is_err() {
            return End::Unread;
        }
    }
}

async fn write(out: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_insists_kills_and_then_leaves() {
        let mut insistence = Insistence::default();
        let start = Instant::now();
        let mut take = |name, ms| insistence.take(name, start + Duration::from_millis(ms)).ok();
        assert_eq!(take("HUP", 0), Some("HUP"));
        assert_eq!(take("INT", 0), Some("INT"));
        assert_eq!(take("USR1", 1), Some("USR1"));
        assert_eq!(take("INT", 900), Some("KILL"));
        assert_eq!(take("TERM", 1800), None);
        // one that comes later is the first again
        assert_eq!(take("TERM", 5000), Some("TERM"));
        assert_eq!(take("INT", 6500), Some("INT"));
    }
}
