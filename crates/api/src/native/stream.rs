//! Requests that are answered by a stream of frames both ways ([`sampan_model::stream`]): attach, exec, and a container
//! run in the foreground. What can be refused is refused before the connection is upgraded, as any other request.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sampan_container::{Attached, ContainerError, ContainerRecord, Containers};
use sampan_model::ContainerStatus;
use sampan_model::stream::{Control, PROTOCOL};
use sampan_model::view::{ContainerCreate, ExecCreate, ExecView};
use schemars::JsonSchema;
use serde::Deserialize;

use super::places::Place;
use super::routes::{Asked, By, json};
use super::talk::{Io, Talk, converse, write_control};
use super::write;
use crate::core::not_a_replica;
use crate::{ApiError, Caller, Core};

/// What a request that wants a stream brings: the connection, once it has been answered.
pub(super) struct Upgrade(Option<OnUpgrade>);

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let asked = parts.headers.get(header::UPGRADE) == Some(&HeaderValue::from_static(PROTOCOL));
        Ok(Self(parts.extensions.remove().filter(|_| asked)))
    }
}

impl Upgrade {
    fn wanted(self) -> Result<OnUpgrade, ApiError> {
        let message = format!("this is answered by a stream: ask with `Connection: Upgrade` and `Upgrade: {PROTOCOL}`");
        self.0.ok_or_else(|| ApiError::bad_request(message))
    }
}

