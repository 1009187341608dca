//! Commands on volumes and files.

use clap::{Args, Subcommand};
use sampan_model::Label;

use super::parse::parse_env;

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make volumes
    #[command(after_help = "Example:\n  sampan volume create data --label tier=gold")]
    Create {
        /// What to tell them apart by
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
        label: Vec<(String, String)>,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// List volumes
    #[command(after_help = "Example:\n  sampan volume ls --json")]
    Ls,
    /// Print all there is to know about volumes, as JSON
    #[command(after_help = "Example:\n  sampan volume inspect data")]
    Inspect {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// Remove volumes and what is in them
    #[command(after_help = "Example:\n  sampan volume rm data")]
    Rm {
        /// Those that are not there are no mistake
        #[arg(long, short)]
        force: bool,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Label>,
    },
    /// Remove every volume that nothing uses
    #[command(after_help = "Example:\n  sampan volume prune --yes")]
    Prune {
        /// Do not ask
        #[arg(long, short, visible_alias = "force", visible_short_alias = 'f')]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(
    override_usage = "sampan cp [OPTIONS] CONTAINER:PATH PATH|-\n       sampan cp [OPTIONS] PATH|- CONTAINER:PATH",
    after_help = "Example:\n  sampan cp courses.1:/data/courses.db .\n  sampan cp site/. web:/srv\n  sampan cp web:/srv - | tar t",
    after_long_help = "Example:\n  sampan cp courses.1:/data/courses.db .\n  sampan cp site/. web:/srv\n  sampan cp web:/srv - | tar t\n\n\
        A directory is copied into one that is there, else to a new one of that name; with `/.` after it, its content alone \
        is. '-' is a tar archive on standard input or output. The container may be stopped."
)]
pub struct CpArgs {
    /// Keep owners, by number
    #[arg(long, short)]
    pub archive: bool,
    /// Copy what a link leads to, not the link
    #[arg(long, short = 'L')]
    pub follow_link: bool,
    /// From here
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// To here
    #[arg(value_name = "DEST", allow_hyphen_values = true)]
    pub dest: String,
}
