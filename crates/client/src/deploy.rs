//! Putting an app somewhere: from a directory of source, or from an image that is there.
//!
//! ```text
//! prepare ─▶ pack      on a thread, as this user     dropped: the compiler is stopped
//!   ─▶ upload                                        dropped: blobs are left that nothing names; the daemon collects them
//!   ─▶ put the service ─▶ App                        dropped: goes on to its end, and is given up then
//! ```

use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;

use sampan_model::name::NameError;
use sampan_model::view::{Deploy as Deployed, ErrorView};
use sampan_model::{Digest, Health, ImageName, Label, ServerSize, ServiceSpec};
use sampan_pack::{Environment, Interrupt, Options, PackError, Packed, Prepared, Progress, prepare};

use crate::undo::{OrUndone, Undoing};
use crate::{App, Client, ClientError};

/// Why there is no app.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// No image could be made of the source.
    #[error(transparent)]
    Pack(Box<PackError>),
    /// There is no place for its files.
    #[error("make a directory for an image's files")]
    Scratch(#[source] std::io::Error),
    /// The image's name is none, or no service's name can be made of it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The daemon refused, or went away.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It did not become ready and was given up; what was before is as it was.
    #[error("{name} did not become ready: {}", error.message)]
    Failed {
        /// The app.
        name: Label,
        /// Why, and what to do next.
        error: ErrorView,
        /// Its last lines.
        log_tail: Vec<String>,
    },
}

impl DeployError {
    /// What to do next, for people.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Failed { error, .. } => error.hint.clone(),
            Self::Pack(_) | Self::Scratch(_) | Self::Name(_) => None,
        }
    }
}

impl From<PackError> for DeployError {
    fn from(error: PackError) -> Self {
        Self::Pack(Box::new(error))
    }
}

/// An app to be made from source: [`Server::deploy`](crate::Server::deploy), [`Cloud::deploy`](crate::Cloud::deploy).
///
/// Awaiting it gives an [`App`] as soon as the daemon has taken it; [`App::http`] waits until it answers. Where it is
/// dropped before, it is given up as `sampan up` gives it up on Ctrl-C: whatever was there before goes on.
#[derive(Debug, Clone)]
#[must_use = "nothing is deployed until it is awaited"]
pub struct Deploy {
    client: Client,
    directory: PathBuf,
    server: Option<Label>,
    options: Options,
    is_quiet: bool,
}

impl Deploy {
    pub(crate) fn new(client: &Client, directory: PathBuf) -> Self {
        Self { client: client.clone(), directory, server: None, options: Options::default(), is_quiet: false }
    }

    pub(crate) fn on(self, server: &Label) -> Self {
        Self { server: Some(server.clone()), ..self }
    }

    /// Its name; `sampan.toml`'s, else the directory's, where none is given.
    pub fn name(mut self, name: Label) -> Self {
        self.options.name = Some(name);
        self
    }

    /// A variable of its environment, beside those in `sampan.toml`.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.push((name.into(), value.into()));
        self
    }

    /// The port that it answers HTTP on; found out where it is not given.
    pub fn port(mut self, port: u16) -> Self {
        self.options.port = Some(port);
        self
    }

    /// Keeps the compiler's words off this program's standard error.
    pub fn quiet(self) -> Self {
        Self { is_quiet: true, ..self }
    }

    async fn carry_out(self) -> Result<App, DeployError> {
        let Self { client, directory, server, options, is_quiet } = self;
        let (prepared, image) = pack(directory, options, is_quiet).await?;
        upload(&client, &image.packed).await?;
        let said = prepared.source.manifest.size.clone();
        let mut spec = prepared.settings.into_spec(image.packed.manifest.clone());
        if let Some(name) = server {
            let whole = client.server(&name).await?;
            // what the source leaves open is all that the server has
            spec.size = ServerSize {
                cpus: said.cpus.unwrap_or(whole.cpus),
                memory_bytes: said.memory.unwrap_or(whole.memory_bytes),
                pids: whole.pids,
            };
            spec.server = Some(name);
        }
        put(&client, spec, Some(image)).await
    }
}

impl IntoFuture for Deploy {
    type Output = Result<App, DeployError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.carry_out())
    }
}

/// An app to be made from an image: [`Server::run`](crate::Server::run), [`Cloud::run`](crate::Cloud::run).
///
/// Awaited and dropped as a [`Deploy`].
#[derive(Debug, Clone)]
#[must_use = "nothing runs until it is awaited"]
pub struct Run {
    client: Client,
    image: String,
    server: Option<Label>,
    name: Option<Label>,
    command: Vec<String>,
    env: Vec<(String, String)>,
    port: Option<u16>,
}

impl Run {
    pub(crate) fn new(client: &Client, image: String) -> Self {
        let client = client.clone();
        Self { client, image, server: None, name: None, command: Vec::new(), env: Vec::new(), port: None }
    }

    pub(crate) fn on(self, server: &Label) -> Self {
        Self { server: Some(server.clone()), ..self }
    }

