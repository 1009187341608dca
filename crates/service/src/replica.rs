//! One replica's own task: created, started, found ready, waited for until it ends.
//!
//! What it learns it says to its service's task, which decides; it ends when it is told to quit, but never between two
//! halves of something that it does with the container.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_container::{ContainerError, ContainerRecord, Containers};
use sampan_model::view::ErrorView;
use sampan_model::{
    ContainerId, ContainerName, ContainerSpec, ContainerState, ContainerStatus, Label, Owner, ServiceRef, ServiceSpec,
};
use tokio::sync::{mpsc, watch};

use crate::probe::{self, Target, Wanted};
use crate::record::ReadyRecord;

/// The port that apps are told to use.
const PORT: u16 = 8080;

/// What a replica's task says.
pub(crate) enum Said {
    Created(ContainerId),
    Waiting(String),
    Ready(ReadyRecord),
    NotReady(ErrorView),
    Ended(ErrorView),
    Removed,
}

/// What a replica's own task knows.
pub(crate) struct Run {
    pub(crate) containers: Containers,
    pub(crate) name: Label,
    pub(crate) number: u32,
    pub(crate) version: u64,
    pub(crate) owner: Owner,
    pub(crate) spec: ServiceSpec,
    pub(crate) quitting: watch::Receiver<bool>,
    pub(crate) say: mpsc::Sender<(u32, Said)>,
}

impl Run {
    /// From the beginning: created (unless it is there already), started, looked after.
    pub(crate) async fn start_and_tend(mut self, id: Option<ContainerId>) {
        let was_there = id.is_some();
        let started = async {
            let id = match id {
                Some(id) => id,
                None => {
                    let spec = self.container_spec();
                    let record = self.containers.create(move || Ok::<_, ContainerError>(spec)).await?;
                    self.say(Said::Created(record.id.clone())).await;
                    record.id.clone()
                }
            };
            self.containers.start(&id).await
        };
        match started.await {
            Ok(record) => self.look_after(record, false).await,
            // taken away by somebody: there is nothing to start again
            Err(ContainerError::NotFound(_)) if was_there => self.say(Said::Removed).await,
            Err(error) => {
                let error = self.start_error(&error);
                self.say(Said::Ended(error)).await;
            }
        }
    }

    pub(crate) async fn tend(mut self, record: Arc<ContainerRecord>, ready: bool) {
        self.look_after(record, ready).await;
    }

    /// Finds out when it is ready, then waits for its end.
    async fn look_after(&mut self, record: Arc<ContainerRecord>, mut ready: bool) {
        let Ok(mut state) = self.containers.watch(&record.id) else { return };
        let mut quitting = self.quitting.clone();
        if !ready {
            let target = match self.spec.ingress {
                true => match self.target(&record).await {
                    Some(target) => Some(target),
                    None => return,
                },
                false => None,
            };
            let limit = Duration::from_millis(self.spec.health.start_timeout_ms);
            let mut deadline = Box::pin(tokio::time::sleep(limit));
            let missing = Arc::new(Mutex::new("it to be looked at".to_owned()));
            let (heard, say, number) = (Arc::clone(&missing), self.say.clone(), self.number);
            let containers = self.containers.clone();
            let mut probing = Box::pin(async move {
                let waiting = |on: String| {
                    *heard.lock().unwrap_or_else(PoisonError::into_inner) = on.clone();
                    // only the latest matters: where the service's task is behind, this one is left out
                    let _ = say.try_send((number, Said::Waiting(on)));
                };
                match target {
                    Some(target) => probe::until_ready(&containers, &target, waiting).await,
                    None => probe::until_steady(&record, waiting).await,
                }
            });
            let mut late = false;
            while !ready {
                tokio::select! {
                    biased;
                    () = is_set(&mut quitting) => return,
                    ended = ended(&mut state) => {
                        let error = self.end_error(&ended, true);
                        self.say(Said::Ended(error)).await;
                        return;
                    }
                    found = &mut probing => {
                        self.say(Said::Ready(found)).await;
                        ready = true;
                    }
                    () = &mut deadline, if !late => {
                        late = true;
                        let on = missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let error = self.late_error(&on);
                        self.say(Said::NotReady(error)).await;
                    }
                }
            }
        }
        tokio::select! {
            biased;
            () = is_set(&mut quitting) => {}
            ended = ended(&mut state) => {
                let error = self.end_error(&ended, false);
                self.say(Said::Ended(error)).await;
            }
        }
    }

