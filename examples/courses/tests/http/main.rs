//! The service as its callers see it, in one process: requests into the router, answers out of it.

#![forbid(unsafe_code)]

mod changing;
mod listing;
mod pages;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use courses::database::Database;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A service with a database of its own.
struct Service {
    app: Router,
    _directory: tempfile::TempDir,
}

/// An answer.
struct Response {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Service {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (database, _keeper) = Database::open(directory.path()).expect("a database");
        Self { app: courses::app(database), _directory: directory }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = self.app.clone().oneshot(request).await.expect("the router always answers");
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        Response { status: head.status, headers: head.headers, text: String::from_utf8(bytes.into()).expect("UTF-8") }
    }

    async fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], "").await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        self.ask(method, path, &[("Content-Type", "application/json")], &body.to_string()).await
    }
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().expect("text")
    }

    /// Asserts that it is a problem of this status; returns the places of its mistakes.
    #[track_caller]
    fn problem(&self, status: u16) -> Vec<String> {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        let places = body["errors"].as_array().into_iter().flatten();
        places
            .map(|error| error["pointer"].as_str().or(error["parameter"].as_str()).expect("a place").to_owned())
            .collect()
    }
}

fn course() -> Value {
    json!({
        "name": "Knots",
        "description": "Bowline, sheet bend, and when not to.",
        "price": { "amount": "12.50", "currency": "EUR" },
        "start": "2027-08-02",
        "end": "2027-08-06",
    })
}
