//! Who is measured: each prepares itself, can start one container and tell how long it took, and cleans up.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::process::{self, output, run};
use crate::{debian, workspace};

/// Starts one container and tells how long it took.
type Start = Box<dyn FnMut() -> Result<Duration>>;
/// Undoes the preparation.
type End = Box<dyn FnOnce() -> Result<()>>;

/// One of those measured.
pub struct Contender {
    /// What it is called in the table.
    pub name: String,
    start: Start,
    end: Option<End>,
}

impl Contender {
    /// Prepared and warmed up by one start.
    fn new(name: impl Into<String>, mut start: Start, end: End) -> Result<Self> {
        match start() {
            Ok(_) => Ok(Self { name: name.into(), start, end: Some(end) }),
            Err(error) => {
                end()?;
                Err(error)
            }
        }
    }

    /// One start.
    pub fn start(&mut self) -> Result<Duration> {
        (self.start)()
    }

    /// Leaves nothing behind.
    pub fn end(mut self) -> Result<()> {
        self.end.take().map_or(Ok(()), |end| end())
    }
}

impl Drop for Contender {
    /// For the ways out that do not come by `end`: an error on the way.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end.take().map(|end| end()) {
            eprintln!("xtask: clean up after {}: {error:#}", self.name);
        }
    }
}

/// Runs the command to its end and tells how long that took.
fn timed(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}

/// The bare kernel: `bench/kernel_floor.c`, compiled here.
pub fn floor(scratch: &Path, rootfs: &Path) -> Result<Contender> {
    let program = scratch.join("kernel_floor");
    let source = workspace::root().join("bench/kernel_floor.c");
    run(Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(source))?;
    let dir = scratch.join("floor");
    std::fs::create_dir_all(&dir)?;
    let served = Served::spawn(Command::new(&program).args([rootfs, &dir]).arg("serve"))?;
    let start = {
        let served = served.clone();
        move || {
            let line = served.borrow_mut().ask()?;
            let ms: f64 = line.parse().with_context(|| format!("kernel_floor answered {line:?}"))?;
            Ok(Duration::from_secs_f64(ms / 1e3))
        }
    };
    Contender::new("kernel floor", Box::new(start), Box::new(move || served.borrow_mut().end()))
}

/// A program that does something for every line it is sent, and answers with a line.
struct Served {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Served {
    fn spawn(command: &mut Command) -> Result<Rc<RefCell<Self>>> {
        let name = command.get_program().display().to_string();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("run {name}"))?;
        let answers = BufReader::new(child.stdout.take().with_context(|| format!("{name} has no output"))?);
        Ok(Rc::new(RefCell::new(Self { child, answers })))
    }

    fn ask(&mut self) -> Result<String> {
        self.child.stdin.as_mut().context("its input is closed")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn end(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("{status}") }
    }
}

/// Sampan, on a root of its own.
pub fn sampan(scratch: &Path, rootfs: &Path) -> Result<Contender> {
    let root = scratch.join("sampan");
    let sampan = move || {
        let mut command = Command::new(workspace::target().join("release/sampan"));
        command.env("SAMPAN_ROOT", &root).env("SAMPAN_HTTP", "0");
        command
    };
    let tar = scratch.join("rootfs.tar");
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "-cf"])
        .args([&tar, Path::new("-C")])
        .args([rootfs, Path::new(".")]))?;
    let purge = {
        let sampan = sampan.clone();
        move || output(sampan().args(["purge", "--yes"])).map(drop)
    };
    if let Err(error) = output(sampan().args(["image", "import"]).arg(&tar).arg("bb")) {
        purge()?;
        return Err(error);
    }
    let start = move || timed(sampan().args(["run", "--rm", "bb", "true"]));
    Contender::new("sampan run --rm", Box::new(start), Box::new(purge))
}

/// The peers, or why they are not there.
pub fn peers(scratch: &Path, rootfs: &Path) -> Vec<(&'static str, Result<Contender>)> {
    vec![
        ("crun run", oci(&debian::CRUN, scratch, rootfs)),
        ("runc run", oci(&debian::RUNC, scratch, rootfs)),
        ("docker run --rm", docker(scratch, rootfs)),
    ]
}

/// An OCI runtime: a bundle made once, `run` of it measured.
fn oci(tool: &'static debian::Tool, scratch: &Path, rootfs: &Path) -> Result<Contender> {
    let program = tool.file().with_context(|| format!("{} is not unpacked", tool.name))?;
    let bundle = scratch.join(tool.name);
    std::fs::create_dir_all(&bundle)?;
    output(tool.command(&program).arg("spec").current_dir(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["true"]);
    config["process"]["env"] = json!(["PATH=/bin"]);
    config["root"] = json!({ "path": rootfs, "readonly": false });
    std::fs::write(&path, config.to_string())?;
    let version = output(tool.command(&program).arg("--version"))?;
    let version = version.lines().next().unwrap_or_default().replace("version ", "");
    let state = bundle.join("state");
    let id = format!("sampan-bench-{}", std::process::id());
    let mut command = tool.command(&program);
    command.arg("--root").arg(&state).arg("run").arg("-b").arg(&bundle).arg(&id);
    match timed(&mut command) {
        Err(error) if error.to_string().contains("hybrid") => {
            let name = format!("{version} run (unified cgroups hidden)");
            hybrid(name, &command)
        }
        _ => Contender::new(format!("{version} run"), Box::new(move || timed(&mut command)), Box::new(|| Ok(()))),
    }
}

/// crun refuses to run where cgroup v2 is mounted beside v1 and has a controller left. A shell that has unmounted it, in
/// a mount namespace of its own, starts crun for us.
fn hybrid(name: String, command: &Command) -> Result<Contender> {
    const SCRIPT: &str =
        "umount /sys/fs/cgroup/unified || exit; while read -r line; do \"$@\" </dev/null >/dev/null; echo $?; done";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let served = Served::spawn(&mut shell)?;
    let start = {
        let served = served.clone();
        move || {
            let start = Instant::now();
            let code = served.borrow_mut().ask()?;
            let took = start.elapsed();
            if code == "0" { Ok(took) } else { bail!("its exit code is {code:?}") }
        }
    };
    Contender::new(name, Box::new(start), Box::new(move || served.borrow_mut().end()))
}

/// Docker, where a daemon answers.
fn docker(scratch: &Path, rootfs: &Path) -> Result<Contender> {
    if !process::is_installed("docker") {
        bail!("not installed");
    }
    let version = output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
        .map_err(|error| anyhow::anyhow!("no daemon answers: {}", error.to_string().replace('\n', " ")))?;
    let image = format!("sampan-bench-{}", std::process::id());
    let tar: PathBuf = scratch.join("docker.tar");
    run(Command::new("tar").args(["--owner=0", "--group=0", "-cf"]).arg(&tar).arg("-C").arg(rootfs).arg("."))?;
    output(Command::new("docker").arg("import").arg(&tar).arg(&image))?;
    let remove = {
        let image = image.clone();
        move || output(Command::new("docker").args(["rmi", "-f", &image])).map(drop)
    };
    let start = move || timed(Command::new("docker").args(["run", "--rm", "--network", "none", &image, "true"]));
    Contender::new(format!("docker {} run --rm", version.trim()), Box::new(start), Box::new(remove))
}
