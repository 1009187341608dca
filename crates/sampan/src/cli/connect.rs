//! The way to the daemon, which is started where none runs; as root, where that takes asking, announced.

use std::io::IsTerminal as _;

use sampan_client::{Client, ClientError, Root, StartError, StartOptions, ensure_started};

use super::args::Globals;
use super::failure::Failure;

/// The client to speak through. Root's is made without a look at the daemon: its first request finds out.
pub async fn connect(globals: &Globals) -> Result<Client, Failure> {
    let root = globals.root()?;
    let options = start_options(globals)?;
    if !rustix::process::geteuid().is_root() {
        start_as_root(&root, &options).await?;
    }
    Ok(Client::on_demand(&root, &options))
}

/// Fails where there is no daemon and none could be started: before hours of compiling, not after them.
pub async fn check_possible(globals: &Globals) -> Result<(), Failure> {
    let root = globals.root()?;
    match Client::connect(&root).await {
        Err(ClientError::NoDaemon { .. }) if !rustix::process::geteuid().is_root() && !can_ask() => {
            Err(ClientError::Start(StartError::NeedsRoot { root: root.path().into() }).into())
        }
        Ok(_) | Err(ClientError::NoDaemon { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What a daemon is started with.
pub fn start_options(globals: &Globals) -> Result<StartOptions, Failure> {
    let exe = crate::process::own_binary().map_err(|error| Failure::new(format!("find our own binary: {error}")))?;
    Ok(StartOptions { exe, http: globals.http })
}

/// Whether there is somebody who can be asked for root's rights.
fn can_ask() -> bool {
    std::io::stdin().is_terminal() && on_path("sudo")
}

/// Whether a program is found in `PATH`.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| {
        rustix::fs::access(directory.join(program), rustix::fs::Access::EXEC_OK).is_ok()
            && directory.join(program).is_file()
    })
}

/// The contract's one moment of privilege: sudo, announced, for the daemon alone.
async fn start_as_root(root: &Root, options: &StartOptions) -> Result<(), Failure> {
    match ensure_started(root, options).await {
        Err(StartError::NeedsRoot { .. }) if can_ask() => {}
        other => return other.map_err(|error| ClientError::Start(error).into()),
    }
    // sudo's `/proc/self/exe` would be sudo; whoever may write at the path is who gives root's rights away here
    let exe = crate::process::own_path().ok().flatten();
    let exe = exe.ok_or_else(|| Failure::new("start the daemon: sampan's own binary was removed"))?;
    let mut command = tokio::process::Command::new("sudo");
    command.arg(exe).args(["daemon", "start", "--quiet"]).arg("--root").arg(root.path());
    if let Some(listen) = options.http {
        command.arg("--http").arg(listen.to_string());
    }
    let words: Vec<_> = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    eprintln!("sampan: the daemon needs root; running: sudo {}", words.join(" "));
    match command.status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("sudo could not start the daemon ({status})"))),
        Err(error) => Err(Failure::new(format!("run sudo: {error}"))),
    }
}
