//! The JSON side: `/api/courses` and `/api/courses/ID`.
//!
//! A course has an `ETag`. Who sends it back as `If-Match` changes or deletes only what they have seen: 412 where
//! somebody else was faster. Without it the last one wins, as with any file.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::course::{Course, Draft};
use crate::database::{Database, DatabaseError};
use crate::problem::Problem;
use crate::query::Query;
use crate::store::{self, Changed};
use crate::{Answer, access_log};

/// What the body of a change is.
const JSON: &str = "application/json";
/// RFC 7396; what `PATCH` understands, by either name.
const MERGE_PATCH: &str = "application/merge-patch+json";

type Sent = Result<Bytes, BytesRejection>;

/// A page of the list.
#[derive(Serialize)]
struct List<'a> {
    courses: &'a [Course],
    /// How many fit the query on all pages.
    total: u64,
    page: u32,
    per_page: u32,
    /// The path of the page after this one.
    next: Option<String>,
    /// The path of the page before this one.
    previous: Option<String>,
}

/// `GET /api/courses`.
pub async fn list(State(database): State<Database>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(&query.unwrap_or_default()).map_err(Problem::mistakes)?;
    let asked = query.clone();
    let listed = database.run(move |connection| store::list(connection, &asked)).await?;
    let link = |page: u32| format!("/api/courses?{}", query.for_page(page));
    let is_last = u64::from(query.page) * u64::from(query.per_page) >= listed.total;
    let body = List {
        courses: &listed.courses,
        total: listed.total,
        page: query.page,
        per_page: query.per_page,
        next: (!is_last).then(|| link(query.page + 1)),
        previous: (query.page > 1).then(|| link(query.page - 1)),
    };
    Ok(answer(StatusCode::OK, &body))
}

/// `GET /api/courses/ID`.
pub async fn show(State(database): State<Database>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let number = number(&id)?;
    let course = database.run(move |connection| store::get(connection, number)).await?;
    let course = course.ok_or_else(|| Problem::no_course(&id))?;
    if any_tag(&headers, header::IF_NONE_MATCH, &course).unwrap_or(false) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, course.etag())]).into_response());
    }
    Ok(answer_course(StatusCode::OK, &course))
}

/// `POST /api/courses`.
pub async fn create(State(database): State<Database>, headers: HeaderMap, body: Sent) -> Answer {
    let draft = Draft::read(&read(&headers, body, &[JSON])?, None).map_err(Problem::mistakes)?;
    let changed = database.run(move |connection| store::create(connection, draft)).await?;
    let course = done(changed, "")?;
    let location = format!("/api/courses/{}", course.id);
    Ok(([(header::LOCATION, location)], answer_course(StatusCode::CREATED, &course)).into_response())
}

/// `PUT /api/courses/ID`.
pub async fn replace(
    State(database): State<Database>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Sent,
) -> Answer {
    let number = number(&id)?;
    let value = read(&headers, body, &[JSON])?;
    let accepts = move |course: &Course| any_tag(&headers, header::IF_MATCH, course).unwrap_or(true);
    let edit = move |_: &Draft| Draft::read(&value, Some(number));
    let changed = database.run(move |connection| store::change(connection, number, accepts, edit)).await?;
    Ok(answer_course(StatusCode::OK, &done(changed, &id)?))
}

/// `PATCH /api/courses/ID`.
pub async fn patch(State(database): State<Database>, Path(id): Path<String>, headers: HeaderMap, body: Sent) -> Answer {
    let number = number(&id)?;
    let value = read(&headers, body, &[MERGE_PATCH, JSON])?;
    let accepts = move |course: &Course| any_tag(&headers, header::IF_MATCH, course).unwrap_or(true);
    let edit = move |draft: &Draft| draft.patched(&value, number);
    let changed = database.run(move |connection| store::change(connection, number, accepts, edit)).await?;
    Ok(answer_course(StatusCode::OK, &done(changed, &id)?))
}

/// `DELETE /api/courses/ID`.
pub async fn delete(State(database): State<Database>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let number = number(&id)?;
    let accepts = move |course: &Course| any_tag(&headers, header::IF_MATCH, course).unwrap_or(true);
    let changed = database.run(move |connection| store::delete(connection, number, accepts)).await?;
    done(changed, &id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /healthz`.
pub async fn health(State(database): State<Database>) -> Answer {
    match database.run(|connection| store::check(connection)).await {
        Ok(()) => Ok(answer(StatusCode::OK, &json!({ "status": "ok" }))),
        Err(error) => {
            access_log::failure("health", &error);
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"))
        }
    }
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("answers have only text keys");
    (status, [(header::CONTENT_TYPE, JSON)], text).into_response()
}

fn answer_course(status: StatusCode, course: &Course) -> Response {
    ([(header::ETAG, course.etag())], answer(status, course)).into_response()
}

/// The number of a course; what is no number is no course's.
pub fn number(id: &str) -> Result<i64, Problem> {
    id.parse().map_err(|_| Problem::no_course(id))
}

/// The body as JSON, where it says that it is.
fn read(headers: &HeaderMap, body: Sent, types: &[&str]) -> Result<Value, Problem> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !types.contains(&media_type.as_str()) {
        let types = types.join(" or ");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send `Content-Type: {types}`")));
    }
    let bytes = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))
}

/// Whether one of the tags that the header lists is the course's; `None` where there is no such header. Strong
/// comparison (RFC 9110 §8.8.3.2): we give no weak tags, and a weak one is nobody's.
fn any_tag(headers: &HeaderMap, name: HeaderName, course: &Course) -> Option<bool> {
    let etag = course.etag();
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    Some(tags.map(str::trim).any(|tag| tag == "*" || tag == etag))
}

fn done(changed: Changed, id: &str) -> Result<Course, Problem> {
    match changed {
        Changed::Done(course) => Ok(course),
        Changed::NoCourse => Err(Problem::no_course(id)),
        Changed::Meanwhile(course) => {
            let detail = "the course has changed since you read it: read it again, and send its ETag as If-Match";
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail).with(header::ETAG, course.etag()))
        }
        Changed::Mistakes(mistakes) => Err(Problem::mistakes(mistakes)),
        Changed::Twice => {
            let detail = "another course has this name and starts on this day: change one of them";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        access_log::failure("database", &error);
        let code = match &error {
            DatabaseError::Closed => None,
            DatabaseError::Sqlite(error) => error.sqlite_error_code(),
        };
        match (error, code) {
            (DatabaseError::Closed, _) | (_, Some(rusqlite::ErrorCode::DatabaseBusy)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again in a moment").with(header::RETRY_AFTER, "1")
            }
            (_, Some(rusqlite::ErrorCode::DiskFull)) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "there is no room left for this")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the database failed; the log says why"),
        }
    }
}
