//! What tests and benchmarks compare with, from Debian's archive: fetched with `apt-get download`, unpacked with
//! `dpkg -x` into `target/debian/TOOL`, never installed. Works as an ordinary user; apt's lists, caches and hooks are
//! private, the system's are not touched. What was unpacked once is used as it is, without network: to fetch it
//! again, remove `target/debian`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// A tool: packages that are unpacked together.
pub struct Tool {
    /// Its directory's name.
    pub name: &'static str,
    packages: &'static [&'static str],
    /// A file that is there when it is whole; `*` stands for a version.
    file: &'static str,
}

/// A static busybox: the root file system of the tests' containers.
pub const BUSYBOX: Tool = Tool { name: "busybox", packages: &["busybox-static"], file: "bin/busybox" };
/// Go, whatever version this release of Debian has.
pub const GO: Tool = Tool { name: "go", packages: &["golang-go"], file: "usr/lib/go-*/bin/go" };
/// The reference runtime.
pub const RUNC: Tool = Tool { name: "runc", packages: &["runc"], file: "usr/sbin/runc" };
/// What copies images between archives of every kind, as other programs read and write them.
pub const SKOPEO: Tool = Tool { name: "skopeo", packages: &["skopeo"], file: "usr/bin/skopeo" };
/// The peer that loads and runs archives of images.
pub const PODMAN: Tool = Tool { name: "podman", packages: &["podman"], file: "usr/bin/podman" };
/// What reads and judges the units that `sampan daemon install` writes.
pub const SYSTEMD: Tool = Tool { name: "systemd", packages: &["systemd"], file: "usr/bin/systemd-analyze" };
/// The other one.
pub const DOCKER: Tool = Tool { name: "docker", packages: &["docker.io"], file: "usr/sbin/dockerd" };
/// What reads and judges pages of metrics.
pub const PROMETHEUS: Tool = Tool { name: "prometheus", packages: &["prometheus"], file: "usr/bin/promtool" };
/// What formats the manual's pages.
pub const GROFF: Tool = Tool { name: "groff", packages: &["groff-base"], file: "usr/bin/groff" };
/// The fastest of the peers.
pub const CRUN: Tool = Tool { name: "crun", packages: &["crun"], file: "usr/bin/crun" };
/// What a program links against that is linked dynamically.
pub const LIBRARIES: Tool =
    Tool { name: "libraries", packages: &["zlib1g-dev", "libsqlite3-dev"], file: "usr/include/sqlite3.h" };

/// The machine that runs another kernel than this one's.
pub const QEMU: Tool =
    Tool { name: "qemu", packages: &["qemu-system-x86", "qemu-system-common"], file: "usr/bin/qemu-system-x86_64" };
/// That kernel, whatever version this release of Debian has, and its modules.
pub const KERNEL: Tool = Tool { name: "kernel", packages: &["linux-image-cloud-amd64"], file: "boot/vmlinuz-*" };

/// What the tests need.
pub const FOR_TESTS: &[&Tool] = &[
    &BUSYBOX,
    &GO,
    &LIBRARIES,
    &RUNC,
    &CRUN,
    &SKOPEO,
    &PODMAN,
    &DOCKER,
    &SYSTEMD,
    &GROFF,
    &QEMU,
    &KERNEL,
    &PROMETHEUS,
];

/// What the benchmarks need.
pub const FOR_BENCHMARKS: &[&Tool] = &[&BUSYBOX, &RUNC, &CRUN, &DOCKER];

/// Programs that fetching needs; all are part of every Debian.
const NEEDED: &[&str] = &["apt-get", "apt-cache", "apt-config", "dpkg"];
/// Where following dependencies ends: what a machine with a C compiler has.
const BASE: &[&str] = &["libc6", "libc6-dev", "debconf", "dpkg"];
/// What is depended on for a use that is none of ours: signatures, an init system, hooks of the package's own scripts,
/// displays and sound of an emulated machine.
const NOT_USED: &[&str] = &[
    "gnupg",
    "init-system-helpers",
    "dmsetup",
    "python3",
    "systemd",
    "adduser",
    "iptables",
    "lsb-base",
    "kmod",
    "linux-base",
    "initramfs-tools",
    "ipxe-qemu",
    "libasound2",
    "libbrlapi0.8",
    "libcacard0",
    "libepoxy0",
    "libgbm1",
    "libncursesw6",
    "libsndio7.0",
    "libspice-server1",
    "libusb-1.0-0",
    "libusbredirparser1",
];
/// How packages for web pages begin, which a server depends on that is only here for another program beside it.
const FOR_PAGES: &[&str] = &["libjs-", "fonts-"];
/// The most packages one tool may come to.
const PACKAGES: usize = 60;

