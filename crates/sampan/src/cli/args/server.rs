//! `sampan server`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sampan_model::{ByteSize, Cpus, Label};

use super::container::{AttendArgs, CreateArgs};
use super::parse::parse_duration;

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Make a server
    Create(ServerCreateArgs),
    /// List servers
    #[command(after_help = "Example:\n  sampan server ls --json")]
    Ls,
    /// Print all there is to know about servers, as JSON
    #[command(after_help = "Example:\n  sampan server inspect box")]
    Inspect {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// Run an image on a server
    Run(Box<ServerRunArgs>),
    /// Build a directory of source and serve it on a server
    #[command(after_help = "Example:\n  sampan server deploy box examples/hello-rust")]
    Deploy {
        /// The server
        name: Label,
        /// The directory of source, or a binary that is ready
        #[arg(value_name = "DIR", default_value = ".")]
        source: PathBuf,
        /// The service's name [default: sampan.toml's, else the directory's]
        #[arg(long = "name", id = "service", value_name = "NAME")]
        service: Option<Label>,
    },
    /// Give a server another size, while it runs too
    Resize(ServerResizeArgs),
    /// End what runs on servers; their disks stay
    Stop(ServerStopArgs),
    /// Start servers and what ran on them
    #[command(after_help = "Example:\n  sampan server start box")]
    Start {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// Remove servers and everything on them
    #[command(visible_alias = "rm", after_help = "Example:\n  sampan server close box")]
    Close {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan server create box --cpus 1 --memory 8GiB --disk 10GiB")]
pub struct ServerCreateArgs {
    /// Its name, and its host name
    pub name: Label,
    /// Processors [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Memory [default: 512MiB]
    #[arg(long, short, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<std::num::NonZeroU32>,
    /// What its containers may write
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<ByteSize>,
    /// Hold --disk with a file system in a file, where directories have no quota
    #[arg(long, requires = "disk")]
    pub disk_loop: bool,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "sampan server run NAME [OPTIONS] IMAGE [COMMAND]...",
    after_help = "Example:\n  sampan server run box -d nginx"
)]
pub struct ServerRunArgs {
    /// The server
    #[arg(id = "on", value_name = "NAME")]
    pub on: Label,
    /// Do not wait for it; print its id
    #[arg(long, short)]
    pub detach: bool,
    /// Say on standard error where the time went, step by step
    #[arg(long)]
    pub timing: bool,
    #[command(flatten)]
    pub attend: AttendArgs,
    #[command(flatten)]
    pub create: CreateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan server resize box --memory 16GiB")]
pub struct ServerResizeArgs {
    /// Its name
    pub name: Label,
    /// Processors
    #[arg(long, value_name = "N", required_unless_present_any = ["memory", "pids_limit"])]
    pub cpus: Option<Cpus>,
    /// Memory
    #[arg(long, short, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<std::num::NonZeroU32>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan server stop box")]
pub struct ServerStopArgs {
    /// When containers are killed that do not end
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<Label>,
}
