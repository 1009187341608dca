//! One request: found its service, sent to a replica, answered.

use std::cell::Cell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::body::{RequestBody, ResponseBody};
use super::connection::Turn;
use super::headers::{forward_request, forward_response, plainly_framed};
use super::host::{Host, settle, understand};
use super::page::Page;
use super::pool::{Lease, connect};
use super::tunnel;
use crate::limits::{TRIES, UNREPEATABLE_IDLE};
use crate::table::{Flight, Replica, Table};
use crate::worker::Worker;

/// Answers one request; what goes wrong becomes an answer too. Dropped, when the client goes away, it closes the
/// connection to the upstream.
pub(super) async fn handle(
    worker: Rc<Worker>,
    peer: SocketAddr,
    request: Request<Incoming>,
    turn: Turn,
) -> Response<ResponseBody> {
    match forward(&worker, peer, request).await {
        Ok((response, lease)) => response.map(|body| ResponseBody::upstream(body, lease, turn)),
        Err(page) => page.respond(turn),
    }
}

async fn forward(
    worker: &Rc<Worker>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<(Response<Incoming>, Option<Lease>), Page> {
    if *request.method() == Method::CONNECT {
        return Err(Page::connect());
    }
    if !plainly_framed(request.headers()) {
        return Err(Page::coding());
    }
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let host =
        settle(&parts.method, &mut parts.uri, parts.version, &parts.headers).map_err(|why| Page::unclear(&why))?;
    // before anything is changed: a page for a person looks at what the person's browser sent
    let first = choose(&worker.table(), host.as_ref(), &parts.headers, &[])?;
    if parts.version < Version::HTTP_11 {
        parts.headers.remove(UPGRADE);
    }
    let upgrade = forward_request(&mut parts.headers, peer, host.as_ref());
    parts.version = Version::HTTP_11;
    parts.extensions.clear();

    let repeatable = parts.method.is_idempotent() && body.is_end_stream();
    let passed = Rc::new(Cell::new(Instant::now()));
    let request = Request::from_parts(parts, RequestBody::new(body, Rc::clone(&passed)));
    let (mut response, lease) = send(worker, first, host.as_ref(), request, repeatable, &passed).await?;

    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded && !upgrade {
        return Err(failed(lease.replica(), "it switched protocols without being asked"));
    }
    if !plainly_framed(response.headers()) {
        return Err(failed(lease.replica(), "its response has a Transfer-Encoding other than chunked"));
    }
    forward_response(response.headers_mut(), upgraded);
    if upgraded {
        open_tunnel(client, &mut response, lease);
        return Ok((response, None));
    }
    Ok((response, Some(lease)))
}

/// Sends a request until a replica answers. It is sent again only where the upstream cannot have seen it, or where it
/// has no body and doing it twice is doing it once (RFC 9110 section 9.2.2).
async fn send(
    worker: &Rc<Worker>,
    first: Flight,
    host: Option<&HeaderValue>,
    mut request: Request<RequestBody>,
    repeatable: bool,
    passed: &Rc<Cell<Instant>>,
) -> Result<(Response<Incoming>, Lease), Page> {
    let limit = worker.shared.limits.response_timeout;
    let mut idle_for = if repeatable { Duration::MAX } else { UNREPEATABLE_IDLE };
    let mut tried = Vec::new();
    let mut flight = first;
    for tries_left in (0..TRIES).rev() {
        let replica = Arc::clone(&flight.replica);
        let failure = match connect(worker, flight, idle_for).await {
            Ok(mut lease) => {
                let again = (repeatable && tries_left > 0).then(|| copy(&request, passed));
                match exchange(&mut lease.sender, request, passed, limit).await {
                    Ok(response) => return Ok((response, lease)),
                    Err(Failure::Late) => return Err(Page::late(&replica.service, &replica.name, limit.as_secs())),
                    Err(Failure::Broken { why, unsent }) => {
                        match unsent.map(|unsent| *unsent).or(again) {
                            Some(again) => request = again,
                            None => return Err(failed(&replica, &why)),
                        }
                        // Where one kept connection was being closed the others may be: no more of them. The replica
                        // itself is not to blame then.
                        idle_for = Duration::ZERO;
                        if !lease.kept {
                            tried.push(replica.address);
                        }
                        why
                    }
                }
            }
            Err(error) => {
                tried.push(replica.address);
                error.to_string()
            }
        };
        if tries_left == 0 {
            return Err(failed(&replica, &failure));
        }
        flight = choose(&worker.table(), host, request.headers(), &tried)?;
    }
    unreachable!("the last try returns")
}

/// The replica for a request to this host, by the table of this moment; counted from here on.
fn choose(
    table: &Table,
    host: Option<&HeaderValue>,
    headers: &HeaderMap,
    tried: &[SocketAddr],
) -> Result<Flight, Page> {
    let unknown = || {
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        Page::unknown(host, &table.names(), headers)
    };
    let understood = host.map_or(Ok(Host::Machine), understand).map_err(|why| Page::unclear(&why))?;
    let (name, service) = match &understood {
        Host::Service(name) => (name.as_ref(), table.service(name).ok_or_else(unknown)?),
        Host::Machine => table.only_service().ok_or_else(unknown)?,
        Host::Foreign => return Err(unknown()),
    };
    service.choose(tried).ok_or_else(|| Page::none_ready(name))
}

enum Failure {
    /// The response's head did not come in time.
    Late,
    /// The connection broke, and why. With the request where it was not begun to be sent.
    Broken { why: String, unsent: Option<Box<Request<RequestBody>>> },
}

async fn exchange(
    sender: &mut SendRequest<RequestBody>,
    request: Request<RequestBody>,
    passed: &Cell<Instant>,
    limit: Duration,
) -> Result<Response<Incoming>, Failure> {
    passed.set(Instant::now());
    let mut response = std::pin::pin!(sender.try_send_request(request));
    loop {
        let until = passed.get() + limit;
        match timeout_at(until, response.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(mut error)) => {
                let unsent = error.take_message().map(Box::new);
                return Err(Failure::Broken { why: chain(&error.into_error()), unsent });
            }
            // the body moved on in the meantime: the time counts from there
            Err(_) if passed.get() + limit > until => {}
            Err(_) => return Err(Failure::Late),
        }
    }
}

fn copy(request: &Request<RequestBody>, passed: &Rc<Cell<Instant>>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::none(Rc::clone(passed)));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

fn open_tunnel(client: OnUpgrade, response: &mut Response<Incoming>, lease: Lease) {
    let upstream = hyper::upgrade::on(response);
    spawn_local(tunnel::pass(client, upstream, lease.into_flight()));
}

fn failed(replica: &Replica, why: &str) -> Page {
    Page::failed(&replica.service, &replica.name, why)
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
