//! Just enough of an HTTP client: requests over connections that are kept, on this machine's loopback.
//!
//! Names below `.localhost` are 127.0.0.1 without asking anybody (RFC 6761 §6.3), as browsers and curl have it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest body that is read.
const LONGEST_BODY: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// 200, 404…
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Asks for a URL of this machine over a connection of its own.
///
/// # Errors
/// Those of the connection; `InvalidData` where the answer is no HTTP.
///
/// # Panics
/// Where the URL is none of `http://HOST:PORT/PATH`.
pub fn get(url: &str) -> io::Result<Response> {
    let (host, port, path) = split(url);
    Connection::open(port)?.get(&host, &path)
}

/// Asks with these headers, over a connection that is closed after the answer.
///
/// # Errors
/// As [`get`].
///
/// # Panics
/// As [`get`].
pub fn get_with(url: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    let (host, port, path) = split(url);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut connection = Connection::open(port)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{headers}\r\n");
    connection.reader.get_mut().write_all(request.as_bytes())?;
    connection.read()
}

/// Asks for a URL of this machine with this method, headers and body, over a connection of its own.
///
/// # Errors
/// As [`get`].
///
/// # Panics
/// As [`get`].
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Response> {
    let (host, port, path) = split(url);
    Connection::open(port)?.ask(method, &host, &path, headers, body)
}

/// Host, port and path of `http://HOST:PORT/PATH`.
///
/// # Panics
/// Where it is something else.
pub fn split(url: &str) -> (String, u16, String) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url:?} does not start with http://"));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let port = port.parse().unwrap_or_else(|_| panic!("{url:?} has no port that is a number"));
    (host.to_owned(), port, format!("/{path}"))
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    port: u16,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to 127.0.0.1.
    ///
    /// # Errors
    /// The connection's.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { port, reader: BufReader::new(stream) })
    }

    /// Asks, reads the answer, and is ready for the next one (it connects anew where the server closes).
    ///
    /// # Errors
    /// As [`get`].
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Response> {
        self.ask("GET", host, path, &[], "")
    }

    /// As [`get`](Self::get), with another method, headers and a body.
    ///
    /// # Errors
    /// As [`get`].
    pub fn ask(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}:{}\r\n", self.port);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.reader.get_mut().write_all(request.as_bytes())?;
        let response = self.read()?;
        if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            *self = Self::open(self.port)?;
        }
        Ok(response)
    }

    fn read(&mut self) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid(&status_line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        let body = if matches!(status, 204 | 304) {
            Vec::new()
        } else if response.header("transfer-encoding").is_some() {
            self.chunks()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| invalid(length))?;
            self.bytes(length)?
        } else {
            let mut rest = Vec::new();
            self.reader.by_ref().take(LONGEST_BODY).read_to_end(&mut rest)?;
            rest
        };
        response.body = String::from_utf8_lossy(&body).into_owned();
        Ok(response)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
            let size = size.map_err(|_| invalid(&line))?;
            body.extend(self.bytes(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > LONGEST_BODY {
            return Err(invalid("a body too long for a test"));
        }
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not understood in an HTTP answer: {what:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("http://hello.localhost:8080/", ("hello.localhost", 8080, "/")),
            ("http://localhost:1/a/b?c", ("localhost", 1, "/a/b?c")),
            ("http://a.localhost", ("a.localhost", 80, "/")),
        ] {
            let (host, port, path) = split(url);
            assert_eq!((host.as_str(), port, path.as_str()), expected);
        }
    }
}
