//! `sampan oci …`: the OCI runtime with runc's commands, flags and exit codes, for Docker, containerd and Podman to name
//! as theirs. A program whose own name is `sampan-oci` (a link to this one) is this from its first word on.
//!
//! Neither clap nor tokio is touched: each command of a container's life is a process of its own, and starts at once.
//! What a command does is in [`sampan_runtime::oci`]; here are words and their answers.

mod arguments;
mod container;
mod exec;
mod list;
mod log;
mod spec;
mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;
use sampan_runtime::oci::{self, Root};

use self::arguments::Arguments;
use self::log::{Form, Log};

/// Where containers are kept, unless `--root` says otherwise.
const ROOT: &str = "/run/sampan-oci";

/// What comes before the command.
struct Global {
    root: Root,
    log: Log,
}

/// How a command ended.
enum Done {
    /// Well.
    Well,
    /// As a process did.
    Code(u8),
}

/// Does what `args` say: the words behind `oci`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words = Arguments::new(args);
    let mut global = Global { root: Root::new(ROOT), log: Log::default() };
    let command = match begin(&mut words, &mut global) {
        Ok(Some(command)) => command,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            global.log.error(&text(&error));
            return ExitCode::FAILURE;
        }
    };
    global.log.debug(&format!("command {command}"));
    match run(&command, &global, words) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Code(code)) => code.into(),
        Err(error) => {
            global.log.error(&text(&error));
            // as runc: a process that ended with 1 is to be told from one that never was
            if command == "exec" { ExitCode::from(255) } else { ExitCode::FAILURE }
        }
    }
}

/// An error with its causes.
fn text(error: &anyhow::Error) -> String {
    error.downcast_ref::<oci::OciError>().map_or_else(|| format!("{error:#}"), oci::OciError::line)
}

/// Reads up to the command; `None`: all that was asked was told.
fn begin(words: &mut Arguments, global: &mut Global) -> Result<Option<String>> {
    let (mut file, mut form, mut debug) = (None, Form::Text, false);
    let mut root = None;
    let command = loop {
        match words.next()? {
            Some(Long("root")) => root = Some(words.value()?),
            Some(Long("log")) => file = Some(words.value()?),
            Some(Long("log-format")) => form = words.value()?.parse()?,
            Some(Long("debug")) => debug = true,
            // accepted: whether the caller is root is seen, and there is no checkpointing
            Some(Long("rootless")) => words.optional_value(),
            Some(Long("criu")) => drop(words.value()?),
            Some(Long("systemd-cgroup")) => {
                global.log = Log::open(file, form, debug)?;
                bail!(
                    "--systemd-cgroup: this runtime makes cgroups itself (the cgroupfs driver); tell its caller so: Docker \
                     {{\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]}}, Podman --cgroup-manager=cgroupfs, containerd \
                     SystemdCgroup = false"
                );
            }
            Some(Short('v') | Long("version")) => {
                println!("sampan-oci version {}\nspec: {}", env!("CARGO_PKG_VERSION"), oci::config::VERSION);
                return Ok(None);
            }
            Some(Short('h') | Long("help")) => {
                print!("{HELP}");
                return Ok(None);
            }
            Some(Value(command)) => break command.string()?,
            Some(other) => return Err(other.unexpected().into()),
            None => {
                print!("{HELP}");
                return Ok(None);
            }
        }
    };
    if let Some(root) = root {
        global.root = Root::new(root);
    }
    global.log = Log::open(file, form, debug)?;
    Ok(Some(command))
}

fn run(command: &str, global: &Global, words: Arguments) -> Result<Done> {
    match command {
        "create" => container::create(global, words),
        "run" => container::run(global, words),
        "start" => container::start(global, words),
        "kill" => container::kill(global, words),
        "delete" => container::delete(global, words),
        "pause" => container::pause(global, words),
        "resume" => container::resume(global, words),
        "exec" => exec::exec(global, words),
        "state" => list::state(global, words),
        "list" => list::list(global, words),
        "ps" => list::ps(global, words),
        "events" => list::events(global, words),
        "update" => update::update(global, words),
        "spec" => spec::spec(words),
        "features" => spec::features(words),
        "help" => {
            print!("{HELP}");
            Ok(Done::Well)
        }
        "checkpoint" | "restore" => bail!("{command}: this runtime makes no checkpoints"),
        other => bail!("there is no command {other:?}; `sampan oci help` lists them"),
    }
}

const HELP: &str = "\
The OCI runtime of Sampan: runs bundles (a config.json and a root file system) with runc's words.

Usage: sampan oci [GLOBAL] COMMAND [FLAGS] [ID] [ARGUMENTS]

  create ID    make a container that waits    [-b DIR] [--console-socket PATH] [--pid-file PATH] [--no-pivot]
                                              [--no-new-keyring] [--preserve-fds N]
  start ID     execute its program
  run ID       both, and stay until it ends   as create, and [-d] [--keep]
  exec ID CMD  one more process in it         [-p FILE] [--cwd DIR] [-e NAME=VALUE] [-t] [-u UID[:GID]] [-g GID] [-d]
                                              [-c CAPABILITY] [--no-new-privs] [--pid-file PATH] [--preserve-fds N]
                                              [--console-socket PATH] [--cgroup PATH] [--ignore-paused]
  kill ID [S]  send a signal (TERM)           [-a]
  delete ID    take away what is left of it   [-f]
  pause ID, resume ID
  update ID    change what it may use         [-r FILE] or [--memory BYTES] [--cpu-quota US] [--pids-limit N] …
  state ID, list, ps ID                       list and ps: [-f table|json]; list: [-q]
  events ID    what it has used               [--stats] [--interval 5s]
  spec         write a config.json            [-b DIR] [--rootless]
  features     what this runtime can do

Global: --root DIR (/run/sampan-oci), --log FILE, --log-format text|json, --debug, --version
docs/oci.md says how Docker, containerd and Podman are told to use it.
";
