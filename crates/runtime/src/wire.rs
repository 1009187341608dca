//! What daemon and supervisor say to each other: one JSON value a frame ([`sampan_sys::frame`]) on a SEQPACKET socket,
//! descriptors beside it. Version 6.
//!
//! The daemon asks ([`Request`], each with a number of its choosing), the supervisor answers each once with
//! [`Reply`] under the same number, and tells [`Event`]s at any time between. A container's start is two requests: one
//! makes a child with all that it has whatever it is going to run, the other tells it what that is. In between, which may
//! be as long as the daemon likes (a server that is parked), the daemon wires the network namespace and mounts the root
//! file system, which wait on locks and disks; the supervisor waits on neither:
//!
//! ```text
//! daemon                                   supervisor                    child
//!   Create ───────────────────────────────▶ clone3, id maps ───────────▶ namespaces
//!   cgroups of version 1 ──────────────────────────────────────────────▶ joins them; kernel file systems, masks
//!   ◀────────── Created (pidfd, userns, netns)                             │ waits
//!   overlay mount, veth, address, 127.0.0.11                               │
//!   Go (what it runs, root file system) ──▶ streams, passes it on ─────▶ pivot, mounts, capabilities, seccomp, exec
//!   ◀────────── Started | Failed (step, errno)  ◀──────────────────────── end of file | step and errno
//!   ◀────────── Exited …                    ◀── SIGCHLD ────────────────── exit
//!   Forget ───────────────────────────────▶ drops it from the journal
//! ```

use jiff::Timestamp;
use sampan_model::view::TerminalSize;
use sampan_model::{ContainerId, IdRange, ResourceLimit};
use serde::{Deserialize, Serialize};

/// The version of these messages. A supervisor of another version is replaced when no container is left.
pub const VERSION: u32 = 6;

/// To a new child: its cgroups are there.
pub const JOIN: &[u8] = b"j";

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the daemon; comes back with the reply.
    pub number: u64,
    /// The request.
    pub request: Request,
}

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// First of all. Answered [`Reply::Welcome`].
    Hello {
        /// The daemon's [`VERSION`].
        version: u32,
    },
    /// Make a server's namespaces, to be held until it is forgotten; containers are created on it. Answered
    /// [`Reply::ServerMade`] with two descriptors: its user namespace, its network namespace. Asked again for one that is
    /// there, it is answered the same.
    MakeServer(ServerSpec),
    /// Let go of a server's namespaces. Answered [`Reply::Done`], also where it is not known.
    ForgetServer {
        /// The server.
        id: ContainerId,
    },
    /// Make a sealed child that waits. Descriptor 0, where there is one: a pipe from which it reads [`JOIN`] when all of its
    /// cgroups are there; where that ends without it, so does the child. Without a pipe they are there. Answered
    /// [`Reply::Created`] with three descriptors: its pidfd, its user namespace, its network namespace.
    Create(Box<CreateSpec>),
    /// Hand on what the container writes from now on: descriptor 0, the writing end of a pipe, gets
    /// [log frames](sampan_model::view::LogFrame) until the container has ended and all was written. A reader that is
    /// slow slows the container down; one that is gone is forgotten. Answered [`Reply::Done`]. The last frame is
    /// [`LogFrame::END`](sampan_model::view::LogFrame::END); a pipe that ends without it says that the logger was killed:
    /// asked again, the next one goes on, from then on.
    Follow {
        /// The container.
        id: ContainerId,
    },
    /// What the daemon writes to. Answered [`Reply::Done`] with one descriptor: the terminal of a container that has one
    /// (known once it is started), or the writing end of its standard input; with none where it has neither any more.
    Input {
        /// The container.
        id: ContainerId,
    },
    /// That was all of its standard input: the supervisor closes its end. Answered [`Reply::Done`].
    CloseInput {
        /// The container.
        id: ContainerId,
    },
    /// Start one more process in a running container. Descriptors 0, 1 and 2 are its standard input, output and error;
    /// none with a terminal. Answered [`Reply::Executed`] when its program has been executed, with its pidfd as a
    /// descriptor, and its terminal as a second where it has one; or [`Reply::Failed`]. Its end is an
    /// [`Event::ExecExited`].
    Exec(Box<ExecSpec>),
    /// Let the child become what it is to run. Descriptor 0: the root file system, a detached mount; then, in their order,
    /// those of [`StartSpec::mounts`] that are handed over; then the pipes of [`StartSpec::followers`]. Answered
    /// [`Reply::Started`] when the program has been executed, or [`Reply::Failed`].
    Go(Box<StartSpec>),
    /// Send a signal to the container's first process. Answered [`Reply::Done`].
    Signal {
        /// The container.
        id: ContainerId,
        /// The signal's number.
        signal: i32,
    },
    /// The end is recorded: drop the container. Answered [`Reply::Done`], also where it is not known.
    Forget {
        /// The container.
        id: ContainerId,
    },
    /// Hold these sockets for the edge, each descriptor under its key, and hand them on. Answered [`Reply::Done`].
    HoldSockets {
        /// The keys, one a descriptor, in their order.
        keys: Vec<String>,
    },
    /// The edge's table. Descriptor 0: a memfd with the table's JSON. Sockets whose keys are not in `keep` are closed
    /// here and in the edge. Answered [`Reply::Done`] when it is held (not when the edge has read it; that is in
    /// its status).
    SetTable {
        /// The table's revision.
        revision: u64,
        /// Keys of the sockets to go on holding.
        keep: Vec<String>,
    },
    /// End the logger, the edge and the supervisor itself. Refused with [`Reply::Failed`] while a container runs; else
    /// answered [`Reply::Done`] once all output is in files, both roles have ended and the socket is gone.
    Shutdown,
}

