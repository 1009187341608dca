//! `sampan daemon install` and `uninstall`: the daemon in systemd's hands, and out of them again.
//!
//! ```text
//! install    binary is root's alone ─▶ write units ─▶ (sysusers) ─▶ daemon-reload
//!            ─▶ take a daemon that runs outside of systemd away; its apps run on ─▶ enable --now
//! uninstall  disable --now, which stops every app ─▶ remove what begins with our mark ─▶ daemon-reload
//! ```
//!
//! Done twice it is as done once. With `--prefix` and `--print` systemd is not asked: that is for packages. The group
//! stays when Sampan goes, as Debian has it: a number that files may belong to is not given to somebody else.

mod units;

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sampan_client::systemd::{Units, is_booted};
use sampan_client::{Client, ClientError, Root};
use serde_json::json;

use super::args::{Globals, InstallArgs};
use super::failure::Failure;
use super::output;
use crate::process;
use units::{COPIED, GROUP, MARK, Plan, PlanError, UnitFile};

/// Where `--copy` puts the binary.
const COPY: &str = "/usr/local/bin/sampan";

/// `sampan daemon install`.
pub async fn install(globals: &Globals, args: InstallArgs) -> Result<(), Failure> {
    let root = globals.root()?;
    let for_this_machine = !args.print && args.prefix.is_none();
    if for_this_machine {
        check_machine("install")?;
    }
    let plan = plan(globals, &args, root.clone())?;
    let files = plan.files().map_err(|error| refused(&error))?;
    if args.print {
        let texts: Vec<_> = files.iter().map(|file| format!("# {}\n{}", file.path.display(), file.text)).collect();
        return output::print(&texts.join("\n"));
    }
    let prefix = args.prefix.as_deref().unwrap_or(Path::new("/"));
    for file in &files {
        refuse_foreign(&below(prefix, &file.path))?;
    }
    if args.copy {
        copy_binary(&below(prefix, Path::new(COPY)))?;
    }
    // what an earlier install wrote and this one does not: services' sockets, once they are no longer asked for
    let stale =
        ours(prefix, &root).into_iter().filter(|path| !files.iter().any(|file| below(prefix, &file.path) == *path));
    for path in stale {
        if for_this_machine && path.extension().is_some_and(|kind| kind == "socket") {
            systemctl(&["disable", "--now", &file_name(&path)])?;
        }
        remove(&path)?;
    }
    for file in &files {
        write(&below(prefix, &file.path), &file.text)?;
    }
    if for_this_machine {
        hand_over(globals, &root, &files).await?;
        if !plan.members.is_empty() && !globals.quiet {
            // a session has the groups that there were when it began
            eprintln!("sampan: {} may speak to the daemon once logged in anew", plan.members.join(", "));
        }
    }
    report(globals, "installed", files.iter().map(|file| below(prefix, &file.path)).collect())
}

/// `sampan daemon uninstall`.
pub fn uninstall(globals: &Globals, prefix: Option<&Path>) -> Result<(), Failure> {
    let root = globals.root()?;
    if prefix.is_none() {
        check_machine("uninstall")?;
    }
    let prefix = prefix.unwrap_or(Path::new("/"));
    let paths = ours(prefix, &root);
    if paths.is_empty() {
        if !globals.quiet {
            eprintln!("nothing of `sampan daemon install` is there for {}", root.path().display());
        }
        return report(globals, "removed", paths);
    }
    let is_this_machine = prefix == Path::new("/");
    let is_unit = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "service" || kind == "socket");
    if is_this_machine {
        if !globals.quiet {
            eprintln!("sampan: stopping every app of {}", root.path().display());
        }
        let units: Vec<String> = paths.iter().filter(is_unit).map(|path| file_name(path)).collect();
        systemctl(&[&["disable", "--now"][..], &units.iter().map(String::as_str).collect::<Vec<_>>()].concat())?;
    }
    let copy = copied_binary(prefix, &root);
    for path in &paths {
        remove(path)?;
    }
    let mut removed = paths;
    if let Some(copy) = copy.filter(|copy| !is_named_by_others(prefix, copy)) {
        let copy = below(prefix, &copy);
        remove(&copy)?;
        removed.push(copy);
    }
    if is_this_machine {
        systemctl(&["daemon-reload"])?;
        if !globals.quiet {
            let path = root.path().display();
            eprintln!("sampan: apps, images and volumes stay at {path}: `sampan daemon start` brings them back");
        }
    }
    report(globals, "removed", removed)
}

