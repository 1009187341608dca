//! `sampan daemon`.

use clap::Subcommand;

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
