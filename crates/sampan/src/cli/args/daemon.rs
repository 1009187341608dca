//! `sampan daemon`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Have systemd run the daemon: at boot, and whenever it is asked for
    Install(InstallArgs),
    /// Take back what `install` wrote; apps are stopped, and nothing of the root is removed
    #[command(after_help = "Example:\n  sampan daemon uninstall")]
    Uninstall {
        /// Take it back below this directory, and leave systemd alone
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sampan daemon install --user alice --http 80\n\nWhoever may speak to the daemon may do as root on this machine, as with Docker's group."
)]
pub struct InstallArgs {
    /// Let this user speak to the daemon, as a member of the group sampan (several times for several)
    #[arg(long = "user", value_name = "NAME")]
    pub users: Vec<String>,
    /// Copy this binary to /usr/local/bin/sampan first
    #[arg(long, conflicts_with = "binary")]
    pub copy: bool,
    /// The binary that systemd runs [default: this one, where it is]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Write the files below this directory, and leave systemd alone: for packages
    #[arg(long, value_name = "DIR")]
    pub prefix: Option<PathBuf>,
    /// Print the files and write nothing
    #[arg(long, conflicts_with = "prefix")]
    pub print: bool,
}
