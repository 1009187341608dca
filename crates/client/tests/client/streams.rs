//! Processes that are attached to.

use sampan_client::model::view::{Exit, LogFrame};
use sampan_client::{ClientError, Output, ProcessEvent};

use crate::fake::{Fake, refusal};

/// A connection that is upgraded, and frames: their numbers and payloads.
fn stream(frames: &[(u8, &str)]) -> Vec<u8> {
    let mut wire =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: sampan-stream\r\n\r\n".to_vec();
    for (stream, text) in frames {
        wire.extend(LogFrame { stream: *stream, length: text.len() as u32, at_ns: 1 }.encode());
        wire.extend(text.as_bytes());
    }
    wire
}

#[tokio::test]
async fn a_process_is_attached_to_until_it_ends() {
    let exited = r#"{"exited":{"exit_code":3,"oom_killed":false}}"#;
    let wire = stream(&[(3, r#"{"started":{"pid":7}}"#), (1, "out"), (2, "err"), (3, exited)]);
    let fake = Fake::answering(vec![wire]);
    let (_input, mut output) = fake.client().attach("job", false).await.unwrap().split();
    let mut told = Vec::new();
    while let Some(event) = output.next().await {
        told.push(event.unwrap());
    }
    let expected = [
        ProcessEvent::Started { pid: 7, timing: Vec::new() },
        ProcessEvent::Output(Output::Stdout, "out".into()),
        ProcessEvent::Output(Output::Stderr, "err".into()),
        ProcessEvent::Exited(Exit { exit_code: Some(3), oom_killed: false }),
    ];
    assert_eq!(told, expected);
    assert_eq!(fake.requests().await, ["POST /v1/containers/job/attach?stdin=false "]);
}

#[tokio::test]
async fn a_stream_that_is_cut_says_so() {
    let fake = Fake::answering(vec![stream(&[(1, "out")])]);
    let (_input, mut output) = fake.client().attach("job", true).await.unwrap().split();
    assert!(matches!(output.next().await, Some(Ok(ProcessEvent::Output(Output::Stdout, _)))));
    let error = output.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, ClientError::Cut { .. }) && error.is_lost(), "{error:?}");
    assert!(output.next().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_attached_to_is_refused() {
    let fake = Fake::answering(vec![refusal("409 Conflict", "not_running")]);
    assert!(fake.client().attach("job", true).await.unwrap_err().is("not_running"));
}
