//! The words of the command line.

mod container;
mod daemon;
mod image;
mod parse;
mod up;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sampan_client::{Listen, Root};
use sampan_model::Label;

use super::failure::Failure;

pub use container::{LogsArgs, PsArgs, RunArgs, StopArgs};
pub use daemon::DaemonCommand;
pub use image::ImageCommand;
pub use up::UpArgs;

/// A container cloud in one binary
#[derive(Debug, Parser)]
#[command(
    name = "sampan",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  sampan up examples/hello-rust    from source to a URL\n  sampan ps                        what runs\n  sampan logs -f hello-rust        what it says"
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Where everything of this Sampan is kept [env: SAMPAN_ROOT] [default: /var/lib/sampan]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Options for every command")]
    pub root: Option<PathBuf>,
    /// Where services are reached, when the daemon is started: a port or an address [default: 8080 or the next free port]
    #[arg(
        long,
        global = true,
        value_name = "PORT",
        env = "SAMPAN_HTTP",
        hide_env_values = true,
        help_heading = "Options for every command"
    )]
    pub http: Option<Listen>,
    /// Print results as JSON
    #[arg(long, global = true, help_heading = "Options for every command")]
    pub json: bool,
    /// Print ids and names alone, and no progress
    #[arg(long, short, global = true, help_heading = "Options for every command")]
    pub quiet: bool,
}

impl Globals {
    /// The root that is meant.
    pub fn root(&self) -> Result<Root, Failure> {
        Root::resolve(self.root.clone()).map_err(|error| Failure::of(&error))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a directory of source and serve it
    Up(UpArgs),
    /// Remove services
    #[command(after_help = "Example:\n  sampan down hello-rust")]
    Down {
        /// The services' names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// List services and containers
    Ps(PsArgs),
    /// Print what a service or container has written
    Logs(LogsArgs),
    /// Print all there is to know about services and containers, as JSON
    #[command(after_help = "Example:\n  sampan inspect hello-rust")]
    Inspect {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Run an image on a server of its own
    Run(RunArgs),
    /// Import, list and remove images
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Stop containers
    Stop(StopArgs),
    /// Remove containers
    #[command(after_help = "Example:\n  sampan rm -f job")]
    Rm {
        /// Kill those that run
        #[arg(long, short)]
        force: bool,
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Wait until containers have ended and print their exit codes
    #[command(after_help = "Example:\n  sampan wait job")]
    Wait {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Start, stop and look at the daemon; without a further word, be the daemon
    #[command(after_help = "Example:\n  sampan daemon status")]
    Daemon {
        #[command(subcommand)]
        command: Option<DaemonCommand>,
    },
    /// Stop everything and remove all there is under the root
    #[command(after_help = "Example:\n  sampan purge --yes")]
    Purge {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Say what this machine offers and lacks
    #[command(after_help = "Example:\n  sampan doctor")]
    Doctor,
    /// Print the version
    #[command(after_help = "Example:\n  sampan version --json")]
    Version,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("sampan").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_whole_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_group = command.get_name() == "image";
            assert!(is_group || help.starts_with("Example:\n  sampan "), "{path}");
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                check(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        check(&Cli::command(), "sampan");
    }

    #[test]
    fn words_after_the_image_are_the_command_s() {
        let Ok(Command::Run(args)) = parse("run --rm -e A=b=c box sh -c -d --json --rm") else { panic!() };
        assert_eq!(args.image_and_command, ["box", "sh", "-c", "-d", "--json", "--rm"]);
        assert!(args.rm && !args.detach);
        assert_eq!(args.env, [("A".into(), "b=c".into())]);
        let Ok(Command::Run(args)) = parse("run box -d") else { panic!() };
        assert_eq!((args.image_and_command, args.detach), (vec!["box".into(), "-d".into()], false));
    }

    #[test]
    fn the_daemon_and_its_commands() {
        assert!(matches!(parse("daemon --root /r --http 0"), Ok(Command::Daemon { command: None })));
        assert!(matches!(
            parse("daemon --root /r status"),
            Ok(Command::Daemon { command: Some(DaemonCommand::Status) })
        ));
        assert!(matches!(parse("daemon status --json"), Ok(Command::Daemon { command: Some(DaemonCommand::Status) })));
    }

    #[test]
    fn wrong_words_are_answered_with_the_right_ones() {
        for (line, part) in [
            ("upp", "a similar subcommand exists: 'up'"),
            ("up --memmory 1", "--memory"),
            ("up --memory lots", "use a number and a unit, such as 512MiB or 8GiB"),
            ("up --port 0", "0 is not in 1..=65535"),
            ("up --http x", "use a port such as 8080"),
            ("down Hello", "use lower-case letters"),
            ("run -e =x box", "the name before '=' is missing"),
            ("up --timeout 1parsec", "such as 500ms"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
