//! Actions on servers with names.

use std::time::Duration;

use sampan_container::{ContainerError, Containers, ServerRecord};
use sampan_model::view::{ServerCreate, ServerResize, ServerView};
use sampan_model::{Label, ServerSpec};

use crate::{ApiError, Caller, Core, Outcome};

/// What is asked of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAction {
    /// Make one.
    Create(ServerCreate),
    /// All of them.
    List,
    /// One of them.
    Show(Label),
    /// Start one, with the containers that ran on it.
    Start(Label),
    /// Stop one: its containers are ended after so long.
    Stop(Label, Duration),
    /// Give one another size.
    Resize(Label, ServerResize),
    /// Remove one with everything on it.
    Close(Label),
}

impl Caller {
    /// The server of a name, where they may touch it. Others' are not there.
    pub(crate) fn own_server(&self, containers: &Containers, name: &Label) -> Result<ServerRecord, ApiError> {
        let record = containers.server(name)?;
        if self.owner().may_touch(&record.spec.owner) {
            Ok(record)
        } else {
            Err(ContainerError::NoServer(name.to_string()).into())
        }
    }
}

impl Core {
    /// Carries out what is asked by `caller`.
    pub(crate) async fn servers(&self, caller: &Caller, action: ServerAction) -> Result<Outcome, ApiError> {
        let containers = &self.containers;
        let record = match action {
            ServerAction::Create(asked) => {
                let ServerCreate { name, size, disk } = asked;
                containers.create_server(ServerSpec { name, size, disk, owner: caller.owner() }).await?
            }
            ServerAction::List => {
                let mut servers = containers.servers();
                servers.retain(|record| caller.owner().may_touch(&record.spec.owner));
                return Ok(Outcome::Servers(servers.iter().map(|record| self.server_view(record)).collect()));
            }
            ServerAction::Show(name) => caller.own_server(&self.containers, &name)?,
            ServerAction::Start(name) => {
                caller.own_server(&self.containers, &name)?;
                self.services.start_server(&name).await?
            }
            ServerAction::Stop(name, grace) => {
                caller.own_server(&self.containers, &name)?;
                containers.stop_server(&name, grace).await?
            }
            ServerAction::Resize(name, resize) => {
                caller.own_server(&self.containers, &name)?;
                containers.resize_server(&name, resize).await?
            }
            ServerAction::Close(name) => {
                caller.own_server(&self.containers, &name)?;
                self.services.close_server(&name).await?;
                self.services.collect_garbage().await;
                return Ok(Outcome::Done);
            }
        };
        Ok(Outcome::Server(Box::new(self.server_view(&record))))
    }

    /// A server with what is on it.
    pub(crate) fn server_view(&self, record: &ServerRecord) -> ServerView {
        let containers = self.containers.on_server(&record.id);
        let containers = containers.iter().map(|one| one.view(self.services.is_ready(one))).collect();
        record.view(containers, self.services.on_server(&record.spec.name))
    }
}