    /// Its name; the image's own, without path and tag, where none is given.
    pub fn name(self, name: Label) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Replaces the image's entrypoint and command.
    pub fn command(self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { command: words.into_iter().map(Into::into).collect(), ..self }
    }

    /// A variable of its environment, beside the image's.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The port that it answers HTTP on; found out where it is not given.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    async fn carry_out(self) -> Result<App, DeployError> {
        let Self { client, image, server, name, command, env, port } = self;
        let image = ImageName::parse(&image)?;
        let name = match name {
            Some(name) => name,
            None => own_name(&image)?,
        };
        let manifest = client.image(&image).await?.image.digest;
        let size = match &server {
            Some(server) => {
                let whole = client.server(server).await?;
                ServerSize { cpus: whole.cpus, memory_bytes: whole.memory_bytes, pids: whole.pids }
            }
            None => ServerSize::default(),
        };
        let spec = ServiceSpec { size, command, env: env.into_iter().collect(), port, server, ..bare(name, manifest) };
        put(&client, spec, None).await
    }
}

impl IntoFuture for Run {
    type Output = Result<App, DeployError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.carry_out())
    }
}

/// The name of an app from this image: `hello` of `team/hello:1.2`.
fn own_name(image: &ImageName) -> Result<Label, NameError> {
    let path = image.as_str().rsplit_once(':').map_or(image.as_str(), |(path, _)| path);
    let last = path.rsplit('/').next().unwrap_or(path);
    Label::from_directory_name(last).map_or_else(|| Label::parse(last), Ok)
}

/// A service of an image, and nothing said beside.
fn bare(name: Label, image: Digest) -> ServiceSpec {
    let spec = serde_json::json!({ "name": name, "source": null, "image": image });
    let spec: Result<ServiceSpec, _> = serde_json::from_value(spec);
    spec.map(|spec| ServiceSpec { health: Health::default(), ..spec }).expect("all else has a default")
}

/// An image's files, removed when nobody needs them any more.
struct Image {
    packed: Packed,
    _directory: tempfile::TempDir,
}

/// Raised when nobody waits for the compiler any more.
struct StopCompiler(Interrupt);

impl Drop for StopCompiler {
    fn drop(&mut self) {
        self.0.raise();
    }
}

async fn pack(directory: PathBuf, options: Options, is_quiet: bool) -> Result<(Prepared, Arc<Image>), DeployError> {
    let interrupt = Interrupt::default();
    let _stop = StopCompiler(interrupt.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let environment = Environment::of_caller();
        let environment = match crate::binary::find() {
            Some(sampan) => environment.with_sampan(sampan),
            None => environment,
        };
        let scratch = tempfile::Builder::new().prefix("sampan-deploy-").tempdir().map_err(DeployError::Scratch)?;
        let prepared = prepare(&directory, &options, &environment)?;
        let packed = prepared.pack(&environment, scratch.path(), &mut Voice { is_quiet }, Some(&interrupt))?;
        Ok((prepared, Arc::new(Image { packed, _directory: scratch })))
    });
    match packing.await {
        Ok(packed) => packed,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Where the compiler speaks.
struct Voice {
    is_quiet: bool,
}

impl Progress for Voice {
    fn compiler_output(&mut self) -> Stdio {
        if self.is_quiet { Stdio::null() } else { Stdio::inherit() }
    }
}

/// Sends what the daemon does not have.
async fn upload(client: &Client, packed: &Packed) -> Result<(), ClientError> {
    for blob in &packed.blobs {
        client.upload_blob(&blob.digest, &blob.path, |_| {}).await?;
    }
    Ok(())
}

/// Asks for the service; given up again where nobody hears that it was taken.
async fn put(client: &Client, spec: ServiceSpec, image: Option<Arc<Image>>) -> Result<App, DeployError> {
    let putting = {
        let client = client.clone();
        async move {
            match (client.put_service(&spec).await, image) {
                // collected in the moment before it was of use
                (Err(error), Some(image)) if error.is("blob_missing") => {
                    upload(&client, &image.packed).await?;
                    client.put_service(&spec).await
                }
                (put, _) => put,
            }
        }
    };
    let undo = {
        let client = client.clone();
        // it does nothing to a version that is ready; and nobody is left to be told what came of it
        move |put: Deployed| -> Undoing {
            Box::pin(async move { drop(client.give_up_deploy(&put.name, put.version).await) })
        }
    };
    let deployed = OrUndone::new(putting, undo).await?;
    Ok(App::new(client, deployed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_named_after_their_image() {
        for (image, name) in [("hello", "hello"), ("team/My.app:1.2".to_lowercase().as_str(), "my-app")] {
            assert_eq!(own_name(&ImageName::parse(image).unwrap()).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_bare_service_has_every_default() {
        let spec = bare(Label::parse("x").unwrap(), Digest::from_sha256([1; 32]));
        assert_eq!((spec.replicas, spec.size), (1, ServerSize::default()));
    }
}
