//! The directory that a runtime is given.
//!
//! ```text
//! config.json     what to execute, and how it is shut in
//! rootfs/         the root file system
//! mounts/N        what is mounted in it, directories and files
//! pid log said    from the runtime: the first process, and its own words
//! console         a socket, where the runtime sends the terminal
//! ```

use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sampan_model::IdRange;
use sampan_sys::mount::{self, Attributes, Builder};
use serde_json::Value;

use crate::child::Step as _;
use crate::wire::{External, Failure, MountKind, MountPoint};

/// Directories that everybody can pass through, and that no program needs: the bundle covers one of them, for the
/// launcher and the runtime alone.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/home"];

/// A bundle, which is the working directory.
pub(super) struct Bundle {
    path: &'static str,
}

impl Bundle {
    pub fn make(external: &External) -> Result<Self, Failure> {
        let step = "make the bundle";
        let is_needed =
            |place: &str| [&external.program, &external.state_dir].iter().any(|of| Path::new(of).starts_with(place));
        let path =
            PLACES.into_iter().find(|place| Path::new(place).is_dir() && !is_needed(place)).ok_or_else(|| {
                Failure::because(step, format!("none of {} is a directory that can be covered", PLACES.join(", ")))
            })?;
        let tmpfs = Builder::open("tmpfs")?.set("mode", "755")?.set("size", "16m")?;
        let tmpfs = tmpfs.mount(Attributes::MOUNT_ATTR_NOSUID)?;
        let place =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        mount::attach_to(tmpfs.as_fd(), place.as_fd()).step(step)?;
        rustix::process::fchdir(&tmpfs).step(step)?;
        for name in ["rootfs", "mounts"] {
            std::fs::create_dir(name).step(step)?;
        }
        Ok(Self { path })
    }

    /// Its absolute path.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Attaches what was handed over, and writes files of the container's own; the paths of the sources of those mounts
    /// that have one, in their order.
    pub fn attach(
        &mut self,
        root: &OwnedFd,
        mounts: &[MountPoint],
        handed: impl Iterator<Item = OwnedFd>,
        ids: IdRange,
    ) -> Result<Vec<Option<String>>, Failure> {
        mount::attach(root.as_fd(), c"rootfs").step("attach the root file system")?;
        let mut handed = handed;
        let mut sources = Vec::with_capacity(mounts.len());
        for (number, point) in mounts.iter().enumerate() {
            let step = format!("mount {}", point.target);
            let name = format!("mounts/{number}");
            match &point.kind {
                MountKind::Tmpfs { .. } => {
                    sources.push(None);
                    continue;
                }
                MountKind::File { text } => {
                    std::fs::write(&name, text).step(&step)?;
                    // whose it is to be is the container's root
                    let owner = Some(ids.start);
                    std::os::unix::fs::chown(&name, owner, owner).step(&step)?;
                }
                MountKind::Handed { file } => {
                    let mount = handed.next().ok_or_else(|| Failure::because(&step, "it was not handed over"))?;
                    let made = if *file { std::fs::write(&name, "") } else { std::fs::create_dir(&name) };
                    made.step(&step)?;
                    let text = CString::new(name.as_str()).expect("digits");
                    mount::attach(mount.as_fd(), &text).step(&step)?;
                }
            }
            sources.push(Some(format!("{}/{name}", self.path)));
        }
        Ok(sources)
    }

    pub fn write_config(&self, config: &Value) -> Result<(), Failure> {
        let text = config.to_string();
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open("config.json");
        file.and_then(|mut file| file.write_all(text.as_bytes())).step("write config.json")
    }
}
