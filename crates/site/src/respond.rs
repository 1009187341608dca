//! From a request to its answer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, LOCATION, RANGE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::body::{Body, Part};
use crate::conditions::{Validators, Verdict};
use crate::encoding::Accepted;
use crate::files::{Found, Representation, Site};
use crate::kinds::cache_control;
use crate::range::Ranges;
use crate::target::{BadTarget, Target};

const INDEX: &[u8] = b"index.html";
/// What is sent where there is nothing.
const MISSING: &[u8] = b"404.html";
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers a request. Its body, if it has one, is not looked at.
pub(crate) async fn respond(site: Arc<Site>, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "this is a site of files: GET and HEAD only");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // the file system may be slow, and compressing is work
    let looked = tokio::task::spawn_blocking(move || look(&site, &request).map(|looked| (looked, request)));
    let mut response = match looked.await {
        Ok(Ok((Looked::Representation { path, representation }, request))) => {
            whole_or_part(&request, &path, &representation)
        }
        Ok(Ok((Looked::Missing(page), _))) => missing(page),
        Ok(Ok((Looked::Slash(location), _))) => moved(&location),
        Ok(Ok((Looked::NotAcceptable, _))) => plain(StatusCode::NOT_ACCEPTABLE, "there is no such coding of this file"),
        Ok(Ok((Looked::Malformed, _))) => plain(StatusCode::BAD_REQUEST, "the path of this URL cannot be read"),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&io::Error::other(error)),
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if method == Method::HEAD {
        // the headers are those of GET, the length too
        *response.body_mut() = Body::default();
    }
    response
}

/// What a look at the file system came to.
enum Looked {
    Representation {
        path: Vec<u8>,
        representation: Representation,
    },
    /// Nothing, and the page that says so.
    Missing(Option<Representation>),
    /// A directory that was asked for without its slash; where it is.
    Slash(String),
    NotAcceptable,
    Malformed,
}

fn look(site: &Site, request: &Request<Incoming>) -> io::Result<Looked> {
    let accepted = accepted(request.headers());
    let target = match Target::parse(request.uri().path()) {
        Ok(target) => target,
        Err(BadTarget::Malformed) => return Ok(Looked::Malformed),
        Err(BadTarget::Nowhere) => return nothing(site, &accepted),
    };
    let path = match (target.is_directory, target.path.is_empty()) {
        (false, _) => target.path.clone(),
        (true, true) => INDEX.to_vec(),
        (true, false) => target.with(&[b"/", INDEX].concat()),
    };
    match site.find(&path)? {
        Found::File(opened) => Ok(match site.represent(&path, opened, &accepted)? {
            Some(representation) => Looked::Representation { path, representation },
            None => Looked::NotAcceptable,
        }),
        Found::Directory if !target.is_directory => {
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            Ok(Looked::Slash(format!("{}/{query}", request.uri().path())))
        }
        Found::Directory | Found::Nothing => nothing(site, &accepted),
    }
}

fn nothing(site: &Site, accepted: &Accepted) -> io::Result<Looked> {
    let page = match site.find(MISSING)? {
        Found::File(opened) => site.represent(MISSING, opened, accepted)?,
        Found::Directory | Found::Nothing => None,
    };
    Ok(Looked::Missing(page))
}

/// Who asks for a part has one of the file as it is, most often: parts of compressed files are of little use.
fn accepted(headers: &HeaderMap) -> Accepted {
    let values = headers.get_all(ACCEPT_ENCODING);
    let accepted = Accepted::parse(values.iter().filter_map(|value| value.to_str().ok()));
    if headers.contains_key(RANGE) && accepted.takes_plain() { Accepted::plain() } else { accepted }
}

