//! Actions on a container that is there.

use std::sync::Arc;
use std::time::Duration;

use sampan_container::ContainerRecord;
use sampan_model::view::ContainerUpdate;
use sampan_model::{ContainerName, signal};

use crate::core::not_a_replica;
use crate::{ApiError, Core, Outcome};

/// What is asked of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Start it.
    Start,
    /// End it, after so long, and start it again.
    Restart(Duration),
    /// Send it a signal, by name or number.
    Kill(String),
    /// Bring it to a halt.
    Pause,
    /// Let it go on.
    Unpause,
    /// Give it another name.
    Rename(ContainerName),
    /// Change its size, or what becomes of it at its end.
    Update(ContainerUpdate),
    /// Its processes.
    Top,
    /// What it uses.
    Stats,
}

/// The signals (INT, QUIT, KILL, TERM) whose sender wants the container to end: its restart policy is to leave it so.
const ENDING: [i32; 4] = [2, 3, 9, 15];

impl Core {
    /// Carries out what is asked of the container.
    pub(crate) async fn operate(
        &self,
        record: Arc<ContainerRecord>,
        operation: Operation,
    ) -> Result<Outcome, ApiError> {
        let (containers, id) = (&self.containers, &record.id);
        // what a service would undo, or be confused by
        let is_its_service_s =
            matches!(operation, Operation::Start | Operation::Restart(_) | Operation::Rename(_) | Operation::Update(_));
        if is_its_service_s {
            not_a_replica(&record)?;
        }
        let changed = match operation {
            Operation::Start => containers.start(id).await?,
            Operation::Restart(grace) => containers.restart(id, grace).await?,
            Operation::Rename(name) => containers.rename(id, name).await?,
            Operation::Update(update) => containers.update(id, update).await?,
            Operation::Kill(text) => {
                let signal = signal::parse(&text).map_err(|error| ApiError::bad_request(error.to_string()))?;
                if ENDING.contains(&signal) {
                    containers.want_stopped(id).await?;
                }
                containers.kill(id, signal).await?;
                return Ok(Outcome::Done);
            }
            Operation::Pause => {
                containers.pause(id).await?;
                return Ok(Outcome::Done);
            }
            Operation::Unpause => {
                containers.unpause(id).await?;
                return Ok(Outcome::Done);
            }
            Operation::Top => return Ok(Outcome::Processes(containers.top(id).await?)),
            Operation::Stats => return Ok(Outcome::Stats(Box::new(containers.stats(id).await?))),
        };
        Ok(Outcome::Container(Box::new(changed.view(self.services.is_ready(&changed)))))
    }
}
