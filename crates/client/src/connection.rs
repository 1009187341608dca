//! One request, one connection: HTTP/1.1 over the daemon's socket.
//!
//! Connections are not kept: connecting to a Unix socket costs some 20 µs, and a kept one is one more thing that
//! can have gone stale. Each answer owns the task that drives its connection, so that dropping the answer (or the
//! future that waits for it) closes the connection, and the daemon knows that nobody is interested any more.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sampan_model::view::{ErrorBody, ErrorView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{ClientError, Root, StartError, StartOptions, ensure_started, unix};

/// The longest answer that is read as one value.
const LONGEST_ANSWER: usize = 64 << 20;
/// How often a request that may be made twice is made again when the daemon went away.
const RETRIES: usize = 2;

/// A connection to one Sampan's daemon: cheap to clone, used from as many tasks at once as you like.
///
/// Every method is cancel-safe in that dropping its future closes its connection and leaves the client usable;
/// whether the daemon has begun to do what was asked is not known then, as with any request over a wire.
#[derive(Debug, Clone)]
pub struct Client {
    root: Root,
    start: Option<Arc<StartOptions>>,
}

impl Client {
    /// The client of the daemon that runs for this root.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] where none answers, [`ClientError::Forbidden`] where it is not for this user.
    pub async fn connect(root: &Root) -> Result<Self, ClientError> {
        unix::connect(&root.socket()).await?;
        Ok(Self { root: root.clone(), start: None })
    }

    /// A client that starts a daemon when a request finds none, and again where the one it speaks to goes away in
    /// the middle of a request that may be made twice. Nothing is done before the first request.
    pub fn on_demand(root: &Root, options: &StartOptions) -> Self {
        Self { root: root.clone(), start: Some(Arc::new(options.clone())) }
    }

    /// The root whose daemon it speaks to.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Asks once, of a fresh daemon where there is none, or where it went away before it had heard what was asked.
    pub(crate) async fn ask(&self, call: &Call) -> Result<Answer, ClientError> {
        match self.ask_once(call).await {
            Err(error) if call.was_unheard(&error) => {
                self.revive(error).await?;
                self.ask_once(call).await
            }
            other => other,
        }
    }

    /// Asks once for the connection itself to speak another protocol over.
    pub(crate) async fn upgrade(&self, call: &Call, protocol: &'static str) -> Result<Upgraded, ClientError> {
        match self.upgrade_once(call, protocol).await {
            Err(error) if call.was_unheard(&error) => {
                self.revive(error).await?;
                self.upgrade_once(call, protocol).await
            }
            other => other,
        }
    }

