//! A container that another OCI runtime executes: `runc`, `crun`, or whatever speaks their command line.
//!
//! Everything is made as for a container of our own, up to the child that waits: its namespaces, its cgroup, its wire,
//! its root file system. Then that child makes way. What stays of it are the user, net, ipc and uts namespaces, which the
//! runtime is told to join, and a go-between of ours that tells it:
//!
//! ```text
//! supervisor                       launcher                                    runtime
//!   kills the child that waits       waits for its end: the cgroup is empty
//!   ─── what is to run, mounts ───▶  bundle: config.json, rootfs, mounts
//!                                    create ───────────────────────────────────▶ the first process, which waits
//!   ◀── CREATED, its pid ──────────  (joins it to the cgroups the runtime left out)
//!   its parent from now on
//!   ─── CREATED ──────────────────▶  start ────────────────────────────────────▶ the first process executes
//!   ◀── EXECUTING, terminal ───────  ends
//! ```
//!
//! The first process is the supervisor's by then (it is the subreaper), so its exit code, output, input and terminal are
//! held as those of any other, and a further process enters it as any other: the runtime is not asked again until it is
//! to `delete` what it keeps ([`Runtime::delete`], the daemon's business).
//!
//! The bundle is in memory, in the launcher's own mount namespace, over a directory that everybody can pass through: the
//! runtime reads it as the container's root, who cannot pass through most others'. Nothing of it is left behind.

mod bundle;
mod config;
mod runtime;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use sampan_sys::frame;

use self::bundle::Bundle;
pub use self::runtime::{Runtime, RuntimeError};
use crate::child::{self, EXECUTING, Step as _, Stopped};
use crate::wire::{External, Failure, StartSpec};

/// From the launcher, before the pid of the first process: it waits. To the launcher: go on.
pub(crate) const CREATED: &[u8] = b"created ";

/// What the launcher is told beside what is to run.
pub(crate) struct Launch<'a> {
    /// Where it is told and tells.
    pub socket: BorrowedFd<'a>,
    /// The child that made way.
    pub before: BorrowedFd<'a>,
    /// Paths of the namespaces to join, by the kind that the runtime-spec calls them.
    pub namespaces: Vec<(&'static str, String)>,
    /// What the ids inside are on the host.
    pub ids: sampan_model::IdRange,
}

/// Runs in the launcher, and gives its exit code.
pub(crate) fn run(launch: &Launch<'_>) -> u8 {
    match go(launch) {
        Ok(()) => 0,
        Err(stopped) => child::report(stopped, launch.socket),
    }
}

fn go(launch: &Launch<'_>) -> Result<(), Stopped> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("take its mounts apart from the host's")?;
    let frame::Frame { body, fds } = child::hear(launch.socket)?;
    let spec: StartSpec = serde_json::from_slice(&body).map_err(|_| child::out_of_turn())?;
    let external = spec.external.as_ref().ok_or_else(child::out_of_turn)?;
    let mut ended = [PollFd::new(&launch.before, PollFlags::IN)];
    rustix::event::poll(&mut ended, None).step("wait for the end of the child that made way")?;

    let mut handed = fds.into_iter();
    let streams: Option<[OwnedFd; 3]> = match spec.terminal {
        Some(_) => None,
        None => {
            let three: Vec<OwnedFd> = handed.by_ref().take(3).collect();
            Some(three.try_into().map_err(|_| Failure::because("go on", "no streams were handed over"))?)
        }
    };
    let root = handed.next().ok_or_else(|| Failure::because("go on", "no root file system was handed over"))?;
    let groups = Groups::open(external)?;
    let mut bundle = Bundle::make(external)?;
    let sources = bundle.attach(&root, &spec.mounts, handed, launch.ids)?;
    bundle.write_config(&config::config(&spec, external, launch, bundle.path(), &sources))?;
    groups.hide_unified()?;

    let runtime = Runtime::of(external);
    let (pid, terminal) = runtime.create(&spec, streams)?;
    let started = || -> Result<(), Stopped> {
        groups.join(pid)?;
        let fds: Vec<BorrowedFd<'_>> = terminal.iter().flatten().map(|end| end.as_fd()).collect();
        frame::send(launch.socket, &[CREATED, pid.to_string().as_bytes()].concat(), &[])
            .step("speak to the supervisor")?;
        if child::hear(launch.socket)?.body != CREATED {
            return Err(child::out_of_turn().into());
        }
        runtime.start(&spec)?;
        frame::send(launch.socket, EXECUTING, &fds).step("speak to the supervisor")?;
        Ok(())
    };
    started().inspect_err(|_| {
        // why it did not start is worth more than why it could not be removed
        let _ = runtime.delete(spec.id.as_str());
    })
}

/// The container's cgroups, for what a runtime leaves out: on a hybrid, the unified one.
struct Groups {
    files: Vec<File>,
    /// Where the unified hierarchy is mounted beside version 1.
    unified: Option<String>,
}

impl Groups {
    fn open(external: &External) -> Result<Self, Failure> {
        let open = |path: &String| {
            // of version 1 as well: a runtime moves its child by the process, not by the thread
            let path =
                path.strip_suffix("tasks").map_or_else(|| path.clone(), |directory| format!("{directory}cgroup.procs"));
            File::options().write(true).open(&path).map_err(|error| Failure::at(format!("open {path}"), &error))
        };
        let files = external.cgroup_files.iter().map(open).collect::<Result<_, _>>()?;
        let is_hybrid = external.cgroup_files.len() > 1;
        let unified = external.cgroup_files.iter().find(|file| is_hybrid && child::is_unified(file));
        let mount = unified.and_then(|file| file.strip_suffix("/cgroup.procs")?.strip_suffix(&external.cgroup_path));
        Ok(Self { files, unified: mount.map(|mount| mount.trim_end_matches('/').to_owned()) })
    }

    /// crun refuses to run where version 2 is mounted beside version 1 and has a controller left: it does not see it.
    fn hide_unified(&self) -> Result<(), Failure> {
        match &self.unified {
            None => Ok(()),
            Some(mount) => rustix::mount::unmount(mount.as_str(), UnmountFlags::DETACH)
                .step(&format!("hide {mount} from the runtime")),
        }
    }

    fn join(&self, pid: u32) -> Result<(), Failure> {
        let join = |mut file: &File| file.write_all(pid.to_string().as_bytes());
        self.files.iter().try_for_each(join).step("join the container's cgroups")
    }
}
