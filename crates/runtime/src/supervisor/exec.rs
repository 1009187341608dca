//! One more process of a container, from clone to exit.
//!
//! It is this process's child, in the container's pid namespace: the supervisor has its *children* made there for the
//! length of one clone. (The container's own first process would be told its exit otherwise.)

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use sampan_model::ContainerId;
use sampan_sys::clone::{Cloned, Namespaces, clone};
use sampan_sys::frame;

use super::container::unified;
use super::starting::{Asked, Starting};
use crate::child::{Ends, exec};
use crate::wire::{ExecSpec, Failure};

/// A process that was asked for beside a container's first one.
#[derive(Debug)]
pub(crate) struct Exec {
    /// Whose.
    pub container: ContainerId,
    /// While it is not known whether its program was executed.
    pub starting: Option<Starting>,
    /// When that must be known: a container can halt what is started in it before it is a program.
    pub due: Instant,
    /// Until whoever asked for it is handed it.
    pub pidfd: Option<OwnedFd>,
    /// Its program was executed: its end is told.
    pub executed: bool,
}

impl Exec {
    /// Makes it, beside the process `container`. `streams`: its standard input, output and error; none with a terminal.
    pub fn make(
        spec: &ExecSpec,
        container: BorrowedFd<'_>,
        streams: &[OwnedFd],
        asked: Asked,
    ) -> Result<(u32, Self), Failure> {
        let at = |step: &'static str| move |error: io::Error| Failure::at(step, &error);
        let streams = match (streams, &spec.terminal) {
            ([stdin, stdout, stderr], None) => Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
            ([], Some(_)) => None,
            _ => return Err(Failure::because("open its streams", "there are three, or a terminal in their place")),
        };
        let (socket, theirs) = frame::pair().map_err(at("make a socket"))?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| at("prepare its socket")(errno.into()))?;
        let ends = Ends { socket: theirs.as_fd(), streams };
        let unified = unified(&spec.cgroup_files)?;
        let into = unified.as_ref().map(|directory| directory.as_fd());
        let mut keep = ends.all();
        keep.push(container);
        let cloned = {
            let _there = ChildrenBeside::new(container).map_err(at("enter the container's pid namespace"))?;
            clone(Namespaces::NONE, into, &keep, || exec::run(spec, container, &ends))
        };
        let Cloned { pid, pidfd } = cloned.map_err(|error| match error.raw_os_error() {
            // what the kernel says of a pid namespace whose first process has ended
            Some(ENOMEM) => Failure::because("clone", "the container is ending"),
            _ => at("clone")(error),
        })?;
        let (starting, due) = (Some(Starting::new(socket, Some(asked))), Instant::now() + PATIENCE);
        let pid = pid.as_raw_nonzero().get().cast_unsigned();
        Ok((pid, Self { container: spec.id.clone(), starting, due, pidfd: Some(pidfd), executed: false }))
    }
}

/// How long a child may take to become its program.
const PATIENCE: Duration = Duration::from_secs(10);
const ENOMEM: i32 = Errno::NOMEM.raw_os_error();

/// While it lives, this process's children are made in the pid namespace of another process.
pub(crate) struct ChildrenBeside {
    own: OwnedFd,
}

impl ChildrenBeside {
    /// Beside `process`.
    pub fn new(process: BorrowedFd<'_>) -> io::Result<Self> {
        let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
        Ok(Self { own })
    }
}

impl Drop for ChildrenBeside {
    fn drop(&mut self) {
        move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .expect("a process may always have its children in its own pid namespace");
    }
}
