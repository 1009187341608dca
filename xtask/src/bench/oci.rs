//! OCI runtimes: crun, runc, and our own `sampan oci`, each with a bundle of the scratch directory's root file system.
//!
//! crun refuses to run where cgroup v2 is mounted beside v1 and has a controller left. There its commands are run by a
//! shell that has unmounted it, in a mount namespace of its own; what is measured then is the shell's fork instead of
//! ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::Bench;
use super::bounded::{Served, timed};
use super::scratch::Scratch;
use super::turns::{Contender, Once};
use crate::debian;
use crate::process::output;

/// A runtime that works here.
pub struct Runtime {
    /// Its name, and the version where it is somebody else's.
    pub name: String,
    program: PathBuf,
    /// What comes before its own words: `oci` of `sampan oci`.
    word: Option<&'static str>,
    tool: Option<&'static debian::Tool>,
    rootfs: PathBuf,
    dir: PathBuf,
    hides_unified: bool,
}

const HIDE: &str = "umount /sys/fs/cgroup/unified || exit";

impl Runtime {
    /// crun.
    pub fn crun(scratch: &Scratch) -> Result<Self> {
        Self::of_debian(&debian::CRUN, scratch)
    }

    /// runc.
    pub fn runc(scratch: &Scratch) -> Result<Self> {
        Self::of_debian(&debian::RUNC, scratch)
    }

    /// `sampan oci`.
    pub fn sampan(bench: &Bench) -> Result<Self> {
        let runtime = Self::new(&bench.scratch, "sampan oci", bench.binary.clone(), Some("oci"), None);
        output(runtime.command(&["--version"]).env_remove("SAMPAN_ROOT")).context("there is no `sampan oci` yet")?;
        Ok(runtime)
    }

    fn of_debian(tool: &'static debian::Tool, scratch: &Scratch) -> Result<Self> {
        let program = tool.file().with_context(|| format!("{} is not unpacked", tool.name))?;
        let mut runtime = Self::new(scratch, tool.name, program, None, Some(tool));
        let version = output(&mut runtime.command(&["--version"]))?;
        runtime.name = version.lines().next().unwrap_or(tool.name).replace("version ", "");
        let bundle = runtime.bundle("probe", &["true"])?;
        let probe = runtime.run_words(&bundle, &runtime.id("probe"));
        runtime.hides_unified = match timed(&mut runtime.command_of(&probe)) {
            Err(error) if error.to_string().contains("hybrid") => true,
            other => other.map(|_| false)?,
        };
        Ok(runtime)
    }

    fn new(
        scratch: &Scratch,
        name: &str,
        program: PathBuf,
        word: Option<&'static str>,
        tool: Option<&'static debian::Tool>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program,
            word,
            tool,
            rootfs: scratch.rootfs.clone(),
            dir: scratch.join(name.replace(' ', "-")),
            hides_unified: false,
        }
    }

    /// A container's id that no other program on this machine uses.
    pub fn id(&self, name: &str) -> String {
        let last = self.dir.file_name().unwrap_or_default().display();
        format!("sampan-bench-{}-{last}-{name}", std::process::id())
    }

    /// A bundle whose container runs this.
    pub fn bundle(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let bundle = self.dir.join(name);
        std::fs::create_dir_all(&bundle)?;
        // of Debian's runc, whoever runs it: all of them are given the same
        let program = debian::RUNC.file().context("runc is not unpacked")?;
        let path = bundle.join("config.json");
        output(debian::RUNC.command(&program).arg("spec").current_dir(&bundle))?;
        let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"] = json!({ "path": self.rootfs, "readonly": false });
        std::fs::write(&path, config.to_string())?;
        Ok(bundle)
    }

    /// The words of a container's run.
    pub fn run_words(&self, bundle: &Path, id: &str) -> Vec<String> {
        ["run", "-b", &bundle.to_string_lossy(), id].map(str::to_owned).to_vec()
    }

    /// A command of it.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_of(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    fn command_of(&self, words: &[String]) -> Command {
        if self.hides_unified { self.shell(&format!(r#"{HIDE}; exec "$@""#), words) } else { self.plain(words) }
    }

    fn plain(&self, words: &[String]) -> Command {
        let mut command = match self.tool {
            Some(tool) => tool.command(&self.program),
            None => Command::new(&self.program),
        };
        command.args(self.word).arg("--root").arg(self.dir.join("state")).args(words);
        command
    }

    /// A script whose `"$@"` is a command of it, in a mount namespace of its own.
    fn shell(&self, script: &str, words: &[String]) -> Command {
        let inner = self.plain(words);
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }

    /// Measures a command of it.
    pub fn contender(&self, name: &str, words: &[String]) -> Result<Contender<'static>> {
        let hidden = if self.hides_unified { " (unified cgroups hidden)" } else { "" };
        Contender::new(format!("{} {name}{hidden}", self.name), self.measured(words)?)
    }

    /// Runs a command of it and tells how long that took, as often as it is asked.
    pub fn measured(&self, words: &[String]) -> Result<Once<'static>> {
        if !self.hides_unified {
            let mut command = self.plain(words);
            return Ok(Box::new(move || timed(&mut command)));
        }
        let script = format!(r#"{HIDE}; while read -r line; do "$@" </dev/null >/dev/null; echo $?; done"#);
        let mut served = Served::spawn(&mut self.shell(&script, words))?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let code = served.ask()?;
            let took = start.elapsed();
            if code == "0" { Ok(took) } else { bail!("its exit code is {code:?}") }
        }))
    }

    /// Starts a container that stays, until the returned value is dropped.
    pub fn sleeper(&self, name: &str) -> Result<Sleeper<'_>> {
        let bundle = self.bundle(name, &["sleep", "1000000"])?;
        let id = self.id(name);
        let words = ["run", "-d", "-b", &bundle.to_string_lossy(), &id].map(str::to_owned);
        let sleeper = Sleeper { runtime: self, id };
        timed(&mut self.command_of(&words))?;
        Ok(sleeper)
    }
}

/// A container that sleeps.
pub struct Sleeper<'a> {
    runtime: &'a Runtime,
    /// Its id.
    pub id: String,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Err(error) = output(&mut self.runtime.command(&["delete", "--force", &self.id])) {
            eprintln!("xtask: clean up {}: {error:#}", self.id);
        }
    }
}
