//! `cargo xtask test`: every test there is, against the `sampan` binary as it is built now.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, cargo, run};
use crate::{debian, programs, workspace};

/// Fetches, builds, tests. Arguments are handed on to `cargo test`.
pub fn test(arguments: &[&str]) -> Result<()> {
    debian::fetch(debian::FOR_TESTS)?;
    run(cargo().current_dir(workspace::root()).args(["build", "--locked", "--workspace"]))?;
    let mut command = cargo();
    command.current_dir(workspace::root()).args(["test", "--locked", "--workspace"]).args(arguments);
    point_at_tools(&mut command);
    if programs::are_wanted(arguments) {
        command.env("SAMPAN_TEST_PROGRAMS", programs::build()?);
    }
    if !process::is_root() {
        as_root(&mut command)?;
    }
    run(&mut command)?;
    eprintln!("xtask: every test passed");
    Ok(())
}

/// The variables by which tests find what they need.
fn point_at_tools(command: &mut Command) {
    command.env("SAMPAN_BIN", workspace::target().join("debug/sampan"));
    command.env("SAMPAN_TEST_TOOLS", workspace::target().join("debian"));
    for (name, tool) in [("SAMPAN_TEST_BUSYBOX", &debian::BUSYBOX), ("SAMPAN_TEST_GO", &debian::GO)] {
        if let Some(file) = tool.file() {
            command.env(name, file);
        }
    }
}

/// Kernel tests make namespaces, cgroups and mounts. Compiling stays the caller's; only the test programs run as root,
/// and with a `CARGO_HOME` below the target directory, so that nothing of root's is left among the caller's files.
fn as_root(command: &mut Command) -> Result<()> {
    if !process::is_installed("sudo") {
        bail!("kernel tests need root, and there is no sudo to ask for it: run `cargo xtask test` as root");
    }
    eprintln!("xtask: kernel tests need root: the test programs are run through sudo");
    let home = std::env::var("HOME").unwrap_or_default();
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{home}/.rustup"));
    let path = std::env::var("PATH").unwrap_or_default();
    let cargo_home = workspace::target().join("tmp/cargo-home");
    let cargo_home = cargo_home.display().to_string();
    let variables = [("HOME", home), ("PATH", path), ("RUSTUP_HOME", rustup), ("CARGO_HOME", cargo_home)];
    let mut runner = String::from("sudo -E env");
    for (name, value) in variables {
        // cargo splits a runner at blanks and knows no quotes
        if value.contains(char::is_whitespace) {
            bail!("{name} holds a blank ({value:?}) and cannot be handed through sudo: run `cargo xtask test` as root");
        }
        runner.push_str(&format!(" {name}={value}"));
    }
    let architecture = std::env::consts::ARCH.to_uppercase();
    command.env(format!("CARGO_TARGET_{architecture}_UNKNOWN_LINUX_GNU_RUNNER"), runner);
    Ok(())
}
