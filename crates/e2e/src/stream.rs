//! Just enough of a client to speak with processes: the frames of an upgraded connection
//! ([`sampan_model::stream`]) on the daemon's socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sampan_model::stream::{Control, PROTOCOL};
use sampan_model::view::{LogFrame, TerminalSize};
use serde_json::Value;

use crate::Sampan;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An upgraded connection.
#[derive(Debug)]
pub struct Stream {
    reader: BufReader<UnixStream>,
}

/// All that came to the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Standard output, or what the terminal showed.
    pub out: Vec<u8>,
    /// Standard error.
    pub error: Vec<u8>,
    /// Control frames.
    pub controls: Vec<Control>,
}

impl Told {
    /// The exit code that was told last.
    ///
    /// # Panics
    /// Where none was.
    #[track_caller]
    pub fn exit_code(&self) -> Option<u8> {
        match self.controls.last() {
            Some(Control::Exited(exit)) => exit.exit_code,
            other => panic!("it ended without an exit: {other:?}"),
        }
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// Asks for a stream.
///
/// # Errors
/// It was refused: the status and the error.
///
/// # Panics
/// Where there is no daemon, or it does not speak HTTP.
pub fn open(sampan: &Sampan, path: &str, body: &Value) -> Result<Stream, (u16, Value)> {
    let socket = UnixStream::connect(sampan.root().join("run/sampan.sock")).expect("a daemon");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: sampan\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n",
        body.len()
    );
    (&socket).write_all((head + &body).as_bytes()).expect("the daemon listens");
    let mut reader = BufReader::new(socket);
    let line = |reader: &mut BufReader<UnixStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    };
    let status = line(&mut reader).split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut length = 0;
    loop {
        let header = line(&mut reader).to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    if status == 101 {
        return Ok(Stream { reader });
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).expect("a body");
    Err((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
}

impl Stream {
    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The connection's, and `InvalidData` for what is no frame.
    pub fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; LogFrame::HEAD];
        match self.reader.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let frame = LogFrame::decode(head).ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; frame.length as usize];
        self.reader.read_exact(&mut payload)?;
        Ok(Some((frame.stream, payload)))
    }

    /// The next control frame.
    ///
    /// # Panics
    /// Where something else comes.
    #[track_caller]
    pub fn control(&mut self) -> Control {
        match self.frame().expect("a frame") {
            Some((3, payload)) => serde_json::from_slice(&payload).expect("a control frame"),
            other => panic!("no control frame: {other:?}"),
        }
    }

    /// What it says until it has said these words.
    ///
    /// # Panics
    /// Where it ends without them.
    #[track_caller]
    pub fn until(&mut self, words: &str) -> String {
        let mut said = Vec::new();
        loop {
            match self.frame().expect("a frame") {
                Some((1 | 2, payload)) => said.extend(payload),
                Some(_) => {}
                None => panic!("it ended before {words:?}: {}", String::from_utf8_lossy(&said)),
            }
            let text = String::from_utf8_lossy(&said);
            if text.contains(words) {
                return text.into_owned();
            }
        }
    }

    /// Everything to the end.
    ///
    /// # Panics
    /// Where the connection breaks.
    #[track_caller]
    pub fn rest(mut self) -> Told {
        let mut told = Told::default();
        while let Some((stream, payload)) = self.frame().expect("a frame") {
            match stream {
                1 => told.out.extend(payload),
                2 => told.error.extend(payload),
                _ => told.controls.push(serde_json::from_slice(&payload).expect("a control frame")),
            }
        }
        told
    }

    /// The same connection, for a thread that writes.
    ///
    /// # Panics
    /// Where there are no descriptors left.
    pub fn writer(&self) -> Writer {
        Writer(self.reader.get_ref().try_clone().expect("a descriptor"))
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn write(&self, bytes: &[u8]) {
        self.writer().write(bytes);
    }

    /// Ends its standard input.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn end_input(&self) {
        self.writer().end();
    }

    /// Gives its terminal another size.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        self.writer().tell(&Control::Resize(TerminalSize { rows, columns }));
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        self.writer().tell(&Control::Signal(signal.to_owned()));
    }
}

/// The writing half.
#[derive(Debug)]
pub struct Writer(UnixStream);

impl Writer {
    /// Writes to its standard input.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(LogFrame::LONGEST as usize) {
            self.frame(0, piece);
        }
    }

    /// Ends its standard input.
    ///
    /// # Panics
    /// Where the daemon has gone.
    #[track_caller]
    pub fn end(&mut self) {
        self.frame(0, &[]);
    }

    fn tell(&mut self, control: &Control) {
        self.frame(3, &serde_json::to_vec(control).expect("JSON"));
    }

    #[track_caller]
    fn frame(&mut self, stream: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame's length");
        let head = LogFrame { stream, length, at_ns: 0 }.encode();
        self.0.write_all(&[&head, payload].concat()).expect("the daemon listens");
    }

    /// Goes away.
    pub fn hang_up(self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
