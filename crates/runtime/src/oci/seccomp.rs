//! A bundle's filter of system calls, and the agent that is asked where it says so.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use sampan_sys::seccomp::{Argument, Call, Compiled, Profile};
use serde::Serialize;

use super::config::{self, Seccomp, State, Status};
use super::console;
use super::error::{OciError, When as _};
use super::state::Record;

/// A filter that can be installed.
#[derive(Debug)]
pub(super) struct Filter {
    pub compiled: Compiled,
    listener: PathBuf,
    metadata: String,
}

impl Filter {
    /// Compiles a configuration's.
    pub fn read(config: &Seccomp) -> Result<Self, OciError> {
        let wrong = |why: String| OciError::config("linux.seccomp", why);
        let compiled = profile(config).compile().map_err(|error| wrong(error.to_string()))?;
        if compiled.flags.listener && config.listener_path.is_empty() {
            return Err(wrong("SCMP_ACT_NOTIFY needs a listenerPath".into()));
        }
        Ok(Self { compiled, listener: config.listener_path.clone().into(), metadata: config.listener_metadata.clone() })
    }

    /// Tells the agent of a container's process, and hands it the listener (runtime.md, "Seccomp notify").
    pub fn hand_over(
        &self,
        listener: BorrowedFd<'_>,
        record: &Record,
        status: Status,
        pid: u32,
    ) -> Result<(), OciError> {
        let step = || format!("send the listener of its seccomp filter to {}", self.listener.display());
        let state = ProcessState {
            oci_version: config::VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: &self.metadata,
            state: record.state(status, Some(record.pid)),
        };
        let text = serde_json::to_vec(&state).map_err(std::io::Error::from).when(step())?;
        let socket = console::connect(&self.listener).when(step())?;
        console::send(socket.as_fd(), &text, &[listener]).when(step())
    }
}

/// `ContainerProcessState`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

fn profile(config: &Seccomp) -> Profile {
    let calls = config.syscalls.iter().map(|calls| Call {
        names: calls.names.clone(),
        action: calls.action.clone(),
        errno: calls.errno_ret,
        arguments: calls
            .args
            .iter()
            .map(|argument| Argument {
                index: argument.index,
                value: argument.value,
                value_two: argument.value_two,
                operator: argument.op.clone(),
            })
            .collect(),
    });
    Profile {
        default_action: config.default_action.clone(),
        default_errno: config.default_errno_ret,
        architectures: config.architectures.clone(),
        flags: config.flags.clone(),
        calls: calls.collect(),
    }
}
