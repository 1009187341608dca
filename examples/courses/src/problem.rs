//! What went wrong, for programs and people: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// One mistake in what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    place: Place,
    /// What is wrong, and what to send instead.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A JSON pointer (RFC 6901) into the body.
    Body(String),
    /// A parameter of the query.
    Query(String),
}

impl Mistake {
    /// A mistake in the body, at this JSON pointer.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        Self { place: Place::Body(pointer.to_owned()), detail: detail.into() }
    }

    /// A mistake in a parameter of the query.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self { place: Place::Query(name.to_owned()), detail: detail.into() }
    }

    /// Where it is: `#/price/amount`, `?page`.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Body(pointer) => format!("#{pointer}"),
            Place::Query(name) => format!("?{name}"),
        }
    }

    fn to_json(&self) -> Value {
        match &self.place {
            Place::Body(_) => json!({ "pointer": self.place(), "detail": self.detail }),
            Place::Query(name) => json!({ "parameter": name, "detail": self.detail }),
        }
    }
}

/// An answer that is no success.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its status.
    pub status: StatusCode,
    /// What went wrong this time, and what to do.
    pub detail: String,
    /// Every single mistake, where there are some.
    pub mistakes: Vec<Mistake>,
    /// Headers that belong to it.
    pub headers: Vec<(header::HeaderName, String)>,
}

impl Problem {
    /// A problem without more to it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), mistakes: Vec::new(), headers: Vec::new() }
    }

    /// 400 with every mistake.
    pub fn mistakes(mistakes: Vec<Mistake>) -> Self {
        let detail = match mistakes.len() {
            1 => format!("{}: {}", mistakes[0].place(), mistakes[0].detail),
            count => format!("{count} things are wrong: see `errors`"),
        };
        Self { mistakes, ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// 404 for a course.
    pub fn no_course(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no course {id:?}: GET /api/courses lists them"))
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            // no page explains our problems beyond their status
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.mistakes.is_empty() {
            body["errors"] = self.mistakes.iter().map(Mistake::to_json).collect();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        }
        response
    }
}
