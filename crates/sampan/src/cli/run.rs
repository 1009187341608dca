//! `sampan run`: an image on a server of its own, in the foreground as if it were a program of this machine.

use std::time::Duration;

use sampan_client::{Client, ClientError, LogOptions, Output};
use sampan_model::view::{ContainerCreate, ContainerView, Exit};
use sampan_model::{ContainerName, ServerSize};
use tokio::io::AsyncWriteExt as _;

use super::args::{Globals, RunArgs};
use super::connect::connect;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::output;

/// Docker's exit codes for what is not the container's own doing.
const OURS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long a container has to end after Ctrl-C.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(globals: &Globals, args: RunArgs) -> Result<u8, Failure> {
    foreground(globals, args).await.map_err(|failure| failure.with_default_code(OURS))
}

async fn foreground(globals: &Globals, args: RunArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let client = connect(globals).await?;
    let detach = args.detach;
    let create = request(args);
    // one Ctrl-C waits until there is something to stop
    let container = interrupts.hold(client.create_container(&create)).await?.map_err(refused)?;
    if detach {
        if globals.json {
            output::print_json(&container)?;
        } else {
            output::print_lines([&container.id])?;
        }
        return Ok(0);
    }
    let exit = attend(&client, &container, &mut interrupts).await?;
    if exit.oom_killed && !globals.quiet {
        let memory = container.server.memory_bytes;
        eprintln!("sampan: {} ran out of memory, of which it has {memory}; --memory gives more", container.name);
    }
    exit.exit_code.ok_or_else(|| Failure::new(format!("the exit code of {} is not known", container.name)))
}

fn request(args: RunArgs) -> ContainerCreate {
    let RunArgs { rm, name, env, cpus, memory, image_and_command, detach: _ } = args;
    let mut words = image_and_command.into_iter();
    let default = ServerSize::default();
    ContainerCreate {
        name,
        image: words.next().expect("clap requires one word"),
        command: words.collect(),
        env,
        size: ServerSize {
            cpus: cpus.unwrap_or(default.cpus),
            memory_bytes: memory.unwrap_or(default.memory_bytes),
            ..default
        },
        remove_at_exit: rm,
        ..ContainerCreate::default()
    }
}

/// A container that could not be started, in Docker's exit codes.
fn refused(error: ClientError) -> Failure {
    let code = match () {
        () if error.is("not_found_executable") => NOT_FOUND,
        () if error.is("not_executable") => NOT_EXECUTABLE,
        () => OURS,
    };
    Failure::from(error).with_code(code)
}

/// Passes on what the container says until it has ended. Ctrl-C asks it to end, once more kills it.
async fn attend(client: &Client, container: &ContainerView, interrupts: &mut Interrupts) -> Result<Exit, Failure> {
    let id = container.id.as_str();
    let ended = async {
        match copy_output(client, id).await {
            Ok(()) => {}
            // nobody reads what it says any more, as with any program
            Err(CopyError::Reader) => client.stop_container(id, STOP_TIMEOUT).await?,
            Err(CopyError::Client(error)) => return Err(error),
        }
        // only now: a container that is removed at its end is removed when it has been waited for
        client.wait_container(id).await
    };
    tokio::pin!(ended);
    tokio::select! {
        exit = &mut ended => return Ok(exit?),
        () = interrupts.first() => {}
    }
    let stopped = stop(client, &container.name, STOP_TIMEOUT);
    tokio::pin!(stopped);
    let mut is_stopped = false;
    loop {
        tokio::select! {
            exit = &mut ended => return Ok(exit?),
            () = interrupts.next() => break,
            result = &mut stopped, if !is_stopped => {
                result?;
                is_stopped = true;
            }
        }
    }
    stop(client, &container.name, Duration::ZERO).await?;
    Ok(ended.await?)
}

async fn stop(client: &Client, name: &ContainerName, timeout: Duration) -> Result<(), ClientError> {
    match client.stop_container(name.as_str(), timeout).await {
        Err(error) if error.is("not_found") => Ok(()),
        other => other,
    }
}

enum CopyError {
    /// Nobody reads our own output.
    Reader,
    Client(ClientError),
}

/// Copies the container's output to ours, byte for byte, until it has ended.
async fn copy_output(client: &Client, id: &str) -> Result<(), CopyError> {
    let mut entries = client.logs(id, LogOptions { follow: true, tail: None }).await.map_err(CopyError::Client)?;
    // on threads of their own: a reader that does not read must not keep us from hearing Ctrl-C
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(CopyError::Client)?;
        let written = match entry.output {
            Output::Stdout => write(&mut stdout, &entry.bytes).await,
            Output::Stderr => write(&mut stderr, &entry.bytes).await,
        };
        written.map_err(|_| CopyError::Reader)?;
    }
    Ok(())
}

async fn write(out: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

#[cfg(test)]
mod tests {
    use sampan_model::view::ErrorView;

    use super::*;

    #[test]
    fn exit_codes_are_docker_s() {
        for (code, expected) in
            [("not_found_executable", 127), ("not_executable", 126), ("start_failed", 125), ("not_found", 125)]
        {
            let error = ErrorView { code: code.into(), message: "no".into(), hint: None };
            assert_eq!(refused(ClientError::Api { status: 400, error }).parts().2, expected, "{code}");
        }
    }
}