impl Tool {
    /// The directory that it is, or will be, unpacked in.
    pub fn dir(&self) -> PathBuf {
        directory().join(self.name)
    }

    /// The file by which it is known, where it is unpacked.
    pub fn file(&self) -> Option<PathBuf> {
        let mut found = vec![self.dir()];
        for part in self.file.split('/') {
            found = found.iter().flat_map(|dir| matching(dir, part)).collect();
        }
        found.into_iter().next()
    }

    /// A command that runs a program of this tool with the libraries that came with it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let libraries = ["usr/lib", "lib"].map(|dir| self.dir().join(dir).join(multiarch()));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
        command
    }
}

fn matching(dir: &Path, part: &str) -> Vec<PathBuf> {
    let Some((head, tail)) = part.split_once('*') else {
        let path = dir.join(part);
        return if path.exists() { vec![path] } else { Vec::new() };
    };
    let fits = |name: &str| name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter(|entry| entry.file_name().to_str().is_some_and(fits)).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    names.iter().map(fs::DirEntry::path).collect()
}

fn directory() -> PathBuf {
    workspace::target().join("debian")
}

/// Debian's directory for this machine's libraries, as in `/usr/lib/x86_64-linux-gnu`.
pub fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// Fetches every tool and prints where each is.
pub fn print_all() -> Result<()> {
    for tools in [FOR_TESTS, FOR_BENCHMARKS] {
        fetch(tools)?;
    }
    for tool in FOR_TESTS {
        println!("{}\t{}", tool.name, tool.dir().display());
    }
    Ok(())
}

