//! Replicas and sockets that come and go while requests are under way.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sampan_edge::Control;
use tokio::sync::{Notify, mpsc};

use crate::support::{App, Client, Edge, answer, raw_app};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_replica_that_left_is_counted_until_it_is_empty() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let old = App::start(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            answer("old")
        }
    })
    .await;
    let new = App::named("new").await;
    let mut edge = Edge::before(&[old.address]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = edge.connect().await;
        client.write(GET).await;
        clients.push(client);
    }
    while old.requests() < 3 {
        tokio::task::yield_now().await;
    }
    let status = edge.route(&[("web", &[new.address])]).await;
    assert_eq!(status.in_flight, BTreeMap::from([(old.address, 3)]));
    assert!(edge.get("localhost").await.ends_with("new"));
    for left in [2, 1, 0] {
        go.notify_one();
        edge.until(|status| status.in_flight.get(&old.address).copied().unwrap_or(0) == left).await;
    }
    for mut client in clients {
        assert_eq!(client.response().await.1, "old");
    }
}

#[tokio::test]
async fn idle_connections_to_a_replica_that_left_are_closed() {
    let (tell, mut closed) = mpsc::channel(1);
    let app = raw_app(move |mut app: Client, _| {
        let tell = tell.clone();
        async move {
            app.until("\r\n\r\n").await;
            app.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            app.rest().await;
            tell.send(()).await.unwrap();
        }
    })
    .await;
    let mut edge = Edge::before(&[app]).await;
    let mut client = edge.connect().await;
    client.write(GET).await;
    client.response().await;
    edge.route(&[]).await;
    tokio::time::timeout(crate::support::PATIENCE, closed.recv()).await.expect("closed long before its idle time");
}

/// 5,000 requests over 32 connections, half of them not repeatable, while one of two replicas is taken out and stopped
/// as the daemon does it: none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_replicas_come_and_go() {
    let mut edge = Edge::before(&[]).await;
    let mut apps = [App::named("app").await, App::named("app").await];
    edge.route(&[("web", &[apps[0].address, apps[1].address])]).await;
    let left = Arc::new(AtomicUsize::new(5_000));
    let done = Arc::new(AtomicBool::new(false));
    let address = edge.address;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let left = Arc::clone(&left);
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            while let Ok(number) = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                let request = match number % 2 {
                    0 => GET,
                    _ => "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi",
                };
                client.write(request).await;
                let (head, body) = client.response().await;
                assert!(head.starts_with("HTTP/1.1 200 ") && body == "app", "{head}{body}");
            }
        });
    }
    let finished = Arc::clone(&done);
    let load = tokio::spawn(async move {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        finished.store(true, Ordering::SeqCst);
    });
    let mut flips = 0;
    while !done.load(Ordering::SeqCst) {
        let new = App::named("app").await;
        let old = std::mem::replace(&mut apps[flips % 2], new);
        edge.route(&[("web", &[apps[0].address, apps[1].address])]).await;
        edge.until(|status| !status.in_flight.contains_key(&old.address)).await;
        let served = old.requests();
        old.stop().await;
        assert_eq!(old.requests(), served, "a request came after the edge said that none would");
        flips += 1;
    }
    load.await.unwrap();
    assert!(flips > 3, "only {flips} flips");
}

#[tokio::test]
async fn sockets_are_taken_over_and_closed() {
    let app = App::named("app").await;
    let mut edge = Edge::before(&[app.address]).await;
    let first = edge.address;

    // a second address, its socket handed over after the table that names it; on 127.0.0.2, where no other test listens
    let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    edge.address = listener.local_addr().unwrap();
    let key = format!("http/{}/0", edge.address);
    edge.table.http.push(key.clone());
    edge.apply().await;
    edge.controls.send(Control::Sockets(vec![(key, OwnedFd::from(listener))])).await.unwrap();
    let mut early = edge.connect().await;
    early.write(GET).await;
    assert_eq!(early.response().await.1, "app");

    // it leaves: new connections are refused, the one there goes on, and so does the other address
    edge.table.http.pop();
    edge.apply().await;
    while tokio::net::TcpStream::connect(edge.address).await.is_ok() {}
    early.write(GET).await;
    assert_eq!(early.response().await.1, "app");
    edge.address = first;
    assert!(edge.get("localhost").await.ends_with("app"));
}

#[tokio::test]
async fn at_the_end_requests_finish_and_connections_close() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let app = App::start(move |request| {
        let wait = Arc::clone(&wait);
        async move {
            if request.uri().path() == "/wait" {
                wait.notified().await;
            }
            answer("done")
        }
    })
    .await;
    let edge = Edge::before(&[app.address]).await;
    let mut idle = edge.connect().await;
    idle.write(GET).await;
    idle.response().await;
    let mut busy = edge.connect().await;
    busy.write(&GET.replace("/ ", "/wait ")).await;
    while app.requests() < 2 {
        tokio::task::yield_now().await;
    }
    drop(edge.controls);
    assert_eq!(idle.rest().await, "");
    assert!(!edge.running.is_finished());
    go.notify_one();
    let text = busy.rest().await;
    assert!(text.ends_with("done"), "{text}");
    edge.running.await.unwrap().unwrap();
}
