//! Containers: made, started, stopped, changed, attached to.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use sampan_model::{ByteSize, ContainerName, Cpus, Label, Mount, RestartPolicy};

use super::confine::ConfineArgs;
use super::mount::{parse_mount, parse_tmpfs, parse_volume};
use super::parse::{parse_duration, parse_env, parse_label, parse_restart};
use super::publish::{Published, parse_published};
use crate::cli::detach::DetachKeys;

/// What `run` and `create` share: all that a container is made of.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name [default: one is made up]
    #[arg(long)]
    pub name: Option<ContainerName>,
    /// Remove it when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Let standard input reach it
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Environment; NAME alone takes the caller's value
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// A file of environment, a NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Processors of its server [default: 1]
    #[arg(long, value_name = "N", help_heading = SIZE)]
    pub cpus: Option<Cpus>,
    /// Memory of its server [default: 512MiB]
    #[arg(long, short, value_name = "SIZE", help_heading = SIZE)]
    pub memory: Option<ByteSize>,
    /// Processes and threads of its server
    #[arg(long, value_name = "N", help_heading = SIZE)]
    pub pids_limit: Option<NonZeroU32>,
    /// What it may write to its own disk
    #[arg(long, value_name = "SIZE", help_heading = SIZE)]
    pub disk: Option<ByteSize>,
    /// Hold --disk with a file system in a file, where directories have no quota
    #[arg(long, requires = "disk", help_heading = SIZE)]
    pub disk_loop: bool,
    /// Run it on this server, not on one of its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["hostname", "disk"], help_heading = SIZE)]
    pub server: Option<Label>,
    /// Publish a port, on this machine only where no address is given
    #[arg(long, short, value_name = "[IP:][HOST:]PORT[/udp]", value_parser = parse_published, help_heading = OUTSIDE)]
    pub publish: Vec<Published>,
    /// Publish each port that the image declares, on a free one
    #[arg(long, short = 'P', help_heading = OUTSIDE)]
    pub publish_all: bool,
    /// Mount a volume, or a path that begins with / or ./
    #[arg(long, short, value_name = "SOURCE:TARGET[:ro]", value_parser = parse_volume, help_heading = OUTSIDE)]
    pub volume: Vec<Mount>,
    /// Mount, in more words: type=bind|volume|tmpfs,src=…,dst=…,readonly
    #[arg(long, value_name = "WORDS", value_parser = parse_mount, help_heading = OUTSIDE)]
    pub mount: Vec<Mount>,
    /// Mount memory
    #[arg(long, value_name = "TARGET[:size=SIZE,mode=MODE,exec,…]", value_parser = parse_tmpfs, help_heading = OUTSIDE)]
    pub tmpfs: Vec<Mount>,
    /// Let it write to its mounts only
    #[arg(long, help_heading = OUTSIDE)]
    pub read_only: bool,
    #[command(flatten)]
    pub confine: ConfineArgs,
    /// Its working directory [default: the image's]
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Its user, names or numbers [default: the image's]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Replace the image's entrypoint; '' is none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Its server's host name [default: its name]
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<Label>,
    /// Start it again when it has ended: no, on-failure, on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = parse_restart)]
    pub restart: Option<RestartPolicy>,
    /// Something to tell it apart by
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_label)]
    pub label: Vec<(String, String)>,
    /// Put a small first process in front, which reaps and hands signals on
    #[arg(long)]
    pub init: bool,
    /// The OCI runtime that executes it: one that the daemon finds by this name, or, of root, a path [default: sampan]
    #[arg(long, value_name = "NAME|/PATH")]
    pub runtime: Option<String>,
    /// The signal that asks it to end [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// There is nothing to pull from
    #[arg(long, hide = true, value_name = "POLICY", num_args = 0..=1, value_parser = refuse_to_pull)]
    pub pull: Option<String>,
    /// Print help
    // -h is the host name, as in Docker
    #[arg(long, action = ArgAction::HelpLong)]
    pub help: Option<bool>,
    /// The image, then what replaces its command
    // one list, so that every word after the image is the command's, options that look like ours too
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub image_and_command: Vec<String>,
}

