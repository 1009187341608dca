//! The supervisor: parent of every container, the logger and the edge. One thread, one place where it waits.
//!
//! It forks, seals, reaps, journals pids and exits, and holds what must outlive the daemon: the containers' output
//! pipes and the edge's sockets and table. It decides nothing: what runs, and when again, is the daemon's business. It
//! waits on no lock, no child and no peer; what it writes to disk (the journal) is never synced.
//!
//! One daemon at a time is listened to: the one that said [`Request::Hello`](crate::wire::Request::Hello) last. Events
//! that nobody is there to hear are not kept; [`Welcome`](crate::wire::Welcome) tells the next daemon where everything is.
//!
//! ```text
//! start     the daemon's side: starts a supervisor, and waits until it listens
//! settings  what it is told on its command line
//! stage     its mount namespace: device nodes, a place for root file systems
//! server    the loop, and below it: daemons and their requests, containers, roles
//! namespaces  those of a server with several containers, and how one is cloned into them
//! container one container's first process, from clone to exit
//! launching another runtime starts it
//! exec      one more process of a container
//! starting  a child, of either, on its way to its program
//! output    what the logger is to be told
//! input     a container's standard input
//! role      the logger's and the edge's processes
//! peer      a socket that is never waited for
//! ```

mod container;
mod exec;
mod input;
mod launching;
mod namespaces;
mod output;
mod peer;
mod role;
mod server;
mod settings;
pub(crate) mod stage;
mod start;
mod starting;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(crate) use exec::ChildrenBeside;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use sampan_sys::{frame, process};

pub use start::{StartError, SupervisorConfig, start};

use crate::journal::{Journal, JournalError};
use server::Server;
use settings::Settings;

/// The supervisor's socket in the run directory.
pub const SOCKET: &str = "supervisor.sock";
/// What a supervisor holds locked in the run directory while it lives.
const LOCK: &str = "supervisor.lock";
const JOURNAL: &str = "journal";
const STAGE: &str = "stage";

/// What it says on standard output when it listens.
const READY: &str = "ready";

/// Why a supervisor could not begin, in words for the daemon's user.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("its command line is wrong: {0}")]
    Settings(#[from] settings::SettingsError),
    #[error("another supervisor runs for {}; stop it with `sampan daemon stop`", .0.display())]
    Taken(PathBuf),
    #[error(
        "it would pass a seccomp filter on to every container: this process was started under one; start the daemon \
         outside of that container or sandbox"
    )]
    Filtered,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{action} {path}")]
    Path {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{action}")]
    Kernel {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl BeginError {
    fn path(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Path { action, path: path.into(), source }
    }

    fn kernel<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { action, source: source.into() }
    }
}

/// The role `sampan supervisor KEY=VALUE…`; `args` are those after the role's name. Must be called with one thread.
///
/// It starts itself once more and ends, so that the one that stays is nobody's child, and tells on standard output
/// when it listens, or why it does not.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let result = match args.split_last() {
        Some((last, args)) if last == DETACHED => begin(args),
        _ => return detach(&args),
    };
    let error = match result {
        Ok(mut server) => match server.run() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => BeginError::kernel::<io::Error>("wait for events")(error),
        },
        Err(error) => error,
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    note(format_args!("{text}"));
    tell_starter(&text);
    ExitCode::FAILURE
}

/// To standard error, a file of the daemon's. A full disk must not end the parent of everything, as `eprintln` would.
fn note(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "supervisor: {text}");
}

/// To whoever started it, who may have gone.
fn tell_starter(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

const DETACHED: &str = "detached";

/// Starts itself once more, to be nobody's child; and through a read-only mount of its own program, because copies of
/// this process live in containers for a moment, and `--init`'s first process for good.
fn detach(args: &[OsString]) -> ExitCode {
    let start = |program: OwnedFd| {
        Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("sampan")
            .arg("supervisor")
            .args(args)
            .arg(DETACHED)
            .spawn()
    };
    match process::own_program().and_then(start) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tell_starter(&format!("start itself once more: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn begin(args: &[OsString]) -> Result<Server, BeginError> {
    let settings = Settings::parse(args)?;
    become_own_process(&settings)?;
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
    let lock = lock(&settings.run_dir)?;
    let logs = open_logs(&settings)?;
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(BeginError::kernel("read the boot's id"))?;
    let journal = Journal::open(&settings.run_dir.join(JOURNAL), boot.trim())?;
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(BeginError::kernel("open its own program"))?;
    crate::child::program::remember_own().map_err(BeginError::kernel("look at its own program"))?;
    let place = settings.run_dir.join(STAGE);
    let null = stage::set(&place).map_err(BeginError::path("set the stage at", &place))?;
    let path = settings.run_dir.join(SOCKET);
    let listener = frame::listen(&path, 0o600).map_err(BeginError::path("listen at", &path))?;

    let held = server::Held { _lock: lock, logs, program, null, socket: path };
    let server = Server::new(&settings, held, listener, journal).map_err(BeginError::kernel("watch its events"))?;
    tell_starter(READY);
    // from here on nobody listens to its standard output, nor may whoever did be kept from its end
    let null = server.null();
    rustix::stdio::dup2_stdin(null).map_err(BeginError::kernel("close its standard input"))?;
    let write_null = rustix::fs::open("null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(BeginError::kernel("close its standard output"))?;
    rustix::stdio::dup2_stdout(write_null.as_fd()).map_err(BeginError::kernel("close its standard output"))?;
    Ok(server)
}

/// Takes itself apart from whoever started it, so that it does not end with them.
fn become_own_process(settings: &Settings) -> Result<(), BeginError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(BeginError::kernel("read its own status"))?;
    if status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() != "0")) {
        return Err(BeginError::Filtered);
    }
    // started through /proc/self/exe, it would be listed as "exe"
    rustix::thread::set_name(c"sampan").map_err(BeginError::kernel("set its name"))?;
    process::close_from(3).map_err(BeginError::kernel("close what it was handed"))?;
    rustix::process::setsid().map_err(BeginError::kernel("begin a session"))?;
    for file in &settings.cgroup_files {
        std::fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut file| file.write_all(b"0"))
            .map_err(BeginError::path("join cgroup", file))?;
    }
    // a daemon that is spared when memory runs out must not have its containers spared with it
    let spared = Path::new("/proc/self/oom_score_adj");
    std::fs::write(spared, "0").map_err(BeginError::path("write", spared))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(BeginError::kernel("become the parent of orphans"))?;
    // some ten descriptors a container
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(BeginError::kernel("raise its limit of open files"))
}

fn lock(run_dir: &Path) -> Result<OwnedFd, BeginError> {
    let path = run_dir.join(LOCK);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| BeginError::path("open", &path)(errno.into()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BeginError::Taken(run_dir.into())),
        result => result.map_err(|errno| BeginError::path("lock", &path)(errno.into())).map(|()| file),
    }
}

/// The logs' directory is the logger's own.
fn open_logs(settings: &Settings) -> Result<OwnedFd, BeginError> {
    let path = &settings.log_dir;
    let open = || -> rustix::io::Result<OwnedFd> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Err(rustix::io::Errno::EXIST) => {}
            result => result?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let owner = settings.logger_id;
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
        rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
        Ok(directory)
    };
    open().map_err(|errno| BeginError::path("open the logs' directory", path)(errno.into()))
}
