//! `sampan purge`: everything under a root, gone.
//!
//! The daemon takes apart what lives outside the root (processes, cgroups, interfaces, rules, mounts); it is started for
//! that where none runs. What is left then are files, and only those that are Sampan's own names are removed: a root
//! that somebody put into a directory with other things in it keeps those.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use sampan_client::{Client, ClientError, Root, ensure_started};

use super::args::Globals;
use super::connect::{connect, start_options};
use super::daemon::Processes;
use super::failure::Failure;
use super::install::listen_anew;

/// Everything that Sampan makes in a root.
const OWN_NAMES: [&str; 11] = [
    "run",
    "records.db",
    "records.db-wal",
    "records.db-shm",
    "blobs",
    "layers",
    "containers",
    "logs",
    "tmp",
    "daemon.log",
    "supervisor.log",
];

pub async fn purge(globals: &Globals, yes: bool) -> Result<(), Failure> {
    let root = globals.root()?;
    let path = root.path().display();
    match find(&root)? {
        Found::Nothing => {
            if !globals.quiet {
                eprintln!("there is nothing of sampan at {path}");
            }
            return Ok(());
        }
        Found::Foreign => {
            let message = format!("{path} is no root of sampan: it has neither records nor a daemon's sockets");
            return Err(Failure::new(message).with_hint("name the root to purge with --root"));
        }
        Found::Root => {}
    }
    if !yes {
        confirm(&root)?;
    }
    take_apart(globals, &root).await?;
    let others = remove_files(&root)?;
    listen_anew(&root)?;
    if !globals.quiet {
        match others {
            true => eprintln!("purged {path}; it stays, for there are other files in it"),
            false => eprintln!("purged {path}"),
        }
    }
    Ok(())
}

enum Found {
    Nothing,
    Root,
    Foreign,
}

/// What is at the root: records or sockets are the mark of one of ours.
fn find(root: &Root) -> Result<Found, Failure> {
    let has = |path: &Path| {
        path.try_exists().map_err(|error| {
            let failure = Failure::new(format!("look into {}: {error}", path.display()));
            failure.with_hint(format!("run `sudo sampan purge --root {}`", root.path().display()))
        })
    };
    let in_root = ["records.db", "layers", "daemon.log"].map(|name| root.path().join(name));
    for mark in in_root.into_iter().chain([root.run_dir().join("daemon.lock"), root.socket()]) {
        if has(&mark)? {
            return Ok(Found::Root);
        }
    }
    let is_empty = || fs::read_dir(root.path()).is_ok_and(|mut entries| entries.next().is_none());
    Ok(if !has(root.path())? || is_empty() { Found::Nothing } else { Found::Foreign })
}

fn confirm(root: &Root) -> Result<(), Failure> {
    let path = root.path().display();
    if !io::stdin().is_terminal() {
        let message = format!("purging {path} removes every service, container, image and log there");
        return Err(Failure::new(message).with_hint("say that it is meant with --yes"));
    }
    eprint!("This stops and removes every service, container, image and log of {path}. Go on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was removed")),
    }
}

/// Has the daemon take apart what lives outside the root.
async fn take_apart(globals: &Globals, root: &Root) -> Result<(), Failure> {
    let client = match find_daemon(root).await {
        Ok(client) => client,
        // one that was just killed is connected to, and lost, as long as its last thread takes to end
        Err(error) if error.is_lost() && rustix::process::geteuid().is_root() => {
            let options = start_options(globals)?;
            match ensure_started(root, &options).await {
                Ok(()) => Client::on_demand(root, &options),
                Err(error) if supervisor_answers(root) => {
                    let failure = Failure::from(ClientError::Start(error));
                    return Err(failure.with_hint("containers run on under the supervisor: mend this first"));
                }
                Err(error) => {
                    eprintln!("warning: {error}");
                    eprintln!("warning: only files are removed; `sampan doctor` tells of what else may be left");
                    return Ok(());
                }
            }
        }
        Err(ClientError::NoDaemon { .. }) => connect(globals).await?,
        Err(error) => return Err(error.into()),
    };
    let processes = Processes::of(&client.daemon().await?);
    client.purge().await?;
    processes.wait_for_end().await
}

/// The client of a daemon that answers.
async fn find_daemon(root: &Root) -> Result<Client, ClientError> {
    let client = Client::connect(root).await?;
    client.daemon().await?;
    Ok(client)
}

fn supervisor_answers(root: &Root) -> bool {
    // a path that is too long to connect to is taken for one that answers: nothing is removed under a living app
    match rustix::net::SocketAddrUnix::new(root.run_dir().join("supervisor.sock")) {
        Ok(address) => {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            socket.is_ok_and(|socket| connect(&socket, &address).is_ok())
        }
        Err(_) => true,
    }
}

/// Removes the files; whether there are others beside them.
fn remove_files(root: &Root) -> Result<bool, Failure> {
    let cannot = |path: &Path, error: io::Error| Failure::new(format!("remove {}: {error}", path.display()));
    let run_dir = root.run_dir();
    for path in OWN_NAMES.iter().map(|name| root.path().join(name)).chain([run_dir]) {
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(&path, error)),
            _ => {}
        }
    }
    match fs::remove_dir(root.path()) {
        Ok(()) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::DirectoryNotEmpty => Ok(true),
            // a file system of its own is mounted there: it stays, empty
            io::ErrorKind::ResourceBusy => Ok(false),
            _ => Err(cannot(root.path(), error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("r")).unwrap();
        assert!(matches!(find(&root), Ok(Found::Nothing)));
        fs::create_dir_all(root.path().join("run")).unwrap();
        fs::create_dir_all(root.path().join("containers/x/upper")).unwrap();
        fs::write(root.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(find(&root), Ok(Found::Foreign)));
        fs::write(root.path().join("records.db"), "").unwrap();
        assert!(matches!(find(&root), Ok(Found::Root)));
        assert!(remove_files(&root).unwrap());
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["thesis.txt"]);
        fs::remove_file(root.path().join("thesis.txt")).unwrap();
        assert!(!remove_files(&root).unwrap());
        assert!(!root.path().exists());
    }
}
