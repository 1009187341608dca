//! The command line: words in, requests to the daemon through `sampan-client`, words out.
//!
//! It decides nothing and keeps nothing. Results go to standard output, everything that is said about them to
//! standard error; `--json` prints the API's own values.
//!
//! Exit codes: 0; 1 a failure; 2 a wrong command line; `run`, `exec`, `attach`, `ssh`: the process's own, 125 ours, 126
//! cannot be executed, 127 not found; 130 after Ctrl-C.

mod age;
mod args;
mod attach;
mod attend;
mod build;
mod completions;
mod connect;
mod containers;
mod cp;
mod create;
mod daemon;
mod destination;
mod detach;
mod doctor;
mod down;
mod exec;
mod failure;
mod format;
mod image;
mod install;
mod interrupt;
mod logs;
mod man;
mod mistakes;
mod output;
mod progress;
mod ps;
mod purge;
mod run;
mod server;
mod stats;
mod table;
mod terminal;
mod timing;
mod up;
mod volume;

use std::process::ExitCode;

use args::{Cli, Command, DaemonCommand, Globals};
use failure::Failure;

pub use failure::print_error;

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    timing::begin();
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = match Cli::parse_quickly() {
        Ok(cli) => cli,
        Err(error) => return mistakes::explain(&error, &words).report(),
    };
    // the one command that becomes another role, with a runtime of its own
    if let Command::Daemon { command: None } = cli.command {
        return serve(cli.globals);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("start: {error}")).report(),
    };
    let result = runtime.block_on(dispatch(&cli.globals, cli.command));
    // a write to a pipe that nobody reads may still be under way on its thread: it is not waited for
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// The daemon in the foreground (or in the background, where somebody waits for its word).
fn serve(globals: Globals) -> ExitCode {
    let ready = match crate::ready::Ready::take() {
        Ok(ready) => ready,
        Err(error) => return Failure::new(format!("detach from whoever started the daemon: {error}")).report(),
    };
    match globals.root() {
        Ok(root) => crate::daemon::main(crate::ready::DaemonArgs { root, http: globals.http, ready }),
        Err(failure) => failure.report(),
    }
}

async fn dispatch(globals: &Globals, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Up(args) => return up::up(globals, args).await,
        Command::Build(args) => return build::build(globals, args).await,
        Command::Run(args) => return run::run(globals, args).await,
        Command::Create(args) => run::create(globals, args).await?,
        Command::Exec(args) => return exec::exec(globals, args).await,
        Command::Attach(args) => return attach::attach(globals, args).await,
        Command::Ssh(args) => return exec::ssh(globals, args).await,
        Command::Server { command } => return server::server(globals, command).await,
        Command::Down { names, volumes } => down::down(globals, names, volumes).await?,
        Command::Ps(args) => ps::ps(globals, args).await?,
        Command::Logs(args) => logs::logs(globals, args).await?,
        Command::Inspect { names } => containers::inspect(globals, &names).await?,
        Command::Volume { command } => volume::volume(globals, command).await?,
        Command::Cp(args) => cp::cp(globals, args).await?,
        Command::Start(args) => return attach::start(globals, args).await,
        Command::Stop(args) => containers::stop(globals, args).await?,
        Command::Kill(args) => containers::kill(globals, args).await?,
        Command::Restart(args) => containers::restart(globals, args).await?,
        Command::Pause { names } => containers::pause(globals, &names).await?,
        Command::Unpause { names } => containers::unpause(globals, &names).await?,
        Command::Rename { name, new } => containers::rename(globals, &name, &new).await?,
        Command::Update(args) => containers::update(globals, args).await?,
        Command::Top { name } => stats::top(globals, &name).await?,
        Command::Stats(args) => stats::stats(globals, args).await?,
        Command::Port(args) => containers::port(globals, args).await?,
        Command::Rm { force, names } => containers::rm(globals, force, &names).await?,
        Command::Wait { names } => containers::wait(globals, &names).await?,
        Command::Image { command } => return image::image(globals, command).await,
        Command::Daemon { command } => match command {
            Some(DaemonCommand::Start) => daemon::start(globals).await?,
            Some(DaemonCommand::Status) => daemon::status(globals).await?,
            Some(DaemonCommand::Stop) => daemon::stop(globals).await?,
            Some(DaemonCommand::Restart) => daemon::restart(globals).await?,
            Some(DaemonCommand::Install(args)) => install::install(globals, args).await?,
            Some(DaemonCommand::Uninstall { prefix }) => install::uninstall(globals, prefix.as_deref())?,
            None => unreachable!("the daemon itself was told apart before"),
        },
        Command::Purge { yes } => purge::purge(globals, yes).await?,
        Command::Doctor => return doctor::doctor(globals).await,
        Command::Version => output::version(globals)?,
        Command::Completions { shell } => completions::completions(shell)?,
        Command::Man { directory } => man::man(directory.as_deref())?,
    }
    Ok(0)
}
