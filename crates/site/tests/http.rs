//! The file server over real sockets.

#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use sampan_site::{Limits, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server over a directory of its own.
struct Server {
    address: SocketAddr,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self::with(files, Limits::default())
    }

    fn with(files: &[(&str, &[u8])], limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, content).expect("a file");
        }
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let root = directory.path().to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
                tell.send(listener.local_addr().expect("its address")).expect("the test waits");
                serve(listener, &root, limits, async { drop(stopped.await) }).await.expect("a directory to serve");
            });
        });
        Self { address: told.recv().expect("the server starts"), directory, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        Client { reader: BufReader::new(stream) }
    }

    /// One request on a connection of its own.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.connect().ask(method, path, headers)
    }

    #[track_caller]
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers)
    }

    /// Stops it and waits until it has.
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Client {
    reader: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Client {
    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).expect("the request is taken");
    }

    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        self.read(method).expect("an answer")
    }

    fn read(&mut self, method: &str) -> io::Result<Answer> {
        let mut line = || {
            let mut line = String::new();
            match self.reader.read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let status = line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method != "HEAD" && status != 304 {
            let length: usize = answer.header("content-length").parse().expect("a length");
            answer.body = vec![0; length];
            self.reader.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

#[test]
fn files_and_their_headers() {
    let server = Server::new(&[
        ("index.html", b"<h1>home"),
        ("about/index.html", b"<h1>about"),
        ("app.3f2a9c1b.js", b"x()"),
        ("photo.jpg", b"\xff\xd8"),
        ("\u{e4} b.txt", b"umlaut"),
        ("empty", b""),
        (".well-known/security.txt", b"Contact:"),
    ]);
    for (path, content_type, cache, body) in [
        ("/", "text/html; charset=utf-8", "no-cache", "<h1>home"),
        ("/index.html?q=1", "text/html; charset=utf-8", "no-cache", "<h1>home"),
        ("/about/", "text/html; charset=utf-8", "no-cache", "<h1>about"),
        ("/app.3f2a9c1b.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", "x()"),
        ("/%C3%A4%20b.txt", "text/plain; charset=utf-8", "no-cache", "umlaut"),
        ("/empty", "application/octet-stream", "no-cache", ""),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", "no-cache", "Contact:"),
        ("http://x/about/", "text/html; charset=utf-8", "no-cache", "<h1>about"),
    ] {
        let answer = server.get(path, &[]);
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        assert_eq!(answer.header("cache-control"), cache, "{path}");
        assert_eq!(answer.header("accept-ranges"), "bytes", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("etag").starts_with('"') && !answer.header("last-modified").is_empty(), "{answer:?}");
        assert!(!answer.header("date").is_empty(), "{path}");
        let head = server.ask("HEAD", path, &[]);
        let without_date = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| name != "date");
            headers.sort();
            headers
        };
        assert_eq!((head.status, without_date(&head)), (200, without_date(&answer)), "{path}");
    }
}

#[test]
fn what_is_not_there() {
    let server = Server::new(&[("index.html", b"x"), ("a/b", b"x"), (".env", b"SECRET"), (".git/config", b"SECRET")]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "SECRET").unwrap();
    symlink(outside.path(), server.path().join("out")).unwrap();
    symlink("../../../../../../etc/passwd", server.path().join("passwd")).unwrap();
    symlink("/proc/self/root", server.path().join("magic")).unwrap();
    symlink("loop", server.path().join("loop")).unwrap();
    symlink("a/b", server.path().join("inside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        server.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let long = format!("/{}", "x".repeat(300));
    for path in [
        "/nothing",
        "/a/b/",
        "/a/b/c",
        "/a/",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/out/secret",
        "/passwd",
        "/magic/etc/passwd",
        "/loop",
        "/pipe",
        "/../etc/passwd",
        "/a/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/a//b",
        &long,
        "/..%2f..%2fetc%2fpasswd",
    ] {
        let answer = server.get(path, &[]);
        assert_eq!((answer.status, answer.text()), (404, "there is nothing here\n"), "{path}");
    }
    assert_eq!(server.get("/inside", &[]).text(), "x");
    assert_eq!(server.get("/%zz", &[]).status, 400);
    assert_eq!(server.get("/%00", &[]).status, 400);

    std::fs::write(server.path().join("404.html"), "<h1>gone").unwrap();
    let answer = server.get("/nothing", &[("If-None-Match", "*"), ("Range", "bytes=0-1")]);
    assert_eq!((answer.status, answer.text()), (404, "<h1>gone"));
    assert_eq!((answer.header("content-type"), answer.header("etag")), ("text/html; charset=utf-8", ""));
}

#[test]
fn directories_have_a_slash() {
    let server = Server::new(&[("a/b/index.html", b"x")]);
    let answer = server.get("/a/b?x=%20y", &[]);
    assert_eq!((answer.status, answer.header("location")), (301, "/a/b/?x=%20y"));
    assert_eq!(answer.header("cache-control"), "no-cache");
    // never to another host
    assert_eq!(server.get("//a/b", &[]).status, 404);
}

#[test]
fn only_get_and_head() {
    let server = Server::new(&[("index.html", b"x")]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let answer = server.ask(method, "/", &[("Content-Length", "0")]);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
}

#[test]
fn ranges() {
    let server = Server::new(&[("x.bin", b"0123456789"), ("x.txt", "0123456789".repeat(300).as_bytes())]);
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=5-99", 206, "bytes 5-9/10", "56789"),
        ("bytes=10-", 416, "bytes */10", "the file is not that long\n"),
        ("bytes=9-2", 200, "", "0123456789"),
        ("lines=1", 200, "", "0123456789"),
    ] {
        let answer = server.get("/x.bin", &[("Range", range)]);
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{range}");
        assert_eq!(answer.text(), body, "{range}");
    }
    let answer = server.get("/x.bin", &[("Range", "bytes=0-1, 8-")]);
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(answer.status, 206);
    assert_eq!(
        answer.text(),
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--{boundary}--\r\n"
        )
    );
    // HEAD has none
    assert_eq!(server.ask("HEAD", "/x.bin", &[("Range", "bytes=0-0")]).status, 200);
    // a part is one of the file as it is, be compressed files accepted or not
    let answer = server.get("/x.txt", &[("Range", "bytes=0-4"), ("Accept-Encoding", "gzip")]);
    assert_eq!((answer.status, answer.text(), answer.header("content-encoding")), (206, "01234", ""));
    // a part of what is another file by now is no part
    let tag = server.get("/x.bin", &[]).header("etag").to_owned();
    let part = |tag: &str| server.get("/x.bin", &[("Range", "bytes=0-0"), ("If-Range", tag)]).status;
    assert_eq!((part(&tag), part("\"x\"")), (206, 200));
    std::fs::write(server.path().join("x.bin"), "abcdefghij").unwrap();
    assert_eq!(part(&tag), 200);
}

#[test]
fn conditions() {
    let server = Server::new(&[("x.css", b"a{}")]);
    let first = server.get("/x.css", &[]);
    let (tag, modified) = (first.header("etag"), first.header("last-modified"));
    let status = |name: &str, value: &str| server.get("/x.css", &[(name, value)]).status;
    assert_eq!((status("If-None-Match", tag), status("If-None-Match", "\"x\"")), (304, 200));
    assert_eq!((status("If-Match", tag), status("If-Match", "\"x\"")), (200, 412));
    assert_eq!(status("If-Modified-Since", modified), 304);
    assert_eq!(status("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), 200);
    assert_eq!(status("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), 412);
    let answer = server.get("/x.css", &[("If-None-Match", tag)]);
    assert_eq!((answer.header("etag"), answer.header("cache-control")), (tag, "no-cache"));
    assert_eq!((answer.header("vary"), answer.header("content-length")), ("Accept-Encoding", ""));
    // the same size, within the same second
    std::fs::write(server.path().join("x.css"), "b{}").unwrap();
    assert_eq!(status("If-None-Match", tag), 200);
}

#[test]
fn the_time_of_an_image_says_nothing() {
    let server = Server::new(&[("x.txt", b"x")]);
    let file = std::fs::File::options().write(true).open(server.path().join("x.txt")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(315_532_800)).unwrap();
    let answer = server.get("/x.txt", &[]);
    assert_eq!(answer.header("last-modified"), "");
    assert_eq!(server.get("/x.txt", &[("If-Modified-Since", "Tue, 01 Jan 1980 00:00:00 GMT")]).status, 200);
    assert_eq!(server.get("/x.txt", &[("If-None-Match", answer.header("etag"))]).status, 304);
}

#[test]
fn compression() {
    let text = "lorem ipsum ".repeat(1000);
    let server = Server::new(&[
        ("x.txt", text.as_bytes()),
        ("small.txt", b"small"),
        ("x.png", text.as_bytes()),
        ("pre.js", b"plain"),
        ("pre.js.br", b"as brotli"),
        ("pre.js.zst", b"as zstd"),
        ("pre.js.gz", b"as gzip"),
    ]);
    let answer = server.get("/x.txt", &[("Accept-Encoding", "gzip, br")]);
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("gzip", "Accept-Encoding"));
    let mut plain = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, text);
    assert!(answer.body.len() < text.len() / 10, "{}", answer.body.len());
    // another representation is another tag, and each is answered with its own
    let other = server.get("/x.txt", &[]);
    assert_eq!(
        (other.header("content-encoding"), other.header("vary"), other.text()),
        ("", "Accept-Encoding", text.as_str())
    );
    assert_ne!(other.header("etag"), answer.header("etag"));
    let again = server.get("/x.txt", &[("Accept-Encoding", "gzip"), ("If-None-Match", answer.header("etag"))]);
    assert_eq!(again.status, 304);
    assert_eq!(server.get("/x.txt", &[("If-None-Match", answer.header("etag"))]).status, 200);

    for (path, accepted, coding, body) in [
        ("/small.txt", "gzip", "", "small"),
        ("/x.png", "gzip", "", text.as_str()),
        ("/pre.js", "gzip, deflate, br, zstd", "br", "as brotli"),
        ("/pre.js", "gzip, zstd", "zstd", "as zstd"),
        ("/pre.js", "gzip", "gzip", "as gzip"),
        ("/pre.js", "gzip;q=0.5, identity", "", "plain"),
        ("/pre.js", "br;q=0", "", "plain"),
        ("/pre.js.gz", "gzip", "", "as gzip"),
    ] {
        let answer = server.get(path, &[("Accept-Encoding", accepted)]);
        assert_eq!((answer.header("content-encoding"), answer.text()), (coding, body), "{path} {accepted}");
        assert!(path != "/pre.js" || answer.header("content-type").starts_with("text/javascript"), "{answer:?}");
    }
    assert_eq!(server.get("/small.txt", &[("Accept-Encoding", "identity;q=0")]).status, 406);
}

#[test]
fn connections_are_kept_and_requests_may_follow_one_another() {
    let server = Server::new(&[("a", b"A"), ("b", b"B")]);
    let mut client = server.connect();
    client.send(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let answers: Vec<_> = (0..3).map(|_| client.read("GET").unwrap().status).collect();
    assert_eq!(answers, [200, 404, 200]);
    assert_eq!(client.ask("HEAD", "/a", &[]).status, 200);
    assert_eq!(client.ask("GET", "/b", &[("Connection", "close")]).text(), "B");
    assert_eq!(client.read("GET").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let mut client = server.connect();
    client.send(&format!("GET /a HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(40 << 10)));
    // what was not read when the connection was closed may take the answer with it
    assert!(matches!(client.read("GET"), Ok(Answer { status: 431, .. }) | Err(_)));
}

#[test]
fn large_files_are_streamed() {
    let server = Server::new(&[]);
    let size = 512u64 << 20;
    std::fs::File::create(server.path().join("large.bin")).unwrap().set_len(size).unwrap();
    let peak = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = peak();
    let mut client = server.connect();
    client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut read = 0u64;
    let mut most = before;
    let mut buffer = vec![0; 1 << 20];
    while read < size {
        read += client.reader.read(&mut buffer).unwrap() as u64;
        most = most.max(peak());
    }
    // other tests of this process run meanwhile, and take their part
    assert!(most - before < 160 << 10, "{} KiB more for a large file", most - before);
}

#[test]
fn slow_clients_are_let_go() {
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let server = Server::with(&[("a", b"A")], limits);
    // a head that never ends
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHos");
    let begin = Instant::now();
    let mut rest = Vec::new();
    let _ = client.reader.read_to_end(&mut rest);
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    // an idle connection
    let mut client = server.connect();
    assert_eq!(client.ask("GET", "/a", &[]).text(), "A");
    assert_eq!(client.reader.read(&mut [0]).unwrap(), 0);
}

/// The kernel tells nobody that it gives such a connection up; its place is free then.
#[test]
fn who_takes_nothing_of_an_answer_is_let_go() {
    let server = Server::with(
        &[("a", b"A")],
        Limits { connections: 1, stalled: Duration::from_millis(500), ..Limits::default() },
    );
    std::fs::File::create(server.path().join("large.bin")).unwrap().set_len(64 << 20).unwrap();
    let mut stalled = server.connect();
    stalled.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(server.get("/a", &[]).text(), "A");
    let mut rest = Vec::new();
    let _ = stalled.reader.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "it had been sent by then: {}", rest.len());
}

#[test]
fn connections_above_the_limit_wait() {
    let server = Server::with(&[("a", b"A")], Limits { connections: 2, ..Limits::default() });
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!((first.ask("GET", "/a", &[]).status, second.ask("GET", "/a", &[]).status), (200, 200));
    let mut third = server.connect();
    third.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    third.reader.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read("GET").is_err(), "two are the limit");
    drop(first);
    third.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.read("GET").unwrap().text(), "A");
}

#[test]
fn stopping_lets_answers_end() {
    let mut server = Server::new(&[]);
    std::fs::File::create(server.path().join("large.bin")).unwrap().set_len(32 << 20).unwrap();
    let mut idle = server.connect();
    assert_eq!(idle.ask("GET", "/large.bin", &[("Range", "bytes=0-0")]).status, 206);
    let mut busy = server.connect();
    busy.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = [0; 100];
    busy.reader.read_exact(&mut first).unwrap();
    drop(server.stop.take());
    // an idle connection is closed, one under way is served to its end
    assert_eq!(idle.reader.read(&mut [0]).unwrap(), 0);
    let mut rest = Vec::new();
    busy.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 > 32 << 20 >> 1 && rest.len() > (32 << 20) - 1000, "{}", rest.len());
    server.stop();
    assert!(TcpStream::connect(server.address).is_err());
}