/// Has systemd listen anew for a root whose socket was removed with all else: the next command starts from nothing.
/// Where systemd does not know the root, does nothing.
pub fn listen_anew(root: &Root) -> Result<(), Failure> {
    let units = Units::of(root);
    if units.are_installed() { systemctl(&["restart", &units.socket()]) } else { Ok(()) }
}

fn check_machine(word: &str) -> Result<(), Failure> {
    if !is_booted() {
        let failure = Failure::new("systemd does not run on this machine, so it cannot run the daemon");
        return Err(failure.with_hint(
            "start it with `sampan daemon start`; --print and --prefix write the units for another machine",
        ));
    }
    if !rustix::process::geteuid().is_root() {
        let failure = Failure::new(format!("to {word} the daemon's units takes root"));
        return Err(failure.with_hint(format!("run `sudo sampan daemon {word}`")));
    }
    Ok(())
}

fn plan(globals: &Globals, args: &InstallArgs, root: Root) -> Result<Plan, Failure> {
    let is_package = args.prefix.is_some() || args.print;
    let binary = match (&args.binary, args.copy) {
        (Some(binary), _) if is_package => binary.clone(),
        (Some(binary), _) => safe_binary(binary)?,
        (None, true) => COPY.into(),
        (None, false) => {
            let own = process::own_path().map_err(|error| Failure::new(format!("find our own binary: {error}")))?;
            let own = own.ok_or_else(|| Failure::new("sampan's own binary was removed; install it anew"))?;
            if is_package { own } else { safe_binary(&own)? }
        }
    };
    for user in args.users.iter().filter(|_| !is_package) {
        if !lines_of("/etc/passwd").iter().any(|line| line.split(':').next() == Some(user)) {
            return Err(Failure::new(format!("there is no user {user} on this machine")).with_hint(
                "`getent passwd` lists users; one of a directory service is added with `gpasswd -a NAME sampan`",
            ));
        }
    }
    let has_group = lines_of("/etc/group").iter().any(|line| line.split(':').next() == Some(GROUP));
    Ok(Plan {
        root,
        binary,
        copied: args.copy,
        owner: std::env::var("SUDO_USER").ok().filter(|name| !is_package && name != "root"),
        for_group: has_group || is_package || !args.users.is_empty(),
        members: args.users.clone(),
        makes_group: is_package,
        http: globals.http,
    })
}

fn lines_of(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A binary that root runs at every boot: nobody else may be able to put another in its place.
fn safe_binary(path: &Path) -> Result<PathBuf, Failure> {
    let real = path.canonicalize().map_err(|error| Failure::new(format!("find {}: {error}", path.display())))?;
    if process::only_root_replaces(&real) {
        return Ok(real);
    }
    let message = format!("others than root can change {}, which root would run at every boot", real.display());
    Err(Failure::new(message).with_hint(format!("with --copy it is copied to {COPY} first")))
}

fn refused(error: &PlanError) -> Failure {
    let failure = Failure::of(error);
    match error {
        PlanError::Path { .. } | PlanError::SocketPath { .. } => failure.with_hint("choose another --root"),
        PlanError::User { .. } => failure.with_hint("name a user of this machine"),
    }
}

fn below(prefix: &Path, path: &Path) -> PathBuf {
    prefix.join(path.strip_prefix("/").unwrap_or(path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files that an install for this root may have written, and that are there with our mark.
fn ours(prefix: &Path, root: &Root) -> Vec<PathBuf> {
    let units = Units::of(root);
    let mut paths = vec![units.socket(), units.http_socket(), units.service()]
        .into_iter()
        .map(|name| units::unit_path(&name))
        .collect::<Vec<_>>();
    // the group is everybody's: it stays while another root's daemon is installed
    if !others(prefix, root) {
        paths.push(units::sysusers_path());
    }
    paths.iter().map(|path| below(prefix, path)).filter(|path| is_marked(path)).collect()
}

fn is_marked(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

/// The services that an install for other roots has written.
fn other_services(prefix: &Path, root: Option<&Root>) -> Vec<PathBuf> {
    let own = root.map(|root| Units::of(root).service());
    let entries = fs::read_dir(below(prefix, Path::new("/etc/systemd/system"))).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| {
        let name = file_name(path);
        name.starts_with("sampan") && name.ends_with(".service") && Some(&name) != own.as_ref()
    });
    paths.filter(|path| is_marked(path)).collect()
}

fn others(prefix: &Path, root: &Root) -> bool {
    !other_services(prefix, Some(root)).is_empty()
}

/// The binary that was copied for this root's service.
fn copied_binary(prefix: &Path, root: &Root) -> Option<PathBuf> {
    let service = below(prefix, &units::unit_path(&Units::of(root).service()));
    let text = fs::read_to_string(service).ok()?;
    text.lines().find_map(|line| line.strip_prefix(COPIED)).map(PathBuf::from)
}

/// Whether a service that stays runs this binary.
fn is_named_by_others(prefix: &Path, binary: &Path) -> bool {
    let line = format!("ExecStart={} ", binary.display());
    let names = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(&line));
    other_services(prefix, None).iter().any(names)
}

/// What somebody else wrote is neither replaced nor removed.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) if !is_marked(path) => {
            let failure = Failure::new(format!("{} was not written by `sampan daemon install`", path.display()));
            Err(failure.with_hint("move it away, or change it with `systemctl edit`"))
        }
        _ => Ok(()),
    }
}

