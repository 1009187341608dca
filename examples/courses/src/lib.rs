//! A service of an online-education platform: its courses, as JSON below `/api` and as pages beside it.
//!
//! ```text
//! request ─▶ access_log ─▶ api | page ─▶ query, course (what was sent, checked) ─▶ store ─▶ database (one thread)
//! ```
//!
//! The URL says which face is meant (`/courses/3`, `/api/courses/3`), not the `Accept` header: a link that is passed on
//! shows everybody the same. There are no accounts here: whoever reaches it may change courses.

#![forbid(unsafe_code)]

pub mod access_log;
mod api;
mod course;
pub mod database;
mod page;
mod price;
mod problem;
mod query;
mod seed;
mod store;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use database::Database;
use problem::Problem;

/// The longest body: many times the longest course.
const LONGEST_BODY: usize = 64 << 10;

/// What a request comes to.
type Answer = Result<Response, Problem>;

/// The whole service, but for the log of its requests.
pub fn app(database: Database) -> Router {
    Router::new()
        .route("/", get(page::list))
        .route("/courses/{id}", get(page::show))
        .route("/style.css", get(page::style))
        .route("/api/courses", get(api::list).post(api::create))
        .route("/api/courses/{id}", get(api::show).put(api::replace).patch(api::patch).delete(api::delete))
        .route("/healthz", get(api::health))
        .fallback(nothing)
        .method_not_allowed_fallback(|request: Request| async move {
            let detail = format!("{} does not take {}", request.uri().path(), request.method());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(database)
}

async fn nothing(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {path}: see /api/courses")).into_response()
    } else {
        page::not_found(&format!("There is no page {path}."))
    }
}
