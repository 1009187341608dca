//! The native API for programs: an OpenAPI 3.1 page made from one table of its requests.

use serde_json::{Map, Value, json};

/// One request: method, path, what it does, its body, its answer's status and body.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>, &'static str, &'static str);

const JSON: &str = "application/json";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("get", "/v1/daemon", "How the daemon is", None, "200", JSON),
    ("post", "/v1/daemon/stop", "End every container and the daemon; the records stay", None, "202", ""),
    ("post", "/v1/daemon/restart", "Replace the daemon's process; apps run on", None, "202", ""),
    ("post", "/v1/purge", "End everything and remove every record, image and log", None, "202", ""),
    ("head", "/v1/blobs/{digest}", "Whether a blob is here", None, "200", ""),
    ("put", "/v1/blobs/{digest}", "Store a blob; it is verified and durable when this answers", Some("application/octet-stream"), "201", ""),
    ("get", "/v1/images", "All images", None, "200", JSON),
    ("get", "/v1/images/{name}", "One image", None, "200", JSON),
    ("put", "/v1/images/{name}", "Name a manifest whose blobs are all here", Some(JSON), "200", JSON),
    ("delete", "/v1/images/{name}", "Take an image's name away", None, "204", ""),
    ("get", "/v1/services", "All services", None, "200", JSON),
    ("get", "/v1/services/{name}", "One service", None, "200", JSON),
    ("put", "/v1/services/{name}", "Intend a service; the deploy that begins is answered", Some(JSON), "200", JSON),
    ("delete", "/v1/services/{name}", "Remove a service; answers when nothing of it is left", None, "204", ""),
    ("get", "/v1/services/{name}/deploys/{version}", "Follow a deploy, one JSON event a line, until it has ended", None, "200", "application/x-ndjson"),
    ("delete", "/v1/services/{name}/deploys/{version}", "Give a deploy up", None, "204", ""),
    ("get", "/v1/containers", "All containers", None, "200", JSON),
    ("post", "/v1/containers", "Create and start a container", Some(JSON), "200", JSON),
    ("get", "/v1/containers/{id}", "One container, by name, id or the beginning of an id", None, "200", JSON),
    ("delete", "/v1/containers/{id}", "Remove a container (`force`: also one that runs)", None, "204", ""),
    ("post", "/v1/containers/{id}/stop", "End a container (`timeout_ms`: how long it may take by itself)", None, "204", ""),
    ("post", "/v1/containers/{id}/wait", "Wait until a container has ended", None, "200", JSON),
    ("get", "/v1/containers/{id}/logs", "A container's log (`follow`, `tail`), in frames", None, "200", "application/vnd.sampan.log"),
    ("get", "/v1/inspect/{name}", "What a name means: an array of objects, each with its `kind`", None, "200", JSON),
    ("get", "/v1/events", "The records' changes `from` a revision, one JSON a line, without end", None, "200", "application/x-ndjson"),
    ("get", "/openapi.json", "This page", None, "200", JSON),
];

/// The page's text.
pub(crate) fn page() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, body, status, answer) in ROWS {
        let mut operation = json!({ "summary": summary, "responses": { "default": {
            "description": "an error",
            "content": { JSON: { "schema": { "$ref": "#/components/schemas/Error" } } },
        } } });
        let mut response = json!({ "description": "done" });
        if !answer.is_empty() {
            response["content"] = json!({ *answer: {} });
        }
        operation["responses"][status] = response;
        if let Some(body) = body {
            operation["requestBody"] = json!({ "required": true, "content": { *body: {} } });
        }
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = names
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        operation["parameters"] = Value::Array(parameters);
        paths.entry((*path).to_owned()).or_insert_with(|| json!({}))[*method] = operation;
    }
    let error = json!({ "type": "object", "required": ["error"], "properties": { "error": {
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": { "type": "string" },
            "message": { "type": "string" },
            "hint": { "type": ["string", "null"] },
        },
    } } });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Sampan", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": { "Error": error } },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_request() {
        let page: Value = serde_json::from_str(&page()).expect("JSON");
        for (method, path, ..) in ROWS {
            assert!(page["paths"][*path][*method].is_object(), "{method} {path}");
        }
    }
}