/// A numbered answer, or an event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told {
    /// The answer to a request.
    Reply {
        /// The request's number.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome(Welcome),
    /// To [`Request::Create`].
    Created {
        /// The child, in the daemon's pid namespace.
        pid: u32,
    },
    /// To [`Request::Go`].
    Started {
        /// When.
        at: Timestamp,
        /// Its first process: that of [`Reply::Created`], or that which another runtime has made.
        pid: u32,
    },
    /// To [`Request::MakeServer`].
    ServerMade,
    /// To [`Request::Exec`].
    Executed {
        /// The process, in the daemon's pid namespace.
        pid: u32,
    },
    /// To the others.
    Done,
    /// To any: it could not be done.
    Failed(Failure),
}

/// Why a request could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {message}")]
pub struct Failure {
    /// What was tried: "clone", "mount proc", "execute /bin/app"…
    pub step: String,
    /// The kernel's error number, 0 where there is none.
    pub errno: i32,
    /// The error in words.
    pub message: String,
}

/// The supervisor as a daemon finds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The supervisor's [`VERSION`].
    pub version: u32,
    /// The supervisor's pid.
    pub pid: u32,
    /// The logger's pid, while it runs.
    pub logger: Option<u32>,
    /// The edge's pid, while it runs.
    pub edge: Option<u32>,
    /// Every container that was created and not yet forgotten.
    pub containers: Vec<Held>,
    /// Servers whose namespaces are held.
    pub servers: Vec<ContainerId>,
    /// Keys of the sockets held for the edge.
    pub sockets: Vec<String>,
    /// The revision of the edge's table, 0 where there is none.
    pub table: u64,
}

/// A container as the supervisor knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The container.
    pub id: ContainerId,
    /// Its first process.
    pub pid: u32,
    /// Which life, as [`Event::Logged`] tells it.
    pub life: u32,
    /// Where it is.
    pub phase: Phase,
}

/// Where a container is, for its supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The child waits for [`Request::Go`].
    Waiting,
    /// It runs.
    Running {
        /// Since when.
        at: Timestamp,
    },
    /// It has ended.
    Exited(Ended),
}

/// How and when a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// 0–255, 128 + N for signal N. `None`: unknown (a supervisor before this one was killed).
    pub exit_code: Option<u8>,
    /// When.
    pub at: Timestamp,
}

