//! One request of the native API: how it is routed and what the page says of it, in one value. A route without its
//! entry on the page cannot be made, nor an entry without its route.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Native;

/// The longest body of a request that says nothing else.
const LONGEST_BODY: usize = 1 << 20;

/// Makes a type's schema, and those of the types that it holds.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A request.
pub(crate) struct Endpoint {
    /// In lower case, as the page has it.
    pub(crate) method: &'static str,
    /// As the router has it: `{name}` is one segment, `{*name}` all that are left.
    pub(crate) path: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    /// The fields of its query.
    pub(crate) query: Option<SchemaOf>,
    /// What it is sent.
    pub(crate) body: Option<Content>,
    /// What it answers when it succeeds.
    pub(crate) answer: Answer,
    /// What it answers when it succeeds in another way.
    pub(crate) other_answer: Option<Answer>,
    /// The codes of the errors that are its own (see [`codes`](crate::codes)).
    pub(crate) refusals: &'static [&'static str],
    /// Carries it out.
    pub(super) handler: MethodRouter<Native>,
}

/// A body.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    /// Its media type.
    pub(crate) media_type: &'static str,
    /// The schema of its JSON; of each line's where it is `application/x-ndjson`. `None`: bytes.
    pub(crate) schema: Option<SchemaOf>,
}

impl Content {
    fn json<T: JsonSchema>() -> Self {
        Self { media_type: "application/json", schema: Some(schema_of::<T>) }
    }
}

/// A success.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What the status means here.
    pub(crate) meaning: &'static str,
    /// The body, where there is one.
    pub(crate) content: Option<Content>,
}

impl Answer {
    /// 204: it is done.
    pub(super) fn done() -> Self {
        Self::bare(204, "it is done")
    }

    /// 202: it has begun.
    pub(super) fn begun() -> Self {
        Self::bare(202, "it has begun")
    }

    /// A status without a body.
    pub(super) fn bare(status: u16, meaning: &'static str) -> Self {
        Self { status, meaning, content: None }
    }

    /// 200 and one value.
    pub(super) fn json<T: JsonSchema>() -> Self {
        Self { status: 200, meaning: "the answer", content: Some(Content::json::<T>()) }
    }

    /// 200 and one value a line, each as soon as it is so.
    pub(super) fn lines<T: JsonSchema>() -> Self {
        let content = Content { media_type: "application/x-ndjson", schema: Some(schema_of::<T>) };
        Self { status: 200, meaning: "one value a line, each as soon as it is so", content: Some(content) }
    }

    /// 200 and bytes.
    pub(super) fn bytes(media_type: &'static str) -> Self {
        Self { status: 200, meaning: "the bytes", content: Some(Content { media_type, schema: None }) }
    }
}

/// `GET`.
pub(super) fn get<H, T>(path: &'static str, summary: &'static str, answer: Answer, handler: H) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    endpoint(("get", MethodFilter::GET), path, summary, answer, handler)
}

/// `HEAD`.
pub(super) fn head<H, T>(path: &'static str, summary: &'static str, answer: Answer, handler: H) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    endpoint(("head", MethodFilter::HEAD), path, summary, answer, handler)
}

/// `POST`.
pub(super) fn post<H, T>(path: &'static str, summary: &'static str, answer: Answer, handler: H) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    endpoint(("post", MethodFilter::POST), path, summary, answer, handler)
}

/// `PUT`.
pub(super) fn put<H, T>(path: &'static str, summary: &'static str, answer: Answer, handler: H) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    endpoint(("put", MethodFilter::PUT), path, summary, answer, handler)
}

/// `DELETE`.
pub(super) fn delete<H, T>(path: &'static str, summary: &'static str, answer: Answer, handler: H) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    endpoint(("delete", MethodFilter::DELETE), path, summary, answer, handler)
}

fn endpoint<H, T>(
    (method, filter): (&'static str, MethodFilter),
    path: &'static str,
    summary: &'static str,
    answer: Answer,
    handler: H,
) -> Endpoint
where
    H: Handler<T, Native>,
    T: 'static,
{
    let handler = on(filter, handler).layer(DefaultBodyLimit::max(LONGEST_BODY));
    Endpoint { method, path, summary, query: None, body: None, answer, other_answer: None, refusals: &[], handler }
}

impl Endpoint {
    /// It has a query of these fields.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    /// It is sent this, as JSON.
    pub(super) fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(Content::json::<T>()), ..self }
    }

    /// It is sent bytes, of any length that its handler takes.
    pub(super) fn bytes(self, media_type: &'static str) -> Self {
        let handler = self.handler.layer(DefaultBodyLimit::disable());
        Self { body: Some(Content { media_type, schema: None }), handler, ..self }
    }

    /// It may also succeed with this.
    pub(super) fn or(self, answer: Answer) -> Self {
        Self { other_answer: Some(answer), ..self }
    }

    /// It may be refused with these codes, beside those that any request may be refused with.
    pub(super) fn refuses(self, codes: &'static [&'static str]) -> Self {
        Self { refusals: codes, ..self }
    }
}
