//! Each limit, lowered, and what happens when it is reached.

use std::time::Duration;

use crate::support::{App, Edge, limits};
use sampan_edge::Limits;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn more_connections_than_allowed() {
    let app = App::named("app").await;
    let mut edge = Edge::start(Limits { connections: 2, ..limits() }).await;
    edge.route(&[("web", &[app.address])]).await;
    let mut held = [edge.connect().await, edge.connect().await];
    for client in &mut held {
        client.write(GET).await;
        client.response().await;
    }
    let (head, body) = edge.connect().await.response().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.ends_with("try again in a moment\n"), "{body}");
    let [first, mut second] = held;
    drop(first);
    second.write(GET).await;
    second.response().await;
    while !edge.get("localhost").await.ends_with("app") {}
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let app = App::named("app").await;
    let edge = Edge::before(&[app.address]).await;
    for head in [format!("X: {}\r\n", "x".repeat(64 * 1024)), (0..101).map(|n| format!("X-{n}: x\r\n")).collect()] {
        let text = edge.say(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{head}\r\n")).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    }
    let fits =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(60 * 1024));
    assert!(edge.say(&fits).await.ends_with("app"));
}

#[tokio::test]
async fn silence() {
    let app = App::named("app").await;
    let short = Duration::from_millis(200);
    let mut edge = Edge::start(Limits { head_timeout: short, idle_timeout: 3 * short, ..limits() }).await;
    edge.route(&[("web", &[app.address])]).await;
    let started = tokio::time::Instant::now();

    let mut nothing = edge.connect().await;
    let mut half = edge.connect().await;
    half.write("GET / HTTP/1.1\r\nHos").await;
    let mut kept = edge.connect().await;
    kept.write(GET).await;
    kept.response().await;

    assert_eq!(half.rest().await, "");
    assert!((short..3 * short).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(nothing.rest().await, "");
    assert_eq!(kept.rest().await, "");
    assert!(started.elapsed() >= 3 * short, "{:?}", started.elapsed());
}

#[tokio::test]
async fn long_requests_are_no_silence() {
    let limit = Duration::from_millis(50);
    let app = App::start(move |_| async move {
        tokio::time::sleep(5 * limit).await;
        crate::support::answer("late")
    })
    .await;
    let mut edge = Edge::start(Limits { head_timeout: limit, idle_timeout: limit, ..limits() }).await;
    edge.route(&[("web", &[app.address])]).await;
    assert!(edge.get("localhost").await.ends_with("late"));
}
