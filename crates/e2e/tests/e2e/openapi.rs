//! The API's page, compared with what a running daemon answers.

use std::collections::BTreeSet;

use sampan_e2e::native::{Answer, Native};
use sampan_e2e::schema::Schemas;
use sampan_e2e::{Sampan, sources};
use serde_json::{Value, json};

/// Requests that would end the test.
const DANGEROUS: [&str; 3] = ["/v1/daemon/stop", "/v1/daemon/restart", "/v1/purge"];
/// Every method that a path may have.
const METHODS: [&str; 6] = ["get", "head", "put", "post", "patch", "delete"];

/// The page of a daemon that runs, and what was compared with it.
struct Page {
    native: Native,
    page: Value,
    /// Method, path, status.
    seen: BTreeSet<(String, String, u16)>,
}

impl Page {
    fn of(sampan: &Sampan) -> Self {
        sampan.ok(&["daemon", "start"]);
        let native = Native::of(sampan.root());
        let page = native.ask("GET", "/openapi.json", None).expect("the page").json();
        Self { native, page, seen: BTreeSet::new() }
    }

    /// The paths of the page with their operations.
    fn paths(&self) -> Vec<(String, Value)> {
        let paths = self.page["paths"].as_object().expect("paths");
        paths.iter().map(|(path, operations)| (path.clone(), operations.clone())).collect()
    }

