//! The client against a daemon of canned answers: what is sent, what is read, and what becomes of a lost connection.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sampan_client::model::view::{DeployEvent, LogFrame};
use sampan_client::model::{Digest, ImageName, Label};
use sampan_client::{Client, ClientError, LogOptions, Root, StartOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the daemon does with one connection: an answer as bytes, after which it closes it. Empty: it closes at once.
type Answer = Vec<u8>;

struct Fake {
    _dir: tempfile::TempDir,
    root: Root,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Fake {
    /// A daemon that gives these answers, one a connection, in their order.
    fn answering(answers: Vec<Answer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path()).unwrap();
        std::fs::create_dir(root.run_dir()).unwrap();
        let listener = UnixListener::bind(root.socket()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            for answer in answers {
                let mut stream = listener.accept().await.unwrap().0;
                let request = read_request(&mut stream).await;
                told.lock().unwrap().push(request);
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { _dir: dir, root, requests, serving }
    }

    /// A client that finds the fake again after each loss: its "daemon" is ready at once.
    fn client(&self) -> Client {
        Client::on_demand(&self.root, &StartOptions { exe: script(self.root.path(), "echo ready"), http: None })
    }

    async fn requests(self) -> Vec<String> {
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

fn answer(status: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}

fn lost() -> Answer {
    Vec::new()
}

fn refusal(status: &str, code: &str) -> Answer {
    answer(status, format!(r#"{{"error":{{"code":"{code}","message":"no {code}","hint":"try"}}}}"#))
}

fn hello() -> Label {
    Label::parse("hello").unwrap()
}

#[tokio::test]
async fn names_are_encoded_and_errors_read() {
    let fake = Fake::answering(vec![refusal("409 Conflict", "in_use"), answer("500 Oh", "<html>")]);
    let client = fake.client();
    let name = ImageName::parse("a/b:1").unwrap();
    let error = client.delete_image(&name).await.unwrap_err();
    assert!(error.is("in_use"));
    assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("no in_use", Some("try")));
    assert!(matches!(client.images().await, Err(ClientError::Answer { .. })));
    assert_eq!(fake.requests().await, ["DELETE /v1/images/a%2Fb%3A1 ", "GET /v1/images "]);
}

#[tokio::test]
async fn what_may_be_asked_twice_is() {
    let fake = Fake::answering(vec![lost(), lost(), answer("200 OK", "[]")]);
    assert_eq!(fake.client().services().await.unwrap(), []);
    // 2 connections of each revival only look whether somebody listens
    assert_eq!(fake.requests().await.len(), 3);
}

#[tokio::test]
async fn a_loss_without_leave_to_start_is_told() {
    let fake = Fake::answering(vec![lost(), lost()]);
    let client = Client::connect(&fake.root).await.unwrap();
    let error = client.services().await.unwrap_err();
    assert!(matches!(&error, ClientError::Lost { request, .. } if request == "GET /v1/services"), "{error:?}");
}

#[tokio::test]
async fn a_second_delete_finds_nothing_and_that_is_fine() {
    let fake = Fake::answering(vec![lost(), lost(), refusal("404 Not Found", "not_found")]);
    fake.client().delete_service(&hello()).await.unwrap();
    let fake = Fake::answering(vec![refusal("404 Not Found", "not_found")]);
    assert!(fake.client().delete_service(&hello()).await.unwrap_err().is("not_found"));
}

#[tokio::test]
async fn blobs_are_sent_again_from_their_start() {
    let digest = Digest::from_sha256([1; 32]);
    let fake = Fake::answering(vec![answer("404 Not Found", ""), lost(), lost(), answer("201 Created", "")]);
    let file = fake.root.path().join("blob");
    std::fs::write(&file, "content").unwrap();
    let sent = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&sent);
    let was_sent = fake.client().upload_blob(&digest, &file, move |count| *counter.lock().unwrap() += count).await;
    assert!(was_sent.unwrap());
    assert!(*sent.lock().unwrap() >= 7);
    let requests = fake.requests().await;
    let path = format!("/v1/blobs/sha256%3A{}", digest.hex());
    assert_eq!(requests[0], format!("HEAD {path} "));
    assert_eq!(requests[3], format!("PUT {path} 7\r\ncontent\r\n0"));
}

#[tokio::test]
async fn deploys_are_told_line_by_line() {
    let lines = "{\"phase\":\"waiting\",\"on\":\"an image\"}\n\n{\"phase\":\"superseded\",\"by\":3}";
    let fake = Fake::answering(vec![answer("200 OK", lines)]);
    let mut events = fake.client().deploy_events(&hello(), 2).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), DeployEvent::Waiting { on: "an image".into() });
    assert_eq!(events.next().await.unwrap().unwrap(), DeployEvent::Superseded { by: 3 });
    assert!(events.next().await.is_none());
    assert_eq!(fake.requests().await, ["GET /v1/services/hello/deploys/2 "]);
}

fn frames(entries: &[(i64, &str)]) -> Vec<u8> {
    let frame = |(at_ns, text): &(i64, &str)| {
        let head = LogFrame { stream: 1, length: text.len() as u32, at_ns: *at_ns }.encode();
        head.into_iter().chain(text.bytes()).collect::<Vec<_>>()
    };
    entries.iter().flat_map(frame).collect()
}

#[tokio::test]
async fn logs_go_on_with_the_next_daemon() {
    // the first daemon dies after three entries of an answer that says it is longer
    let mut broken = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec();
    broken.extend(frames(&[(1, "a\n"), (2, "b\n"), (2, "b\n")]));
    let whole = frames(&[(1, "a\n"), (2, "b\n"), (2, "b\n"), (2, "b\n"), (3, "c\n")]);
    let fake = Fake::answering(vec![broken, lost(), answer("200 OK", whole)]);
    let mut entries = fake.client().logs("job", LogOptions { follow: true, tail: None }).await.unwrap();
    let mut text = String::new();
    while let Some(entry) = entries.next().await {
        text.push_str(std::str::from_utf8(&entry.unwrap().bytes).unwrap());
    }
    assert_eq!(text, "a\nb\nb\nb\nc\n");
}
