//! What happened, on standard output: one JSON object a line, each with its `time` and `event`.

use std::io::Write as _;
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Writes one line. A log that nobody reads any more is no reason to end.
pub fn event(event: &str, mut more: Value) {
    more["time"] = json!(Timestamp::now().to_string());
    more["event"] = json!(event);
    writeln!(std::io::stdout().lock(), "{more}").ok();
}

/// Writes that something failed, with its causes.
pub fn failure(what: &str, error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    event("failure", json!({ "what": what, "error": text }));
}

/// Writes a line for every request, when its answer begins.
pub async fn requests(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().to_string();
    let target = request.uri().path_and_query().map_or_else(|| "*".to_owned(), ToString::to_string);
    let response = next.run(request).await;
    // asked every second by whoever watches over this program, and of interest only when it fails
    if target != "/healthz" || !response.status().is_success() {
        let duration_ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let status = response.status().as_u16();
        event("request", json!({ "method": method, "target": target, "status": status, "duration_ms": duration_ms }));
    }
    response
}
