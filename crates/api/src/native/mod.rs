//! The native API: HTTP requests parsed into actions, outcomes written as HTTP. Its table is in
//! [`sampan_model::view`].

pub(crate) mod endpoint;
mod files;
mod operations;
mod places;
mod refused;
pub(crate) mod routes;
mod servers;
mod stream;
mod talk;
mod volumes;
mod write;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use crate::{Access, ApiError, Caller, Core};

/// Everything that is asked for and answered, with the lock in front.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) core: Arc<Core>,
    access: Arc<Access>,
    places: Arc<places::Places>,
}

/// A connection's caller; `None` where the kernel would not tell.
#[derive(Clone)]
struct Peer(Option<Caller>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(Access::caller(stream.io()).ok())
    }
}

/// Serves the native API on a socket until `stop` resolves.
///
/// # Errors
/// The socket is not usable.
pub async fn serve(
    listener: UnixListener,
    core: Arc<Core>,
    access: Access,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let native = Native { core, access: Arc::new(access), places: Arc::default() };
    let app: Router = routes::router()
        .fallback(|| async {
            write::error(&ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "no such path",
                Some("see GET /openapi.json"),
            ))
        })
        .layer(axum::middleware::from_fn(refused::in_our_words))
        .layer(axum::middleware::from_fn_with_state(native.clone(), admit))
        .with_state(native);
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).with_graceful_shutdown(stop).await
}

/// The lock: who may not ask is told so; who may is known from here on.
async fn admit(
    State(native): State<Native>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match peer.0.filter(|caller| native.access.admits(caller)) {
        Some(mut caller) => {
            caller.governs = native.access.governs(&caller);
            let (uid, needs_place) = (caller.uid, places::needs(caller.uid, &request));
            request.extensions_mut().insert(caller);
            if !needs_place {
                return next.run(request).await;
            }
            let place = native.places.enter(uid).await;
            // a task of its own: what blocks a thread has its place also when whoever asked for it has gone
            request.extensions_mut().insert(place.clone());
            let answered = tokio::spawn(async move {
                let response = next.run(request).await;
                drop(place);
                response
            });
            answered.await.unwrap_or_else(|_| write::error(&ApiError::stopping()))
        }
        None => {
            let hint = "ask root to add you to the group `sampan`";
            write::error(&ApiError::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "you may not speak to this daemon",
                Some(hint),
            ))
            .into_response()
        }
    }
}
