//! The words of the command line.

mod build;
mod confine;
mod container;
mod daemon;
mod image;
mod list;
mod mount;
mod parse;
mod publish;
mod server;
mod time;
mod up;
mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use sampan_client::{Listen, Root};
use sampan_model::{ContainerName, Label};

use super::failure::Failure;

pub use build::{BuildArgs, Output, OutputKind};
pub use container::{
    AttachArgs, AttendArgs, CreateArgs, CreateCommandArgs, ExecArgs, KillArgs, PortArgs, RestartArgs, RunArgs, SshArgs,
    StartArgs, StatsArgs, StopArgs, UpdateArgs, labels,
};
pub use daemon::{DaemonCommand, InstallArgs};
pub use image::{ImageCommand, LoadArgs, SaveArgs};
pub use list::{Filter, FilterField, LogsArgs, PsArgs};
pub use server::{ServerCommand, ServerCreateArgs, ServerResizeArgs, ServerRunArgs, ServerStopArgs};
pub use up::UpArgs;
pub use volume::{CpArgs, VolumeCommand};

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

impl Cli {
    /// Parses the command line. The words of all commands take a millisecond to put together, which those that people
    /// measure in milliseconds do without; what is not well said is parsed once more, among all words, for its story.
    pub fn parse_quickly() -> Result<Self, clap::Error> {
        if std::env::args_os().nth(1).is_some_and(|word| word == "run" || word == "exec")
            && let Ok(Quick { globals, command }) = Quick::try_parse()
        {
            let command = match command {
                QuickCommand::Run(args) => Command::Run(*args),
                QuickCommand::Exec(args) => Command::Exec(args),
            };
            return Ok(Self { globals, command });
        }
        Self::try_parse()
    }
}

#[derive(Parser)]
#[command(name = "sampan", disable_help_subcommand = true)]
struct Quick {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: QuickCommand,
}

#[derive(Subcommand)]
enum QuickCommand {
    Run(Box<RunArgs>),
    Exec(ExecArgs),
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
    /// Build a directory of source into an image
    Build(BuildArgs),
    /// Remove services
    #[command(after_help = "Example:\n  sampan down hello-rust")]
    Down {
        /// Remove their volumes too
        #[arg(long, short = 'v')]
        volumes: bool,
        /// The services' names [default: those of the directory you are in]
        #[arg(value_name = "NAME")]
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
    /// Make a container without starting it
    Create(CreateCommandArgs),
    /// Run one more process in a container
    Exec(ExecArgs),
    /// See what a container writes, and type to it
    Attach(AttachArgs),
    /// A shell in a server, a service or a container
    Ssh(SshArgs),
    /// Make, list, run on, resize, stop and close servers
    #[command(after_help = "Example:\n  sampan server create box --cpus 1 --memory 8GiB")]
    Server {
        #[command(subcommand)]
        command: ServerCommand,
    },
    /// List, save, load, check and remove images
    #[command(after_help = "Example:\n  sampan image ls")]
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Make, list and remove volumes
    #[command(after_help = "Example:\n  sampan volume create data")]
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },
    /// Copy files in and out of a container
    Cp(CpArgs),
    /// Start containers that do not run
    Start(StartArgs),
    /// Stop containers
    Stop(StopArgs),
    /// Send containers a signal
    Kill(KillArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    /// Freeze containers
    #[command(after_help = "Example:\n  sampan pause job")]
    Pause {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Let frozen containers go on
    #[command(after_help = "Example:\n  sampan unpause job")]
    Unpause {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
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
    /// Give a container another name
    #[command(after_help = "Example:\n  sampan rename job old-job")]
    Rename {
        /// Its name or id
        name: String,
        /// Its new name
        #[arg(value_name = "NEW")]
        new: ContainerName,
    },
    /// Change containers while they are there
    Update(UpdateArgs),
    /// List a container's processes
    #[command(after_help = "Example:\n  sampan top job")]
    Top {
        /// Its name or id
        name: String,
    },
    /// Show what containers use
    Stats(StatsArgs),
    /// List a container's published ports
    Port(PortArgs),
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
    /// Print a shell's completions
    #[command(after_help = "Example:\n  sampan completions bash > /etc/bash_completion.d/sampan")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual's pages into a directory, or print the main one
    #[command(after_help = "Example:\n  sampan man /usr/local/share/man/man1")]
    Man {
        /// The directory
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
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

    /// Every command, with its path.
    fn every_command(mut visit: impl FnMut(&str, &clap::Command)) {
        let mut left = vec![(String::from("sampan"), Cli::command())];
        while let Some((path, command)) = left.pop() {
            visit(&path, &command);
            let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help");
            left.extend(inner.map(|inner| (format!("{path} {}", inner.get_name()), inner.clone())));
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        every_command(|path, command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n  sampan "), "{path}");
        });
    }

    #[test]
    fn every_example_can_be_typed() {
        every_command(|path, command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for example in help.lines().filter(|line| line.starts_with("  ")) {
                for line in commands_of(example) {
                    if let Err(error) = Cli::try_parse_from(shell_words(line)) {
                        panic!("{path}: {line}: {error}");
                    }
                }
            }
        });
    }

    /// The commands of ours in a line for a shell: what is said about it, after four blanks, left out.
    fn commands_of(example: &str) -> Vec<&str> {
        let line = example.trim().split("    ").next().unwrap_or_default();
        let commands = line.split(" && ").flat_map(|command| command.split(" | "));
        let commands = commands.map(|command| command.split(['>', '<', '#']).next().unwrap_or_default().trim());
        commands.filter(|command| command.starts_with("sampan ")).collect()
    }

    /// Words as a shell splits them, as far as examples need it: blanks, and quotes around a part.
    fn shell_words(line: &str) -> Vec<String> {
        let (mut words, mut quote) = (vec![String::new()], None);
        for c in line.chars() {
            let word = words.last_mut().expect("there is always a word");
            match c {
                _ if quote == Some(c) => quote = None,
                '\'' | '"' if quote.is_none() => quote = Some(c),
                ' ' if quote.is_none() && word.is_empty() => {}
                ' ' if quote.is_none() => words.push(String::new()),
                _ => word.push(c),
            }
        }
        words
    }

    #[test]
    fn words_after_the_image_are_the_command_s() {
        let Ok(Command::Run(args)) = parse("run --rm -e A=b=c box sh -c -d --json --rm") else { panic!() };
        assert_eq!(args.create.image_and_command, ["box", "sh", "-c", "-d", "--json", "--rm"]);
        assert!(args.create.rm && !args.detach);
        assert_eq!(args.create.env, [("A".into(), "b=c".into())]);
        let Ok(Command::Run(args)) = parse("run box -d") else { panic!() };
        assert_eq!((args.create.image_and_command, args.detach), (vec!["box".into(), "-d".into()], false));
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
            ("run -p http box", "use [IP:][HOST:]CONTAINER[/udp]"),
            ("run -v data box", "use NAME:/target"),
            ("run --restart maybe box", "unless-stopped"),
            ("run --pull always box", "sampan image load"),
            ("run --disk-loop box", "--disk"),
            ("ps --filter colour=red", "nothing to filter by"),
            ("ps --filter status=up", "use created, running, paused, exited, removing"),
            ("logs --since yesterday web", "how long ago"),
            ("server resize box", "--cpus"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