    /// Asks, and compares the answer with what the page says of it.
    #[track_caller]
    fn ask(&mut self, method: &str, template: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, template, path, body.as_bytes())
    }

    /// As `ask`, with any bytes.
    #[track_caller]
    fn send(&mut self, method: &str, template: &str, path: &str, body: &[u8]) -> Answer {
        let what = format!("{method} {path}");
        let answer = self.native.ask_with_bytes(&method.to_ascii_uppercase(), path, body);
        self.compare(method, template, answer.unwrap_or_else(|error| panic!("{what}: {error}")))
    }

    /// Asks for something that is there.
    #[track_caller]
    fn get(&mut self, template: &str, path: &str) -> Answer {
        let answer = self.ask("get", template, path, None);
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer
    }

    /// Asserts that every request of the page was seen to succeed, but for those that would end the test and those
    /// whose success is another protocol.
    fn assert_all_succeeded(&self) {
        let mut unseen = Vec::new();
        for (path, operations) in self.paths() {
            for (method, operation) in operations.as_object().expect("operations") {
                let is_upgrade = operation["responses"]["101"].is_object() && operation["responses"]["200"].is_null();
                let key = |status| (method.clone(), path.clone(), status);
                if !is_upgrade
                    && !DANGEROUS.contains(&path.as_str())
                    && self.seen.range(key(200)..key(300)).next().is_none()
                {
                    unseen.push(format!("{method} {path}"));
                }
            }
        }
        assert!(unseen.is_empty(), "never seen to succeed, so never compared with the page: {unseen:#?}");
    }

    /// As `ask`, for an answer without end: its first line.
    #[track_caller]
    fn follow(&mut self, template: &str, path: &str) -> Answer {
        let answer = self.native.lines(path, 1);
        self.compare("get", template, answer.unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    #[track_caller]
    fn compare(&mut self, method: &str, template: &str, answer: Answer) -> Answer {
        let what = format!("{method} {template}: {}", answer.status);
        let operation = &self.page["paths"][template][method];
        let response = &operation["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{what} is not on the page: {}", String::from_utf8_lossy(&answer.body));
        self.seen.insert((method.to_owned(), template.to_owned(), answer.status));
        let media_type = answer.header("content-type").unwrap_or_default();
        let Some(contents) = response["content"].as_object().filter(|_| method != "head") else {
            assert!(answer.body.is_empty(), "{what} has a body, and none on the page");
            return answer;
        };
        let content = contents.get(media_type).unwrap_or_else(|| panic!("{what} is {media_type:?}, not {contents:?}"));
        let Some(schema) = content.get("schema") else { return answer };
        let values = match media_type {
            "application/x-ndjson" => {
                let lines = answer.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
            }
            _ => vec![answer.json()],
        };
        let schemas = Schemas { page: &self.page };
        for value in values {
            let wrong = schemas.check(&value, schema);
            assert!(wrong.is_empty(), "{what} is not as the page says:\n  {}\n{value:#}", wrong.join("\n  "));
            // an error is one of those that the page lists for this request
            if let Some(code) = value["error"]["code"].as_str().filter(|_| answer.status >= 400) {
                let listed = response["description"].as_str().is_some_and(|text| text.contains(&format!("`{code}`")));
                assert!(listed, "{what} is {code}, and the page says {}", response["description"]);
            }
        }
        answer
    }
}

/// A path with something in the place of each parameter that is no name of anything.
fn filled(template: &str) -> String {
    let digest = format!("sha256:{}", "0".repeat(64));
    let parts = template.split('/').map(|part| match part {
        "{digest}" => digest.as_str(),
        "{version}" => "1",
        part if part.starts_with('{') => "nobody",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_request_of_the_page_is_served_and_refuses_as_it_says() {
    let sampan = Sampan::new();
    let mut page = Page::of(&sampan);
    for (template, operations) in page.paths() {
        let path = filled(&template);
        for method in METHODS {
            let is_listed = operations.get(method).is_some();
            // a HEAD is answered wherever a GET is (RFC 9110 §9.3.2)
            if DANGEROUS.contains(&template.as_str()) && method == "post" || method == "head" && !is_listed {
                continue;
            }
            if !is_listed {
                let answer = page.native.ask(&method.to_ascii_uppercase(), &path, None).expect("an answer");
                assert_eq!(answer.status, 405, "{method} {template} is served and not on the page");
                assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
                continue;
            }
            let is_endless = template == "/v1/events";
            if is_endless {
                continue;
            }
            page.ask(method, &template, &path, None);
            page.ask(method, &template, &format!("{path}?no_such_parameter=1"), Some(&json!({ "no_such_field": 1 })));
        }
    }
    let nothing = page.native.ask("GET", "/v1/nothing", None).expect("an answer");
    assert_eq!((nothing.status, &nothing.json()["error"]["code"]), (404, &json!("not_found")));
    let long = json!({ "x": "x".repeat(2 << 20) });
    page.ask("post", "/v1/containers", "/v1/containers", Some(&long));
    assert!(page.seen.contains(&("post".to_owned(), "/v1/containers".to_owned(), 413)));
}

#[test]
fn what_a_running_daemon_answers_is_as_the_page_says() {
    let sampan = Sampan::new();
    let mut page = Page::of(&sampan);
    sampan.import_busybox();
    sampan.up(&sources::fixture("probe"), &[]);
    walk_containers(&mut page);
    walk_images(&mut page);
    walk_servers_and_volumes(&mut page);
    walk_services(&mut page);
    page.get("/v1/daemon", "/v1/daemon");
    page.get("/openapi.json", "/openapi.json");
    page.get("/metrics", "/metrics");
    page.follow("/v1/events", "/v1/events?from=0");
    page.assert_all_succeeded();
}

fn walk_containers(page: &mut Page) {
    let of = |word: &str| format!("/v1/containers/{{id}}{word}");
    let create = json!({ "name": "job", "image": "bb", "command": ["sh", "-c", "echo hello; exec sleep 1000"] });
    assert_eq!(page.ask("post", "/v1/containers", "/v1/containers", Some(&create)).status, 200);
    assert_eq!(page.ask("post", "/v1/containers", "/v1/containers", Some(&create)).status, 409);
    let bad = json!({ "name": "bad", "image": "bb", "command": ["/no/such"] });
    assert_eq!(page.ask("post", "/v1/containers", "/v1/containers", Some(&bad)).status, 400);
    page.get("/v1/containers", "/v1/containers");
    page.get(&of(""), "/v1/containers/job");
    page.get(&of("/logs"), "/v1/containers/job/logs?tail=1");
    page.get(&of("/top"), "/v1/containers/job/top");
    page.get(&of("/stats"), "/v1/containers/job/stats");
    page.get(&of("/files"), "/v1/containers/job/files?path=/etc/passwd");
    page.get(&of("/files/status"), "/v1/containers/job/files/status?path=/etc/passwd");
    // two blocks of zeros: an archive of nothing
    let put = page.send("put", &of("/files"), "/v1/containers/job/files?path=/tmp", &[0; 1024]);
    assert_eq!(put.status, 204, "{}", String::from_utf8_lossy(&put.body));
    page.get("/v1/inspect/{name}", "/v1/inspect/job");
    let exec = json!({ "command": ["true"], "detach": true });
    page.ask("post", &of("/exec"), "/v1/containers/job/exec", Some(&exec));
    page.ask("post", &of("/pause"), "/v1/containers/job/pause", None);
    page.ask("post", &of("/unpause"), "/v1/containers/job/unpause", None);
    page.ask("post", &of("/kill"), "/v1/containers/job/kill?signal=WINCH", None);
    page.ask("post", &of("/rename"), "/v1/containers/job/rename?name=work", None);
    page.ask("post", &of("/rename"), "/v1/containers/work/rename?name=job", None);
    page.ask("post", &of("/restart"), "/v1/containers/job/restart?timeout_ms=0", None);
    page.ask("post", &of("/update"), "/v1/containers/job/update", Some(&json!({ "memory_bytes": 64 << 20 })));
    assert_eq!(page.ask("delete", &of(""), "/v1/containers/job", None).json()["error"]["code"], "running");
    page.ask("post", &of("/stop"), "/v1/containers/job/stop?timeout_ms=0", None);
    page.ask("post", &of("/wait"), "/v1/containers/job/wait", None);
    page.ask("post", &of("/start"), "/v1/containers/job/start", None);
    assert_eq!(page.ask("delete", &of(""), "/v1/containers/job?force=true", None).status, 204);
}

fn walk_images(page: &mut Page) {
    // the digest of the five letters with the quotes that make them JSON
    let blob = "/v1/blobs/sha256:5aa762ae383fbb727af3c7a36d4940a5b8c40a989452d2304fc958ff3f354e7a";
    assert_eq!(page.ask("put", "/v1/blobs/{digest}", blob, Some(&json!("hello"))).status, 201);
    assert_eq!(page.ask("head", "/v1/blobs/{digest}", blob, None).status, 200);
    page.get("/v1/blobs/{digest}", blob);
    assert_eq!(page.ask("put", "/v1/blobs/{digest}", blob, Some(&json!("other"))).status, 400);
    page.get("/v1/images", "/v1/images");
    let manifest = page.get("/v1/images/{name}", "/v1/images/bb").json()["digest"].clone();
    page.get("/v1/inspect/{name}", "/v1/inspect/bb");
    page.ask("put", "/v1/images/{name}", "/v1/images/bb2", Some(&json!({ "manifest": manifest })));
    assert_eq!(page.ask("delete", "/v1/images/{name}", "/v1/images/bb2", None).status, 204);
    page.ask("post", "/v1/images/prune", "/v1/images/prune", None);
    page.ask("post", "/v1/images/fsck", "/v1/images/fsck", None);
}

fn walk_servers_and_volumes(page: &mut Page) {
    let create = json!({ "name": "own", "size": { "memory_bytes": 128 << 20 } });
    assert_eq!(page.ask("post", "/v1/servers", "/v1/servers", Some(&create)).status, 200);
    let volume = json!({ "name": "data" });
    assert_eq!(page.ask("post", "/v1/volumes", "/v1/volumes", Some(&volume)).status, 200);
    let on_it = json!({
        "name": "job", "image": "bb", "command": ["sleep", "1000"], "server": "own",
        "mounts": [{ "target": "/data", "source": { "kind": "volume", "name": "data" } }],
    });
    assert_eq!(page.ask("post", "/v1/containers", "/v1/containers", Some(&on_it)).status, 200);
    page.get("/v1/servers", "/v1/servers");
    page.get("/v1/servers/{name}", "/v1/servers/own");
    page.get("/v1/volumes", "/v1/volumes");
    page.get("/v1/volumes/{name}", "/v1/volumes/data");
    assert_eq!(page.ask("delete", "/v1/volumes/{name}", "/v1/volumes/data", None).json()["error"]["code"], "in_use");
    page.ask("post", "/v1/servers/{name}/resize", "/v1/servers/own/resize", Some(&json!({ "cpus": 0.5 })));
    page.ask("post", "/v1/servers/{name}/stop", "/v1/servers/own/stop?timeout_ms=0", None);
    page.ask("post", "/v1/servers/{name}/start", "/v1/servers/own/start", None);
    assert_eq!(page.ask("delete", "/v1/servers/{name}", "/v1/servers/own", None).status, 204);
    page.ask("post", "/v1/volumes/prune", "/v1/volumes/prune", None);
    page.ask("post", "/v1/volumes", "/v1/volumes", Some(&volume));
    assert_eq!(page.ask("delete", "/v1/volumes/{name}", "/v1/volumes/data", None).status, 204);
}

fn walk_services(page: &mut Page) {
    page.get("/v1/services", "/v1/services");
    let image = page.get("/v1/services/{name}", "/v1/services/probe").json()["image"].clone();
    page.get("/v1/services/{name}/deploys/{version}", "/v1/services/probe/deploys/1");
    page.get("/v1/inspect/{name}", "/v1/inspect/probe");
    let refused = page.ask("delete", "/v1/containers/{id}", "/v1/containers/probe.1?force=true", None);
    assert_eq!(refused.json()["error"]["code"], "in_use");
    let spec = json!({ "name": "other", "source": null, "image": image, "command": ["/no/such"] });
    page.ask("put", "/v1/services/{name}", "/v1/services/other", Some(&spec));
    page.ask("delete", "/v1/services/{name}/deploys/{version}", "/v1/services/other/deploys/1", None);
    assert_eq!(page.ask("delete", "/v1/services/{name}", "/v1/services/probe", None).status, 204);
}
