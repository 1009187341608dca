//! Just enough of an HTTP client: JSON requests over one unix socket connection that is kept, by blocking calls. What
//! it costs itself is a write, a read and a look at the bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::bounded::PATIENCE;

/// The longest body that is read.
const LONGEST_BODY: u64 = 64 << 20;

/// A connection that is kept.
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Asks, and reads the answer, which must be a success.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: sampan\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let asked = || format!("{method} {path}");
        self.reader.get_mut().write_all(request.as_bytes()).with_context(asked)?;
        let (status, body) = self.read().with_context(asked)?;
        if !(200..300).contains(&status) {
            bail!("{}: {status} {}", asked(), body.trim());
        }
        Ok(body)
    }

    /// The same, with an answer in JSON.
    pub fn json(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        let text = self.ask(method, path, body)?;
        serde_json::from_str(&text).with_context(|| format!("{method} {path} answered {text:?}"))
    }

    /// Asks for another protocol, and returns the connection once it is spoken.
    pub fn upgrade(mut self, path: &str, protocol: &str, body: &str) -> Result<BufReader<UnixStream>> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: sampan\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        match self.read()? {
            (101, _) => Ok(self.reader),
            (status, body) => bail!("POST {path}: {status} {}", body.trim()),
        }
    }

    fn read(&mut self) -> Result<(u16, String)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.with_context(|| format!("{line:?} is no status line"))?;
        let mut length = None;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        let length = match length {
            Some(length) => length,
            None if status < 200 || status == 204 => 0,
            None => bail!("the answer ({status}) does not say how long it is"),
        };
        if length > LONGEST_BODY {
            bail!("the answer has {length} bytes, of which at most {LONGEST_BODY} are read");
        }
        let mut body = String::new();
        (&mut self.reader).take(length).read_to_string(&mut body)?;
        if body.len() as u64 != length {
            bail!("the answer ends after {} of {length} bytes", body.len());
        }
        Ok((status, body))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(bytes: &'static str) -> Result<String> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection { reader: BufReader::new(ours) };
        theirs.write_all(bytes.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        connection.ask("GET", "/x", "")
    }

    #[test]
    fn answers() {
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}")),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok("")),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", Err("GET /x: 404 no")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", Err("GET /x: the answer ends after 2 of 9 bytes")),
            ("HTTP/1.1 200 OK\r\n\r\n", Err("GET /x: the answer (200) does not say how long it is")),
            ("", Err("GET /x: the connection was closed")),
        ] {
            let answer = answered(bytes).map_err(|error| format!("{error:#}"));
            assert_eq!(answer.as_deref().map_err(String::as_str), expected, "{bytes:?}");
        }
    }
}
