//! What lists and prints: `ps`, `logs`.

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::time::parse_moment;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sampan ps -a --json\n  sampan ps --filter status=exited --filter label=app=web\n  sampan ps --format '{{.Names}}\\t{{.Status}}'"
)]
pub struct PsArgs {
    /// Those that have ended too
    #[arg(long, short)]
    pub all: bool,
    /// Only those for which this holds: name=, id=, status=, label=, server=, service=, image=
    #[arg(long, short, value_name = "WHAT=VALUE", value_parser = parse_filter)]
    pub filter: Vec<Filter>,
    /// Only the N that were made last, in whatever state
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "latest")]
    pub last: Option<usize>,
    /// Only the one that was made last, in whatever state
    #[arg(long, short)]
    pub latest: bool,
    /// 'json', 'table', or a line of text for each, with words such as {{.Names}} in it
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Whole ids and digests
    #[arg(long)]
    pub no_trunc: bool,
}

/// One condition of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub field: FilterField,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilterField {
    Name,
    Id,
    Status,
    Label,
    Server,
    Service,
    Image,
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    let (field, value) = text.split_once('=').ok_or("use WHAT=VALUE, such as status=exited")?;
    let field = FilterField::from_str(field, false).map_err(|_| {
        format!("{field:?} is nothing to filter by: use name, id, status, label, server, service, image")
    })?;
    if field == FilterField::Status && !STATUSES.contains(&value) {
        return Err(format!("{value:?} is no status: use {}", STATUSES.join(", ")));
    }
    Ok(Filter { field, value: value.to_owned() })
}

const STATUSES: [&str; 5] = ["created", "running", "paused", "exited", "removing"];

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan logs -f --tail 20 hello-rust\n  sampan logs --since 10m -t job")]
pub struct LogsArgs {
    /// Go on until it has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many of the last lines; 'all' is all
    #[arg(long, short = 'n', value_name = "N", value_parser = parse_tail, default_value = "all", hide_default_value = true)]
    pub tail: Tail,
    /// Only what was written since then: 2026-11-20T19:03:18Z, Unix seconds, 10m ago
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub since: Option<Timestamp>,
    /// Only what was written before
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<Timestamp>,
    /// Say when each line was written
    #[arg(long, short)]
    pub timestamps: bool,
    /// A service, or a container's name or id
    pub name: String,
}

/// How many lines; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail(pub Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        text => text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "use a number of lines, or 'all'".into()),
    }
}
