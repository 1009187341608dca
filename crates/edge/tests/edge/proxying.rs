//! What a request and a response look like on the other side.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::support::{App, Client, Edge, answer, limits, nobody, raw_app};

const GET: &str = "GET / HTTP/1.1\r\nHost: web.localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = App::named("one").await;
    let edge = Edge::before(&[app.address]).await;
    let mut client = edge.connect().await;
    for _ in 0..100 {
        client.write(GET).await;
        assert_eq!(client.response().await.1, "one");
        client.write(POST).await;
        assert_eq!(client.response().await.1, "one");
    }
    assert_eq!((app.requests(), app.connections()), (200, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::mirror().await;
    let edge = Edge::before(&[app.address]).await;
    let mut client = edge.connect().await;
    let request = |n| format!("GET /{n} HTTP/1.1\r\nHost: web.localhost\r\n\r\n");
    client.write(&(0..20).map(request).collect::<String>()).await;
    for n in 0..20 {
        assert!(client.response().await.1.starts_with(&format!("GET /{n} ")));
    }
}

#[tokio::test]
async fn what_the_application_sees() {
    let app = App::mirror().await;
    let edge = Edge::before(&[app.address]).await;
    let check = async |request: &str, expected: &str| {
        let text = edge.say(request).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("200 OK"), "{text}");
        assert_eq!(body, expected, "{request}");
    };
    let ours =
        |host| format!("host: {host}\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: {host}\nx-forwarded-proto: http\n");
    check(
        "GET /a?b=%20 HTTP/1.1\r\nHost: Web.localhost:80\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close, x-mine\r\nX-Mine: 1\r\n\r\n",
        &format!("GET /a?b=%20 HTTP/1.1\n{}", ours("Web.localhost:80")),
    )
    .await;
    check(
        "GET http://web.localhost/p HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
        &format!("GET /p HTTP/1.1\n{}", ours("web.localhost")),
    )
    .await;
    check(
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        &format!("OPTIONS * HTTP/1.1\n{}", ours("localhost")),
    )
    .await;
    check(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        &format!("POST / HTTP/1.1\ncontent-length: 0\n{}", ours("localhost")),
    )
    .await;
    check("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\nx-forwarded-for: 127.0.0.1\nx-forwarded-proto: http\n").await;
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let app = App::start(|request| async {
        let body = request.into_body().collect().await.unwrap();
        let sum = body.trailers().map(|trailers| trailers["x-sum"].clone()).unwrap();
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), sum)]);
        let frames = [Frame::data(body.to_bytes()), Frame::data(Bytes::from("!")), Frame::trailers(trailers)];
        let body = StreamBody::new(Frames(frames.into_iter().collect()));
        Response::builder().header("trailer", "x-sum").body(BodyExt::boxed(body)).unwrap()
    })
    .await;
    let edge = Edge::before(&[app.address]).await;
    let mut client = edge.connect().await;
    client
        .write(
            "POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n",
        )
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(client.until("\r\n\r\n").await, "5\r\nabcde\r\n1\r\n!\r\n0\r\nx-sum: 5\r\n\r\n");
}

/// Frames that are there already.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, hyper::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}