/// Sees to it that the tools are there.
pub fn fetch(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<&&Tool> = tools.iter().filter(|tool| tool.file().is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.iter().flat_map(|tool| tool.packages).copied().collect::<Vec<_>>().join(" ");
    let hint = format!(
        "tests and benchmarks compare with Debian's {packages}: run this on a Debian or Ubuntu that reaches its \
         archive, or unpack them below {} yourself",
        directory().display()
    );
    let absent: Vec<_> = NEEDED.iter().filter(|name| !process::is_installed(name)).copied().collect();
    if !absent.is_empty() {
        bail!("{} not found; {hint}", absent.join(", "));
    }
    let archive = Archive::open()?;
    for tool in missing {
        archive.unpack(tool).with_context(|| format!("fetch {}; {hint}", tool.name))?;
    }
    Ok(())
}

/// apt with lists, caches and configuration of our own.
struct Archive {
    dir: PathBuf,
}

impl Archive {
    fn open() -> Result<Self> {
        let dir = directory();
        for sub in ["apt/lists/partial", "apt/cache/archives/partial", "apt/state", "debs"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("make {}", dir.join(sub).display()))?;
        }
        let archive = Self { dir };
        archive.write_configuration()?;
        Ok(archive)
    }

    /// The user's ways to the archive (proxies, certificates: all of `Acquire`) are kept, the sources and keys are the
    /// system's; hooks, which would work on the system's caches, are left out with the rest of its configuration.
    fn write_configuration(&self) -> Result<()> {
        let acquire = process::output(Command::new("apt-config").args(["dump", "Acquire"]))?;
        let kept = acquire.lines().filter(|line| !line.starts_with("Acquire::IndexTargets"));
        let mut text = kept.map(|line| format!("{line}\n")).collect::<String>();
        let apt = self.dir.join("apt");
        text.push_str("Acquire::Languages \"none\";\n");
        text.push_str("Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n");
        text.push_str(&format!("Dir::State \"{}\";\n", apt.join("state").display()));
        text.push_str(&format!("Dir::State::lists \"{}\";\n", apt.join("lists").display()));
        text.push_str("Dir::State::status \"/var/lib/dpkg/status\";\n");
        text.push_str(&format!("Dir::Cache \"{}\";\n", apt.join("cache").display()));
        // downloads go to a directory of the caller's, where apt's own user may not write
        if process::is_root() {
            text.push_str("APT::Sandbox::User \"root\";\n");
        }
        let path = apt.join("apt.conf");
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt/apt.conf")).env("LC_ALL", "C.UTF-8");
        command.current_dir(self.dir.join("debs"));
        command
    }

    fn update(&self) {
        // a source of the user's that fails is no matter here; what is missing in the end is said by the download
        if let Err(error) = process::run(self.apt("apt-get").args(["-q=2", "update"])) {
            eprintln!("xtask: {error:#}");
        }
    }

    fn unpack(&self, tool: &Tool) -> Result<()> {
        let has_lists = fs::read_dir(self.dir.join("apt/lists"))?.count() > 2;
        if !has_lists {
            self.update();
        }
        let debs = match self.download(tool) {
            Ok(debs) => debs,
            // lists of long ago name versions that the archive has dropped
            Err(_) if has_lists => {
                self.update();
                self.download(tool)?
            }
            Err(error) => return Err(error),
        };
        let partial = self.dir.join(format!("{}.partial", tool.name));
        let _ = fs::remove_dir_all(&partial);
        for deb in &debs {
            process::output(Command::new("dpkg").arg("-x").arg(deb).arg(&partial))?;
            fs::remove_file(deb).with_context(|| format!("remove {}", deb.display()))?;
        }
        let _ = fs::remove_dir_all(tool.dir());
        fs::rename(&partial, tool.dir()).with_context(|| format!("name {}", tool.dir().display()))?;
        match tool.file() {
            Some(_) => Ok(()),
            None => bail!("{} is in none of {}", tool.file, tool.packages.join(", ")),
        }
    }

    fn download(&self, tool: &Tool) -> Result<Vec<PathBuf>> {
        let packages = self.closure(tool.packages)?;
        // asked for elsewhere than in the directory of the downloads: what is there already is left out of the answer
        let elsewhere = self.dir.join("apt/state");
        let uris = process::output(
            self.apt("apt-get").args(["--print-uris", "download"]).args(&packages).current_dir(elsewhere),
        )?;
        // 'http://…' NAME SIZE SHA256:…
        let names = uris.lines().filter_map(|line| line.split_whitespace().nth(1));
        let debs: Vec<PathBuf> = names.map(|name| self.dir.join("debs").join(name)).collect();
        if debs.len() != packages.len() {
            bail!("the archive has not all of {packages:?}");
        }
        // apt verifies a file that is there already against the list's sum, and fetches it only where it differs
        process::run(self.apt("apt-get").args(["-q=2", "download"]).args(&packages))?;
        Ok(debs)
    }

    /// The packages and what they depend on, down to the base.
    fn closure(&self, packages: &[&str]) -> Result<BTreeSet<String>> {
        let mut all: BTreeSet<String> = packages.iter().map(|&name| name.to_owned()).collect();
        let mut new = all.clone();
        while !new.is_empty() {
            let text = process::output(self.apt("apt-cache").args(["depends", "--no-recommends"]).args(&new))?;
            new = dependencies(&text).into_iter().filter(|name| !all.contains(name)).collect();
            all.extend(new.iter().cloned());
            if all.len() > PACKAGES {
                bail!("{} depend on more than {PACKAGES} packages", packages.join(", "));
            }
        }
        Ok(all)
    }
}

/// The names in `apt-cache depends`' lines `  Depends: NAME` and `  PreDepends: NAME`. Of alternatives (`  |Depends:`)
/// the first; virtual packages (`<NAME>`) are left out.
fn dependencies(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_alternative = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let has_more = trimmed.starts_with('|');
        let Some((kind, name)) = trimmed.trim_start_matches('|').split_once(": ") else { continue };
        if !matches!(kind, "Depends" | "PreDepends") {
            continue;
        }
        let is_used =
            ![BASE, NOT_USED].concat().contains(&name) && !FOR_PAGES.iter().any(|start| name.starts_with(start));
        if !is_alternative && !name.starts_with('<') && is_used {
            names.insert(name.to_owned());
        }
        is_alternative = has_more;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_apt_cache() {
        let text = "crun\n  Depends: libc6\n  Depends: libcap2\n  Suggests: x\n |Depends: a\n |Depends: b\n  Depends: c\n  \
                    PreDepends: <virtual>\n    d\n  Depends: e\n  Depends: libjs-x\n";
        let names: Vec<String> = dependencies(text).into_iter().collect();
        assert_eq!(names, ["a", "e", "libcap2"]);
    }
}