/// What the supervisor tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container's first process ended; it is in the journal. It may be started again already.
    Exited {
        /// The container.
        id: ContainerId,
        /// Which life: its first process, as it was told in [`Reply::Created`].
        pid: u32,
        /// How.
        ended: Ended,
    },
    /// A process of [`Request::Exec`] ended.
    ExecExited {
        /// The container.
        id: ContainerId,
        /// The process, as it was told in [`Reply::Executed`].
        pid: u32,
        /// How.
        ended: Ended,
    },
    /// All of the output of one life of a container is in its log file. The next may have begun.
    Logged {
        /// The container.
        id: ContainerId,
        /// Which life: its first process, as it was told in [`Reply::Created`].
        pid: u32,
    },
    /// The edge's status, JSON of [`sampan_model::EdgeStatus`]; the latest only.
    Edge {
        /// The JSON text.
        status: String,
    },
    /// The logger or the edge was started (again).
    RoleStarted {
        /// `logger` or `edge`.
        role: String,
        /// Its pid.
        pid: u32,
    },
}

/// What a sealed child has, whatever it is going to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSpec {
    /// The container.
    pub id: ContainerId,
    /// What the ids inside are on the host. [`IdRange::HOST`]: it has no user namespace of its own.
    pub ids: IdRange,
    /// The files of the container's cgroups, absolute paths: `tasks` on v1, which the child writes `0` into, and
    /// `cgroup.procs` on v2, into whose cgroup it is cloned.
    pub cgroup_files: Vec<String>,
    /// What to mount below the container's `/sys/fs/cgroup`.
    pub cgroup_mounts: CgroupMounts,
    /// Files and directories to hide, below `/proc` and `/sys`.
    pub masked_paths: Vec<String>,
    /// Directories to make read-only, below `/proc` and `/sys`.
    pub readonly_paths: Vec<String>,
    /// `/sys` and the cgroups' file systems can be written to by whoever the kernel lets.
    pub writable_kernel: bool,
    /// Nodes in its `/dev` beside the usual ones. Their owners are ids inside.
    pub nodes: Vec<Node>,
    /// Parameters of its kernel namespaces, by their paths below `/proc/sys`, and their values.
    pub sysctls: Vec<(String, String)>,
    /// How large `/dev/shm` is.
    pub shm_bytes: u64,
    /// The server whose user, network, ipc and uts namespaces it joins. `None`: it has its own.
    pub server: Option<ContainerId>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where, an absolute path in the container, below `/dev`.
    pub path: String,
    /// A disk, not a stream of characters.
    pub block: bool,
    /// Its driver's number.
    pub major: u32,
    /// Its number there.
    pub minor: u32,
    /// Its mode, without its kind.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// Whose group's.
    pub gid: u32,
}

/// What a sealed child becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// The container.
    pub id: ContainerId,
    /// Host name of the uts namespace.
    pub host_name: String,
    /// Its first process.
    pub process: ProcessSpec,
    /// What is mounted in it, in this order.
    pub mounts: Vec<MountPoint>,
    /// The root file system is made read-only, below the mounts.
    pub read_only: bool,
    /// Its standard input is a pipe; else it is empty.
    pub stdin: bool,
    /// It has a terminal, of this size.
    pub terminal: Option<TerminalSize>,
    /// Its first process stays ours: it hands signals on to the program and reaps what that leaves.
    pub init: bool,
    /// How many pipes want all that it writes, from its first byte on, as those of [`Request::Follow`] do.
    pub followers: usize,
    /// Another runtime executes it: the child that waits makes way, and its namespaces, but for those of mounts and
    /// processes, and its cgroup are that one's. Its first process is then another one, told in [`Reply::Started`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<External>>,
}