    async fn target(&self, record: &ContainerRecord) -> Option<Target> {
        let port = match self.spec.port {
            Some(port) => Wanted::Fixed(port, "it was given"),
            None => match self.containers.declared_port(&self.spec.image).await {
                Ok(Some(port)) => Wanted::Fixed(port, "the image declares it"),
                Ok(None) => Wanted::Any { told: self.told_port() },
                Err(error) => {
                    let error = self.start_error(&error);
                    self.say(Said::Ended(error)).await;
                    return None;
                }
            },
        };
        Some(Target {
            id: record.id.clone(),
            address: record.address,
            started_at: record.state.started_at,
            host: format!("{}.localhost", self.name),
            port,
            path: self.spec.health.path.clone(),
        })
    }

    fn told_port(&self) -> u16 {
        let given = self.spec.env.get("PORT").and_then(|port| port.parse().ok());
        given.or(self.spec.port).unwrap_or(PORT)
    }

    fn container_spec(&self) -> ContainerSpec {
        let name = ContainerName::of_replica(&self.name, self.number);
        let mut env: Vec<(String, String)> = vec![("PORT".to_owned(), self.told_port().to_string())];
        env.extend(self.spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        ContainerSpec {
            size: self.spec.size,
            owner: self.owner.clone(),
            entrypoint: (!self.spec.command.is_empty()).then(|| self.spec.command.clone()),
            env,
            mounts: self.spec.mounts.clone(),
            server: self.spec.server.clone(),
            service: Some(ServiceRef { name: self.name.clone(), version: self.version, replica: self.number }),
            ..ContainerSpec::new(name, self.spec.image.clone(), format!("{}:latest", self.name))
        }
    }

    async fn say(&self, said: Said) {
        // the service's task ends only when the daemon does
        let _ = self.say.send((self.number, said)).await;
    }

    fn start_error(&self, error: &ContainerError) -> ErrorView {
        let mut message = format!("{} could not be started: {error}", self.name);
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        ErrorView { code: "start_failed".to_owned(), message, hint: None }
    }

    fn end_error(&self, state: &ContainerState, before_ready: bool) -> ErrorView {
        let how = match state.exit_code {
            Some(code @ 129..=192) if !state.oom_killed => format!("was ended by signal {}", code - 128),
            Some(code) => format!("exited with code {code}"),
            None => "ended (how is not known)".to_owned(),
        };
        let when = if before_ready { " before it was ready" } else { "" };
        let (memory, hint) = if state.oom_killed {
            let size = self.spec.size.memory_bytes;
            (
                format!(": it took more memory than its server has ({size})"),
                "give it more with --memory, or in sampan.toml under [size]",
            )
        } else {
            (String::new(), "a service has to go on running; look at its last lines")
        };
        ErrorView {
            code: "exited".to_owned(),
            message: format!("{} {how}{when}{memory}", self.name),
            hint: Some(hint.to_owned()),
        }
    }

    fn late_error(&self, missing: &str) -> ErrorView {
        let limit = Duration::from_millis(self.spec.health.start_timeout_ms);
        ErrorView {
            code: "not_ready".to_owned(),
            message: format!("{} was not ready within {limit:?}: waited for {missing}", self.name),
            hint: Some(
                "let it listen on the port in $PORT, say the port with --port, or give it longer with --timeout"
                    .to_owned(),
            ),
        }
    }
}

/// Waits until it is set, or nobody is left who could.
pub(crate) async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

/// Waits until a container does not run any more.
async fn ended(state: &mut watch::Receiver<ContainerState>) -> ContainerState {
    match state.wait_for(|state| state.status != ContainerStatus::Running).await {
        Ok(state) => state.clone(),
        Err(_) => ContainerState::created(),
    }
}
