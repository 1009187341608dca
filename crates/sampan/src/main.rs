//! The `sampan` binary: one program, seven roles, told apart by its first argument.
//!
//! | started as | role | by whom |
//! |---|---|---|
//! | `sampan supervisor …` | parent of every container | the daemon |
//! | `sampan logger` | writes the containers' output | the supervisor |
//! | `sampan edge` | ingress and name service | the supervisor |
//! | `sampan oci …`, or as `sampan-oci …` | the OCI runtime: one command of a container's life | Docker, containerd, Podman |
//! | `sampan file-server …` | serves a static site, inside a container | its image |
//! | `sampan daemon [--root …]`, no further word | the daemon, in the foreground | systemd, the command line |
//! | all else | the command line | people and programs |
//!
//! The first five are told apart before clap and tokio are touched: they are to be small and to start at once.

#![forbid(unsafe_code)]

mod cli;
mod daemon;
mod edge;
mod oci;
mod process;
mod ready;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    if Path::new(&own).file_name().is_some_and(|name| name == "sampan-oci") {
        return oci::main(args);
    }
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("supervisor") => sampan_runtime::supervisor::main(args),
        Some("logger") => sampan_runtime::logger::main(),
        Some("edge") => edge::main(),
        Some("oci") => oci::main(args),
        Some("file-server") => sampan_site::main(args),
        _ => cli::main(),
    }
}