    async fn upgrade_once(&self, call: &Call, protocol: &'static str) -> Result<Upgraded, ClientError> {
        let stream = unix::connect(&self.root.socket()).await?;
        let lost = |source| ClientError::Lost { request: call.to_string(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = connection.with_upgrades();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let mut request = call.request().await?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
        let response = sender.send_request(request).await.map_err(lost)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let answer = Answer { request: call.to_string(), status: head.status, body, _driver: driver };
            return Err(answer.error().await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(|_| ClientError::Answer {
            request: call.to_string(),
            reason: "it is not the connection that was upgraded".into(),
        })?;
        Ok(Upgraded { request: call.to_string(), stream: parts.io.into_inner(), read: parts.read_buf })
    }

    async fn ask_once(&self, call: &Call) -> Result<Answer, ClientError> {
        let stream = unix::connect(&self.root.socket()).await?;
        let lost = |source| ClientError::Lost { request: call.to_string(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // its error reaches the request or the body that it cut short
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let response = sender.send_request(call.request().await?).await.map_err(lost)?;
        let (head, body) = response.into_parts();
        let answer = Answer { request: call.to_string(), status: head.status, body, _driver: driver };
        if head.status.is_success() { Ok(answer) } else { Err(answer.error().await) }
    }

    /// Asks and reads the answer, again where the daemon went away: only for what may be done twice.
    pub(crate) async fn ask_again<T, F>(&self, call: &Call, read: impl Fn(Answer) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut retries = 0;
        loop {
            let answered = match self.ask(call).await {
                Ok(answer) => read(answer).await,
                Err(error) => Err(error),
            };
            match answered {
                Err(error) if error.is_lost() && retries < RETRIES => self.revive(error).await?,
                other => return other,
            }
            retries += 1;
        }
    }

    /// Sees to it that there is a daemon again; gives `error` back where that is not allowed.
    pub(crate) async fn revive(&self, error: ClientError) -> Result<(), ClientError> {
        let Some(options) = &self.start else { return Err(error) };
        match ensure_started(&self.root, options).await {
            // no help: that the connection was lost is the better story
            Err(StartError::NeedsRoot { .. }) if matches!(error, ClientError::Lost { .. }) => Err(error),
            other => other.map_err(ClientError::Start),
        }
    }

    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        self.ask_again(&Call::new(Method::GET, path), Answer::json).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: String,
        value: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask_again(&Call::new(Method::PUT, path).with_json(value), Answer::json).await
    }

    /// Deletes; what is gone when the request is made again was deleted by the request whose answer was lost.
    pub(crate) async fn delete(&self, path: String) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, path);
        match self.ask(&call).await {
            Ok(answer) => answer.finish().await,
            Err(error) if error.is_lost() => {
                self.revive(error).await?;
                match self.ask_again(&call, Answer::finish).await {
                    Err(error) if error.is("not_found") => Ok(()),
                    other => other,
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// A request as it can be made any number of times.
pub(crate) struct Call {
    method: Method,
    path: String,
    content: Content,
}

enum Content {
    Empty,
    Json(Bytes),
    File(crate::images::Upload),
    /// What can be sent once only.
    Once(Mutex<Option<RequestBody>>),
}

pub(crate) type RequestBody = BoxBody<Bytes, std::io::Error>;

impl Call {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self { method, path, content: Content::Empty }
    }

    pub(crate) fn with_json(self, value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("the API's types have string keys only and cannot fail");
        Self { content: Content::Json(bytes.into()), ..self }
    }

    pub(crate) fn with_file(self, upload: crate::images::Upload) -> Self {
        Self { content: Content::File(upload), ..self }
    }

    /// With a body that is there once: the call is not to be made again.
    pub(crate) fn with_stream(self, body: RequestBody) -> Self {
        Self { content: Content::Once(Mutex::new(Some(body))), ..self }
    }

    /// Whether no daemon has heard all of it: it may be made again, whatever it asks for.
    ///
    /// A daemon that is killed takes with it whoever waits in its socket's queue; they connect, and are reset (unix(7):
    /// so is whose bytes were not all read. One that was read to its end sees an ordinary end of file).
    fn was_unheard(&self, error: &ClientError) -> bool {
        match error {
            ClientError::NoDaemon { .. } => true,
            // canceled: closed before the request was sent at all
            ClientError::Lost { source, .. } => {
                (source.is_canceled() || is_reset(source)) && !matches!(self.content, Content::Once(_))
            }
            _ => false,
        }
    }

    async fn request(&self) -> Result<Request<RequestBody>, ClientError> {
        let mut request = Request::builder().method(&self.method).uri(&self.path).header(HOST, "sampan");
        let body = match &self.content {
            Content::Empty => full(Bytes::new()),
            Content::Json(bytes) => {
                request = request.header(CONTENT_TYPE, "application/json");
                full(bytes.clone())
            }
            Content::File(upload) => {
                request = request.header(CONTENT_TYPE, "application/octet-stream");
                upload.body().await?
            }
            Content::Once(body) => {
                request = request.header(CONTENT_TYPE, "application/octet-stream");
                body.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| full(Bytes::new()))
            }
        };
        Ok(request.body(body).expect("paths are built of percent-encoded segments"))
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        }
        source = cause.source();
    }
    false
}

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A successful answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) request: String,
    pub(crate) status: StatusCode,
    pub(crate) body: Incoming,
    _driver: AbortOnDropHandle<()>,
}

impl Answer {
    /// Reads the body as one JSON value.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let request = self.request.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer { request, reason: error.to_string() })
    }

    /// Reads the body to its end, so that what was asked is known to be done.
    pub(crate) async fn finish(self) -> Result<(), ClientError> {
        self.bytes().await.map(drop)
    }

    async fn bytes(self) -> Result<Bytes, ClientError> {
        let Self { request, body, _driver, .. } = self;
        match Limited::new(body, LONGEST_ANSWER).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(source) => ClientError::Lost { request, source: *source },
                Err(_) => ClientError::Answer {
                    request,
                    reason: format!("it is longer than {} MiB, the limit for one answer", LONGEST_ANSWER >> 20),
                },
            }),
        }
    }

    async fn error(self) -> ClientError {
        let (request, status) = (self.request.clone(), self.status);
        let bytes = match self.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => ClientError::Api { status: status.as_u16(), error: body.error },
            // HEAD has no body, and a server that is not ours has another one
            Err(_) if bytes.is_empty() && status == StatusCode::NOT_FOUND => ClientError::Api {
                status: 404,
                error: ErrorView { code: "not_found".into(), message: format!("{request}: not found"), hint: None },
            },
            Err(_) => ClientError::Answer { request, reason: format!("it is {status} without an error in JSON") },
        }
    }
}

/// A connection that speaks another protocol from here on.
pub(crate) struct Upgraded {
    pub(crate) request: String,
    pub(crate) stream: UnixStream,
    /// What was read of it already.
    pub(crate) read: Bytes,
}

/// One segment of a path: everything but unreserved characters (RFC 3986 §2.3) percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // a segment of dots alone would be taken for a step in the tree
    if !encoded.is_empty() && encoded.bytes().all(|b| b == b'.') { encoded.replace('.', "%2E") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        for (text, encoded) in
            [("hello", "hello"), ("a/b:1.0", "a%2Fb%3A1.0"), ("..", "%2E%2E"), ("ä?#", "%C3%A4%3F%23"), ("", "")]
        {
            assert_eq!(segment(text), encoded);
        }
    }
}
