//! A daemon of canned answers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sampan_client::{Client, Root, StartOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the daemon does with one connection: an answer as bytes, after which it closes it. Empty: it closes at once.
pub type Answer = Vec<u8>;

pub struct Fake {
    _dir: tempfile::TempDir,
    pub root: Root,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Fake {
    /// A daemon that gives these answers, one a connection, in their order.
    pub fn answering(answers: Vec<Answer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path()).unwrap();
        std::fs::create_dir(root.run_dir()).unwrap();
        let listener = UnixListener::bind(root.socket()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            for answer in answers {
                let mut stream = listener.accept().await.unwrap().0;
                if answer == RESET {
                    // with bytes unread, as when a daemon is killed before it comes to them
                    stream.readable().await.unwrap();
                    continue;
                }
                let request = read_request(&mut stream).await;
                told.lock().unwrap().push(request);
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { _dir: dir, root, requests, serving }
    }

    /// A client that finds the fake again after each loss: its "daemon" is ready at once.
    pub fn client(&self) -> Client {
        Client::on_demand(&self.root, &StartOptions { exe: script(self.root.path(), "echo ready"), http: None })
    }

    pub async fn requests(self) -> Vec<String> {
        self.serving.await.unwrap();
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn script(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("daemon.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Reads a request: its first line, and its body where it has a length or is chunked (as it is on the wire).
async fn read_request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head_lower = head.to_ascii_lowercase();
            let length: usize = head_lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let is_whole = match head_lower.contains("transfer-encoding: chunked") {
                true => body.ends_with("0\r\n\r\n"),
                false => body.len() >= length,
            };
            if is_whole {
                return format!("{} {}", head.lines().next().unwrap().trim_end_matches(" HTTP/1.1"), body.trim_end());
            }
        }
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await.unwrap() {
            0 => return "closed".into(),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

pub fn answer(status: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}

const RESET: &[u8] = b"reset";

/// A connection that is closed before the request is read.
pub fn unheard() -> Answer {
    RESET.to_vec()
}

pub fn lost() -> Answer {
    Vec::new()
}

pub fn refusal(status: &str, code: &str) -> Answer {
    answer(status, format!(r#"{{"error":{{"code":"{code}","message":"no {code}","hint":"try"}}}}"#))
}