/// An OCI runtime, and what it is told that a child of ours was told before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Its program's absolute path.
    pub program: String,
    /// The directory where it keeps what it knows of this container.
    pub state_dir: String,
    /// The container's cgroup, from where hierarchies are mounted, with a slash before it.
    pub cgroup_path: String,
    /// As in [`CreateSpec`].
    pub cgroup_files: Vec<String>,
    /// As in [`CreateSpec`].
    pub masked_paths: Vec<String>,
    /// As in [`CreateSpec`].
    pub readonly_paths: Vec<String>,
    /// As in [`CreateSpec`].
    pub sysctls: Vec<(String, String)>,
    /// As in [`CreateSpec`].
    pub shm_bytes: u64,
    /// The filter of [`ProcessSpec::seccomp`], as the runtime-spec has it (`linux.seccomp`).
    pub seccomp: serde_json::Value,
}

/// The namespaces that the containers of a server share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// The server.
    pub id: ContainerId,
    /// What the ids inside are on the host.
    pub ids: IdRange,
}

/// One mount in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Where, an absolute path in the container; made where it is missing.
    pub target: String,
    /// It cannot be written to.
    pub read_only: bool,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A detached mount that the daemon made: the next descriptor.
    Handed {
        /// It is of a file, not of a directory.
        file: bool,
    },
    /// Memory.
    Tmpfs {
        /// At most so many bytes; `None`: as the kernel has it.
        size_bytes: Option<u64>,
        /// Its mode.
        mode: u32,
        /// Whose it is, user and group inside.
        owner: (u32, u32),
        /// What is in it may be executed.
        executable: bool,
    },
    /// A file of the container's own, in memory, which its root may change: `/etc/hosts` and the like.
    File {
        /// What is in it.
        text: String,
    },
}

/// One more process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container.
    pub id: ContainerId,
    /// It.
    pub process: ProcessSpec,
    /// The container has no user namespace of its own.
    pub host_users: bool,
    /// The files of the container's cgroups, as in [`StartSpec`].
    pub cgroup_files: Vec<String>,
    /// It has a terminal, of this size.
    pub terminal: Option<TerminalSize>,
}

/// What is executed, as whom, and what it may: a container's first process and each further one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The command line; `args[0]` is searched in the environment's `PATH` where it has no slash.
    pub args: Vec<String>,
    /// The environment, `NAME=value`, complete.
    pub env: Vec<String>,
    /// Working directory; that of a first process is made where it is missing.
    pub cwd: String,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Further groups inside.
    pub groups: Vec<u32>,
    /// Which bits of new files' modes are cleared.
    pub umask: u32,
    /// What it may.
    pub capabilities: Capabilities,
    /// Nothing it executes gains a privilege (setuid, file capabilities).
    pub no_new_privileges: bool,
    /// Its filter of system calls: `struct sock_filter`s as the kernel takes them, hex. `None`: it may make all.
    pub seccomp: Option<String>,
    /// Its limits. That of open files is 1024 where it is not among them.
    pub limits: Vec<ResourceLimit>,
    /// How soon it is killed where memory runs out, -1000 to 1000. `None`: as the supervisor, which is 0.
    pub oom_score_adj: Option<i32>,
}

/// Sets of capabilities, bit N for capability N. Those that the kernel does not know are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// What nothing it executes can ever go beyond.
    pub bounding: u64,
    /// What it uses.
    pub effective: u64,
    /// What it may use.
    pub permitted: u64,
    /// What it may hand on to programs that take it.
    pub inheritable: u64,
    /// What it hands on to programs that know nothing of capabilities.
    pub ambient: u64,
}

impl Capabilities {
    /// As Docker gives them: all to root; to another user only what a program makes of them that becomes root.
    pub fn of_user(uid: u32, all: u64) -> Self {
        let own = if uid == 0 { all } else { 0 };
        Self { bounding: all, effective: own, permitted: own, inheritable: 0, ambient: 0 }
    }
}

/// The cgroup file systems a container sees, read-only, through its own cgroup namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMounts {
    /// The unified hierarchy.
    V2,
    /// A directory a hierarchy: `(directory, mount options)`, such as `("memory", "memory")`; plus the unified one
    /// as `unified` where it is mounted beside.
    V1 {
        /// The hierarchies.
        hierarchies: Vec<(String, String)>,
        /// Whether cgroup2 is mounted beside them.
        unified: bool,
    },
}
