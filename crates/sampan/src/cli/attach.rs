//! `sampan attach` and `start`.

use std::io::IsTerminal as _;

use sampan_client::ClientError;
use sampan_model::view::ContainerView;

use super::args::{AttachArgs, AttendArgs, Globals, StartArgs};
use super::attend::{Attention, End, Signals, Target, attend};
use super::connect::connect;
use super::containers::each;
use super::failure::Failure;
use super::run::{lost, refused};

/// `sampan attach`.
pub async fn attach(globals: &Globals, args: AttachArgs) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let client = connect(globals).await?;
    let container = client.container(&args.name).await?;
    let stdin = !args.no_stdin && container.stdin;
    let attention = attention(args.attend, &container, stdin)?;
    let (stream, held) = signals.hold(client.attach(container.id.as_str(), stdin)).await?;
    let target = Target::Container(Some(container.id.to_string()));
    let end = attend(&client, stream.map_err(refused)?, target, &attention, &mut signals, held, |_| {}).await?;
    ended(globals, &container, end)
}

fn attention(args: AttendArgs, container: &ContainerView, stdin: bool) -> Result<Attention, Failure> {
    if container.terminal && stdin && !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("{} has a terminal, and standard input is none", container.name))
            .with_hint("`--no-stdin` only shows what it writes"));
    }
    Ok(Attention::new(args, stdin, container.terminal))
}

fn ended(globals: &Globals, container: &ContainerView, end: End) -> Result<u8, Failure> {
    let name = container.name.as_str();
    match end {
        End::Exited(exit) => {
            exit.exit_code.ok_or_else(|| Failure::new(format!("the exit code of {name} is not known")))
        }
        End::Failed(error) => Err(refused(ClientError::Api { status: 400, error })),
        End::Detached => {
            if !globals.quiet {
                eprintln!("sampan: left {name} to itself; `sampan attach {name}` attaches to it again");
            }
            Ok(0)
        }
        End::Unread => Err(Failure::silent(0)),
        End::Lost(error) => Err(lost(error, name)),
    }
}

/// `sampan start`.
pub async fn start(globals: &Globals, args: StartArgs) -> Result<u8, Failure> {
    if args.attach {
        return start_attached(globals, args).await;
    }
    let client = connect(globals).await?;
    each(globals, "started", &args.names, async |name| match client.start_container(name).await {
        // what is wanted is so
        Err(error) if error.is("running") => Ok(()),
        other => other.map(drop),
    })
    .await?;
    Ok(0)
}

async fn start_attached(globals: &Globals, args: StartArgs) -> Result<u8, Failure> {
    let [name] = args.names.as_slice() else {
        return Err(Failure::new("one container can be attached to at a time").with_code(2));
    };
    let mut signals = Signals::listen()?;
    let client = connect(globals).await?;
    let container = client.container(name).await?;
    let stdin = args.interactive && container.stdin;
    let attention = attention(args.attend, &container, stdin)?;
    let (stream, held) = signals.hold(client.start_attached(container.id.as_str(), stdin)).await?;
    let target = Target::Container(Some(container.id.to_string()));
    let end = attend(&client, stream.map_err(refused)?, target, &attention, &mut signals, held, |_| {}).await?;
    ended(globals, &container, end)
}
