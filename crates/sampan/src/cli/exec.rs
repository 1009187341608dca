//! `sampan exec` and `ssh`: one more process in a running container.

use std::io::IsTerminal as _;

use sampan_client::{Client, ClientError};
use sampan_model::view::ExecCreate;
use sampan_model::{ContainerStatus, Label};

use super::args::{ExecArgs, Globals, SshArgs};
use super::attend::{Attention, End, Signals, Target, attend};
use super::connect::connect;
use super::create::environment;
use super::detach::DetachKeys;
use super::failure::Failure;
use super::run::{OURS, refused};
use super::{output, terminal};

/// `sampan exec`.
pub async fn exec(globals: &Globals, args: ExecArgs) -> Result<u8, Failure> {
    exec_request(globals, args).await.map_err(|failure| failure.with_default_code(OURS))
}

async fn exec_request(globals: &Globals, args: ExecArgs) -> Result<u8, Failure> {
    terminal::require(args.tty, args.interactive)?;
    let mut words = args.name_and_command.into_iter();
    let name = words.next().expect("clap requires two words");
    let create = ExecCreate {
        command: words.collect(),
        env: environment(&args.env_file, args.env)?,
        user: args.user,
        working_dir: args.workdir,
        privileged: args.privileged,
        stdin: args.interactive,
        terminal: args.tty,
        terminal_size: args.tty.then(terminal::size).flatten(),
        detach: args.detach,
    };
    let keys = args.detach_keys.unwrap_or_default();
    let attention = Attention { stdin: args.interactive, terminal: args.tty, proxy: true, keys };
    let mut signals = Signals::listen()?;
    let client = connect(globals).await?;
    if create.detach {
        let (started, _) = signals.hold(client.exec_detached(&name, &create)).await?;
        let started = started.map_err(refused)?;
        return if globals.json { output::print_json(&started).map(|()| 0) } else { Ok(0) };
    }
    let container = container_of(&client, name).await?;
    attended(&client, &container, &create, &attention, &mut signals).await
}

/// A service's name means its first replica.
async fn container_of(client: &Client, name: String) -> Result<String, Failure> {
    match client.container(&name).await {
        Ok(view) => Ok(view.id.to_string()),
        Err(error) if error.is("not_found") => {
            first_container(client, &name).await.map(|found| found.unwrap_or(name)).map_err(Failure::from)
        }
        Err(error) => Err(error.into()),
    }
}

/// The first running container of the service or server of that name.
async fn first_container(client: &Client, name: &str) -> Result<Option<String>, ClientError> {
    let Ok(label) = Label::parse(name) else { return Ok(None) };
    let mut containers = match client.service(&label).await {
        Ok(service) => service.replicas,
        Err(error) if error.is("not_found") => match client.server(&label).await {
            Ok(server) => server.containers,
            Err(error) if error.is("not_found") => return Ok(None),
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    containers.retain(|container| container.state.status == ContainerStatus::Running);
    // one that answers is the better one to look into
    containers.sort_by_key(|container| (container.ready == Some(false), container.created_at));
    Ok(containers.first().map(|container| container.id.to_string()))
}

async fn attended(
    client: &Client,
    container: &str,
    create: &ExecCreate,
    attention: &Attention,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let (stream, held) = signals.hold(client.exec(container, create)).await?;
    let stream = stream.map_err(refused)?;
    match attend(client, stream, Target::Process, attention, signals, held, |_| {}).await? {
        End::Exited(exit) => exit.exit_code.ok_or_else(|| Failure::new("the process's exit code is not known")),
        End::Failed(error) => Err(refused(ClientError::Api { status: 400, error })),
        End::Detached => Ok(0),
        End::Unread => Err(Failure::silent(0)),
        End::Lost(error) => Err(Failure::from(error).with_hint("the process goes on, and cannot be attached to again")),
    }
}

/// The shells that are looked for, the better one first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// `sampan ssh`.
pub async fn ssh(globals: &Globals, args: SshArgs) -> Result<u8, Failure> {
    shell(globals, &args.name).await.map_err(|failure| failure.with_default_code(OURS))
}

async fn shell(globals: &Globals, name: &str) -> Result<u8, Failure> {
    let terminal = std::io::stdin().is_terminal();
    let attention = Attention { stdin: true, terminal, proxy: true, keys: DetachKeys::default() };
    let mut signals = Signals::listen()?;
    let client = connect(globals).await?;
    // a server before a container: that is what the word says
    let container = match first_container(&client, name).await? {
        Some(container) => container,
        None => match client.container(name).await {
            Ok(view) => view.id.to_string(),
            Err(error) if error.is("not_found") => return Err(nothing_to_look_into(&client, name, error).await),
            Err(error) => return Err(error.into()),
        },
    };
    for program in SHELLS {
        let create = ExecCreate {
            command: vec![program.into()],
            stdin: true,
            terminal,
            terminal_size: if terminal { terminal::size() } else { None },
            ..ExecCreate::default()
        };
        let (stream, held) = signals.hold(client.exec(&container, &create)).await?;
        match stream {
            Err(error) if error.is("not_found_executable") => {}
            Err(error) => return Err(refused(error)),
            Ok(stream) => {
                let end = attend(&client, stream, Target::Process, &attention, &mut signals, held, |_| {}).await?;
                match end {
                    End::Failed(error) if error.code == "not_found_executable" => {}
                    End::Failed(error) => return Err(refused(ClientError::Api { status: 400, error })),
                    End::Exited(exit) => return Ok(exit.exit_code.unwrap_or(OURS)),
                    End::Detached | End::Unread => return Ok(0),
                    End::Lost(error) => return Err(error.into()),
                }
            }
        }
    }
    Err(Failure::new(format!("there is no shell in {name}: its image has neither {} nor {}", SHELLS[0], SHELLS[1]))
        .with_hint(format!(
            "`sampan exec {name} PROGRAM` runs what is there, `sampan cp {name}:/PATH .` takes files out, \
             `sampan logs {name}` shows what it says"
        )))
}

/// A server without containers is there, and has no shell all the same.
async fn nothing_to_look_into(client: &Client, name: &str, error: ClientError) -> Failure {
    match Label::parse(name) {
        Ok(label) if client.server(&label).await.is_ok() => {
            Failure::new(format!("no container runs on the server {name}, and a shell runs in one"))
                .with_hint(format!("`sampan server run {name} -d IMAGE` runs one"))
        }
        _ => error.into(),
    }
}
