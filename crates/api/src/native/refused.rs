//! What the router and its extractors refuse by themselves (a query they cannot read, a body too long, a method that a
//! path has not), said as every other error is.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::write;
use crate::ApiError;

/// The longest text of theirs.
const LONGEST_TEXT: usize = 4096;

/// The layer that does so.
pub(super) async fn in_our_words(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE) == Some(&HeaderValue::from_static("application/json"));
    if !(status.is_client_error() || status.is_server_error()) || is_json || method == Method::HEAD {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let text = axum::body::to_bytes(response.into_body(), LONGEST_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let refused = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let message = format!("{path} has no {method}");
            ApiError::new(status, "method_not_allowed", message, Some("see GET /openapi.json"))
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(status, "body_too_large", format!("{method} {path}: {text}"), None)
        }
        _ if status.is_client_error() => ApiError::bad_request(text),
        _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text, None),
    };
    let mut response = write::error(&refused);
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
