//! A Docker of the suite's own: Debian's dockerd on a root, a socket and a cgroup of its own, in mount, network and
//! pid namespaces that end with it; `docker` asks it from outside. Its storage driver is overlay2, on the same disk as
//! ours; its containers get no network, which is quicker than one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::bounded::{Served, timed};
use super::scratch::Scratch;
use super::turns::{Contender, Once};
use crate::debian;
use crate::process::output;

/// The image of the scratch directory's root file system.
pub const IMAGE: &str = "bb";

/// Its standard input is held by us: when that ends, so does all of it.
const SCRIPT: &str = r#"
    dir=$1 cgroup=$2
    mount -t proc proc /proc
    for tmp in /run /var/lib; do mount -t tmpfs none $tmp; done
    echo '{"deprecated-key-path":"/run/key.json"}' > $dir/config.json # or it is /etc/docker/key.json
    dockerd --data-root $dir/data --exec-root $dir/exec --pidfile $dir/pid --host unix://$dir/sock --bridge none \
        --iptables=false --ip6tables=false --storage-driver overlay2 --cgroup-parent /$cgroup \
        --config-file $dir/config.json > $dir/log 2>&1 &
    daemon=$!
    until docker --host unix://$dir/sock version > /dev/null 2>&1; do
        kill -0 $daemon || { tail -n 5 $dir/log >&2; exit 1; }
        sleep 0.1
    done
    while read -r line; do echo ready; done
    kill $daemon
    wait $daemon || true
"#;

/// A dockerd that answers and has the image.
pub struct Docker {
    /// `docker` and its version.
    pub name: String,
    dir: PathBuf,
    cgroup: String,
    served: Option<Served>,
}

impl Docker {
    /// Starts it and gives it the image.
    pub fn open(scratch: &Scratch) -> Result<Self> {
        let dockerd = debian::DOCKER.file().context("docker is not unpacked")?;
        let dir = scratch.join("docker");
        std::fs::create_dir_all(&dir)?;
        let cgroup = format!("sampan-bench-{}-docker", std::process::id());
        let tool = debian::DOCKER.dir();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let programs = ["usr/sbin", "usr/bin"].map(|dir| tool.join(dir));
        let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-ec", SCRIPT, "sh"])
            .args([dir.as_os_str(), cgroup.as_ref()])
            .env("PATH", path)
            .env("HOME", &dir)
            .envs(debian::DOCKER.command(&dockerd).get_envs().filter_map(|(name, value)| Some((name, value?))));
        let served = Served::spawn(&mut command)?;
        let mut docker = Self { name: "docker".to_owned(), dir, cgroup, served: Some(served) };
        docker.served.as_mut().context("it has just been started")?.ask().context("start dockerd")?;
        let version = output(&mut docker.command(&["version", "--format", "{{.Server.Version}}"]))?;
        docker.name = format!("docker {}", version.trim());
        output(docker.command(&["import"]).arg(&scratch.tar).arg(IMAGE))?;
        Ok(docker)
    }

    /// A command of `docker`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = debian::DOCKER.command(&debian::DOCKER.dir().join("usr/bin/docker"));
        let host = format!("unix://{}", self.dir.join("sock").display());
        command.args(["--host", &host]).args(words).env("HOME", &self.dir).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Measures a command of it.
    pub fn contender(&self, name: &str, words: &[&str]) -> Result<Contender<'static>> {
        Contender::new(format!("{} {name}", self.name), self.measured(words))
    }

    /// Runs a command of it and tells how long that took, as often as it is asked.
    pub fn measured(&self, words: &[&str]) -> Once<'static> {
        let mut command = self.command(words);
        Box::new(move || timed(&mut command))
    }

    /// Starts a container that stays; its id.
    pub fn sleeper(&self) -> Result<String> {
        let id = output(&mut self.command(&["run", "-d", "--network", "none", IMAGE, "sleep", "1000000"]))?;
        Ok(id.trim().to_owned())
    }

    /// The processes of dockerd, containerd and the shims: those whose command line names its directory.
    pub fn pids(&self) -> Vec<u32> {
        let dir = self.dir.to_string_lossy();
        let named = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line);
                // not the shell, whose script names it too
                !line.starts_with("unshare") && !line.starts_with("sh\0") && line.contains(&*dir)
            })
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
    }

    /// Ends it, and removes what it made.
    pub fn end(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        let Some(served) = self.served.take() else { return Ok(()) };
        // containers first: an end that leaves none behind is the daemon's own work
        let ids = output(&mut self.command(&["ps", "-aq"])).unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            output(self.command(&["rm", "-f"]).args(&ids))?;
        }
        let ended = served.end();
        let left = remove_cgroups(&self.cgroup);
        ended?;
        if left > 0 {
            bail!("{left} cgroups named {} are left, with processes in them", self.cgroup);
        }
        Ok(())
    }
}

impl Drop for Docker {
    /// For the ways out that do not come by `end`: an error on the way.
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("xtask: clean up docker: {error:#}");
        }
    }
}

/// Removes the cgroups of this name, which are empty, from every hierarchy; tells how many could not be.
fn remove_cgroups(name: &str) -> usize {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let dirs = hierarchies.map(|entry| entry.path().join(name)).chain([format!("/sys/fs/cgroup/{name}").into()]);
    dirs.filter(|dir| dir.exists() && std::fs::remove_dir(dir).is_err()).count()
}
