//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sampan_client::{Listen, Root};
use sampan_model::{ByteSize, ContainerName, Cpus, ImageName, Label};

use super::failure::Failure;

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

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan up examples/hello-rust --memory 256MiB -e GREETING=hello")]
pub struct UpArgs {
    /// The directory of source, or a binary that is ready
    #[arg(value_name = "DIR", default_value = ".")]
    pub source: PathBuf,
    /// The service's name [default: sampan.toml's, else the directory's]
    #[arg(long)]
    pub name: Option<Label>,
    /// Which binary, where there are several
    #[arg(long)]
    pub bin: Option<String>,
    /// Which package of a workspace
    #[arg(long)]
    pub package: Option<String>,
    /// Processors of each replica's server [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Memory of each replica's server [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// The port the app listens on [default: found out]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How many run side by side [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: Option<u32>,
    /// Environment of the app; NAME alone takes the caller's value
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// A path that answers 2xx or 3xx when the app is ready [default: any answer to /]
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// How long the app may take until it is ready [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan ps -a --json")]
pub struct PsArgs {
    /// Those that have ended too
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan logs -f --tail 20 hello-rust")]
pub struct LogsArgs {
    /// Go on until it has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(long, short = 'n', value_name = "N")]
    pub tail: Option<usize>,
    /// Say when each line was written
    #[arg(long, short)]
    pub timestamps: bool,
    /// A service, or a container's name or id
    pub name: String,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "sampan run [OPTIONS] IMAGE [COMMAND]...",
    after_help = "Example:\n  sampan run --rm --memory 64MiB busybox echo hello"
)]
pub struct RunArgs {
    /// Do not wait for it; print its id
    #[arg(long, short)]
    pub detach: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Its name [default: one is made up]
    #[arg(long)]
    pub name: Option<ContainerName>,
    /// Environment; NAME alone takes the caller's value
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// Processors of its server [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Memory of its server [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// The image, then what replaces its command
    // one list, so that every word after the image is the command's, options that look like ours too
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub image_and_command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan stop job --timeout 5s")]
pub struct StopArgs {
    /// When it is killed, if it does not end
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of a root file system's tar archive
    #[command(after_help = "Example:\n  sampan image import rootfs.tar.gz busybox")]
    Import {
        /// The archive, plain or gzipped; '-' is standard input
        file: PathBuf,
        /// The image's name
        name: ImageName,
    },
    /// List images
    #[command(after_help = "Example:\n  sampan image ls --json")]
    Ls,
    /// Remove images
    #[command(after_help = "Example:\n  sampan image rm busybox")]
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<ImageName>,
    },
}

#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Start the daemon in the background
    #[command(after_help = "Example:\n  sampan daemon start --http 8080")]
    Start,
    /// Show the daemon and its processes
    #[command(after_help = "Example:\n  sampan daemon status --json")]
    Status,
    /// Stop every container and the daemon; what ran comes back at the next start
    #[command(after_help = "Example:\n  sampan daemon stop")]
    Stop,
    /// Replace the daemon by a fresh one of the present binary; apps run on
    #[command(after_help = "Example:\n  sampan daemon restart")]
    Restart,
}

/// `NAME=VALUE`, or `NAME` for the caller's own value.
fn parse_env(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => (text, value),
            Err(_) => return Err(format!("use NAME=VALUE; {text:?} is not set here either")),
        },
    };
    match name {
        "" => Err("the name before '=' is missing".into()),
        name => Ok((name.into(), value)),
    }
}

/// `60s`, `2m`, `500ms`, or a plain number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const RULE: &str = "use a number and a unit, such as 500ms, 60s or 2m";
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..unit_at].parse().map_err(|_| RULE)?;
    let seconds = match &text[unit_at..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(RULE.into()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| RULE.into())
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

    #[test]
    fn durations() {
        for (text, ms) in [("60s", 60_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1500), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1d", "1e9s", "99999999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