/// Answers 101, and talks once that has been read. Where nobody is left to read it, `talk` is told that.
fn upgraded<F: Future<Output = ()> + Send>(
    upgrade: OnUpgrade,
    talk: impl FnOnce(Option<Io>) -> F + Send + 'static,
) -> Response {
    tokio::spawn(async move { talk(upgrade.await.ok().map(TokioIo::new)).await });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AttachQuery {
    /// Whether what the client sends is written to it; `true` where it is not said.
    stdin: Option<bool>,
    /// Whether it is started, now that it is attached to; it does not run then.
    #[serde(default)]
    start: bool,
}

pub(super) async fn attach(
    State(native): Asked,
    Extension(caller): By,
    Path(id): Path<String>,
    place: Option<Extension<Place>>,
    query: Query<AttachQuery>,
    upgrade: Upgrade,
) -> Response {
    if query.start {
        let place = place.map(|Extension(place)| place);
        return start(&native.core, &caller, &id, query.stdin.unwrap_or(true), upgrade, place);
    }
    let attached = async {
        let upgrade = upgrade.wanted()?;
        let record = native.core.one(&caller, &id)?;
        let attached = native.core.containers.attach(&record.id).await?;
        let input = if query.stdin.unwrap_or(true) { attached.input().await? } else { None };
        Ok((upgrade, attached, input))
    };
    match attached.await {
        Ok((upgrade, attached, input)) => upgraded(upgrade, async move |io| {
            if let Some(io) = io {
                converse(io, &[], Talk::Container(attached), input).await;
            }
        }),
        Err(error) => write::error(&error),
    }
}

/// Attaches to a container that does not run and starts it: nothing of what it writes is missed.
fn start(core: &Core, caller: &Caller, id: &str, stdin: bool, upgrade: Upgrade, place: Option<Place>) -> Response {
    let attach = || {
        let upgrade = upgrade.wanted()?;
        let record = core.own_container(caller, id)?;
        not_a_replica(&record)?;
        if record.state.status == ContainerStatus::Running {
            return Err(ContainerError::Running(record.spec.name.to_string()).into());
        }
        let attached = core.containers.attach_before_start(&record.id, None)?;
        Ok::<_, ApiError>((upgrade, record.id.clone(), attached))
    };
    let containers = core.containers.clone();
    match attach() {
        Ok((upgrade, id, attached)) => upgraded(upgrade, async move |io| {
            let Some(io) = io else { return };
            // on a task of its own, as in `foreground`
            let started = tokio::spawn(async move {
                let started = containers.start(&id).await;
                drop(place);
                started
            });
            let started = started.await.unwrap_or(Err(ContainerError::Stopping("starting a container")));
            talk(io, attached, started, stdin).await;
        }),
        Err(error) => write::error(&error),
    }
}

pub(super) async fn exec(
    State(native): Asked,
    Extension(caller): By,
    Path(id): Path<String>,
    upgrade: Upgrade,
    body: Bytes,
) -> Response {
    let begun = async {
        let asked: ExecCreate = json(&body)?;
        let (detach, with_stdin) = (asked.detach, asked.stdin);
        let upgrade = if detach { None } else { Some(upgrade.wanted()?) };
        let record = native.core.one(&caller, &id)?;
        let asked = ExecCreate { stdin: with_stdin && !detach, ..asked };
        let session = native.core.containers.exec(&record.id, asked).await?;
        Ok((upgrade, session, with_stdin))
    };
    match begun.await {
        Ok((Some(upgrade), mut session, with_stdin)) => upgraded(upgrade, async move |io| {
            let Some(io) = io else { return };
            let started = Control::Started { pid: session.pid, timing: Vec::new() };
            // a terminal is one, for resizing, also where nobody types
            let mut input = session.take_input();
            if let Some(input) = &mut input
                && !with_stdin
            {
                input.mute();
            }
            converse(io, &[started], Talk::Process(session), input).await;
        }),
        Ok((None, session, _)) => {
            let view = ExecView { pid: session.pid };
            session.detach();
            Json(view).into_response()
        }
        Err(error) => write::error(&error),
    }
}

pub(super) async fn run(State(native): Asked, Extension(caller): By, upgrade: Upgrade, body: Bytes) -> Response {
    let created = async {
        let upgrade = upgrade.wanted()?;
        let asked: ContainerCreate = json(&body)?;
        let size = asked.terminal_size;
        let containers = native.core.containers.clone();
        // a task of its own: whoever asked may go away in the middle, and what it gives then goes as well
        let created = tokio::spawn(async move {
            let all = containers.clone();
            let record = containers.create(move || caller.spec_of(&all, asked)).await?;
            let attached = containers.attach_before_start(&record.id, size);
            let unstarted = Unstarted { containers, record: Some(record) };
            Ok::<_, ApiError>((unstarted, attached?))
        });
        let (unstarted, attached) = created.await.map_err(|_| ApiError::stopping())??;
        Ok((upgrade, unstarted, attached))
    };
    match created.await {
        Ok((upgrade, unstarted, attached)) => upgraded(upgrade, async move |io| {
            if let Some(io) = io {
                foreground(io, unstarted, attached).await;
            }
        }),
        Err(error) => write::error(&error),
    }
}

/// Starts the container and talks with it.
async fn foreground(mut io: Io, mut unstarted: Unstarted, attached: Attached) {
    let Some(record) = &unstarted.record else { return };
    let view = Box::new(record.view(None));
    if write_control(&mut io, &Control::Created(view)).await.is_err() {
        return;
    }
    // from here on it is started, whoever goes away
    let id = record.id.clone();
    let started = tokio::spawn(async move {
        let started = unstarted.containers.start(&id).await;
        match started {
            Ok(_) => drop(unstarted.record.take()),
            // whoever hears of the error finds nothing of it
            Err(_) => unstarted.remove().await,
        }
        started
    });
    let started = started.await.unwrap_or(Err(ContainerError::Stopping("starting a container")));
    talk(io, attached, started, true).await;
}

/// Talks with a container that was just started, or says why it was not.
async fn talk(mut io: Io, mut attached: Attached, started: Result<Arc<ContainerRecord>, ContainerError>, stdin: bool) {
    match started {
        Ok(record) => {
            let pid = record.state.pid.unwrap_or(0);
            attached.started(pid);
            // it may have ended already
            let input = if stdin { attached.input().await.unwrap_or_default() } else { None };
            converse(io, &[Control::Started { pid, timing: record.timing.clone() }], Talk::Container(attached), input)
                .await;
        }
        Err(error) => {
            let failed = Control::Failed(ApiError::from(error).view);
            // whoever has gone does not want to know
            let _ = write_control(&mut io, &failed).await;
        }
    }
}

/// A container that was created to be started at once; taken back where it is not.
struct Unstarted {
    containers: Containers,
    record: Option<Arc<ContainerRecord>>,
}

impl Unstarted {
    async fn remove(mut self) {
        if let Some(record) = self.record.take() {
            remove_unstarted(&self.containers, &record).await;
        }
    }
}

/// A container that never ran is nobody's: only the error is of use.
async fn remove_unstarted(containers: &Containers, record: &ContainerRecord) {
    if let Err(error) = containers.remove(&record.id, true).await {
        tracing::warn!(id = %record.id, %error, "a container that did not start could not be removed");
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            let containers = self.containers.clone();
            tokio::spawn(async move { remove_unstarted(&containers, &record).await });
        }
    }
}
