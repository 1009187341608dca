//! The OCI runtime: bundles → containers, each command a process of its own and none in between. What Docker, containerd
//! and Podman run in place of runc, with its flags and its words.
//!
//! ```text
//! config.json ──config──▶ Config ──create──▶ Plan ──clone──▶ init: first process ──FIFO── start ──▶ the program
//!                            │ options, mounts, devices, process, seccomp, namespaces, cgroups
//!                            └ what cannot be is refused before anything is made
//! ROOT/ID/ (state)           lifecycle: start, kill, pause, delete …      exec: one more process
//! ```
//!
//! The same core as the daemon's containers: what a child is sealed with is in `child`, what the kernel
//! is asked is in `sampan_sys`. What is different is who decides: here the bundle does, and what it asks for is done, or
//! refused with the name of the member; nothing is made safer than it says.
//!
//! Deliberately absent: images and networks, which callers bring; systemd's cgroup driver; checkpoints; Intel RDT.
//!
//! Words: a **bundle** is a directory with a `config.json` and a root file system; a **container** what was made from
//! one; its **first process** a copy of the runtime until it executes the bundle's **program**; a **hook** somebody
//! else's program that is run beside all this.

mod attend;
mod cgroups;
pub mod config;
mod console;
mod copy_up;
mod create;
mod devices;
mod error;
mod events;
mod exec;
mod features;
mod hooks;
mod init;
mod labels;
mod lifecycle;
mod mounts;
mod namespaces;
mod options;
mod process;
mod resources;
mod sealed;
mod seccomp;
mod state;
mod template;

pub use create::{Creation, create};
pub use error::OciError;
pub use events::stats;
pub use exec::{Execution, exec, process_of};
pub use features::features;
pub use hooks::HookError;
pub use lifecycle::{Container, Stay, Whom, delete_remains, run};
pub use sealed::seal;
pub use state::{Record, Root};
pub use template::{SPEC, rootless};

/// An error and its causes in one line.
fn line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // the kernel's errors without Rust's number of them
        let text = error.to_string();
        line.push_str(": ");
        line.push_str(&error::in_small_letters(text.split(" (os error ").next().unwrap_or_default()));
        source = error.source();
    }
    line
}
