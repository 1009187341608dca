//! Watching: whole values, each time one is another.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{Stream, unfold};
use sampan_model::view::Change;
use tokio::time::timeout;

use crate::{Client, ClientError, JsonLines};

pub(crate) type Fetching<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;
pub(crate) type Fetch<T> = Box<dyn Fn(Client) -> Fetching<T> + Send + Sync>;

/// How long after a change's look another one is taken. A change is told when its record is durable, which is a moment
/// before the daemon's answers are of it: of the last change there is no later event that would tell.
const SETTLED: Duration = Duration::from_millis(200);

/// A value as it was at a revision of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// The revision: a watch from here misses nothing that came later.
    pub revision: u64,
    /// The whole value; `None` when what was watched is gone.
    pub value: Option<T>,
}

/// A thing's values as they follow one another: [`Server::watch`](crate::Server::watch),
/// [`App::watch`](crate::App::watch).
///
/// Each is the whole value at some moment, never a difference. Values that were passed over quickly may be missing,
/// the last one never is. A daemon that is replaced is waited for and gone on with. After the value `None` it ends.
pub struct Watch<T> {
    client: Client,
    fetch: Fetch<T>,
    events: Option<JsonLines<Change>>,
    revision: u64,
    /// Something changed since the last look.
    is_stale: bool,
    /// The last look may have been too early.
    may_be_early: bool,
    last: Option<T>,
    has_ended: bool,
}

impl<T: Clone + PartialEq + Send + 'static> Watch<T> {
    /// Watches from now on; the present value comes first.
    pub(crate) async fn begin(client: &Client, fetch: Fetch<T>) -> Result<Self, ClientError> {
        let revision = client.daemon().await?.revision;
        Ok(Self { is_stale: true, ..Self::from(client, fetch, revision) })
    }

    /// Watches on from a revision; the first value is one of later, be it the same.
    pub(crate) fn from(client: &Client, fetch: Fetch<T>, revision: u64) -> Self {
        Self {
            client: client.clone(),
            fetch,
            events: None,
            revision,
            is_stale: false,
            may_be_early: false,
            last: None,
            has_ended: false,
        }
    }

    /// The next value; `None` after the end. Cancel-safe: a value is told once, and none is lost.
    ///
    /// # Errors
    /// [`ClientError`] where there is no daemon to go on with. Asking again goes on from where it was.
    pub async fn next(&mut self) -> Option<Result<Seen<T>, ClientError>> {
        loop {
            if self.has_ended {
                return None;
            }
            match self.step().await {
                Ok(None) => {}
                Ok(Some(seen)) => return Some(Ok(seen)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The values as a stream.
    pub fn stream(self) -> impl Stream<Item = Result<Seen<T>, ClientError>> + Send {
        unfold(self, |mut watch| async move { watch.next().await.map(|next| (next, watch)) })
    }

    async fn step(&mut self) -> Result<Option<Seen<T>>, ClientError> {
        // first the events, then the value: what changes in between is told by them
        let Some(events) = &mut self.events else {
            match self.client.events(self.revision).await {
                Ok(events) => self.events = Some(events),
                Err(error) => self.start_over(error).await?,
            }
            return Ok(None);
        };
        if self.is_stale {
            return self.look().await;
        }
        let event = if self.may_be_early {
            match timeout(SETTLED, events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    (self.is_stale, self.may_be_early) = (true, false);
                    return Ok(None);
                }
            }
        } else {
            events.next().await
        };
        match event {
            Some(Ok(change)) => {
                (self.is_stale, self.may_be_early) = (true, true);
                self.revision = change.revision;
                // of changes that came together the last one is enough
                loop {
                    match events.next().now_or_never() {
                        Some(Some(Ok(change))) => self.revision = change.revision,
                        None => return Ok(None),
                        // what was told is looked at; the rest is asked for again
                        Some(Some(Err(_)) | None) => {
                            self.events = None;
                            return Ok(None);
                        }
                    }
                }
            }
            Some(Err(error)) => {
                self.events = None;
                self.start_over(error).await.map(|()| None)
            }
            // a daemon that stops ends its answers properly
            None => {
                self.events = None;
                Ok(None)
            }
        }
    }

    /// Goes on after `error` where that is possible.
    async fn start_over(&mut self, error: ClientError) -> Result<(), ClientError> {
        if error.is("revision_too_old") {
            self.revision = self.client.daemon().await?.revision;
            self.is_stale = true;
            return Ok(());
        }
        if error.is_lost() { self.client.revive(error).await } else { Err(error) }
    }

    /// Tells the value where it is another one.
    async fn look(&mut self) -> Result<Option<Seen<T>>, ClientError> {
        let value = match (self.fetch)(self.client.clone()).await {
            Ok(value) => Some(value),
            Err(error) if error.is("not_found") => None,
            Err(error) => return Err(error),
        };
        self.is_stale = false;
        if value.is_some() && value == self.last {
            return Ok(None);
        }
        self.has_ended = value.is_none();
        self.last.clone_from(&value);
        Ok(Some(Seen { revision: self.revision, value }))
    }
}
