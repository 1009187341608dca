//! The cloud as a program holds it: servers to make, apps to put on them. Handles over [`Client`]'s requests.

use std::path::PathBuf;

use sampan_model::view::{ServerCreate, ServerView};
use sampan_model::{ByteSize, Cpus, Disk, Label, ServerSize};

use crate::deploy::{Deploy, Run};
use crate::undo::{OrUndone, Undoing};
use crate::{Client, ClientError, Root, Server, StartError, StartOptions, ensure_started};

/// One Sampan, which may be running or not yet. Cheap to clone.
///
/// ```no_run
/// use sampan_client::Cloud;
/// use sampan_client::model::{ByteSize, Cpus};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cloud = Cloud::connect_or_start().await?;
/// let server = cloud.server(Cpus::ONE, ByteSize::gib(1)).create().await?;
/// let app = server.deploy("examples/hello-rust").await?;
/// println!("{}", app.http().await?);
/// server.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cloud {
    client: Client,
}

impl Cloud {
    /// The cloud of this machine: `SAMPAN_ROOT`'s, else the default one's. Where no daemon answers it is started, then
    /// and whenever it goes away in the middle of a request that may be made twice; for that the `sampan` binary is the
    /// one that `SAMPAN_BIN` names, else one beside this program, else the first on `PATH`.
    ///
    /// Cancel-safe: a daemon that was begun goes on by itself.
    ///
    /// # Errors
    /// [`ClientError::Start`], with [`StartError::NeedsRoot`] where no daemon runs and this program is not root's;
    /// [`ClientError::Forbidden`] where it is not for this user.
    pub async fn connect_or_start() -> Result<Self, ClientError> {
        let root = Root::resolve(None)?;
        let options = StartOptions::find();
        match (Client::connect(&root).await, options) {
            (Err(ClientError::NoDaemon { .. }), options) => {
                let options = options?;
                ensure_started(&root, &options).await?;
                Client::connect(&root).await?;
                Ok(Client::on_demand(&root, &options).into())
            }
            (Ok(_), Ok(options)) => Ok(Client::on_demand(&root, &options).into()),
            // one that runs needs no binary
            (connected, Err(_)) => connected.map(Self::from),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// The requests that everything here is made of.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A server to be made, of so many processors and so much memory.
    pub fn server(&self, cpus: Cpus, memory: ByteSize) -> NewServer {
        let size = ServerSize { cpus, memory_bytes: memory, ..ServerSize::default() };
        NewServer { client: self.client.clone(), name: None, size, disk: None }
    }

    /// Compiles the source in a directory and runs it as a service on servers of its own, as `sampan up` does. To be
    /// awaited; what can be said of it is said before.
    pub fn deploy(&self, directory: impl Into<PathBuf>) -> Deploy {
        Deploy::new(&self.client, directory.into())
    }

    /// Runs an image as a service on servers of its own. To be awaited; what can be said of it is said before.
    pub fn run(&self, image: impl Into<String>) -> Run {
        Run::new(&self.client, image.into())
    }

    /// The server of this name, whoever made it.
    ///
    /// # Errors
    /// `not_found` as [`ClientError::Api`].
    pub async fn open_server(&self, name: &Label) -> Result<Server, ClientError> {
        self.client.server(name).await.map(|view| Server::new(&self.client, view.name))
    }
}

impl From<Client> for Cloud {
    fn from(client: Client) -> Self {
        Self { client }
    }
}

impl StartOptions {
    /// The daemon's options for a program that is not `sampan` itself: the binary that is found, and `SAMPAN_HTTP`.
    ///
    /// # Errors
    /// [`StartError::NoBinary`], [`StartError::Listen`].
    pub fn find() -> Result<Self, StartError> {
        let exe = crate::binary::find().ok_or(StartError::NoBinary)?;
        let http = match std::env::var("SAMPAN_HTTP") {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(|source| StartError::Listen { text, source })?),
            _ => None,
        };
        Ok(Self { exe, http })
    }
}

/// A server to be made: [`Cloud::server`].
#[derive(Debug, Clone)]
#[must_use = "a server is made by `create`"]
pub struct NewServer {
    client: Client,
    name: Option<Label>,
    size: ServerSize,
    disk: Option<Disk>,
}

impl NewServer {
    /// Its name, and its host name. One is made up where none is given.
    pub fn name(self, name: Label) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The most processes and threads on it: 4,096 unless said.
    pub fn pids(self, pids: u32) -> Self {
        Self { size: ServerSize { pids, ..self.size }, ..self }
    }

    /// Bounds what its containers write. Refused where the root's file system has no quota.
    pub fn disk(self, size: ByteSize) -> Self {
        Self { disk: Some(Disk { size_bytes: size, loop_mounted: false }), ..self }
    }

    /// Bounds what its containers write, by a file system in a file where there is no quota.
    pub fn loop_mounted_disk(self, size: ByteSize) -> Self {
        Self { disk: Some(Disk { size_bytes: size, loop_mounted: true }), ..self }
    }

    /// Makes the server. Where the future is dropped, a server that was made all the same is closed again, as long as
    /// the runtime goes on.
    ///
    /// # Errors
    /// `name_taken`, `too_large`, `no_server_left`… as [`ClientError::Api`].
    pub async fn create(self) -> Result<Server, ClientError> {
        let Self { client, name, size, disk } = self;
        let name = name.unwrap_or_else(made_up_name);
        let create = ServerCreate { name, size, disk };
        let making = {
            let client = client.clone();
            async move { client.create_server(&create).await }
        };
        let undo = {
            let client = client.clone();
            move |made: ServerView| -> Undoing {
                // nobody is left to be told what came of it
                Box::pin(async move { drop(client.close_server(&made.name).await) })
            }
        };
        OrUndone::new(making, undo).await.map(|made| Server::new(&client, made.name))
    }
}

/// A name that no other server has: 48 random bits.
fn made_up_name() -> Label {
    let mut bytes = [0; 6];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "the kernel gives up to 256 random bytes at once (getrandom(2))");
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Label::parse(&format!("server-{digits}")).expect("letters, a dash and digits are a label")
}
