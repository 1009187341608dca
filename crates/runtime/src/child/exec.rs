//! One more process of a container: from the moment it is cloned, in the container's pid namespace and cgroup of version
//! 2, to the moment it is the program that was asked for.
//!
//! ```text
//! still the host's root and mounts
//!   close itself to others        nobody inside may look into what is a copy of the supervisor
//!   join the cgroups              those of version 1
//!   limits that are raised        only the host's root may
//!   all other namespaces at once  user, mount, net, ipc, uts, cgroup; the root file system comes with them
//! root of the container
//!   session, keyring, terminal    of the container's own devpts
//!   …                             as its first process ([`program`](super::program))
//! ```
//!
//! The container is a stranger's, and it is running: no path is walked in it but the terminal's and the working
//! directory, which see for themselves; and this process holds no descriptor of the host but its socket, the container's
//! pidfd and its streams.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::FileType;
use rustix::pipe::PipeFlags;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sampan_sys::{identity, process};

use super::program::{Program, begin_session};
use super::terminal::Terminal;
use super::{Ends, Step as _, Stopped, join_cgroups, limits, report};
use crate::wire::ExecSpec;

/// All but the pid namespace, which a process cannot change: it was cloned into that; and but the user namespace, which
/// may be its own already.
const NAMESPACES: ThreadNameSpaceType = ThreadNameSpaceType::MOUNT
    .union(ThreadNameSpaceType::NETWORK)
    .union(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    .union(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
    .union(ThreadNameSpaceType::CONTROL_GROUP);

/// Runs in the child, and becomes the program; or gives the code to exit with. `container`: the pidfd of the container's
/// first process.
pub(crate) fn run(spec: &ExecSpec, container: BorrowedFd<'_>, ends: &Ends<'_>) -> u8 {
    let Err(stopped) = enter(spec, container, ends);
    report(stopped, ends.socket)
}

fn enter(spec: &ExecSpec, container: BorrowedFd<'_>, ends: &Ends<'_>) -> Result<Infallible, Stopped> {
    process::set_dumpable(false).step("close itself to others")?;
    join_cgroups(&spec.cgroup_files)?;
    limits::raise(None, &spec.process)?;
    let users = if spec.host_users { ThreadNameSpaceType::empty() } else { ThreadNameSpaceType::USER };
    move_into_thread_name_spaces(container, NAMESPACES.union(users)).step("enter the container's namespaces")?;
    identity::assume(0, 0, &[]).step("become root of its user namespace")?;
    begin_session()?;
    let terminal = spec.terminal.map(|size| Terminal::open(size, spec.process.uid)).transpose()?;
    let empty;
    let mut ends = Ends { socket: ends.socket, streams: ends.streams };
    if let (true, Some([stdin, ..])) = (spec.host_users, &mut ends.streams)
        && FileType::from_raw_mode(rustix::fs::fstat(*stdin).step("look at its input")?.st_mode)
            == FileType::CharacterDevice
    {
        // the host's /dev/null, whose owner the host's root may change by the descriptor alone (runc 3674)
        empty = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step("make an empty input")?.0;
        *stdin = empty.as_fd();
    }
    Program { spec: &spec.process, init: false }.run(&ends, terminal.as_ref())
}
