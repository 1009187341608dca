//! `examples/courses` brought up: a whole small service, through the edge, with its database on a volume.

use std::path::{Path, PathBuf};

use sampan_e2e::http::{Response, ask, get};
use sampan_e2e::{Sampan, sources};
use serde_json::{Value, json};

/// The example, as it is.
fn source() -> PathBuf {
    sources::example("courses")
}

#[track_caller]
fn send(method: &str, url: &str, body: &Value) -> Response {
    ask(method, url, &[("Content-Type", "application/json")], &body.to_string()).expect("an answer")
}

#[track_caller]
fn read(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error} in {:?}", response.body))
}

fn up(sampan: &Sampan, source: &Path, words: &[&str]) -> (String, String) {
    let url = sampan.up(source, words);
    let api = format!("{url}api/courses");
    (url, api)
}

#[test]
fn courses_are_listed_made_changed_and_deleted_and_outlive_their_containers() {
    let sampan = Sampan::new();
    let (url, api) = up(&sampan, &source(), &[]);
    assert_eq!(get(&format!("{url}healthz")).expect("an answer").body, r#"{"status":"ok"}"#);

    // listed and searched
    let list = read(&get(&api).expect("a list"));
    let first_total = list["total"].as_u64().expect("a total");
    assert!(first_total > 8 && list["courses"][0]["name"].is_string(), "{list}");
    let found = read(&get(&format!("{api}?q=container&sort=-price")).expect("a list"));
    assert_eq!(found["courses"][0]["name"], "Operating Systems: Build a Container");

    // made, shown, changed, deleted
    let course = json!({
        "name": "Knots", "description": "Bowline & <b>sheet bend</b>.", "start": "2027-08-02", "end": "2027-08-06",
        "price": { "amount": "12.50", "currency": "EUR" },
    });
    let made = send("POST", &api, &course);
    assert_eq!(made.status, 201, "{}", made.body);
    let id = read(&made)["id"].clone();
    let its = format!("{api}/{id}");
    let etag = made.header("etag").expect("an ETag").to_owned();
    assert_eq!(send("PATCH", &its, &json!({ "price": { "amount": "0" } })).status, 200);
    let old = [("Content-Type", "application/json"), ("If-Match", etag.as_str())];
    assert_eq!(ask("PUT", &its, &old, &course.to_string()).expect("an answer").status, 412);
    let wrong = send("POST", &api, &json!({ "name": "", "price": 5 }));
    assert_eq!((wrong.status, wrong.header("content-type")), (400, Some("application/problem+json")));
    assert_eq!(read(&wrong)["errors"].as_array().map(Vec::len), Some(5), "{}", wrong.body);
    assert_eq!(ask("DELETE", &format!("{api}/1"), &[], "").expect("an answer").status, 204);

    // the page beside it
    let page = get(&format!("{url}courses/{id}")).expect("a page");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        page.body.contains("<h1>Knots</h1>") && page.body.contains("Bowline &amp; &lt;b&gt;sheet bend"),
        "{}",
        page.body
    );
    assert!(get(&url).expect("a page").body.contains("<label for=\"q\">"));

    // another version in its place: the data stays, and what was deleted does not come back
    let (_, api) = up(&sampan, &source(), &["-e", "SOMETHING=else"]);
    assert_eq!(sampan.inspect("courses")["version"], 2);
    let kept = read(&get(&format!("{api}/{id}")).expect("an answer"));
    assert_eq!((&kept["name"], &kept["price"]["amount"]), (&json!("Knots"), &json!("0.00")));
    assert_eq!(get(&format!("{api}/1")).expect("an answer").status, 404);

    // taken down and up again: volumes stay
    sampan.ok(&["down", "courses"]);
    let (_, api) = up(&sampan, &source(), &[]);
    assert_eq!(read(&get(&api).expect("a list"))["total"].as_u64(), Some(first_total));
    assert_eq!(read(&get(&format!("{api}/{id}")).expect("an answer"))["name"], "Knots");
}

#[test]
fn requests_under_way_are_finished_when_it_ends() {
    let sampan = Sampan::new();
    let (url, _) = up(&sampan, &source(), &[]);
    let load = sampan_e2e::load::Load::start(&url, 4);
    load.more(50);
    up(&sampan, &source(), &["-e", "SOMETHING=else"]);
    load.more(50);
    let seen = load.stop();
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
}