/// Writes to a temporary name and renames: a unit is never half there.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    put(path, 0o644, |file| file.write_all(text.as_bytes()))
}

/// Copies this very binary, whatever is at its path by now.
fn copy_binary(to: &Path) -> Result<(), Failure> {
    put(to, 0o755, |file| {
        let mut own = fs::File::open("/proc/self/exe")?;
        io::copy(&mut own, file).map(drop)
    })
}

fn put(path: &Path, mode: u32, fill: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(directory).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        fill(file.as_file_mut())?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    });
    written.map_err(|error| Failure::new(format!("write {}: {error}", path.display())))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Has systemd take in what was written, and run the daemon from here on.
async fn hand_over(globals: &Globals, root: &Root, files: &[UnitFile]) -> Result<(), Failure> {
    let units = Units::of(root);
    if files.iter().any(|file| file.path == units::sysusers_path()) {
        run("systemd-sysusers", &[&units::sysusers_path().display().to_string()])?;
    }
    systemctl(&["daemon-reload"])?;
    let main_pid = run("systemctl", &["show", "--property=MainPID", "--value", &units.service()])?;
    let main_pid = main_pid.trim().parse().unwrap_or(0);
    let running = running_daemon(root).await?;
    match running {
        // the very binary may be new
        Some(pid) if pid == main_pid => systemctl(&["reload", &units.service()])?,
        Some(pid) => take_away(globals, pid)?,
        None => {}
    }
    let names: Vec<String> =
        files.iter().map(|file| file_name(&file.path)).filter(|name| !name.ends_with(".conf")).collect();
    systemctl(&[&["enable", "--now"][..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat())
}

async fn running_daemon(root: &Root) -> Result<Option<u32>, Failure> {
    match Client::connect(root).await {
        Ok(client) => {
            let daemon = client.daemon().await?;
            Ok(daemon.processes.iter().find(|process| process.role == "daemon").map(|process| process.pid))
        }
        Err(ClientError::NoDaemon { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ends a daemon that runs outside of systemd as a crash would, which apps outlive: the next one takes over from it.
fn take_away(globals: &Globals, pid: u32) -> Result<(), Failure> {
    if !globals.quiet {
        eprintln!("sampan: the daemon (pid {pid}) is replaced by systemd's; apps run on");
    }
    let failed = |error: rustix::io::Errno| Failure::new(format!("end the daemon (pid {pid}): {error}"));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| Failure::new(format!("the daemon says that its pid is {pid}")))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(&pidfd, Signal::KILL).map_err(failed)?;
    super::daemon::wait_for_end_of(&pidfd).ok_or_else(|| Failure::new(format!("the daemon (pid {pid}) does not end")))
}

fn systemctl(words: &[&str]) -> Result<(), Failure> {
    run("systemctl", words).map(drop)
}

/// Runs one of systemd's programs; what it says is part of the failure.
fn run(program: &str, words: &[&str]) -> Result<String, Failure> {
    let line = format!("{program} {}", words.join(" "));
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::new(format!("run {program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let failure = Failure::new(format!("{line}: {said} ({})", output.status));
    Err(failure.with_hint("`journalctl -u sampan -n 20` shows what the daemon said; then do it again: nothing is lost"))
}

fn report(globals: &Globals, word: &str, paths: Vec<PathBuf>) -> Result<(), Failure> {
    match globals.json {
        true => output::print_json(&json!({ word: paths })),
        false => output::print_lines(paths.iter().map(|path| path.display())),
    }
}