const SIZE: &str = "Its size and place";
const OUTSIDE: &str = "What it sees of the outside";

fn refuse_to_pull(_: &str) -> Result<String, String> {
    Err("images are not fetched: bring one with `sampan image load -i FILE` or `sampan image import ROOTFS.tar NAME`"
        .into())
}

/// How a process is attended to in the foreground.
#[derive(Debug, Args)]
pub struct AttendArgs {
    /// Hand signals on to it; false: they end this command alone
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true, hide_default_value = true)]
    pub sig_proxy: bool,
    /// The keys that leave it to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<DetachKeys>,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "sampan run [OPTIONS] IMAGE [COMMAND]...",
    after_help = "Example:\n  sampan run --rm --memory 64MiB busybox echo hello\n  sampan run --rm -it busybox\n  sampan run -d --name web -p 8080:80 -v site:/www:ro nginx"
)]
pub struct RunArgs {
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
#[command(
    disable_help_flag = true,
    override_usage = "sampan create [OPTIONS] IMAGE [COMMAND]...",
    after_help = "Example:\n  sampan create --name job busybox sleep 60"
)]
pub struct CreateCommandArgs {
    #[command(flatten)]
    pub create: CreateArgs,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "sampan exec [OPTIONS] NAME COMMAND...",
    after_help = "Example:\n  sampan exec -it web sh\n  sampan exec -e LANG=C -w /srv web ls -l"
)]
pub struct ExecArgs {
    /// Do not wait for it
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Let standard input reach it
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Environment; NAME alone takes the caller's value
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// A file of environment, a NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Its working directory [default: the container's]
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Its user, names or numbers [default: the container's]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Give it every capability of the container's user namespace
    #[arg(long)]
    pub privileged: bool,
    /// The keys that leave it to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<DetachKeys>,
    /// The container (a service's first replica), then the command
    #[arg(value_name = "NAME COMMAND", required = true, num_args = 2.., trailing_var_arg = true)]
    pub name_and_command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan attach job\n  sampan attach --no-stdin --sig-proxy=false job")]
pub struct AttachArgs {
    /// Let no standard input reach it
    #[arg(long)]
    pub no_stdin: bool,
    #[command(flatten)]
    pub attend: AttendArgs,
    /// Its name or id
    pub name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan ssh web")]
pub struct SshArgs {
    /// A server, a service or a container
    pub name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan start job\n  sampan start -a job")]
pub struct StartArgs {
    /// Attach to it, and end as it ends
    #[arg(long, short)]
    pub attach: bool,
    /// Let standard input reach it; goes with --attach
    #[arg(long, short, requires = "attach")]
    pub interactive: bool,
    #[command(flatten)]
    pub attend: AttendArgs,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan stop job --timeout 5s")]
pub struct StopArgs {
    /// When it is killed, if it does not end
    #[arg(long, short, visible_alias = "time", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan restart job")]
pub struct RestartArgs {
    /// When it is killed, if it does not end
    #[arg(long, short, visible_alias = "time", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan kill -s HUP job")]
pub struct KillArgs {
    /// The signal, a name or a number
    #[arg(long, short, default_value = "KILL")]
    pub signal: String,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan update --memory 1GiB --restart always job")]
pub struct UpdateArgs {
    /// Processors
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Memory
    #[arg(long, short, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<NonZeroU32>,
    /// Start it again when it has ended: no, on-failure, on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = parse_restart)]
    pub restart: Option<RestartPolicy>,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan stats\n  sampan stats --no-stream --json web")]
pub struct StatsArgs {
    /// Once, not again and again
    #[arg(long)]
    pub no_stream: bool,
    /// Names or ids [default: all that run]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan port web\n  sampan port web 80/tcp")]
pub struct PortArgs {
    /// Its name or id
    pub name: String,
    /// The port inside, of which alone the addresses are printed
    #[arg(value_name = "PORT[/udp]")]
    pub port: Option<String>,
}

/// The same name given twice: the later one counts.
pub fn labels(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().collect()
}
