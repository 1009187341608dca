//! Courses are made, shown, changed and deleted.

use serde_json::{Value, json};

use super::{Service, course};

#[tokio::test]
async fn a_course_s_whole_life() {
    let service = Service::new();
    let created = service.send("POST", "/api/courses", &course()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = created.header("location").to_owned();
    let mut expected = course();
    expected["id"] = created.json()["id"].clone();
    assert_eq!(created.json(), expected);
    assert_eq!(path, format!("/api/courses/{}", expected["id"]));

    let shown = service.get(&path).await;
    assert_eq!((shown.status.as_u16(), shown.json()), (200, expected.clone()));
    assert_eq!(shown.header("etag"), created.header("etag"));

    // what was read can be sent back
    expected["name"] = json!("Knots and Splices");
    let replaced = service.send("PUT", &path, &expected).await;
    assert_eq!((replaced.status.as_u16(), replaced.json()), (200, expected.clone()));
    assert_ne!(replaced.header("etag"), shown.header("etag"));

    let patched = service.send("PATCH", &path, &json!({ "price": { "amount": "0" } })).await;
    expected["price"]["amount"] = json!("0.00");
    assert_eq!((patched.status.as_u16(), patched.json()), (200, expected.clone()));
    assert_eq!(service.get(&path).await.json(), expected);

    let deleted = service.ask("DELETE", &path, &[], "").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for method in ["GET", "DELETE"] {
        service.ask(method, &path, &[], "").await.problem(404);
    }
    service.send("PUT", &path, &course()).await.problem(404);
}

#[tokio::test]
async fn updates_are_not_lost() {
    let service = Service::new();
    let path = "/api/courses/1";
    let first = service.get(path).await;
    let seen = first.header("etag").to_owned();
    let with = |tag: &str| [("Content-Type", "application/json".to_owned()), ("If-Match", tag.to_owned())];
    let patch = async |tag: &str, name: &str| {
        let headers = with(tag);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        service.ask("PATCH", path, &headers, &json!({ "name": name }).to_string()).await
    };
    let changed = patch(&seen, "One").await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let refused = patch(&seen, "Two").await;
    refused.problem(412);
    assert_eq!(refused.header("etag"), changed.header("etag"));
    assert_eq!(service.get(path).await.json()["name"], "One");
    service.ask("DELETE", path, &[("If-Match", &seen)], "").await.problem(412);
    patch(&format!("W/{}", changed.header("etag")), "Two").await.problem(412);
    assert_eq!(patch("*", "Two").await.status, 200);
    assert_eq!(patch(&format!("\"x\", {}", service.get(path).await.header("etag")), "Three").await.status, 200);

    // what changes nothing is no change
    let now = service.get(path).await;
    let same = service.send("PUT", path, &now.json()).await;
    assert_eq!(same.header("etag"), now.header("etag"));
    let unchanged = service.ask("GET", path, &[("If-None-Match", now.header("etag"))], "").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text.as_str()), (304, ""));
    assert_eq!(service.ask("GET", path, &[("If-None-Match", &seen)], "").await.status, 200);
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let service = Service::new();
    let wrong = json!({ "name": "", "price": { "amount": 1.5, "currency": "EURO" }, "start": "2027-13-01", "fee": 1 });
    let answer = service.send("POST", "/api/courses", &wrong).await;
    let places = answer.problem(400);
    for place in ["#/name", "#/description", "#/price/amount", "#/price/currency", "#/start", "#/end", "#/fee"] {
        assert!(places.iter().any(|told| told == place), "{place} is not in {places:?}");
    }
    assert_eq!(places.len(), 7);
    assert_eq!(service.send("PATCH", "/api/courses/1", &json!({ "end": "2000-01-01" })).await.problem(400), ["#/end"]);
    assert_eq!(service.send("PUT", "/api/courses/1", &json!([])).await.problem(400), ["#"]);
}

#[tokio::test]
async fn one_course_does_not_start_twice_on_a_day() {
    let service = Service::new();
    assert_eq!(service.send("POST", "/api/courses", &course()).await.status, 201);
    service.send("POST", "/api/courses", &course()).await.problem(409);
    let patch: Value = json!({ "name": "KNOTS", "start": "2027-08-02", "end": "2027-08-03" });
    service.send("PATCH", "/api/courses/1", &patch).await.problem(409);
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_told_so() {
    let service = Service::new();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    service.ask("POST", "/api/courses", &form, "name=x").await.problem(415);
    service.ask("POST", "/api/courses", &[], "{}").await.problem(415);
    let json_type = [("Content-Type", "application/json; charset=utf-8")];
    service.ask("POST", "/api/courses", &json_type, "{").await.problem(400);
    service.ask("POST", "/api/courses", &json_type, &"[".repeat(10_000)).await.problem(400);
    service.ask("POST", "/api/courses", &json_type, &" ".repeat(70_000)).await.problem(413);
    for path in ["/api/courses/x", "/api/courses/0", "/api/courses/-1", "/api/courses/99999999999999999999", "/api/x"] {
        service.get(path).await.problem(404);
    }
    let refused = service.ask("DELETE", "/api/courses", &[], "").await;
    refused.problem(405);
    assert!(refused.header("allow").contains("POST"));
}
