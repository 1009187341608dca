//! Just enough of an HTTP client for the native API: one request a connection, over the daemon's socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// How long a daemon may be silent.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest body that is read.
const LONGEST_BODY: u64 = 16 << 20;

/// The native API of one instance.
#[derive(Debug, Clone)]
pub struct Native {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// 200, 404…
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }
}

impl Native {
    /// The API of the instance whose root this is.
    pub fn of(root: &Path) -> Self {
        Self { socket: root.join("run/sampan.sock") }
    }

    /// Asks and reads the whole answer.
    ///
    /// # Errors
    /// The connection's; `InvalidData` where the answer is no HTTP.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        self.ask_with_bytes(method, path, body.map(Value::to_string).unwrap_or_default().as_bytes())
    }

    /// As [`ask`](Self::ask), with any bytes.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_with_bytes(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let (mut reader, mut answer) = self.send(method, path, body)?;
        let is_chunked = answer.header("transfer-encoding").is_some();
        match answer.header("content-length").map(str::parse) {
            _ if method == "HEAD" || [101, 204, 304].contains(&answer.status) => {}
            Some(Ok(length)) => drop(reader.take(length).read_to_end(&mut answer.body)?),
            _ if is_chunked => while read_chunk(&mut reader, &mut answer.body)? {},
            _ => drop(reader.take(LONGEST_BODY).read_to_end(&mut answer.body)?),
        }
        Ok(answer)
    }

    /// Asks for an answer without end, and reads so many of its lines.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn lines(&self, path: &str, count: usize) -> io::Result<Answer> {
        let (mut reader, mut answer) = self.send("GET", path, b"")?;
        while answer.body.iter().filter(|&&byte| byte == b'\n').count() < count {
            if !read_chunk(&mut reader, &mut answer.body)? {
                break;
            }
        }
        Ok(answer)
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(BufReader<UnixStream>, Answer)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: sampan\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        match stream.write_all(&[request.as_bytes(), body].concat()) {
            // it has answered without reading all of it
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| invalid(&first))?;
        let mut headers = Vec::new();
        loop {
            let line = line(&mut reader)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok((reader, Answer { status, headers, body: Vec::new() }))
    }
}

/// Reads one chunk; whether there may be another.
fn read_chunk(reader: &mut BufReader<UnixStream>, into: &mut Vec<u8>) -> io::Result<bool> {
    let head = line(reader)?;
    let size = u64::from_str_radix(head.split(';').next().unwrap_or("").trim(), 16).map_err(|_| invalid(&head))?;
    if size + into.len() as u64 > LONGEST_BODY {
        return Err(invalid("a body too long for a test"));
    }
    reader.by_ref().take(size).read_to_end(into)?;
    line(reader)?;
    Ok(size > 0)
}

fn line(reader: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not understood in an HTTP answer: {what:?}"))
}