fn whole_or_part(request: &Request<Incoming>, path: &[u8], representation: &Representation) -> Response<Body> {
    let validators = Validators { tag: &representation.tag, modified: representation.modified };
    let mut response = match validators.judge(request.headers()) {
        Verdict::Failed => return plain(StatusCode::PRECONDITION_FAILED, "the file is another than the one you mean"),
        Verdict::NotModified => status(StatusCode::NOT_MODIFIED, Body::default()),
        Verdict::Send => content(request, representation),
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, value(&representation.tag));
    if let Some(modified) = representation.modified {
        headers.insert(LAST_MODIFIED, value(&httpdate::fmt_http_date(modified)));
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control(path)));
    if representation.kind.is_compressible {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// The whole of it, or the parts that are asked for.
fn content(request: &Request<Incoming>, representation: &Representation) -> Response<Body> {
    let length = representation.length;
    let validators = Validators { tag: &representation.tag, modified: representation.modified };
    // only GET has ranges (RFC 9110 §14.2)
    let range = request.headers().get(RANGE).filter(|_| request.method() == Method::GET);
    let range = range.filter(|_| validators.is_range_of_this(request.headers()));
    let ranges =
        range.and_then(|range| range.to_str().ok()).map_or(Ranges::Whole, |range| Ranges::parse(range, length));
    let content_type = HeaderValue::from_static(representation.kind.content_type);
    match ranges {
        Ranges::Whole => {
            let mut response = body(StatusCode::OK, content_type, [representation.part(0, length)]);
            encode(response.headers_mut(), representation);
            response
        }
        Ranges::Unsatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "the file is not that long");
            response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{length}")));
            response
        }
        Ranges::Parts(parts) => match parts[..] {
            [(start, end)] => {
                let mut response = body(StatusCode::PARTIAL_CONTENT, content_type, [representation.part(start, end)]);
                response.headers_mut().insert(CONTENT_RANGE, value(&content_range(start, end, length)));
                encode(response.headers_mut(), representation);
                response
            }
            _ => {
                let mut response = several(representation, &parts);
                encode(response.headers_mut(), representation);
                response
            }
        },
    }
}

/// Several parts in one answer (RFC 9110 §14.6).
fn several(representation: &Representation, parts: &[(u64, u64)]) -> Response<Body> {
    // 128 bits of a digest: not in the file but by intent, and then it is the author's own
    let boundary = representation.tag.trim_matches('"');
    let mut pieces = Vec::new();
    for (start, end) in parts {
        let break_before = if pieces.is_empty() { "" } else { "\r\n" };
        let head = format!(
            "{break_before}--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            representation.kind.content_type,
            content_range(*start, *end, representation.length)
        );
        pieces.push(Part::Bytes(head.into()));
        pieces.push(representation.part(*start, *end));
    }
    pieces.push(Part::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    body(StatusCode::PARTIAL_CONTENT, value(&format!("multipart/byteranges; boundary={boundary}")), pieces)
}

fn content_range(start: u64, end: u64, length: u64) -> String {
    format!("bytes {start}-{}/{length}", end - 1)
}

fn missing(page: Option<Representation>) -> Response<Body> {
    let mut response = match page {
        Some(page) => {
            let content_type = HeaderValue::from_static(page.kind.content_type);
            let mut response = body(StatusCode::NOT_FOUND, content_type, [page.part(0, page.length)]);
            encode(response.headers_mut(), &page);
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            response
        }
        None => plain(StatusCode::NOT_FOUND, "there is nothing here"),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Relative links in a directory's page are right only with the slash.
fn moved(location: &str) -> Response<Body> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "this is a directory, whose name ends with a slash");
    response.headers_mut().insert(LOCATION, value(location));
    // the directory may become a file, and browsers keep a permanent redirect for ever
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn failed(error: &io::Error) -> Response<Body> {
    eprintln!("cannot read a file: {error}");
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "too much is asked for at once")
        }
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read"),
    }
}

fn plain(code: StatusCode, text: &'static str) -> Response<Body> {
    let text = [text.as_bytes(), b"\n"].concat();
    body(code, PLAIN, [Part::Bytes(Bytes::from(text))])
}

fn body(code: StatusCode, content_type: HeaderValue, parts: impl IntoIterator<Item = Part>) -> Response<Body> {
    let body = Body::new(parts);
    let length = body.length();
    let mut response = status(code, body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn status(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}

fn encode(headers: &mut HeaderMap, representation: &Representation) {
    if let Some(coding) = representation.coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tags, dates, numbers and the path of a parsed URL are fit for a header")
}
