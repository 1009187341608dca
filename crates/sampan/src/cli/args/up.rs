//! `sampan up`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sampan_model::{ByteSize, Cpus, Label};

use super::parse::{parse_duration, parse_env};

#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  sampan up examples/hello-rust --memory 256MiB -e GREETING=hello")]
pub struct UpArgs {
    /// The directory of source, or a binary that is ready
    #[arg(value_name = "DIR", default_value = ".")]
    pub source: PathBuf,
    /// Of several services, only these
    #[arg(long, value_name = "NAME")]
    pub only: Vec<Label>,
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
    /// Run it on this server, not on servers of its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cpus", "memory", "replicas"])]
    pub server: Option<Label>,
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
