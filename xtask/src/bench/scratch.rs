//! A suite's directory, with what every suite needs in it: a root file system, and an archive of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{self, run};
use crate::{debian, workspace};

/// A directory that is empty before and gone after.
pub struct Scratch {
    dir: PathBuf,
    /// The root file system: one static busybox under all its names.
    pub rootfs: PathBuf,
    /// The same as a tar archive.
    pub tar: PathBuf,
}

impl Scratch {
    /// Makes it, on the disk that the build is on.
    pub fn make() -> Result<Self> {
        let dir = workspace::target().join(format!("tmp/bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let scratch = Self { rootfs: dir.join("rootfs"), tar: dir.join("rootfs.tar"), dir };
        scratch.fill()?;
        Ok(scratch)
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    fn fill(&self) -> Result<()> {
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(self.rootfs.join(dir))?;
        }
        let busybox = debian::BUSYBOX.file().context("busybox is not unpacked")?;
        let inside = self.rootfs.join("bin/busybox");
        std::fs::copy(&busybox, &inside).with_context(|| format!("copy {}", busybox.display()))?;
        for name in process::output(Command::new(&inside).arg("--list"))?.lines().filter(|&name| name != "busybox") {
            std::os::unix::fs::symlink("busybox", self.rootfs.join("bin").join(name))?;
        }
        std::fs::write(self.rootfs.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        let from = [self.tar.as_path(), Path::new("-C"), &self.rootfs, Path::new(".")];
        run(Command::new("tar").args(["--sort=name", "--owner=0", "--group=0", "-cf"]).args(from))
    }

    /// Removes it, after everything that is in it has ended.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

impl Drop for Scratch {
    /// For the ways out that do not come by `remove`: an error on the way.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
