//! `sampan run` and `create`: an image on a server, in the foreground as if it were a program of this machine.

use std::time::Duration;

use sampan_client::{Client, ClientError, ProcessEvent};
use sampan_model::view::{ContainerCreate, ContainerView, ErrorView};

use super::args::{CreateCommandArgs, Globals, RunArgs};
use super::attend::{Attention, End, Signals, Target, attend};
use super::connect::connect;
use super::create::request;
use super::failure::Failure;
use super::output;
use super::timing::Timing;

/// Docker's exit codes for what is not the container's own doing.
pub const OURS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long a container has to end when nobody reads what it says any more.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// `sampan run`.
pub async fn run(globals: &Globals, args: RunArgs) -> Result<u8, Failure> {
    run_request(globals, args, None).await.map_err(|failure| failure.with_default_code(OURS))
}

/// `sampan run`, on a server of that name where one is given.
async fn run_request(globals: &Globals, args: RunArgs, server: Option<sampan_model::Label>) -> Result<u8, Failure> {
    let RunArgs { detach, timing, attend, create } = args;
    let mut timing = if timing { Timing::begun() } else { Timing::none() };
    let attention = Attention::new(attend, create.interactive, create.tty);
    let mut create = request(create)?;
    create.server = server.or(create.server);
    let mut signals = Signals::listen()?;
    let client = connect(globals).await?;
    timing.lap("command line");
    if detach {
        // one Ctrl-C comes too late: what was asked for is done
        let (container, _) = signals.hold(client.create_container(&create)).await?;
        let container = container.map_err(refused)?;
        timing.lap("until it runs");
        print_id(globals, &container)?;
        timing.print(globals, &container.timing);
        return Ok(0);
    }
    foreground(globals, &client, &create, &attention, &mut signals, timing).await
}

/// `sampan server run`.
pub async fn run_on(globals: &Globals, args: RunArgs, server: sampan_model::Label) -> Result<u8, Failure> {
    run_request(globals, args, Some(server)).await.map_err(|failure| failure.with_default_code(OURS))
}

/// `sampan create`.
pub async fn create(globals: &Globals, args: CreateCommandArgs) -> Result<(), Failure> {
    let create = request(args.create)?;
    let client = connect(globals).await?;
    print_id(globals, &client.create_container_unstarted(&create).await?)
}

fn print_id(globals: &Globals, container: &ContainerView) -> Result<(), Failure> {
    if globals.json { output::print_json(container) } else { output::print_lines([&container.id]) }
}

async fn foreground(
    globals: &Globals,
    client: &Client,
    create: &ContainerCreate,
    attention: &Attention,
    signals: &mut Signals,
    mut timing: Timing,
) -> Result<u8, Failure> {
    // one Ctrl-C waits until there is something to send it to
    let (stream, held) = signals.hold(client.run_attached(create)).await?;
    let stream = stream.map_err(refused)?;
    timing.lap("until it is asked for");
    let (mut container, mut steps) = (None, Vec::new());
    let told = |event: &ProcessEvent| match event {
        ProcessEvent::Created(view) => {
            container = Some(view.clone());
            timing.lap("until it is created");
        }
        ProcessEvent::Started { timing: daemons, .. } => {
            steps.clone_from(daemons);
            timing.lap("until it runs");
        }
        _ => {}
    };
    let end = attend(client, stream, Target::Container(None), attention, signals, held, told).await?;
    timing.lap("until it has ended");
    let Some(container) = container else {
        return Err(match end {
            End::Failed(error) => refused(ClientError::Api { status: 400, error }),
            End::Lost(error) => error.into(),
            End::Exited(_) | End::Detached | End::Unread => {
                Failure::new("the daemon does not say which container it is")
            }
        });
    };
    let name = container.name.as_str();
    match end {
        End::Exited(exit) => {
            timing.print(globals, &steps);
            if exit.oom_killed && !globals.quiet {
                let memory = container.server.memory_bytes;
                eprintln!("sampan: {name} ran out of memory, of which it has {memory}; --memory gives more");
            }
            exit.exit_code.ok_or_else(|| Failure::new(format!("the exit code of {name} is not known")))
        }
        End::Failed(error) => Err(failed_to_start(error)),
        End::Detached => {
            if !globals.quiet {
                eprintln!("sampan: left {name} to itself; `sampan attach {name}` attaches to it again");
            }
            Ok(0)
        }
        End::Unread => {
            // nobody reads what it says any more: it ends, as any program does
            match client.stop_container(container.id.as_str(), STOP_TIMEOUT).await {
                Err(error) if !error.is("not_found") => Err(error.into()),
                _ => Err(Failure::silent(BROKEN_PIPE)),
            }
        }
        End::Lost(error) => Err(lost(error, name)),
    }
}

/// The exit code of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// The connection is gone, the container is not.
pub fn lost(error: ClientError, name: &str) -> Failure {
    Failure::from(error).with_hint(format!(
        "{name} goes on: `sampan attach {name}` attaches to it again, `sampan logs {name}` prints what it said"
    ))
}

fn failed_to_start(error: ErrorView) -> Failure {
    refused(ClientError::Api { status: 400, error })
}

/// What could not be started, in Docker's exit codes.
pub fn refused(error: ClientError) -> Failure {
    let code = match () {
        () if error.is("not_found_executable") => NOT_FOUND,
        () if error.is("not_executable") => NOT_EXECUTABLE,
        () => OURS,
    };
    let takes_option = code == NOT_FOUND && error.to_string().starts_with("execute -");
    let failure = Failure::from(error).with_code(code);
    // the commonest slip of all: everything behind the image is the command's
    if takes_option { failure.with_hint(OPTIONS_FIRST) } else { failure }
}

const OPTIONS_FIRST: &str = "options go before the image or the name: `sampan run --rm IMAGE COMMAND`; \
                             what follows it is the command";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_docker_s() {
        for (code, expected) in
            [("not_found_executable", 127), ("not_executable", 126), ("start_failed", 125), ("not_found", 125)]
        {
            let error = ErrorView { code: code.into(), message: "no".into(), hint: None };
            assert_eq!(failed_to_start(error).parts().2, expected, "{code}");
        }
    }
}
