//! Commands on containers.

use std::time::Duration;

use clap::Args;
use sampan_model::{ByteSize, ContainerName, Cpus};

use super::parse::{parse_duration, parse_env};

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
