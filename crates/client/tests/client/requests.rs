//! What is sent, what is read, and what becomes of a lost connection.

use std::sync::{Arc, Mutex};

use sampan_client::model::view::{DeployEvent, LogFrame};
use sampan_client::model::{Digest, ImageName, Label};
use sampan_client::{Client, ClientError, LogOptions};

use crate::fake::{Fake, answer, lost, refusal, unheard};

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
async fn what_nobody_has_heard_is_asked_again() {
    // the connection in between is the look whether somebody listens
    let fake = Fake::answering(vec![unheard(), lost(), answer("204 No Content", "")]);
    fake.client().kill_container("job", "TERM").await.unwrap();
    // what may have been heard is not, where it must not be done twice
    let fake = Fake::answering(vec![lost()]);
    let error = fake.client().kill_container("job", "TERM").await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
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
    let mut entries = fake.client().logs("job", LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    let mut text = String::new();
    while let Some(entry) = entries.next().await {
        text.push_str(std::str::from_utf8(&entry.unwrap().bytes).unwrap());
    }
    assert_eq!(text, "a\nb\nb\nb\nc\n");
}
