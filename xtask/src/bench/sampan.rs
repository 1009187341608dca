//! An instance of Sampan for one suite, on a root of its own, gone without a trace at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Bench;
use super::http::Connection;
use crate::process::output;

/// The image of the scratch directory's root file system.
pub const IMAGE: &str = "bb";

/// Whether servers wait ready in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// As the daemon does by itself.
    On,
    /// Every start makes its server anew.
    Off,
}

/// An instance whose daemon runs and has the image.
pub struct Sampan {
    binary: PathBuf,
    root: PathBuf,
    pool: Pool,
    is_gone: bool,
}

impl Sampan {
    /// Starts a daemon and gives it the image.
    pub fn open(bench: &Bench, name: &str, pool: Pool) -> Result<Self> {
        let sampan = Self { binary: bench.binary.clone(), root: bench.scratch.join(name), pool, is_gone: false };
        output(sampan.command(&["image", "import"]).arg(&bench.scratch.tar).arg(IMAGE))?;
        Ok(sampan)
    }

    /// A command of it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).env("SAMPAN_ROOT", &self.root).env("SAMPAN_HTTP", "0");
        match self.pool {
            Pool::On => command.env_remove("SAMPAN_POOL"),
            Pool::Off => command.env("SAMPAN_POOL", "0"),
        };
        command
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A connection to its daemon.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.root.join("run/sampan.sock"))
    }

    /// Its processes, by role.
    pub fn processes(&self) -> Result<Vec<(String, u32)>> {
        let daemon = self.connect()?.json("GET", "/v1/daemon", "")?;
        let process = |process: &Value| {
            let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
            Some((process["role"].as_str()?.to_owned(), pid))
        };
        let processes = daemon["processes"].as_array().map(|all| all.iter().filter_map(process).collect());
        processes.context("the daemon names no processes")
    }

    /// Ends and removes everything. What is left all the same is an error.
    pub fn end(mut self) -> Result<()> {
        self.purge()?;
        let left = sampan_testkit::leftovers::leftovers(&self.root);
        if !left.is_empty() {
            bail!("sampan purge left behind:\n  {}", left.join("\n  "));
        }
        Ok(())
    }

    fn purge(&mut self) -> Result<()> {
        self.is_gone = true;
        output(&mut self.command(&["purge", "--yes"])).map(drop)
    }
}

impl Drop for Sampan {
    /// For the ways out that do not come by `end`: an error on the way.
    fn drop(&mut self) {
        if !self.is_gone
            && let Err(error) = self.purge()
        {
            eprintln!("xtask: clean up {}: {error:#}", self.root.display());
        }
    }
}