#[tokio::test]
async fn heads_without_bodies_and_old_clients() {
    let app = App::start(|request| async move {
        match request.uri().path() {
            "/none" => {
                let mut empty = answer("");
                *empty.status_mut() = StatusCode::NO_CONTENT;
                empty
            }
            "/chunked" => Response::new(BodyExt::boxed(StreamBody::new(Frames([Frame::data("abc".into())].into())))),
            _ => answer("hello"),
        }
    })
    .await;
    let edge = Edge::before(&[app.address]).await;
    let mut client = edge.connect().await;
    client.write("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    client.write("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("content-length"), "{head}");
    client.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response().await.1, "hello", "nothing was left over of the responses before");

    let old = edge.say("GET /chunked HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("\r\n\r\nabc"), "{old}");
    let mut old = edge.connect().await;
    for _ in 0..2 {
        old.write("GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").await;
        let (head, body) = old.response().await;
        assert!(head.contains("connection: keep-alive") && body == "hello", "{head}");
    }
    assert!(app.connections() <= 2, "one on each of two threads, kept after each kind of response");
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let app = App::mirror().await;
    let edge = Edge::before(&[app.address]).await;
    let mut client = edge.connect().await;
    client.write("PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("body").await;
    let (_, body) = client.response().await;
    assert!(body.ends_with("\nbody") && !body.contains("expect"), "{body}");
}

#[tokio::test]
async fn upgraded_connections_pass_bytes_both_ways() {
    let app = raw_app(|mut app: Client, _| async move {
        let head = app.until("\r\n\r\n").await;
        assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
        app.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome,").await;
        let (mut read, mut write) = app.stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.write_all(b" bye").await.unwrap();
    })
    .await;
    let mut edge = Edge::before(&[app]).await;
    let mut client = edge.connect().await;
    client
        .write("GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nearly,")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: echo"), "{head}");
    assert_eq!(client.until("early,").await, "welcome,early,");
    client.write("ping").await;
    assert_eq!(client.until("ping").await, "ping");

    let status = edge.route(&[]).await;
    assert_eq!(status.in_flight.get(&app), Some(&1), "the tunnel is under way, also when the replica has left");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, " bye");
    edge.until(|status| status.in_flight.is_empty()).await;
}

#[tokio::test]
async fn a_protocol_nobody_asked_for_is_not_switched_to() {
    let app = raw_app(|mut app: Client, _| async move {
        app.until("\r\n\r\n").await;
        app.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        app.rest().await;
    })
    .await;
    let edge = Edge::before(&[app]).await;
    let text =
        edge.say("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 502 ") && text.contains("switched protocols without being asked"), "{text}");
}

#[tokio::test]
async fn big_bodies_stream_both_ways() {
    const SIZE: usize = 64 * 1024 * 1024;
    // the application sends back what comes, as it comes: neither side can hold it all
    let app = App::start(|request| async { Response::new(request.into_body().boxed()) }).await;
    let edge = Edge::before(&[app.address]).await;
    for framing in [format!("Content-Length: {SIZE}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut client = edge.connect().await;
        client.write(&format!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}\r\n\r\n")).await;
        let chunked = framing.ends_with("chunked");
        let head = client.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let (mut read, mut write) = client.stream.into_split();
        let sending = tokio::spawn(async move {
            let piece = [b'x'; 65536];
            for _ in 0..SIZE / piece.len() {
                if chunked {
                    write.write_all(b"10000\r\n").await.unwrap();
                }
                write.write_all(&piece).await.unwrap();
                if chunked {
                    write.write_all(b"\r\n").await.unwrap();
                }
            }
            if chunked {
                write.write_all(b"0\r\n\r\n").await.unwrap();
            }
            write
        });
        let mut count = 0;
        let mut buffer = vec![0; 65536];
        while let Ok(read @ 1..) = read.read(&mut buffer).await {
            count += buffer[..read].iter().filter(|&&byte| byte == b'x').count();
        }
        drop(sending.await.unwrap());
        assert_eq!(count, SIZE, "{framing}");
    }
}

#[tokio::test]
async fn the_least_loaded_replica_is_chosen() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let slow = App::start(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            answer("slow")
        }
    })
    .await;
    let quick = App::named("quick").await;
    let mut edge = Edge::before(&[slow.address]).await;
    let mut waiting = edge.connect().await;
    waiting.write(GET).await;
    edge.route(&[("web", &[slow.address, quick.address])]).await;
    // the status is a moment's; the request is counted once the application has it
    while slow.requests() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert!(edge.get("localhost").await.ends_with("quick"));
    }
    go.notify_one();
    assert_eq!(waiting.response().await.1, "slow");
}

