//! Compiling a source with the machine's own toolchain, as the caller and with the caller's caches.
//!
//! The compiler's words go to where [`Progress`] says, live and untouched; nothing of them is kept. What cargo built
//! is read from its messages (`--message-format=json`) and never guessed from a directory's layout, so that a
//! `target-dir` or a `build.target` that somebody configured is right by itself.
//!
//! What is built is the same wherever, by whomever and whenever it is built: see `remap.rs` for Rust.
//! Go is compiled with `CGO_ENABLED=0` (a program that needs no library of the machine), `-trimpath` and
//! `-buildvcs=false` (the same source gives the same program in every directory and at every commit; a `.git` that
//! git refuses to read cannot fail the build). The flags need Go 1.18. The program is kept in our cache directory:
//! `go build` leaves an up-to-date one alone.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use sampan_image::TIME;
use serde::Deserialize;

use crate::Progress;
use crate::detect::{CargoBinary, GoMain, Source, SourceKind, ToolMissing};
use crate::elf::{self, WrongArchitecture};
use crate::environment::Environment;

/// A program, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Its file.
    pub path: PathBuf,
    /// Its name in the image.
    pub name: String,
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler is not there.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// The compiler could not be started.
    #[error("cannot run `{command}`")]
    NotRun {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The compiler refused the source, in its own words, which went where they go.
    #[error("the source in {} does not compile: `{command}` ended with {status}; its own words are above", directory.display())]
    Failed {
        /// Where it ran.
        directory: PathBuf,
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Its messages could not be read.
    #[error("cannot read what `{command}` says")]
    Unclear {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It succeeded and named no program.
    #[error("`{command}` ended well but built no program {bin:?}")]
    NoProgram {
        /// The command line.
        command: String,
        /// The program that it was to build.
        bin: String,
    },
    /// There is nowhere to put Go's program.
    #[error("no directory for the compiled program: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// The directory for Go's program cannot be made.
    #[error("cannot make the directory {} for the compiled program", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file server of a static site is nowhere.
    #[error("the sampan program, which serves static sites, is not on PATH: install it there, or say where it is")]
    NoFileServer,
    /// It was built for another processor: a cross-compiling default is configured.
    #[error(transparent)]
    WrongArchitecture(#[from] WrongArchitecture),
    /// [`Interrupt::raise`] was called.
    #[error("interrupted")]
    Interrupted,
}

/// Stops a compiler from another thread. Clones are the same switch.
///
/// On a terminal, the compiler stays in our process group: Ctrl-C reaches it and all that it started directly, and it
/// may ask for a passphrase, which a group in the background may not. Away from a terminal it runs in a group of its
/// own, all of which [`raise`](Self::raise) stops.
#[derive(Debug, Clone)]
pub struct Interrupt {
    own_group: bool,
    state: Arc<Mutex<InterruptState>>,
}

#[derive(Debug, Default)]
struct InterruptState {
    raised: bool,
    /// The compiler that runs now. Emptied before it is reaped, so that the number cannot have become somebody else's.
    running: Option<Pid>,
}

impl Default for Interrupt {
    /// For whichever our standard input is, a terminal or not.
    fn default() -> Self {
        Self { own_group: !io::stdin().is_terminal(), state: Arc::default() }
    }
}

impl Interrupt {
    /// For a program that no terminal's Ctrl-C is meant for.
    pub fn away_from_terminal() -> Self {
        Self { own_group: true, state: Arc::default() }
    }

    /// Interrupts the compiler, as Ctrl-C would; one that is to start later does not start.
    pub fn raise(&self) {
        let mut state = self.state();
        state.raised = true;
        if let Some(pid) = state.running {
            // it may have ended in this moment, which is what was wanted
            let _ = if self.own_group {
                rustix::process::kill_process_group(pid, Signal::INT)
            } else {
                rustix::process::kill_process(pid, Signal::INT)
            };
        }
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.state().raised
    }

    fn state(&self) -> std::sync::MutexGuard<'_, InterruptState> {
        // nothing that holds the lock can leave the state half-changed
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles `source`; a ready program is taken as it is.
///
/// # Errors
/// [`CompileError`].
pub fn compile(
    source: &Source,
    env: &Environment,
    progress: &mut dyn Progress,
    interrupt: Option<&Interrupt>,
) -> Result<Binary, CompileError> {
    let path = match &source.kind {
        SourceKind::Cargo(binary) => cargo(source, binary, env, progress, interrupt)?,
        SourceKind::Go(main) => go(source, main, env, progress, interrupt)?,
        SourceKind::Executable(path) => path.clone(),
        SourceKind::Site => env.sampan().ok_or(CompileError::NoFileServer)?,
    };
    // a file that cannot be read now is an error of the next step, which reads all of it
    elf::check_architecture(&path, elf::kind(&path).unwrap_or(elf::Kind::Other))?;
    Ok(Binary { path, name: source.program() })
}

fn cargo(
    source: &Source,
    binary: &CargoBinary,
    env: &Environment,
    progress: &mut dyn Progress,
    interrupt: Option<&Interrupt>,
) -> Result<PathBuf, CompileError> {
    let build = &source.manifest.build;
    let mut command = env.command("cargo");
    command.arg("build");
    match &build.profile {
        Some(profile) => command.args(["--profile", profile]),
        None => command.arg("--release"),
    };
    command.args(["--package", &binary.package, "--bin", &binary.bin]);
    if !build.features.is_empty() {
        command.args(["--features", &build.features.join(",")]);
    }
    let words = words(&command);
    command.arg("--message-format=json-render-diagnostics");
    crate::remap::apply(&mut command, binary, &source.path, env);

    let mut executable = None;
    run(
        Run { command, words: &words, directory: &source.path, tool: ToolMissing::CARGO },
        progress,
        interrupt,
        |line| {
            if let Ok(Message::CompilerArtifact { target, manifest_path, executable: Some(path) }) =
                serde_json::from_str(line)
                && target.name == binary.bin
                && manifest_path == binary.manifest_path
                && target.kind.iter().any(|kind| kind == "bin")
            {
                executable = Some(path);
            }
        },
    )?;
    executable.ok_or(CompileError::NoProgram { command: words, bin: binary.bin.clone() })
}

/// The messages of cargo that count (Cargo Book, "External tools", JSON messages).
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        target: Target,
        manifest_path: PathBuf,
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn go(
    source: &Source,
    main: &GoMain,
    env: &Environment,
    progress: &mut dyn Progress,
    interrupt: Option<&Interrupt>,
) -> Result<PathBuf, CompileError> {
    let cache = env.cache_directory().ok_or(CompileError::NoCache)?;
    let directory = cache.join("go").join(cache_key(source, main));
    std::fs::create_dir_all(&directory)
        .map_err(|error| CompileError::Cache { path: directory.clone(), source: error })?;
    let program = directory.join(&main.name);

    let mut command = env.command("go");
    // for this machine, whatever else is being cross-compiled in this shell
    command.env("CGO_ENABLED", "0").env_remove("GOOS").env_remove("GOARCH");
    command.args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(&program).args(&main.arguments);
    let words = words(&command);
    run(Run { command, words: &words, directory: &source.path, tool: ToolMissing::GO }, progress, interrupt, |_| {})?;
    Ok(program)
}

/// One directory for each main package of each source.
fn cache_key(source: &Source, main: &GoMain) -> String {
    use sha2::{Digest as _, Sha256};
    use std::os::unix::ffi::OsStrExt as _;

    let mut hash = Sha256::new();
    hash.update(source.path.as_os_str().as_bytes());
    for argument in &main.arguments {
        hash.update([0]);
        hash.update(argument);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Run<'a> {
    command: Command,
    words: &'a str,
    directory: &'a Path,
    tool: ToolMissing,
}

/// Runs a compiler to its end, giving every line of its standard output to `line`.
fn run(
    run: Run<'_>,
    progress: &mut dyn Progress,
    interrupt: Option<&Interrupt>,
    mut line: impl FnMut(&str),
) -> Result<(), CompileError> {
    let Run { mut command, words, directory, tool } = run;
    progress.compiling(words);
    if command.get_envs().all(|(name, _)| name != "SOURCE_DATE_EPOCH") {
        // for build scripts and C compilers that write down when they ran (reproducible-builds.org, version 1.1)
        command.env("SOURCE_DATE_EPOCH", TIME.to_string());
    }
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(progress.compiler_output());
    let mut child = start(&mut command, interrupt)?.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CompileError::ToolMissing(tool),
        _ => CompileError::NotRun { command: words.into(), source },
    })?;
    let unclear = |source| CompileError::Unclear { command: words.into(), source };

    let stdout = child.stdout.take().expect("its standard output was made a pipe above");
    let mut read = Ok(());
    for text in BufReader::new(stdout).split(b'\n') {
        match text {
            Ok(text) => line(&String::from_utf8_lossy(&text)),
            Err(error) => {
                read = Err(error);
                break;
            }
        }
    }
    let status = reap(child, interrupt).map_err(unclear)?;
    if interrupt.is_some_and(Interrupt::is_raised) {
        return Err(CompileError::Interrupted);
    }
    read.map_err(unclear)?;
    if status.success() {
        Ok(())
    } else {
        Err(CompileError::Failed { directory: directory.into(), command: words.into(), status })
    }
}

fn start(command: &mut Command, interrupt: Option<&Interrupt>) -> Result<io::Result<Child>, CompileError> {
    use std::os::unix::process::CommandExt as _;

    let Some(interrupt) = interrupt else { return Ok(command.spawn()) };
    // under the lock, so that whoever raises it either prevents the start or knows whom to stop
    let mut state = interrupt.state();
    if state.raised {
        return Err(CompileError::Interrupted);
    }
    if interrupt.own_group {
        command.process_group(0);
    }
    Ok(command.spawn().inspect(|child| state.running = Some(Pid::from_child(child))))
}

fn reap(mut child: Child, interrupt: Option<&Interrupt>) -> io::Result<ExitStatus> {
    if let Some(interrupt) = interrupt {
        // leaves the zombie, and with it its number, until nobody can send it a signal any more
        let wait = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = rustix::process::waitid(WaitId::Pid(Pid::from_child(&child)), wait) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        interrupt.state().running = None;
    }
    child.wait()
}

/// The command line for people, without the variables.
fn words(command: &Command) -> String {
    struct Words<'a>(&'a Command);
    impl fmt::Display for Words<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0.get_program().to_string_lossy())?;
            self.0.get_args().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
        }
    }
    Words(command).to_string()
}
