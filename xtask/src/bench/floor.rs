//! The bare kernel: `bench/kernel_floor.c`, compiled here, asked for one start (or one exec) at a time.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::bounded::Served;
use super::scratch::Scratch;
use super::turns::Contender;
use crate::process::run;
use crate::workspace;

/// The floor of a start.
pub fn floor(scratch: &Scratch) -> Result<Contender<'static>> {
    let (program, dir) = compiled(scratch)?;
    served("kernel floor", Command::new(program).args([&scratch.rootfs, &dir]).arg("serve"))
}

/// The floor of an exec into the container whose first process this is.
pub fn entering(scratch: &Scratch, pid: u64) -> Result<Contender<'static>> {
    let (program, dir) = compiled(scratch)?;
    served(
        "kernel floor of an exec",
        Command::new(program).args([&scratch.rootfs, &dir]).args(["enter", &pid.to_string()]),
    )
}

fn compiled(scratch: &Scratch) -> Result<(PathBuf, PathBuf)> {
    let program = scratch.join("kernel_floor");
    let dir = scratch.join("floor");
    if !dir.exists() {
        let source = workspace::root().join("bench/kernel_floor.c");
        run(Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(source))?;
        std::fs::create_dir_all(&dir)?;
    }
    Ok((program, dir))
}

fn served(name: &str, command: &mut Command) -> Result<Contender<'static>> {
    let mut served = Served::spawn(command)?;
    Contender::new(name, move || {
        let line = served.ask()?;
        let ms: f64 = line.parse().with_context(|| format!("kernel_floor answered {line:?}"))?;
        Ok(Duration::from_secs_f64(ms / 1e3))
    })
}
