//! Requests that two servers could read in two ways: refused, or passed on so that there is only one way.

use crate::support::{App, Edge};

/// What is to happen to some bytes.
enum Fate {
    /// Refused with this status; the application sees nothing.
    Refused(&'static str),
    /// Closed without an answer; the application sees nothing.
    Closed,
    /// The application sees this many requests, the first with this body, and the connection is closed after it.
    Passed(usize, &'static str),
}
use Fate::{Closed, Passed, Refused};

#[tokio::test]
async fn ambiguous_requests() {
    let app = App::mirror().await;
    let edge = Edge::before(&[app.address]).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let cases: &[(&str, String, Fate)] = &[
        // RFC 9112 section 6.3: the coding wins, the length is dropped, the connection ends: nothing can hide behind
        (
            "length, coding",
            format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            Passed(1, ""),
        ),
        (
            "coding, length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{hidden}"),
            Passed(1, ""),
        ),
        ("two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".into(), Refused("400")),
        ("a list of lengths", "Content-Length: 4, 5\r\n\r\nabcde".into(), Refused("400")),
        ("a signed length", "Content-Length: +4\r\n\r\nabcd".into(), Refused("400")),
        ("a negative length", "Content-Length: -4\r\n\r\nabcd".into(), Refused("400")),
        ("a hexadecimal length", "Content-Length: 0x4\r\n\r\nabcd".into(), Refused("400")),
        ("another last coding", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".into(), Refused("400")),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".into(), Refused("400")),
        ("two codings", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(), Refused("501")),
        (
            "coded twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            Refused("501"),
        ),
        ("space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".into(), Refused("400")),
        ("a folded line", "X: a\r\n b\r\n\r\n".into(), Refused("400")),
        ("a bare return", "X: a\rb\r\n\r\n".into(), Refused("400")),
        ("a zero byte", "X: a\0b\r\n\r\n".into(), Refused("400")),
        ("two hosts", "Host: localhost\r\n\r\n".into(), Refused("400")),
        ("a bad chunk length", "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n".into(), Closed),
        ("an endless chunk length", format!("Transfer-Encoding: chunked\r\n\r\n{}\r\n", "1".repeat(40)), Closed),
    ];
    for (what, rest, fate) in cases {
        let before = app.requests();
        let text = edge.say(&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{rest}")).await;
        let seen = app.requests() - before;
        match fate {
            Refused(status) => {
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {text}");
                assert_eq!(seen, 0, "{what}");
            }
            Closed => assert!(!text.contains(" 200 "), "{what}: {text}"),
            Passed(count, body) => {
                assert_eq!(seen, *count, "{what}: {text}");
                assert!(text.ends_with(body) && !text.contains("hidden"), "{what}: {text}");
                assert!(!text.contains("content-length: 4\n"), "{what}: {text}");
            }
        }
    }
    let after = edge.get("localhost").await;
    assert!(after.contains(" 200 OK"), "{after}");
}

#[tokio::test]
async fn what_is_no_request_for_us() {
    let app = App::mirror().await;
    let edge = Edge::before(&[app.address]).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost:1:2\r\n\r\n", "400"),
        ("GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET http://user@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("G<T / HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ] {
        let mut client = edge.connect().await;
        client.write(request).await;
        let head = client.until("\r\n\r\n").await;
        assert_eq!(&head[9..12], status, "{request:?}: {head}");
    }
    assert_eq!(app.requests(), 0);
}
