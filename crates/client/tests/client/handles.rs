//! Servers and apps as a program holds them.

use futures_util::{FutureExt as _, poll};
use sampan_client::model::view::DeployEvent;
use sampan_client::model::{ByteSize, Cpus, Label};
use sampan_client::{Cloud, DeployError};
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, answer, refusal};

fn ok(body: &Value) -> Answer {
    answer("200 OK", body.to_string())
}

fn lines(values: &[Value]) -> Answer {
    answer("200 OK", values.iter().map(|value| format!("{value}\n")).collect::<String>())
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn server(cpus: f64) -> Value {
    json!({
        "kind": "server", "id": "1".repeat(64), "name": "demo", "cpus": cpus, "memory_bytes": 1 << 30, "pids": 4096,
        "disk": null, "status": "running", "address": "10.0.0.2", "containers": [], "services": [],
        "owner": { "uid": 0, "gid": 0, "groups": [] }, "created_at": "2027-01-01T00:00:00Z",
    })
}

fn image(name: &str) -> Value {
    let digest = format!("sha256:{}", "0".repeat(64));
    json!({
        "kind": "image", "name": name, "digest": digest, "size_bytes": 1, "created_at": "2027-01-01T00:00:00Z",
        "config_digest": digest, "architecture": "amd64", "os": "linux", "made_at": null, "layers": [], "history": [],
        "config": {
            "entrypoint": [], "cmd": [], "env": [], "working_dir": "", "user": "", "ports": [],
            "labels": {}, "stop_signal": null,
        },
    })
}

fn daemon(revision: u64) -> Value {
    json!({
        "version": "0.1.0", "root": "/x", "socket": "/x/run/sampan.sock", "started_at": "2027-01-01T00:00:00Z",
        "revision": revision, "http": [], "processes": [], "warnings": [],
    })
}

fn change(revision: u64) -> Value {
    json!({ "revision": revision, "key": "default/server/demo", "value": {} })
}

#[tokio::test]
async fn a_server_is_made_used_and_closed() {
    let answers = vec![
        ok(&server(0.5)),
        ok(&image("team/hello:1")),
        ok(&server(0.5)),
        ok(&json!({ "name": "hello", "version": 3 })),
        lines(&[json!({ "phase": "waiting", "on": "x" }), json!({ "phase": "superseded", "by": 4 })]),
        lines(&[json!({ "phase": "ready", "url": "http://hello.localhost/", "port": 80, "port_source": "given" })]),
        answer("204 No Content", ""),
    ];
    let fake = Fake::answering(answers);
    let cloud = Cloud::from(fake.client());
    let server = cloud.server(Cpus::from_milli(500), ByteSize::gib(1)).name(label("demo")).create().await.unwrap();
    let app = server.run("team/hello:1").env("A", "b").await.unwrap();
    assert_eq!((app.name().as_str(), app.version()), ("hello", 3));
    assert_eq!(app.http().await.unwrap(), "http://hello.localhost/");
    server.close().await.unwrap();
    let requests = fake.requests().await;
    let heads: Vec<&str> = requests.iter().map(|request| request.split(" {").next().unwrap().trim_end()).collect();
    assert_eq!(
        heads,
        [
            "POST /v1/servers",
            "GET /v1/images/team%2Fhello%3A1",
            "GET /v1/servers/demo",
            "PUT /v1/services/hello",
            "GET /v1/services/hello/deploys/3",
            "GET /v1/services/hello/deploys/4",
            "DELETE /v1/servers/demo",
        ]
    );
    let spec: Value = serde_json::from_str(requests[3].split_once(' ').unwrap().1.split_once(' ').unwrap().1).unwrap();
    assert_eq!((&spec["server"], &spec["env"]["A"], &spec["size"]["cpus"]), (&json!("demo"), &json!("b"), &json!(0.5)));
}

#[tokio::test]
async fn a_server_that_nobody_waits_for_is_closed() {
    let fake = Fake::answering(vec![ok(&server(1.0)), answer("204 No Content", "")]);
    let cloud = Cloud::from(fake.client());
    let mut creating = Box::pin(cloud.server(Cpus::ONE, ByteSize::gib(1)).name(label("demo")).create());
    assert!(poll!(&mut creating).is_pending(), "the request is on its way");
    drop(creating);
    let requests = fake.requests().await;
    assert!(requests[0].starts_with("POST /v1/servers "), "{requests:?}");
    assert_eq!(requests[1], "DELETE /v1/servers/demo ");
}

#[tokio::test]
async fn what_does_not_become_ready_is_told_with_its_last_lines() {
    let failed = DeployEvent::Failed {
        error: serde_json::from_value(json!({ "code": "x", "message": "it ends at once", "hint": null })).unwrap(),
        log_tail: vec!["no such file".into()],
    };
    let fake = Fake::answering(vec![
        ok(&image("bb:latest")),
        ok(&json!({ "name": "bb", "version": 1 })),
        lines(&[serde_json::to_value(failed).unwrap()]),
    ]);
    let app = Cloud::from(fake.client()).run("bb").await.unwrap();
    let error = app.http().await.unwrap_err();
    assert_eq!(error.to_string(), "bb did not become ready: it ends at once");
    assert!(matches!(error, DeployError::Failed { log_tail, .. } if log_tail == ["no such file"]));
    fake.requests().await;
}

#[tokio::test]
async fn a_watch_tells_whole_values_once_each_and_its_end() {
    let fake = Fake::answering(vec![
        ok(&server(1.0)),
        ok(&daemon(7)),
        lines(&[change(8)]),
        ok(&server(1.0)),
        // the daemon ended its answer; the next one has forgotten that revision
        refusal("410 Gone", "revision_too_old"),
        ok(&daemon(20)),
        lines(&[change(21)]),
        ok(&server(2.0)),
        // events are asked for before the value, so that nothing is missed in between
        lines(&[]),
        refusal("404 Not Found", "not_found"),
    ]);
    let server = Cloud::from(fake.client()).open_server(&label("demo")).await.unwrap();
    let mut watch = server.watch().await.unwrap();
    let mut seen = Vec::new();
    while let Some(next) = watch.next().await {
        let next = next.unwrap();
        seen.push((next.revision, next.value.map(|view| view.cpus.milli())));
    }
    assert_eq!(seen, [(7, Some(1000)), (20, Some(2000)), (21, None)]);
    assert!(watch.next().now_or_never().unwrap().is_none());
    assert_eq!(fake.requests().await[2], "GET /v1/events?from=7 ");
}