#[tokio::test]
async fn a_kept_connection_that_the_application_closes_is_replaced() {
    // each connection serves one request, claims to be kept, and is closed when the next request has been read
    let app = raw_app(|mut app: Client, _| async move {
        app.until("\r\n\r\n").await;
        app.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        app.until("\r\n\r\n").await;
    })
    .await;
    let edge = Edge::before(&[app]).await;
    let mut client = edge.connect().await;
    for _ in 0..20 {
        client.write(GET).await;
        let (head, body) = client.response().await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}{body}");
    }
    // what may have been done must not be done again
    let post = edge.connect();
    let mut client = post.await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        client.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
        statuses.push(client.response().await.0[9..12].to_owned());
    }
    assert!(statuses.contains(&"502".to_owned()) && statuses.contains(&"200".to_owned()), "{statuses:?}");
}

#[tokio::test]
async fn a_dead_replica_costs_no_request() {
    let app = App::named("alive").await;
    let edge = Edge::before(&[nobody(), app.address]).await;
    for _ in 0..10 {
        assert!(edge.get("localhost").await.ends_with("alive"));
        let posted = edge.say(&POST.replace("Host", "Connection: close\r\nHost")).await;
        assert!(posted.ends_with("alive"), "{posted}");
    }
}

#[tokio::test]
async fn what_the_edge_says_itself() {
    let app = App::named("app").await;
    let mut edge = Edge::before(&[app.address]).await;
    let check = |text: &str, status: &str, parts: &[&str]| {
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    };
    assert!(edge.get("127.0.0.1:8080").await.ends_with("app"));
    assert!(edge.get("[::1]:8080").await.ends_with("app"));

    edge.route(&[("web", &[app.address]), ("api", &[]), ("gone", &[nobody()])]).await;
    let plain = "content-type: text/plain; charset=utf-8\r\n";
    check(&edge.get("localhost:80").await, "404", &[plain, "http://api.localhost:80/, http://gone.localhost:80/"]);
    check(&edge.get("nix.localhost").await, "404", &["no service at nix.localhost", "http://web.localhost/"]);
    check(&edge.get("api.localhost").await, "503", &[plain, "retry-after: 1\r\n", "service api has no ready replica"]);
    check(&edge.get("gone.localhost").await, "502", &[plain, "replica gone.1 of service gone", "Connection refused"]);
    let browser = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    check(&edge.say(browser).await, "404", &["text/html", "<a href=\"http://web.localhost/\">web</a>"]);
    check(&edge.say("CONNECT web.localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n").await, "405", &["CONNECT is refused"]);
    edge.route(&[]).await;
    check(&edge.get("web.localhost").await, "404", &["none is up", "sampan up"]);
}

#[tokio::test]
async fn a_replica_that_does_not_answer_in_time() {
    let app = raw_app(|mut app: Client, _| async move { drop(app.rest().await) }).await;
    let limits = sampan_edge::Limits { response_timeout: std::time::Duration::from_millis(100), ..limits() };
    let mut edge = Edge::start(limits).await;
    edge.route(&[("web", &[app])]).await;
    let text = edge.get("localhost").await;
    assert!(text.starts_with("HTTP/1.1 504 ") && text.contains("did not begin to answer"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    let got = Arc::new(Notify::new());
    let tell = Arc::clone(&got);
    let app = raw_app(move |mut app: Client, _| {
        let tell = Arc::clone(&tell);
        async move {
            app.until("\r\n\r\n").await;
            tell.notify_one();
            app.rest().await;
        }
    })
    .await;
    let mut edge = Edge::before(&[app]).await;
    let mut client = edge.connect().await;
    client.write(GET).await;
    got.notified().await;
    assert_eq!(edge.route(&[]).await.in_flight.get(&app), Some(&1));
    drop(client);
    edge.until(|status| status.in_flight.is_empty()).await;
}
